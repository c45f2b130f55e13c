"""`run_stages` with a scripted model, as users' own tests call it."""

from __future__ import annotations

import pytest

from taxiway.agents.base import Agent, AgentInput, Metric
from taxiway.errors import GateFailed, TaxiwayError
from taxiway.records import Result
from taxiway.testing import ScriptedClaude, reports_of, run_stages, use

PIPELINE = "pipeline: p\npolicy: p\nstages: {value: {agent: value, gates: [value >= 3], repair: {attempts: 1}}}\n"
POLICY = "policy: p\nmodels: {model: m, prices: {m: {input: 1, output: 10, cache_write: 1, cache_read: 0.1}}}\n"


def value(_inputs, _ports, attempt):
    return Result(metrics={"value": float((attempt.checkout / "app.py").read_text().split("=")[1])})


AGENT = Agent("value", "", AgentInput, value, metrics={"value": Metric("a number")})


def policies(folder):
    (folder / "policies").mkdir()
    (folder / "policies" / "p.yaml").write_text(POLICY)
    return folder


def test_a_repair_is_one_more_try(tmp_path):
    script = [use("write", path="app.py", content="value = 3"), use("hand_in", cause="It was small.", summary="Raise the value")]
    with ScriptedClaude(script) as claude:
        results = run_stages(PIPELINE, folder=policies(tmp_path), files={"app.py": "value = 1"}, agents={"value": AGENT}, models=claude)
    assert (claude.error, claude.left) == ("", 0)
    assert results["value"].metrics == {"value": 3}
    assert "value >= 3: 1" in claude.requests[0]["messages"][0]["content"][0]["text"]
    assert (reports_of(tmp_path, "value", 2) / "repair.html").is_file()


def test_what_the_last_try_raises_is_raised(tmp_path):
    script = [use("write", path="app.py", content="value = 2"), use("hand_in", cause="It was small.", summary="Raise the value")]
    with ScriptedClaude(script) as claude, pytest.raises(GateFailed, match="after 1 repair"):
        run_stages(PIPELINE, folder=policies(tmp_path), files={"app.py": "value = 1"}, agents={"value": AGENT}, models=claude)


def test_what_keeps_failing_ends(tmp_path):
    pipeline = PIPELINE.replace("repair: {attempts: 1}", "retries: {attempts: 2}")
    with pytest.raises(TaxiwayError, match="Failed to connect"):
        run_stages(pipeline, folder=policies(tmp_path), repository="http://127.0.0.1:9/gone.git", agents={"value": AGENT})
