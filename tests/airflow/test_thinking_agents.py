"""The agents that ask a model, on a real scheduler: browser tests, diagnoses, conflicts, pull requests, and a purse that branches share.

And a repair by an agent that asks none.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from thinking import (
    BECAUSE,
    CODE,
    FILES,
    INVENTED,
    LINK,
    OTHERS,
    OTHERS_TEST,
    TEST,
    VACUOUS,
    WRONG,
    artifacts,
    git,
    project,
    push,
    repository,
    stages,
)

from taxiway.integrations.airflow_settings import USER, secrets_of
from taxiway.integrations.browsers import find_browsers

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "agents" / "e2e"))

from apps import GOOD as WEB_SERVICE
from forge_server import TOKEN as FORGE_TOKEN
from forge_server import serving

# Six runs at once, which a busy machine takes its time for.
pytestmark = pytest.mark.timeout(1500)

COMMON = """
policy: thinking
params: {repository: {type: string}}
limits: {runs: 4, duration: 30m}
defaults: {timeout: 10m, retries: {attempts: 2, first: 1s, factor: 1, most: 1s}}
"""
BUILD = """
  build:
    agent: scaffold
    with: {template: none, requirements: A function that says how many words a text has.}
"""
CHECK = """
  validate: {agent: validate, with: {checks: [lint, tests]}}
"""
BROWSER_TESTS = f"""
pipeline: browser_tests_written
{COMMON}
stages:
  write_e2e:
    agent: write_e2e
    with: {{requirements: "The page has a link that leads to the other page.", pages: [/, /other]}}
  e2e: {{agent: e2e, with: {{trace: never}}, gates: [e2e.passed == 2]}}
  integrate: {{agent: integrate}}
"""
EXPLAINED = f"""
pipeline: failure_explained
{COMMON}
stages:
{CHECK}
  integrate: {{agent: integrate}}
  why: {{agent: diagnose, recovers: [validate, integrate]}}
"""
MENDED = f"""
pipeline: mended_without_a_model
{COMMON.replace("thinking", "open")}
stages:
  validate:
    agent: validate
    with: {{checks: [tests]}}
    repair: {{attempts: 2, agent: scribe, with: {{files: {{{CODE}: {json.dumps(FILES[CODE])}}}}}}}
  integrate: {{agent: integrate}}
"""
CLASH = f"""
pipeline: clash_asked_about
{COMMON}
stages:
{BUILD}{CHECK}
  integrate: {{agent: integrate, with: {{strategy: merge, conflicts: ask_model}}, gates: [conflicts <= 1]}}
"""
OFFERED = f"""
pipeline: change_offered
{COMMON.replace("thinking", "forge")}
stages:
{BUILD}{CHECK}
  integrate: {{agent: integrate, with: {{mode: pull_request, title: Count words, wait: 9m}}}}
"""
# One call fits, and two that are set aside at once do not.
ONE_PURSE = f"""
pipeline: one_purse
{COMMON}
budget: {{usd: 0.06}}
stages:
  left: {{agent: probe, needs: [], with: {{fail: stage}}}}
  right: {{agent: probe, needs: [], with: {{fail: stage}}}}
  why_left: {{agent: diagnose, recovers: [left]}}
  why_right: {{agent: diagnose, recovers: [right]}}
