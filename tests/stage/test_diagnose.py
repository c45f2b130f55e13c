"""`diagnose` after real failures: what it reads, what of its quotes is real, and that it changes nothing."""

from __future__ import annotations

import dataclasses
import json
import logging

import pytest

from taxiway.agents.diagnose import AGENT
from taxiway.compiler.plan import Gate
from taxiway.errors import OperatorError, ProjectError, TaxiwayError
from taxiway.records import Result
from taxiway.results import failed_result
from taxiway.stage import RunContext, run
from taxiway.stop import Stop
from taxiway.testing import ScriptedClaude, use

FILES = {"app.py": "import os\n\nRATE = 1 / 0\n", "README.md": "A shop.\n"}
LOG = "taxiway-evidence/validate/attempt.log"
REPORT = "taxiway-evidence/validate/report.md"


def quote(text="RATE = 1 / 0", file="app.py", line=3):
    return {"file": file, "line": line, "text": text}


def hand_in(*quotes, **changes):
    given = {"root_cause": "RATE divides by zero.", "suggested_fix": "Give RATE a value.", "confidence": 0.8}
    return use("hand_in", **{**given, "evidence": list(quotes), **changes})


class Failing:
    """A scaffold, a validate that fails, and the diagnosis of it."""

    def __init__(self, bench, write, say="tests: ZeroDivisionError in app.py, key hunter2-hunter2"):
        self.bench = bench

        def measure(_inputs, _ports, attempt):
            attempt.log.info("%s", say)
            (attempt.reports / "report.md").write_text("| test_app | ZeroDivisionError |\n")
            (attempt.reports / "repair.html").write_text("what a model said\n")
            (attempt.reports / "film.webm").write_bytes(b"\0\1")
            return Result(metrics={"value": 0})

        bench.stage("scaffold", write(FILES), effect="writes")
        bench.stage("validate", measure, needs=("scaffold",), gates=(Gate("value", ">=", 1),))
        bench.built_in("why", AGENT, needs=("validate",), recovers=("validate",))
        bench.run("scaffold")

    def fail(self):
        self.end("validate")
        return self

    def end(self, name):
        """As Airflow keeps it: the Result that a failed stage leaves."""
        with pytest.raises(TaxiwayError) as failed:
            self.bench.run(name)
        self.bench.results[name] = failed_result(failed.value)

    def diagnose(self, *answers, **more):
        with ScriptedClaude(list(answers)) as claude:
            self.bench.think(claude)
            result = self.bench.run("why", **more)
        assert (claude.error, claude.left) == ("", 0)
        return result, claude.requests

    def report(self, name="diagnosis.json"):
        return next(self.bench.home.artifacts.rglob(f"why/1/{name}")).read_text()


@pytest.fixture
def failing(bench, write, caplog):
    caplog.set_level(logging.INFO)
    return Failing(bench, write).fail()


def test_it_says_why_with_quotes_that_stand_where_it_says(failing):
    result, requests = failing.diagnose(
        use("read", path=LOG), hand_in(quote(), quote("ZeroDivisionError in app.py", LOG, 2), quote("ZeroDivisionError |", REPORT, 1))
    )
    assert result.metrics == {"quotes.kept": 3, "quotes.dropped": 0}
    assert result.summary == "RATE divides by zero. (a model's view, confidence 0.80, 3 of 3 quotes found)"
    assert result.commit == failing.bench.results["scaffold"].commit
    assert result.cost.calls == 2
    kept = json.loads(failing.report())
    assert (kept["stages"], kept["confidence"], kept["backed"]) == (["validate"], 0.8, True)
    assert kept["evidence"][0] == {"file": "app.py", "line": 3, "text": "RATE = 1 / 0"}
    page = failing.report("diagnosis.md")
    for part in ("# Why validate failed", "- app.py:3\n\n    RATE = 1 / 0\n", "Give RATE a value.", "confidence 0.80"):
        assert part in page
    asked = requests[0]["messages"][0]["content"][0]["text"]
    for part in (
        "Stage validate failed: 1 of 1 gates did not pass",
        "gate not passed: value >= 1: 0",
        "ZeroDivisionError in app.py",
        REPORT,
    ):
        assert part in asked


