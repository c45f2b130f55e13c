import dataclasses
import json

import pytest
from airflow.sdk.exceptions import AirflowFailException

from taxiway.compiler.plan import Budget
from taxiway.errors import OperatorError
from taxiway.records import Cost, Reading, Result
from taxiway_airflow.outcome import OutcomeOperator
from taxiway_airflow.summary import StageEnd, as_table

COMMIT = "a" * 40
GATE = Reading(metric="coverage.line", wanted=">= 80", measured=None, passed=False, blocking=False, note="not | measured")
PASSED = Result(commit=COMMIT, gates=(GATE,), outputs={"url": "http://127.0.0.1:1"}, summary="a | b\nc")


class FinishedRun:
    """What the operator asks Airflow about: states and XComs of a run that ended."""

    dag_id, run_id, try_number = "shop", "manual__1", 2

    def __init__(self, states, results):
        self.states, self.results, self.pushed = states, results, {}

    def get_task_states(self, *, dag_id, run_ids):
        assert (dag_id, run_ids) == (self.dag_id, [self.run_id])
        if isinstance(self.states, Exception):
            raise self.states
        return {self.run_id: self.states} if self.states is not None else {}

    def xcom_pull(self, *, task_ids):
        return self.results.get(task_ids)

    def xcom_push(self, key, value):
        self.pushed[key] = value


STAGES = ("scaffold", "check", "deploy", "undo")
GREEN = {"scaffold": "success", "check": "success", "deploy": "success", "undo": "skipped"}
DONE = {name: json.loads(PASSED.model_dump_json()) for name in ("scaffold", "check", "deploy")}


def finish(plan, states, results=DONE, store=None):
    stored = {}
    ti = FinishedRun(states, results)
    operator = OutcomeOperator(task_id="outcome", plan=plan, store=store or (lambda key, content: stored.setdefault(key, content) and key))
    try:
        operator.execute({"ti": ti})
    except AirflowFailException as error:
        return str(error), stored
    return "", stored


def test_a_green_run(plan):
    problem, stored = finish(plan, GREEN)
    assert problem == ""
    key = "shop/manual-1-" + next(iter(stored)).split("/")[1].rpartition("-")[2]
    assert list(stored) == [f"{key}/outcome/2/summary.json", f"{key}/outcome/2/summary.md"]
    summary = json.loads(stored[f"{key}/outcome/2/summary.json"])
    assert (summary["outcome"], summary["commit"], summary["url"]) == ("success", COMMIT, "http://127.0.0.1:1")
    assert [s["outcome"] for s in summary["stages"]] == ["success", "success", "success", "skipped"]
    assert summary["stages"][0]["result"] == DONE["scaffold"]
    page = stored[f"{key}/outcome/2/summary.md"].decode()
    assert "# shop: success" in page
    assert "| check | validate | success | aaaaaaaaaaaa | 0/1 | a \\| b c |" in page
    assert "not measured, failed, does not block" in page


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"check": "failed", "deploy": "upstream_failed"}, "check ended failed; deploy ended upstream_failed"),
        ({"deploy": "failed", "undo": "success"}, "deploy ended failed"),
        ({"undo": "failed"}, "undo ended failed"),
        ({"check": "skipped"}, ""),
        ({"check": None}, "check ended unknown"),
        ({"check": "running"}, "check ended running"),
        ({"check": "removed"}, "check ended removed"),
    ],
)
def test_what_fails_a_run(plan, change, problem):
    results = DONE | {"undo": DONE["check"]}
    said, stored = finish(plan, GREEN | change, results)
    assert said == (f"the run failed: {problem}" if problem else "")
    outcome = json.loads(next(iter(stored.values())))["outcome"]
    assert outcome == ("failed" if problem else "success")


@pytest.mark.parametrize("states", [None, {}, {"scaffold": "success"}])
def test_states_that_are_not_known_are_no_success(plan, states):
    assert "ended unknown" in finish(plan, states)[0]


def test_states_that_cannot_be_read_are_no_success(plan):
    with pytest.raises(RuntimeError, match="no answer"):
        finish(plan, RuntimeError("no answer"))


@pytest.mark.parametrize("result", [None, {}, "text", {"outcome": "great"}, {"commit": "HEAD"}, [1]], ids=str)
def test_a_success_without_a_result_is_not_believed(plan, result):
    said, _ = finish(plan, GREEN, DONE | {"check": result})
    assert said == ("" if result == {} else "the run failed: check left no result that can be read")


def test_a_tolerated_failure_stands_in_the_summary(plan):
    said, stored = finish(plan, GREEN, DONE | {"check": {"outcome": "failed", "summary": "2 tests failed"}})
    assert said == ""
    assert json.loads(next(iter(stored.values())))["stages"][1]["outcome"] == "failed"


def test_a_stage_that_was_stopped_is_cancelled_and_not_failed(plan):
    states = GREEN | {"check": "failed", "deploy": "upstream_failed"}
    said, stored = finish(plan, states, DONE | {"check": {"outcome": "cancelled", "summary": "the run was stopped"}, "deploy": None})
    assert said == "the run failed: check ended cancelled; deploy ended upstream_failed"
    summary = json.loads(next(iter(stored.values())))
    assert (summary["outcome"], [s["outcome"] for s in summary["stages"]][1]) == ("failed", "cancelled")


def full(key, content):
    raise OperatorError(f"artifact {key} cannot be stored")


def test_a_full_disk_hides_no_failure(plan):
    assert finish(plan, GREEN | {"check": "failed"}, store=full)[0] == "the run failed: check ended failed"
    with pytest.raises(OperatorError, match="cannot be stored"):
        finish(plan, GREEN, store=full)


def test_the_table_is_aligned():
    ends = [StageEnd("a", "validate", "success", PASSED), StageEnd("rollback", "recover", "skipped", None)]
    assert as_table(ends) == [
        "stage     agent     ended    commit        gates  summary",
        "a         validate  success  aaaaaaaaaaaa  0/1    a | b c",
        "rollback  recover   skipped  -             -      -",
    ]


def test_what_models_cost_stands_in_the_summary(plan):
    cost = Cost(calls=2, input_tokens=100, output_tokens=20, cached_tokens=50, usd=0.25, models=("m",))
    results = {name: json.loads(PASSED.model_copy(update={"cost": cost}).model_dump_json()) for name in ("scaffold", "check")}
    plan = dataclasses.replace(plan, budget=Budget(5, 1000, 0.8))
    _, stored = finish(plan, GREEN, DONE | results)
    data, page = (content.decode() for content in stored.values())
    page = page.replace("\\", "")
    assert (json.loads(data)["cost"]["usd"], json.loads(data)["budget"]["usd"]) == (0.5, 5)
    assert "- models: 4 calls of m: 300 tokens read (100 cached), 40 written, 0.5000 USD of a budget of 5 USD and 1000 tokens" in page
    assert "- check: 2 calls of m:" in page
    assert "- deploy: 2 calls" not in page
    assert str(cost.model_copy(update={"calls": 1})).startswith("1 call of m: ")
