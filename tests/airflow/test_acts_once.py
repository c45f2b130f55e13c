"""SIGKILL of the task and of its supervisor before, inside and after each push and switch: one effect, no lost commit."""

from __future__ import annotations

import re
import subprocess

import httpx
import pytest

from taxiway.integrations.ledger import SqliteLedger
from taxiway.integrations.local.target import LocalTarget
from taxiway.stage import run_key

HEAD = """
pipeline: {name}
policy: open
limits: {{runs: 1, stages: 1, duration: 10m}}
defaults: {{timeout: 2m, retries: {{attempts: 3, first: 1s, factor: 1, most: 1s}}}}
stages:
"""
PUSH = """
  write:
    agent: scribe
    with: {{files: {{a.txt: hello}}}}
  merge:
    agent: killed_integrate
    with: {{into: main, strategy: squash, point: "{point}", victim: {victim}, once: "{once}"}}
"""
SWITCH = """
  make:
    agent: scaffold
    with: {{name: "{service}"}}
  ship:
    agent: killed_deploy
    with: {{service: "{service}", point: "{point}", victim: {victim}, once: "{once}"}}
"""
POINTS = {
    "push": ["before:push", "after:push", "before:settle", "after:settle"],
    "switch": ["before:deploy", "inside:deploy", "after:deploy", "after:settle"],
}
CASES = [(act, point, victim) for act, points in POINTS.items() for point in points for victim in ("task", "supervisor")]


def name_of(act, point, victim):
    return f"once_{act}_{point.replace(':', '_')}_{victim}"


@pytest.fixture(scope="module")
def runs(airflow, tmp_path_factory):
    folder = tmp_path_factory.mktemp("once")
    texts = {}
    for act, point, victim in CASES:
        name = name_of(act, point, victim)
        service = name.replace("_", "-")[:40]
        body = (PUSH if act == "push" else SWITCH).format(point=point, victim=victim, once=folder / name, service=service)
        texts[name] = HEAD.format(name=name) + body
    return {name: (run, folder / name) for name, run in airflow.trigger_all(texts).items()}


def git(repository, *command):
    return subprocess.run(["git", "-C", str(repository), *command], check=True, capture_output=True, text=True).stdout.split("\n")[:-1]


def settled(airflow, run):
    """What the run wrote down of its changes, and how each ended."""
    changes = SqliteLedger(airflow.home.ledger).changes(run_key(run.dag, run.id))
    return [(c.stage, c.kind, c.state) for c in changes]


@pytest.mark.parametrize(("act", "point", "victim"), [c for c in CASES if c[0] == "push"])
def test_a_push_happens_once(airflow, runs, act, point, victim):
    run, killed = runs[name_of(act, point, victim)]
    done = airflow.finish(run, timeout_s=400)
    assert killed.exists(), "nothing was killed"
    assert done.run.state == "success"
    assert done.tasks["merge"].tries == 2
    (repository,) = (airflow.home.repositories / name_of(act, point, victim)).glob("*.git")
    main = git(repository, "log", "--format=%H %P", "main")
    assert main[0].split()[0] == done.result("merge").commit
    assert len(main) == 2, "the first commit and one squash, nothing else"
    assert git(repository, "ls-tree", "--name-only", "main") == ["a.txt"]
    # An object alone says nothing: one that no ref reaches is lost at the next gc.
    assert f"refs/heads/taxiway/{run.dag}" in "\n".join(git(repository, "for-each-ref", "--contains", done.result("write").commit))
    assert settled(airflow, run) == [("merge", "push", "done")]


@pytest.mark.parametrize(("act", "point", "victim"), [c for c in CASES if c[0] == "switch"])
def test_a_switch_happens_once(airflow, runs, act, point, victim):
    run, killed = runs[name_of(act, point, victim)]
    done = airflow.finish(run, timeout_s=400)
    assert killed.exists(), "nothing was killed"
    assert done.run.state == "success"
    assert done.tasks["ship"].tries == 2
    result = done.result("ship")
    status = LocalTarget(airflow.home, trusted=True).status(str(result.outputs["service"]))
    assert status is not None
    assert (status.state, status.live.commit) == ("running", result.commit)
    log = (airflow.home.services / str(result.outputs["service"]) / "service.log").read_text()
    assert len(re.findall(r"release \w+ is live$", log, re.MULTILINE)) == 1, log
    assert settled(airflow, run) == [("ship", "deploy", "done")]
    assert httpx.get(f"{result.outputs['url']}/healthz").status_code == 200
