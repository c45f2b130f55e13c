"""Repairs: what a scripted model does between a failed gate and the next try, and what it may not do."""

import dataclasses
import json

import pytest

from taxiway.agents.base import ModelUse
from taxiway.compiler.plan import Budget, Gate, Repair, Retries
from taxiway.errors import AgentFailed, BudgetExceeded, GateFailed, OperatorError, RepairDue, StageError
from taxiway.records import Result
from taxiway.testing import Failure, ScriptedClaude, say, use

FILES = {"app.py": "value = 1\n", "tests/test_app.py": "def test_it(): ...\n", "pyproject.toml": "[project]\nname = 'x'\n"}
GATE = Gate("value", ">=", 3)
DONE = {"cause": "The value was too small.", "summary": "Raise the value"}


def hand_in(**changes):
    return use("hand_in", **{**DONE, **changes})


def put(text, path="app.py"):
    return use("write", path=path, content=text)


def value(_inputs, _ports, attempt):
    """Measures the number that the code assigns, and how many tests there are."""
    (attempt.reports / "report.md").write_text(f"app.py says: {(attempt.checkout / 'app.py').read_text()}")
    number = float((attempt.checkout / "app.py").read_text().split("=")[1].split("#")[0])
    tests = sum(p.read_text().count("def test_") for p in (attempt.checkout / "tests").glob("*.py"))
    return Result(metrics={"value": number, "tests.total": tests})


@pytest.fixture
def mend(bench, write):
    """`validate` with repairs on a project, and what comes of its tries."""
    bench.stage("scaffold", write(FILES), effect="writes")
    bench.stage(
        "validate",
        value,
        metrics=("value", "tests.total"),
        needs=("scaffold",),
        gates=(GATE,),
        repair=Repair(2, ()),
        retries=Retries(2, 0, 1, 0),
    )
    bench.run("scaffold")

    def tries(*, may_change=(), most=6):
        bench.stages[1] = dataclasses.replace(bench.stages[1], repair=Repair(2, tuple(may_change)))
        ended = []
        for attempt in range(1, most + 1):
            try:
                return [*ended, bench.run("validate", attempt=attempt)]
            except StageError as error:
                return [*ended, error]
            except RepairDue as error:
                ended.append(error)
        raise AssertionError(ended)

    return tries


def log_of(bench, commit, form="%B"):
    return bench.workspace._git("log", "-1", f"--format={form}", commit).text


def test_two_repairs_and_the_gate_passes(bench, mend):
    script = [put("value = 2\n"), hand_in(), use("check", name="validate"), put("value = 3\n"), hand_in(summary="Raise it once more")]
    with ScriptedClaude(script) as claude:
        bench.think(claude)
        first, second, result = mend()
    assert (claude.error, claude.left) == ("", 0)
    assert (first.retryable, second.retryable) == (True, True)
    assert "repair 1 of 2 comes next" in first.problem
    assert "repair 2 of 2 comes next" in second.problem
    assert result.metrics["value"] == 3
    assert result.verdicts[-1].commit == result.commit
    assert result.cost.calls == 5
    assert result.cost.usd > 0
    raised = f"{result.commit[:12]} Raise it once more"
    assert (first.repairs, result.repairs) == ((), (*second.repairs, raised))
    assert [text.partition(" ")[2] for text in result.repairs] == ["Raise the value", "Raise it once more"]
    message = log_of(bench, result.commit)
    assert message.startswith("validate: Raise it once more")
    for trailer in ("Taxiway-Agent: repair", "Taxiway-Repair: 2", "Taxiway-Stage: validate", "Taxiway-Model: m", "Taxiway-Cost: 0."):
        assert trailer in message
    # Its parent is the first repair, and that one's is what was scaffolded.
    assert log_of(bench, result.commit + "~2", "%s") == log_of(bench, bench.results["scaffold"].commit, "%s")


def test_the_next_repair_reads_what_the_last_try_reported(bench, mend):
    with ScriptedClaude([put("value = 2\n"), hand_in(), put("value = 3\n"), hand_in()]) as claude:
        bench.think(claude)
        mend()
    asked = [r["messages"][0]["content"][0]["text"] for r in claude.requests]
    assert "app.py says: value = 1" in asked[0]
    assert "FAILED" in asked[0]
    assert "app.py says: value = 2" in asked[2]


def test_after_the_last_repair_it_fails_with_the_evidence_and_the_best_diff(bench, mend):
    with ScriptedClaude([put("value = 2\n"), hand_in(), put("value = 1.5\n"), hand_in()]) as claude:
        bench.think(claude)
        *_, error = mend()
    assert isinstance(error, GateFailed)
    assert "after 2 repairs" in error.problem
    assert error.readings[0].measured == 1.5
    kept = {p.name for p in bench.home.artifacts.rglob("validate/3/*")}
    assert {"repairs.diff", "repair.jsonl", "repair.html", "report.md"} <= kept
    diff = next(bench.home.artifacts.rglob("validate/3/repairs.diff")).read_text()
    assert "+value = " in diff