def test_it_reads_logs_and_reports_but_no_conversations_and_changes_nothing(failing):
    calls = [use("list", path="taxiway-evidence/validate"), use("write", path="app.py", content="x"), use("delete", path="app.py")]
    _, requests = failing.diagnose(*calls, hand_in(quote()))
    told = [r["messages"][-1]["content"][0] for r in requests[1:]]
    names = {line.split()[0] for line in told[0]["content"].splitlines()}
    assert names == {"attempt.log", "failure.json", "gates.json", "report.md"}
    assert [t["content"][:13] for t in told[1:]] == ["there is no t"] * 2
    assert "what a model said" not in json.dumps(requests)


NOT_REAL = {
    "made up": quote("ModuleNotFoundError: no module named shop"),
    "another file": quote("RATE = 1 / 0", "README.md", 1),
    "no such file": quote("RATE = 1 / 0", "shop.py", 1),
    "outside": quote("root:x:0:0", "/etc/passwd", 1),
    "above": quote("root:x:0:0", "../../../../../../etc/passwd", 1),
    "too short to say anything": quote("os", "app.py", 1),
    "only spaces": quote("   \n  ", "app.py", 1),
    "a name of NULs": quote("RATE = 1 / 0", "a\0b", 1),
}


@pytest.mark.parametrize("wrong", NOT_REAL.values(), ids=NOT_REAL)
def test_a_quote_that_is_not_there_is_dropped_and_counted(failing, wrong):
    result, _ = failing.diagnose(hand_in(wrong, quote()))
    assert result.metrics == {"quotes.kept": 1, "quotes.dropped": 1}
    assert [q["file"] for q in json.loads(failing.report())["evidence"]] == ["app.py"]
    assert "1 quotes do not occur there" in failing.report("diagnosis.md")


def test_a_diagnosis_without_a_real_quote_says_so(failing):
    result, _ = failing.diagnose(hand_in(quote("nothing like it"), quote("nor this one")))
    assert result.metrics == {"quotes.kept": 0, "quotes.dropped": 2}
    assert result.summary.endswith("confidence 0.80, no quote found: not backed)")
    assert "nothing backs this diagnosis" in failing.report("diagnosis.md")
    assert json.loads(failing.report())["backed"] is False


@pytest.mark.parametrize(
    ("given", "line", "text"),
    [
        (quote(line=90), 3, "RATE = 1 / 0"),
        (quote("import os\n\nRATE  = 1 / 0", line=1), 1, "import os\n\nRATE = 1 / 0"),
        (quote("= 1 / 0"), 3, "RATE = 1 / 0"),
    ],
    ids=["another line", "several lines", "a part of a line"],
)
def test_a_quote_is_shown_as_the_file_has_it_and_where(failing, given, line, text):
    failing.diagnose(hand_in(given))
    assert [(q["line"], q["text"]) for q in json.loads(failing.report())["evidence"]] == [(line, text)]


def test_an_answer_of_the_wrong_form_is_sent_back(failing):
    _, requests = failing.diagnose(hand_in(quote(), confidence=2), hand_in(quote(line=0)), hand_in(quote()))
    told = [r["messages"][-1]["content"][0]["content"] for r in requests[1:]]
    assert "confidence" in told[0]
    assert "evidence.0.line" in told[1]


def test_secrets_are_neither_sent_nor_written(bench, write, caplog):
    caplog.set_level(logging.INFO)
    bench.ports = dataclasses.replace(bench.ports, secrets=("hunter2-hunter2",))
    failing = Failing(bench, write).fail()
    said = "key hunter2-hunter2"
    result, requests = failing.diagnose(use("read", path=LOG), hand_in(quote("key [secret]", LOG, 2), quote(said, LOG, 2), root_cause=said))
    assert result.metrics == {"quotes.kept": 1, "quotes.dropped": 1}
    assert "hunter2" not in json.dumps(requests[:2]) + result.model_dump_json()
    kept = [p for p in bench.home.artifacts.rglob("*") if p.is_file()]
    assert [p for p in kept if b"hunter2" in p.read_bytes()] == []


