"""A run's model traffic, recorded once and replayed in fresh homes: the same code, and nobody is asked."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import anthropic
import pytest

from taxiway.compiler.plan import Gate, Repair
from taxiway.errors import OperatorError, RepairDue
from taxiway.integrations.claude import RECORD_VARIABLE, REPLAY_VARIABLE, ClaudeModels
from taxiway.records import Result
from taxiway.testing import ScriptedClaude, use

FILES = {"app.py": "value = 1\n", "README.md": "# A project\n", "pyproject.toml": "[project]\nname = 'x'\n"}
DONE = use("hand_in", cause="It was too small.", summary="Raise the value")
SCRIPT = [use("write", path="app.py", content="value = 2\n"), use("check", name="validate"), DONE]
SCRIPT += [use("read", path="app.py") + use("write", path="app.py", content="value = 3\n"), DONE]


def value(_inputs, _ports, attempt):
    """Its report holds what the reports of real checks hold: folders, times, addresses."""
    text = (attempt.checkout / "app.py").read_text()
    (attempt.reports / "report.md").write_text(
        f"{attempt.checkout}/app.py:1: {text}<App at 0x{random.getrandbits(44) | 1 << 40:x}> on {attempt.commit}\n"
        f"1 failed in {random.random():.3f}s at {time.strftime('%H:%M:%S')}"
    )
    return Result(metrics={"value": float(text.split("=")[1])})


def validated(bench, models, write, files=None):
    """The result of `validate`, with its repairs, in a fresh home; and the bench."""
    bench.stage("scaffold", write(files or FILES), effect="writes")
    bench.stage("validate", value, needs=("scaffold",), gates=(Gate("value", ">=", 3),), repair=Repair(2, ()))
    bench.run("scaffold")
    with ScriptedClaude([]) as nobody:
        bench.think(nobody)
    bench.ports = replace(bench.ports, models=models)
    for attempt in (1, 2, 3):
        try:
            return bench.run("validate", attempt=attempt), bench
        except RepairDue:
            pass
    raise AssertionError("a third repair is due")


def no_client():
    raise AssertionError("a replay asks nobody")


@pytest.fixture
def fresh(bench, tmp_path):
    """A bench in a home of its own."""
    return lambda name: type(bench)(tmp_path / name)


@pytest.fixture
def recorded(tmp_path, write, fresh):
    tape = tmp_path / "tape"
    with ScriptedClaude(SCRIPT) as claude, anthropic.Anthropic(api_key="test", base_url=claude.url) as client:
        models = ClaudeModels(lambda: client, missing="", environ={RECORD_VARIABLE: str(tape)})
        result, bench = validated(fresh("first"), models, write)
    assert (claude.error, claude.left) == ("", 0)
    return tape, result, bench


def test_the_same_code_twice_and_nobody_is_asked(fresh, write, recorded):
    tape, first, bench = recorded
    models = ClaudeModels(no_client, missing="", environ={REPLAY_VARIABLE: str(tape)})
    again, third = (validated(fresh(name), models, write) for name in ("again", "third"))
    trees = {b.workspace._git("rev-parse", f"{r.commit}^{{tree}}").text.strip() for r, b in ((first, bench), again, third)}
    assert len(trees) == 1
    assert first.cost.usd > 0
    for result, one in (again, third):
        assert (result.cost.calls, result.cost.replayed, result.cost.usd) == (5, 5, 0)
        assert (result.cost.input_tokens, result.cost.output_tokens) == (first.cost.input_tokens, first.cost.output_tokens)
        assert {c.state for c in one.ledger.spending("run-1")} == {"replayed"}
        assert "Taxiway-Cost: 0.000000 USD" in one.workspace._git("log", "-1", "--format=%B", result.commit).text


def test_another_project_is_another_conversation(fresh, write, recorded):
    models = ClaudeModels(no_client, missing="", environ={REPLAY_VARIABLE: str(recorded[0])})
    bench = fresh("other")
    # Not "after 2 repairs": the first question that has no answer ends it.
    with pytest.raises(OperatorError, match=r"^the replay has no recorded answer in .*A project") as error:
        validated(bench, models, write, {**FILES, "README.md": "# Another project\n"})
    assert "record it again" in error.value.hint
    assert len(bench.ledger.spending("run-1")) == 1