REFUSED = {
    "a test": put("def test_it(): assert True\n", "tests/test_app.py"),
    "a new test": put("x\n", "tests/conftest.py"),
    "a test deleted": use("delete", path="tests/test_app.py"),
    "settings": use("replace", path="pyproject.toml", old="[project]", new="[tool.coverage]\n[project]"),
    "new settings": put("[lint]\n", "ruff.toml"),
    "delivery": put("install: {}\n", ".taxiway.yaml"),
    "ci": put("on: push\n", ".github/workflows/ci.yml"),
    "outside": put("x\n", "../outside.py"),
    "git": put("x\n", ".git/hooks/post-checkout"),
    "a site hook": put("x\n", "sitecustomize.py"),
    "ignored files": put("tests\n", ".gitignore"),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_what_judges_may_not_be_changed(bench, mend, call):
    with ScriptedClaude([call, put("value = 3\n"), hand_in()]) as claude:
        bench.think(claude)
        *_, result = mend()
    told = claude.requests[1]["messages"][-1]["content"][0]
    assert told["is_error"] is True
    assert bench.workspace.diff(bench.results["scaffold"].commit, result.commit).startswith("1 file changed, 1 insertion(+), 1 deletion(-)")


def test_who_asks_tools_to_look_away_is_sent_back(bench, mend):
    with ScriptedClaude([put("value = 3  # noqa\n"), hand_in(), put("value = 3\n"), hand_in()]) as claude:
        bench.think(claude)
        *_, result = mend()
    assert "look away" in claude.requests[2]["messages"][-1]["content"][0]["content"]
    assert result.outcome == "success"


@pytest.mark.parametrize(
    ("path", "pins", "harmless"),
    [
        ("requirements.txt", "six==1.16.0\nruff==0.9.0\n", "six==1.17.0\nmypy-extensions==1.1.0\n"),
        ("deps/dev.in", "pytest-skip-all\n", "pytestify\n"),
        ("uv.lock", '[[package]]\nname = "mypy"\nversion = "1.15.0"\n', '[[package]]\nname = "six"\nversion = "1.17.0"\n'),
    ],
    ids=["requirements", "plugin", "lock"],
)
def test_who_chooses_other_judges_is_sent_back(bench, mend, path, pins, harmless):
    script = [put("value = 3\n") + put(pins, path), hand_in(), put(harmless, path), hand_in()]
    with ScriptedClaude(script) as claude:
        bench.think(claude)
        *_, result = mend()
    assert f"choose other tools to judge this repair (pytest and its plugins, linters, type checkers): {path}" in json.dumps(
        claude.requests
    )
    assert result.outcome == "success"


def test_who_may_choose_other_judges_does(bench, mend):
    with ScriptedClaude([put("value = 3\n") + put("pytest-cov\n", "requirements.txt"), hand_in()]) as claude:
        bench.think(claude)
        *_, result = mend(may_change=["requirements*.txt"])
    assert result.outcome == "success"


def test_a_test_that_a_repair_deletes_counts_as_failed(bench, mend):
    with ScriptedClaude([use("delete", path="tests/test_app.py") + put("value = 3\n"), hand_in()] * 2) as claude:
        bench.think(claude)
        *_, error = mend(may_change=["tests/*"])
    assert [(r.metric, r.passed) for r in error.readings] == [("value", True), ("tests.total", False)]


def test_a_model_that_changes_nothing_has_used_its_repair(bench, mend):
    with ScriptedClaude([hand_in(), put("value = 3\n"), hand_in()]) as claude:
        bench.think(claude)
        first, second, result = mend()
    assert "changed nothing" in second.problem
    assert "app.py says: value = 1" in claude.requests[1]["messages"][0]["content"][0]["text"]
    assert result.outcome == "success"
    assert first.artifacts


def test_without_a_model_the_gate_fails_at_once_and_says_what_to_configure(bench, mend):
    (error,) = mend()
    assert isinstance(error, GateFailed)
    assert "models:" in error.hint


def test_a_model_that_comes_to_no_end_has_used_its_repair(bench, mend):
    with ScriptedClaude([use("list")] * 60 + [put("value = 3\n"), hand_in()]) as claude:
        bench.think(claude)
        _, second, result = mend()
    assert "took 60 steps" in second.problem
    assert result.outcome == "success"


def test_a_provider_that_fails_costs_no_repair(bench, mend):
    with ScriptedClaude([Failure(529)] * 5 + [put("value = 3\n"), hand_in()]) as claude:
        bench.think(claude)
        with pytest.raises(RepairDue):
            bench.run("validate", attempt=1)
        with pytest.raises(Exception, match="not available") as failed:
            bench.run("validate", attempt=2)
        assert failed.value.retryable
        assert bench.run("validate", attempt=3).outcome == "success"


def test_nothing_is_asked_beyond_the_budget(bench, mend):
    with ScriptedClaude([put("value = 2\n"), hand_in(), say("more")]) as claude:
        bench.think(claude, budget=Budget(None, 7_000, 0.5))
        *_, error = mend()
    assert isinstance(error, BudgetExceeded)
    assert error.problem.startswith(
        "1 of 1 gates did not pass: value >= 3: 2; repair 2 came to no end: the run's budget of 7000 tokens is spent"
    )
    assert "\nvalidate  m " in error.problem
    assert claude.requests == claude.requests[:2]


def test_a_budget_that_fits_no_call_is_not_called_spent(bench, mend):
    with ScriptedClaude([]) as claude:
        bench.think(claude, budget=Budget(None, 4_001, 0.5))
        _, error = mend()
    gate = "1 of 1 gates did not pass: value >= 3: 1; repair 1 came to no end: "
    assert error.problem.startswith(f"{gate}the run's budget of 4001 tokens is less than one call: nothing is spent, and it may take ")
    assert "\n" not in error.problem
    assert "max_tokens" in error.hint


def test_a_repair_earns_the_verdicts_of_earlier_stages_on_its_commit(bench, write):
    def small(_inputs, _ports, attempt):
        return Result(metrics={"size": len((attempt.checkout / "app.py").read_text())})

    bench.stage("scaffold", write(FILES), effect="writes")
    bench.stage("size", small, metrics=("size",), needs=("scaffold",), gates=(Gate("size", "<", 20),))
    bench.stage(
        "validate", value, metrics=("value", "tests.total"), needs=("size",), gates=(GATE,), repair=Repair(2, ()), requires=("size",)
    )
    bench.run("scaffold")
    bench.run("size")
    with ScriptedClaude([put("value = 3  # long enough to fail the other\n"), hand_in(), put("value = 3\n"), hand_in()]) as claude:
        bench.think(claude)
        with pytest.raises(RepairDue):
            bench.run("validate")
        with pytest.raises(RepairDue, match="gates of size do not pass"):
            bench.run("validate", attempt=2)
        result = bench.run("validate", attempt=3)
    assert {(v.stage, v.commit) for v in result.verdicts} == {("size", result.commit), ("validate", result.commit)}


def test_a_cleared_stage_begins_anew(bench, mend):
    with ScriptedClaude([put("value = 3\n"), hand_in(), put("value = 3\n"), hand_in()]) as claude:
        bench.think(claude)
        mend()
        with pytest.raises(RepairDue):
            bench.run("validate", attempt=4, generation="5")
        assert bench.run("validate", attempt=5, generation="5").outcome == "success"


def test_a_planted_secret_reaches_neither_the_model_nor_the_trace(bench, mend):
    canary = "canary-7f3a9b2c"
    with ScriptedClaude([put(f"value = 3  # {canary}\n") + use("read", path="app.py"), hand_in()]) as claude:
        bench.think(claude)
        bench.ports = dataclasses.replace(bench.ports, secrets=(canary, "value = 1"))
        mend()
    sent = json.dumps(
        [r["messages"][0] for r in claude.requests] + [m for r in claude.requests for m in r["messages"] if m["role"] == "user"]
    )
    assert canary not in sent
    assert "value = 1" not in sent
    assert canary not in next(bench.home.artifacts.rglob("repair.jsonl")).read_text()


@pytest.fixture
def mend_by(bench, mend):
    """The same stage, repaired by an agent that does what a function says; and what the agent was told."""

    def tries(change, *, may_change=(), inputs=None):
        def mender(inputs, _ports, attempt):
            told.append((inputs, attempt))
            return Result(summary=change(attempt.checkout) or "")

        told = []
        bench.agent(mender, effect="writes", metrics=())
        how = Repair(2, tuple(may_change), "mender", inputs or {})
        bench.stages[1] = dataclasses.replace(bench.stages[1], repair=how)
        ended = []
        for attempt in range(1, 6):
            try:
                return [*ended, bench.run("validate", attempt=attempt)], told
            except StageError as error:
                return [*ended, error], told
            except RepairDue as error:
                ended.append(error)
        raise AssertionError(ended)

    return tries


def test_an_agent_repairs_without_a_model(bench, mend_by):
    def raise_value(checkout):
        now = int((checkout / "app.py").read_text().split("=")[1])
        (checkout / "app.py").write_text(f"value = {now + 1}\n")
        return "Raise the value\n\nAs the gate wants it."

    (first, second, result), told = mend_by(raise_value, inputs={"by": "{{ run.pipeline }}"})
    assert ["repair 1 of 2" in first.problem, "repair 2 of 2" in second.problem] == [True, True]
    assert (result.metrics["value"], result.cost) == (3, None)
    assert [inputs.by for inputs, _ in told] == ["p", "p"]
    assert "app.py says: value = 1" in told[0][1].evidence["report"]
    assert "app.py says: value = 2" in told[1][1].evidence["report"]
    assert told[1][1].evidence["gates"][0]["metric"] == "value"
    message = log_of(bench, result.commit)
    assert message.startswith("validate: Raise the value\n\nAs the gate wants it.\n")
    assert "Taxiway-Agent: mender\nTaxiway-Repair: 2\n" in message + "\n"


@pytest.mark.parametrize(("fails", "repairs"), [(True, 0), (False, 1)], ids=["needs one", "may ask one"])
def test_an_agent_that_cannot_repair_without_a_model_spends_no_try(bench, mend, fails, repairs):
    def mender(inputs, _ports, attempt):
        assert inputs.how == "model"
        (attempt.checkout / "app.py").write_text("value = 3\n")
        return Result(summary="Raise it")

    bench.agent(mender, effect="writes", metrics=())

    def uses(given):
        return ModelUse("none", fails=fails and given["how"] == "model")

    bench.agents["mender"] = dataclasses.replace(bench.agents["mender"], asks="code", uses_model=uses)
    bench.stages[1] = dataclasses.replace(bench.stages[1], repair=Repair(2, (), "mender", {"how": "{{ params.how }}"}))
    ended = []
    for attempt in (1, 2):
        try:
            ended.append(bench.run("validate", attempt=attempt, params={"how": "model"}))
        except RepairDue as due:
            ended.append(due)
        except GateFailed as error:
            ended.append(error)
            break
    assert len(ended) == repairs + 1
    if fails:
        assert ended[0].problem == "1 of 1 gates did not pass: value >= 3: 1"
        assert "; nothing is repaired: policy default names no model for mender: add `models:" in ended[0].hint
    else:
        assert ended[1].outcome == "success"


def test_an_agent_may_change_what_judges_no_more_than_a_model(bench, mend_by):
    def cheat(checkout):
        (checkout / "app.py").write_text("value = 3  # noqa\n")
        (checkout / "tests" / "test_app.py").rename(checkout / "tests" / "other.py")

    (_, error), _ = mend_by(cheat)
    assert isinstance(error, StageError)
    assert "changed what judges it: tests/other.py, tests/test_app.py, app.py (1 more)" in error.problem
    assert "may_change" in error.hint
    assert "value = 3" not in bench.workspace.diff("", bench.workspace.head(bench.workspace.branch))


def test_a_link_hides_nothing_that_looks_away(mend_by):
    def cheat(checkout):
        (checkout / "app.txt").write_text("value = 3  # noqa\n")
        (checkout / "app.py").unlink()
        (checkout / "app.py").symlink_to("app.txt")

    (_, error), _ = mend_by(cheat)
    assert "changed what judges it: app.py (1 more)" in error.problem


def test_a_worker_without_the_agent_that_repairs_says_so_before_it_measures(bench, mend):
    bench.stages[1] = dataclasses.replace(bench.stages[1], repair=Repair(2, (), "absent"))
    with pytest.raises(OperatorError, match="agent 'absent' is not installed here"):
        bench.run("validate")


def test_an_agent_may_change_what_the_pipeline_names(mend_by):
    def change(checkout):
        (checkout / "app.py").write_text("value = 3\n")
        (checkout / "pyproject.toml").write_text("[project]\nname = 'y'\n")

    (_, result), _ = mend_by(change, may_change=["pyproject.toml"])
    assert result.outcome == "success"


def test_what_a_repairing_agent_leaves_out_of_git_is_no_change(mend_by):
    def cache(checkout):
        (checkout / "tests" / "empty").mkdir()
        return "looked at it"

    (_, error), told = mend_by(cache)
    assert error.problem == "1 of 1 gates did not pass: value >= 3: 1; mender repaired nothing: looked at it"
    assert len(told) == 1, "it would do the same again"


def test_a_fault_of_an_agent_is_not_tried_again(bench):
    def broken(_inputs, _ports, _attempt):
        raise ZeroDivisionError("no")

    bench.stage("m", broken)
    with pytest.raises(AgentFailed, match="ZeroDivisionError: no") as failed:
        bench.run("m")
    assert not failed.value.retryable