"""


@pytest.fixture(scope="module")
def forge(airflow, tmp_path_factory):
    """A GitHub of the test's own, with the project in it; its token is a connection's that somebody made in Airflow."""
    with serving("github", tmp_path_factory.mktemp("forge")) as forge:
        forge.commit("main", project("offered"), "Split words")
        forge.required, forge.checks = ["build"], {"build": "waiting"}
        forge.after_looks(lambda: forge.checks.update(build="passed"))
        entry = f"  - {{url: '{forge.url}/*', connection: the_forge, forge: github, api: '{forge.api}'}}\n"
        policies = airflow.pipelines / "policies"
        shared = (policies / "thinking.yaml").read_text().replace("policy: thinking", "policy: forge")
        (policies / "forge.yaml").write_text(f"{shared}repositories:\n{entry}")
        connection = {"connection_id": "the_forge", "conn_type": "git", "login": "git", "password": FORGE_TOKEN}
        with httpx.Client(base_url=airflow.client.url, trust_env=False) as client:
            own = {"username": USER, "password": secrets_of(airflow.home).password}
            bearer = {"Authorization": f"Bearer {client.post('/auth/token', json=own).json()['access_token']}"}
            client.post("/api/v2/connections", json=connection, headers=bearer).raise_for_status()
        yield forge


@pytest.fixture(scope="module")
def runs(airflow, forge, tmp_path_factory):
    """Every scenario, side by side: its run, and its repository."""
    texts = {
        "browser tests": BROWSER_TESTS,
        "a failure": EXPLAINED,
        "a mender": MENDED,
        "a clash, and sure": CLASH,
        "a clash, and not sure": CLASH,
        "offered": OFFERED,
        "one purse": ONE_PURSE,
    }
    if "chromium" not in find_browsers(os.environ):
        del texts["browser tests"]
    for text in texts.values():
        airflow.save(text)
    wrong = {**FILES, CODE: WRONG}
    files = {"a failure": wrong, "a mender": wrong, "browser tests": WEB_SERVICE}
    origins = {key: repository(tmp_path_factory.mktemp("agents"), key, files.get(key, FILES)) for key in texts if key != "offered"}
    origins["offered"] = forge.git_url
    for key in CLASHES:
        airflow.claude.meanwhile[key] = Somebody(origins[key])
    held = airflow.claude.meanwhile["one purse"] = Held()
    started = {key: airflow.trigger(text, {"repository": str(origins[key])}) for key, text in texts.items()}
    held.end(airflow, started["one purse"])
    return {key: (airflow.finish(run, timeout_s=900), origins[key]) for key, run in started.items()}


class Somebody:
    """Pushes a function of their own, once, while the model writes in the same place."""

    def __init__(self, origin):
        self.origin, self.pushed = origin, ""

    def __call__(self):
        if not self.pushed:
            self.pushed = push(self.origin, {CODE: OTHERS, "tests/test_first.py": OTHERS_TEST}, "Say the first word")


class Held:
    """Holds every answer until one of the two stages that ask has ended, or both have asked."""

    def __init__(self):
        self.free, self.asked = threading.Event(), 0

    def __call__(self):
        self.asked += 1
        self.free.wait(600)

    def end(self, airflow, run):
        until = time.monotonic() + 600
        while self.asked < 2 and time.monotonic() < until:
            ended = {t.id for t in airflow.client.tasks(run.dag, run.id) if t.state in ("success", "failed")}
            if ended & {"why_left", "why_right"}:
                break
            time.sleep(0.3)
        self.free.set()


def linked(airflow, done, stage):
    """The names of the reports behind the task's button in the UI."""
    index = Path(done.result(stage).artifacts["reports"].removeprefix("file://"))
    assert index == artifacts(airflow, done, stage)["index.txt"]
    return set(index.read_text().split())


def test_a_browser_test_that_notices_stays_and_a_vacuous_one_goes(airflow, runs):
    if "browser tests" not in runs:
        pytest.skip("no Chromium: apt-get install chromium")
    done, origin = runs["browser tests"]
    assert stages(done) == dict.fromkeys(("write_e2e", "e2e", "integrate"), "success")
    assert done.run.state == "success"
    written = done.result("write_e2e")
    assert written.metrics == {"tests.proposed": 2, "tests.kept": 1, "tests.discarded": 1}
    assert (written.cost.calls, written.cost.usd > 0) == (3, True)
    # What the next stage measured, and what is merged, is the commit with the kept test.
    assert done.result("e2e").commit == written.commit
    assert done.result("e2e").metrics["e2e.passed"] == 2
    assert {v.stage for v in done.result("integrate").verdicts} == {"e2e"}
    files = git(origin, "ls-tree", "-r", "--name-only", "main").split()
    assert (LINK in files, VACUOUS in files) == (True, False)
    trailers = git(origin, "log", "-1", "--format=%(trailers)", written.commit)
    for words in ("Taxiway-Stage: write_e2e", "Taxiway-Agent: write_e2e", "Taxiway-Model: claude-sonnet-5-5", "Taxiway-Cost: 0."):
        assert words in trailers
    assert linked(airflow, done, "write_e2e") >= {"tests.md", "tests.json", "write_e2e.html"}
    report = artifacts(airflow, done, "write_e2e")["tests.md"].read_text()
    assert f"| {LINK}::test_link | A link leads on. | route /other | yes |" in report
    assert "no: it does not fail with element h1 broken" in report


