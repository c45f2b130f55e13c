"""The shipped pipeline, whole, by REST; then a run that fails at each stage in turn."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from taxiway.integrations.local.target import LocalTarget
from taxiway.stage import run_key

SHIPPED = Path(__file__).parents[2] / "pipelines"
STAGES = ["scaffold", "validate", "e2e.chromium", "integrate", "deploy", "monitor"]
SERVICE = "acme"


def variant(name: str, **changes: dict) -> str:
    """The shipped pipeline under another id, with some stages' settings changed."""
    spec = yaml.safe_load((SHIPPED / "web_service.yaml").read_text())
    spec["pipeline"] = name
    if "e2e" not in changes:  # it costs a browser a run
        del spec["stages"]["e2e"]
    del spec["stages"]["validate"]["repair"]  # what fails here is to fail at once
    spec["stages"]["monitor"]["with"] = {"for": "2s", "every": "200ms"}
    for stage, settings in changes.items():
        for field, value in settings.items():
            current = spec["stages"][stage].get(field)
            spec["stages"][stage][field] = {**current, **value} if isinstance(value, dict) and isinstance(current, dict) else value
    spec["defaults"]["retries"] = {"attempts": 1, "first": "1s", "factor": 1, "most": "1s"}
    return yaml.safe_dump(spec, sort_keys=False)


@pytest.fixture(scope="module")
def whole(airflow):
    """A run of the shipped pipeline that succeeded."""
    return airflow.run_pipeline((SHIPPED / "web_service.yaml").read_text(), {"name": SERVICE}, timeout_s=400)


def live(airflow):
    status = LocalTarget(airflow.home, trusted=True).status(SERVICE)
    assert status is not None
    assert status.live is not None
    return status


@pytest.mark.smoke
def test_a_whole_run(airflow, whole):
    assert whole.run.state == "success", {name: whole.log(name) for name, state in whole.states().items() if state == "failed"}
    assert whole.states() == {**dict.fromkeys(STAGES, "success"), "rollback": "skipped", "outcome": "success"}
    results = {name: whole.result(name) for name in STAGES}
    # The template does what the requirements ask for by default: the model says so, and changes nothing.
    assert (results["scaffold"].outputs["degraded"], results["scaffold"].outputs["covered"]) == (False, 1)
    assert results["scaffold"].cost.models == ("claude-sonnet-5-5",)
    assert results["validate"].metrics["tests.total"] >= 1
    assert results["validate"].metrics["coverage.line"] >= 90
    assert all(r.passed for r in results["validate"].gates)
    browser = results["e2e.chromium"]
    assert browser.metrics["e2e.total"] == browser.metrics["e2e.browsed"] >= 3
    assert browser.metrics["a11y.serious"] == 0
    assert all(r.passed for r in browser.gates)
    # integrate measured its gates again, on the tree that it pushed.
    assert {v.stage for v in results["integrate"].verdicts} == {"validate", "e2e"}
    assert results["integrate"].commit == results["deploy"].commit != results["scaffold"].commit
    assert results["monitor"].metrics["availability"] == 1
    url = results["deploy"].outputs["url"]
    assert url.startswith("http://127.0.0.1:")
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert "<html" in httpx.get(url).text
    for name in STAGES:
        assert len(results[name].model_dump_json().encode()) <= 4000


def test_git_is_the_hand_over(airflow, whole):
    # Other tests run the same pipeline, each run in a repository of its own.
    repository = airflow.home.repositories / "web_service" / f"{run_key('web_service', whole.run.id)}.git"
    log = subprocess.run(
        ["git", "-C", str(repository), "log", "-1", "--format=%B", whole.result("scaffold").commit],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for trailer in ("Taxiway-Run: ", "Taxiway-Stage: scaffold", "Taxiway-Attempt: 1", "Taxiway-Agent: scaffold"):
        assert trailer in log
    head = subprocess.run(["git", "-C", str(repository), "rev-parse", "main"], check=True, capture_output=True, text=True).stdout.strip()
    assert head == whole.result("integrate").commit


def test_nothing_is_left_behind(airflow, whole):
    # Checkouts of other tests' running stages may be there; none of this run's.
    left = [p.name for p in airflow.home.checkouts.glob("*")] if airflow.home.checkouts.exists() else []
    assert not [name for name in left if any(f"-{stage}-" in name for stage in STAGES)]


def test_clear_from_validate_after_a_finished_run(airflow, whole):
    before = live(airflow)
    airflow.client.clear(whole.run.dag, whole.run.id, ["validate"])
    done = airflow.finish(whole.run, timeout_s=400)
    assert done.run.state == "success"
    assert {name: done.tasks[name].tries for name in STAGES} == {**dict.fromkeys(STAGES, 2), "scaffold": 1}
    assert done.states() == whole.states()
    assert done.result("integrate").commit == whole.result("integrate").commit
    after = live(airflow)
    assert (after.live.id, after.since) == (before.live.id, before.since), "nothing was switched a second time"


FAILURES = {
    # stage -> what makes it fail, and how the recovery ends
    "scaffold": (
        {
            "scaffold": {
                "with": {
                    "name": "{{ params.name }}-{{ params.name }}-{{ params.name }}-{{ params.name }}-{{ params.name }}-x1234567890123456"
                }
            }
        },
        "skipped",
    ),
    "validate": ({"validate": {"gates": ["tests.total >= 1000"]}}, "skipped"),
    "e2e.chromium": ({"e2e": {"with": {"pages": []}, "gates": ["e2e.total >= 1000"]}}, "skipped"),
    "integrate": ({"integrate": {"with": {"into": "{{ params.name }}..{{ params.name }}"}}}, "skipped"),
    "deploy": ({"deploy": {"with": {"health": "/nothing-here"}, "timeout": "15s"}}, "skipped"),
    "monitor": ({"monitor": {"gates": ["availability >= 0.99", "latency.p95_ms < 0.001"]}}, "success"),
}


@pytest.fixture(scope="module")
def failing(airflow, whole):
    """Runs that fail at one stage each, all but the last at once: none of those gets as far as switching the service."""
    before = live(airflow)
    *early, last = FAILURES
    texts = {stage: variant(f"fails_at_{stage.partition('.')[0]}", **changes) for stage, (changes, _) in FAILURES.items()}
    for text in texts.values():
        airflow.save(text)
    runs = {stage: airflow.trigger(texts[stage], {"name": SERVICE}) for stage in early}
    done = {stage: airflow.finish(run, timeout_s=400) for stage, run in runs.items()}
    done[last] = airflow.run_pipeline(texts[last], {"name": SERVICE}, timeout_s=400)
    return before, done


@pytest.mark.parametrize("stage", list(FAILURES))
def test_a_run_that_fails_at_each_stage_ends_failed_and_leaves_the_last_good_live(airflow, failing, stage):
    before, runs = failing
    done, recovery = runs[stage], FAILURES[stage][1]
    assert done.run.state == "failed"
    states = done.states()
    order = [name for name in STAGES if name in states]
    position = order.index(stage)
    assert [states[name] for name in order[:position]] == ["success"] * position
    assert states[stage] == "failed", done.log(stage)
    assert {states[name] for name in order[position + 1 :]} <= {"upstream_failed"}
    assert states["outcome"] == "failed"
    assert states["rollback"] == recovery
    after = live(airflow)
    assert (after.live.id, after.state) == (before.live.id, "running")
    assert httpx.get(f"{after.url}/healthz").status_code == 200
    assert done.result(stage).outcome == "failed"
    assert done.result(stage).summary