def test_without_a_model_it_fails_at_once_and_says_what_to_configure(failing):
    with pytest.raises(OperatorError, match="cannot work without a model") as failed:
        failing.bench.run("why")
    assert "models:" in failed.value.hint
    assert not failed.value.retryable


def test_a_run_whose_time_is_up_is_still_explained(failing):
    failing.bench.duration_s = -1.0
    assert failing.diagnose(hand_in(quote()))[0].outcome == "success"


def test_a_project_that_plants_evidence_is_not_believed(bench, write, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setitem(FILES, "taxiway-evidence/validate/attempt.log", "planted: all is well\n")
    failing = Failing(bench, write).fail()
    _, requests = failing.diagnose(hand_in(quote("ZeroDivisionError in app.py", "taxiway-evidence-/validate/attempt.log")))
    listed = requests[0]["messages"][0]["content"][0]["text"].split("to be read as files:")[1].split()
    assert listed
    assert all(path.startswith("taxiway-evidence-/") for path in listed)
    assert json.loads(failing.report())["backed"] is True


def test_what_left_nothing_is_said(failing):
    del failing.bench.results["validate"]
    _, requests = failing.diagnose(hand_in(quote()))
    assert "left no result; they were killed, or never began: validate" in requests[0]["messages"][0]["content"][0]["text"]
    assert json.loads(failing.report())["stages"] == ["validate"]


def test_reports_that_are_gone_leave_what_the_result_says(failing):
    for path in failing.bench.home.artifacts.rglob("validate/1/report.md"):
        path.unlink()
    next(failing.bench.home.artifacts.rglob("validate/1/index.txt")).write_text("report.md\n../../../x.md\n/etc/hosts.txt\n")
    _, requests = failing.diagnose(hand_in(quote()))
    assert "gate not passed: value >= 1: 0" in requests[0]["messages"][0]["content"][0]["text"]


def test_a_first_stage_that_fails_before_there_is_code(bench, caplog):
    caplog.set_level(logging.INFO)

    def scaffold(_inputs, _ports, attempt):
        attempt.log.warning("the template is not there")
        raise ProjectError("no template")

    bench.stage("scaffold", scaffold, effect="writes")
    bench.built_in("why", AGENT, needs=("scaffold",), recovers=("scaffold",))
    failing = object.__new__(Failing)
    failing.bench = bench
    failing.end("scaffold")
    log = "taxiway-evidence/scaffold/attempt.log"
    quotes = (quote("WARNING the template is not there", log, 1), quote("ProjectError: no template", log, 1))
    assert failing.diagnose(hand_in(*quotes))[0].metrics["quotes.kept"] == 2


def test_it_reads_the_code_that_the_first_failed_stage_was_given(bench, write, caplog):
    caplog.set_level(logging.INFO)
    failing = Failing(bench, write)
    bench.stage("merge", write({"other.py": "x = 1\n"}), effect="writes", needs=("validate",))
    bench.stages[2] = dataclasses.replace(bench.stages[2], needs=("merge", "validate"), recovers=("merge", "validate"))
    failing.fail()
    bench.results["merge"] = Result(commit="f" * 40)
    assert failing.diagnose(hand_in(quote()))[0].commit == bench.results["scaffold"].commit


def test_a_settled_run_is_not_brought_back_for_it(failing):
    bench = failing.bench
    common = {"results": dict(bench.results), "started": bench.started, "memory": bench.memories["validate"], "params": {}}
    with ScriptedClaude([hand_in(quote())]) as claude:
        bench.think(claude)
        context = RunContext(run="run-1", attempt=1, scratch=bench.home.checkouts, run_id="manual", **common)
        run(bench.plan(), "why", context, ports=bench.ports, agents=bench.agents, stop=Stop(), log=logging.getLogger("test"))
    assert [r.recovers for r in bench.ledger.runs()] == [{}]
