"""Code that a model may have written, where nothing isolates it: a whole process without bubblewrap, as a worker would be."""

import os
import shutil
import subprocess
import sys

import pytest

POLICY = "policy: default\nunisolated: true\n"
PIPELINE = "pipeline: p\npolicy: default\nstages:\n  probe: {agent: probe, gates: [code == 0]%s}\n"
PROGRAM = """
import sys
from pathlib import Path
from taxiway.agents.base import Agent, AgentInput, Metric
from taxiway.errors import TaxiwayError
from taxiway.ports import Command
from taxiway.records import Result
from taxiway.testing import run_stages

def probe(inputs, ports, stage):
    done = ports.sandbox.run(Command(("env",), stage.checkout), stage.stop)
    return Result(metrics={"code": done.exit_code})

agent = Agent(name="probe", summary="", inputs=AgentInput, run=probe, metrics={"code": Metric("exit code")})
folder, pipeline = Path(sys.argv[1]), sys.argv[2]
try:
    print(run_stages(pipeline, folder=folder, agents={"probe": agent}, trusted=True)["probe"].outcome)
except TaxiwayError as error:
    print(type(error).__name__, error.problem, error.hint, sep=" | ")
"""
MODEL = "models: {model: claude-sonnet-5-5}\n"
REPAIR = ", repair: {attempts: 1}"


@pytest.mark.parametrize(
    ("repair", "models", "expected"),
    [("", MODEL, "success"), (REPAIR, "", "success"), (REPAIR, MODEL, "NotTrusted | this code is not trusted")],
    ids=["no repair", "no model", "a model repairs"],
)
def test_without_isolation_what_a_model_may_write_is_refused(tmp_path, repair, models, expected):
    programs, work = tmp_path / "bin", tmp_path / "work"
    programs.mkdir()
    for name in ("git", "env"):
        (programs / name).symlink_to(str(shutil.which(name)))
    (work / "policies").mkdir(parents=True)
    (work / "policies" / "default.yaml").write_text(POLICY + models)
    argv = [sys.executable, "-c", PROGRAM, str(work), PIPELINE % repair]
    environ = {n: v for n, v in os.environ.items() if n == "HOME"} | {"PATH": str(programs)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(expected)
    assert ("install bubblewrap" in done.stdout) == (expected != "success")