def test_a_failure_is_explained_and_stays_a_failure(airflow, runs):
    done, origin = runs["a failure"]
    assert stages(done) == {"validate": "failed", "integrate": "upstream_failed", "why": "success"}
    assert (done.run.state, done.states()["outcome"]) == ("failed", "failed")
    why = done.result("why")
    assert why.metrics == {"quotes.kept": 2, "quotes.dropped": 1}
    assert why.summary.startswith(f"{BECAUSE} (a model's view, confidence 0.90, 2 of 3 quotes found)")
    assert why.cost.calls == 2
    assert linked(airflow, done, "why") >= {"diagnosis.md", "diagnosis.json", "diagnose.html", "attempt.log"}
    told = json.loads(artifacts(airflow, done, "why")["diagnosis.json"].read_text())
    assert (told["root_cause"], told["stages"], told["dropped_quotes"]) == (BECAUSE, ["validate"], 1)
    assert told["evidence"][0] == {"file": CODE, "line": 2, "text": '    return text.split(",")'}
    assert INVENTED["text"] not in artifacts(airflow, done, "why")["diagnosis.md"].read_text()
    # What the run itself says in the end, to people and to programs.
    assert BECAUSE in artifacts(airflow, done, "outcome")["summary.md"].read_text()
    summary = json.loads(artifacts(airflow, done, "outcome")["summary.json"].read_text())
    assert (summary["outcome"], summary["failures"]) == ("failed", ["validate ended failed", "integrate ended upstream_failed"])
    assert summary["cost"]["calls"] == 2
    assert git(origin, "log", "--format=%s", "main") == "Split words"


def test_an_agent_mends_what_failed_in_a_try_of_its_own(airflow, runs):
    done, origin = runs["a mender"]
    assert stages(done) == dict.fromkeys(("validate", "integrate"), "success")
    validated = done.result("validate")
    # The first try measured, the second mended and measured again; nobody asked a model.
    assert (done.tasks["validate"].tries, len(validated.repairs), validated.cost) == (2, 1, None)
    assert git(origin, "show", f"main:{CODE}") == FILES[CODE].strip()
    assert {v.stage: v.commit for v in done.result("integrate").verdicts}["validate"] == done.result("integrate").commit
    trailers = git(origin, "log", "-1", "--format=%(trailers)", validated.commit)
    assert "Taxiway-Agent: scribe" in trailers
    assert "Taxiway-Stage: validate" in trailers
    assert airflow.claude.asked("a mender") == []


CLASHES = ("a clash, and sure", "a clash, and not sure")


def test_a_sure_resolution_is_merged_and_measured_again(airflow, runs):
    done, origin = runs["a clash, and sure"]
    assert stages(done) == dict.fromkeys(("build", "validate", "integrate"), "success")
    merged, theirs = done.result("integrate"), airflow.claude.meanwhile["a clash, and sure"].pushed
    assert git(origin, "log", "-1", "--format=%H %P", "main").split() == [merged.commit, theirs, done.result("build").commit]
    code = git(origin, "show", f"main:{CODE}")
    assert ("def first" in code, "def count" in code, "<<<<" in code) == (True, True, False)
    assert ("validate", merged.commit) in {(v.stage, v.commit) for v in merged.verdicts}
    assert (merged.metrics["conflicts"], merged.cost.calls) == (1, 1)
    assert "decided by a model: src/wordy/__init__.py:" in merged.summary
    reports = artifacts(airflow, done, "integrate")
    # The tests of both sides, on the merged tree.
    assert json.loads((reports["verify-validate"] / "report.json").read_text())["metrics"]["tests.passed"] == 3
    assert "confidence 0.95: Both functions are kept." in reports["decided.md"].read_text()
    assert json.loads(reports["proposals.json"].read_text())["hunks"][0]["taken"] is True


