"""What a run looks like on a screen and in a log, from records."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from taxiway.cli.summary import print_summary
from taxiway.cli.watching import Lines, LiveTable, Stage
from taxiway.integrations.airflow_rest import AirflowClient, Credentials, Run, Task
from taxiway.records import Cost, Reading, Result

RUN = Run("d", "r", "running", 100.0, 0.0, {})
ENDED = Run("d", "r", "failed", 100.0, 112.5, {})


def task(name, state, tries=1):
    return Task(name, state, tries, 100.0, 104.2 if state in ("success", "failed") else 0.0)


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=100)


def test_a_line_for_each_change(console):
    view = Lines(console)
    looks = [
        [Stage("a"), Stage("b")],
        [Stage("a", task("a", "queued")), Stage("b")],
        [Stage("a", task("a", "running")), Stage("b")],
        [Stage("a", task("a", "running")), Stage("b")],
        [Stage("a", task("a", "up_for_retry")), Stage("b")],
        [Stage("a", task("a", "running", 2)), Stage("b")],
        [Stage("a", task("a", "success", 2), Result(summary="did [x]\nit")), Stage("b", task("b", "running"))],
        [Stage("b", task("b", "failed"), Result(outcome="failed", summary="it is\nbroken\n  hint: mend\nit"))],
        [Stage("c", task("c", "upstream_failed", 0))],
    ]
    with view:
        for stages in looks:
            view.show(RUN, stages)
    said = [line.split(maxsplit=1)[1] for line in console.file.getvalue().splitlines()]
    assert said == [
        "a: running",
        "a: waiting to try again",
        "a: running, try 2",
        "a: success, try 2 in 4.2 s: did [x] it",
        "b: running",
        "b: failed in 4.2 s: it is broken",
        "mend it",
        "c: not run",
    ]


def test_repairs_are_lines_as_the_run_goes_and_in_its_summary(console):
    due = Result(outcome="failed", summary="repair 1 of 2 comes next: 1 of 1 gates did not pass: value >= 3: 1")
    again = due.model_copy(update={"summary": due.summary.replace("1 of 2", "2 of 2"), "repairs": ("abc Raise it",)})
    done = Result(summary="measured", repairs=("abc Raise it", "def Raise it [more]"))
    looks = [
        Stage("a", task("a", "up_for_retry"), due),
        Stage("a", task("a", "running", 2)),
        Stage("a", task("a", "up_for_retry", 2), again),
        Stage("a", task("a", "running", 3)),
        Stage("a", task("a", "success", 3), done),
    ]
    view = Lines(console)
    for stage in looks:
        view.show(RUN, [stage])
    said = [line.split(maxsplit=1)[1] for line in console.file.getvalue().splitlines()]
    assert said == [
        "a: waiting to try again: repair 1 of 2 comes next: 1 of 1 gates did not pass: value >= 3: 1",
        "a: running, try 2",
        "a: repair 1 was commit abc Raise it",
        "a: waiting to try again, try 2: repair 2 of 2 comes next: 1 of 1 gates did not pass: value >= 3: 1",
        "a: running, try 3",
        "a: repair 2 was commit def Raise it [more]",
        "a: success, try 3 in 4.2 s: measured",
    ]
    with AirflowClient("http://127.0.0.1:1", Credentials("t")) as client:
        print_summary(console, client, ENDED, looks[-1:], log_of=str)
    assert "repairs   a: 2\n          abc Raise it\n          def Raise it [more]\n" in console.file.getvalue()


def test_a_log_has_all_that_a_stage_said_and_a_table_two_lines_of_it(console):
    long = f"began {'so ' * 60}and ended"
    stage = Stage("a", task("a", "success"), Result(summary=long))
    with Lines(console) as view:
        view.show(RUN, [stage])
    assert console.file.getvalue().endswith(f"a: success in 4.2 s: {long}\n")
    terminal = Console(file=io.StringIO(), width=100, force_terminal=True)
    with LiveTable(terminal) as view:
        view.show(RUN, [stage])
    assert "began so so" in terminal.file.getvalue()
    assert "and ended" not in terminal.file.getvalue()


def test_a_table_on_a_terminal():
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with LiveTable(console) as view:
        view.say("hello [x]")
        view.show(RUN, [Stage("a", task("a", "running"))])
    said = console.file.getvalue()
    assert "hello [x]" in said
    assert "running" in said


def test_the_summary(console):
    gates = (
        Reading(metric="coverage.line", wanted=">= 80", measured=71.5, passed=False),
        Reading(metric="types.errors", wanted="== 0", measured=None, passed=False, blocking=False, note="mypy [crashed]"),
        Reading(metric="tests.total", wanted=">= 1", measured=12, passed=True),
    )
    artifacts = {"reports": "file:///a%20b/index.txt", "log": "s3://bucket/x"}
    stages = [
        Stage("good", task("good", "success"), Result(commit="c" * 40, outputs={"url": "http://127.0.0.1:1234"}, artifacts=artifacts)),
        Stage("bad", task("bad", "failed"), Result(outcome="failed", gates=gates, summary="GateFailed: coverage [low]")),
        Stage("soft", task("soft", "success"), Result(outcome="failed", summary="went on")),
        Stage("stopped", task("stopped", "failed"), Result(outcome="cancelled", summary="the run was stopped")),
        Stage("never", Task("never", "upstream_failed", 0, 0.0, 0.0)),
    ]
    with AirflowClient("http://127.0.0.1:1", Credentials("t")) as client:  # asked nothing: every reason is in a Result
        print_summary(console, client, ENDED, stages, log_of=lambda stage: f"/logs/{stage.id}/{'long' * 40}")
    said = console.file.getvalue()
    lines = {" ".join(line.split()) for line in said.splitlines()}
    assert {
        "bad coverage.line >= 80 71.5 failed",
        "bad types.errors == 0 not measured failed, does not block (mypy [crashed])",
        "bad tests.total >= 1 12 passed",
        "bad failed: GateFailed: coverage [low]",
        f"log: /logs/bad/{'long' * 40}",
        "soft failed: went on",
        "run d r: failed in 12.5 s",
        f"commit {'c' * 40}",
        "reports good/log s3://bucket/x",
        "good/reports /a b/index.txt",
        "never not run",
        "stopped cancelled 1 4.2 the run was stopped",
    } <= lines
    assert "stopped failed" not in said
    assert "service http://127.0.0.1:1234" not in lines, "after a failed run it may be gone"


def test_the_summary_names_the_service_of_a_run_that_succeeded(console):
    stages = [Stage("good", task("good", "success"), Result(outputs={"url": "http://127.0.0.1:1234"}))]
    with AirflowClient("http://127.0.0.1:1", Credentials("t")) as client:
        print_summary(console, client, replace(ENDED, state="success"), stages, log_of=str)
    assert "service   http://127.0.0.1:1234" in console.file.getvalue()


def test_the_summary_says_what_models_cost(console):
    cost = Cost(calls=2, input_tokens=100, output_tokens=20, cached_tokens=50, usd=0.25, models=("m",))
    failed = Result(outcome="failed", summary="no", cost=cost.model_copy(update={"models": ("m", "n"), "replayed": 1}))
    stages = [Stage("good", task("good", "success"), Result(cost=cost)), Stage("bad", task("bad", "failed"), failed)]
    with AirflowClient("http://127.0.0.1:1", Credentials("t")) as client:
        print_summary(console, client, ENDED, stages, log_of=str, budget="5 USD")
    said = "models    4 calls (1 replayed) of m, n: 300 tokens read (100 cached), 40 written, 0.5000 USD of 5 USD"
    assert f"{said}; `taxiway cost d` says by stage" in console.file.getvalue()