def test_an_unsure_resolution_is_left_to_people(airflow, runs):
    done, origin = runs["a clash, and not sure"]
    assert stages(done) == {"build": "success", "validate": "success", "integrate": "failed"}
    assert done.run.state == "failed"
    assert git(origin, "rev-parse", "main") == airflow.claude.meanwhile["a clash, and not sure"].pushed
    assert "conflicts that `conflicts: ask_model` cannot decide in src/wordy/__init__.py" in done.log("integrate")
    failed = done.result("integrate")
    assert (failed.outcome, failed.cost.calls, done.tasks["integrate"].tries) == ("failed", 1, 1)
    reports = artifacts(airflow, done, "integrate")
    assert linked(airflow, done, "integrate") >= {"proposals.md", "proposals.json", "conflicts.md", "conflict-1.html"}
    proposal = json.loads(reports["proposals.json"].read_text())["hunks"][0]
    assert (proposal["taken"], proposal["refused"]) == (False, "its confidence is below 0.85")
    for words in ("def first", "def count", "not taken"):
        assert words in reports["proposals.md"].read_text()


def test_a_change_is_offered_checked_and_merged_at_the_forge(airflow, runs, forge):
    done, _ = runs["offered"]
    assert stages(done) == dict.fromkeys(("build", "validate", "integrate"), "success")
    pull, merged = forge.pull, done.result("integrate")
    assert (pull.state, pull.title, pull.head) == ("merged", "Count words", done.result("build").commit)
    assert merged.commit == pull.merged == forge.head("main")
    assert merged.outputs["pull_request"] == f"{forge.url}/team/shop/pull/1"
    assert "pull request 1 waits for check build" in done.log("integrate")
    assert [(s["context"], s["state"]) for s in forge.statuses[pull.head]] == [("taxiway", "success")]
    for words in ("`validate`", "`tests.failed`", "Taxiway-Stage: integrate", f"Taxiway-Source: {pull.head}", "2 calls"):
        assert words in pull.body
    assert "def count" in forge.git("show", f"main:{CODE}")
    assert TEST in forge.git("ls-tree", "-r", "--name-only", "main").split()


def test_the_forges_token_is_nowhere(airflow, runs, forge):
    assert {login for _, path, login in forge.asked if path.startswith("/api/")} <= {f"token {FORGE_TOKEN}", f"Bearer {FORGE_TOKEN}"}
    done, _ = runs["offered"]
    assert FORGE_TOKEN not in "".join(done.log(stage) for stage in done.tasks)
    # Logs, reports, repositories, and the database, which has what crosses between stages, and connections encrypted.
    seen, found = set(), []
    for path in airflow.home.path.rglob("*"):
        with suppress(FileNotFoundError):  # Airflow goes on working
            if path.is_file() and not path.is_symlink():
                seen.add(path.relative_to(airflow.home.path).as_posix())
                found += [path] * (FORGE_TOKEN.encode() in path.read_bytes())
    assert "airflow/airflow.db" in seen
    assert found == []
    assert FORGE_TOKEN not in json.dumps(airflow.claude.asked("offered"))


def test_branches_cannot_spend_the_same_dollar(airflow, runs):
    done, _ = runs["one purse"]
    states = stages(done)
    assert (states.pop("left"), states.pop("right"), sorted(states.values())) == ("failed", "failed", ["failed", "success"])
    assert done.run.state == "failed"
    (poor,) = (name for name, state in states.items() if state == "failed")
    (rich,) = (name for name, state in states.items() if state == "success")
    # One asked at all: while its answer was awaited, what it may cost was set aside.
    assert len(airflow.claude.asked("one purse")) == 1
    assert "BudgetExceeded: the run's budget of 0.0600 USD is spent: 0." in done.log(poor)
    (line,) = (row.split() for row in artifacts(airflow, done, poor)["attempt.log"].read_text().splitlines() if row.startswith(rich))
    assert (line[1], line[2], line[-1]) == ("claude-sonnet-5-5", "0", "1")
    assert done.tasks[poor].tries == 1
    assert done.result(poor).cost is None
    assert 0 < done.result(rich).cost.usd < 0.06
