"""Where there is nothing to believe there is no number, and the reason stands in its place."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from projects import HONEST, Bench, Installed

from taxiway.agents.base import StageAttempt
from taxiway.agents.validate import AGENT, ValidateInput
from taxiway.agents.validate.checks import CHECKS
from taxiway.errors import Cancelled, ProjectError
from taxiway.ports import Cancellation, Command, CommandResult, Environment
from taxiway.stop import Stop


def test_a_missing_tool(bench: Bench, installed: Installed, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    (empty / "bin").mkdir(parents=True)
    result = bench.with_environments(replace(installed, pinned=Environment(empty, "", cached=True))).validate(HONEST, checks=list(CHECKS))
    assert not [m for m in result.metrics if not m.startswith(("changes.", "duplication.", "dependencies.", "licences."))]
    assert result.unmeasured["lint.errors"] == "ruff is not in Taxiway's tools"
    assert result.unmeasured["types.errors"] == "mypy is not in Taxiway's tools"
    assert set(AGENT.metrics) == set(result.metrics) | set(result.unmeasured)


@dataclass(frozen=True)
class Uninstallable(Installed):
    def project(self, checkout: Path, stop: Cancellation) -> Environment:
        raise ProjectError("no version of ghost")


def test_an_environment_that_cannot_be_installed(bench: Bench, installed: Installed) -> None:
    result = bench.with_environments(Uninstallable(installed.environment, installed.pinned)).validate(HONEST)
    assert result.metrics["lint.errors"] == 0
    assert "no version of ghost" in result.unmeasured["tests.total"]
    assert "no version of ghost" in result.unmeasured["types.errors"]


@dataclass(frozen=True)
class Canned:
    """A sandbox at the edge: what tools might answer, without them."""

    result: CommandResult
    isolated: bool = True

    def run(self, command: Command, stop: Cancellation) -> CommandResult:
        return self.result


def answer(**changes: object) -> CommandResult:
    return replace(CommandResult((), 0, "", "", 0.1), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (answer(ended="timeout"), "took longer than"),
        (answer(ended="memory", exit_code=-9), "too much memory"),
        (answer(ended="processes", exit_code=-9), "too many processes"),
        (answer(exit_code=-11), "crashed with exit code -11"),
        (answer(exit_code=127, stderr="not found"), "not found"),
        (answer(truncated=True), "more than can be read"),
        (answer(stdout="no json"), ""),
        (answer(stdout='{"a": 1}'), ""),
        (answer(stdout="[" * 100_000), ""),
    ],
    ids=["timeout", "memory", "processes", "signal", "missing", "truncated", "no json", "other json", "deep"],
)
def test_a_tool_that_does_not_do_its_work(bench: Bench, result: CommandResult, why: str) -> None:
    measured = bench.with_sandbox(Canned(result)).validate(HONEST, checks=["lint", "tests"])
    assert {m.split(".")[0] for m in measured.metrics} <= {"changes"}
    assert why in measured.unmeasured["lint.errors"]


def test_tests_that_hang(bench: Bench) -> None:
    files = HONEST | {"tests/test_hang.py": "import time\n\n\ndef test_hang() -> None:\n    time.sleep(600)\n"}
    result = bench.validate(files, checks=["tests"], timeout_s=12)
    assert "tests.total" not in result.metrics
    assert "pytest took longer than" in result.unmeasured["tests.total"]


def test_a_stopped_run_is_cancelled_and_not_failed(bench: Bench, tmp_path: Path, installed: Installed) -> None:
    started = threading.Event()

    @dataclass(frozen=True)
    class Waiting:
        isolated: bool = True

        def run(self, command: Command, stop: Cancellation) -> CommandResult:
            started.set()
            stop.wait(300)
            raise AssertionError

    for name in ("checkout", "reports"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkout/.taxiway.yaml").write_text("name: tiny\n")
    (tmp_path / "checkout/a.py").write_text("x = 1\n")
    stop = Stop()
    stop.arm(400, None)
    thread = threading.Thread(target=lambda: (started.wait(200), stop.cancel()))
    thread.start()
    stage = StageAttempt(
        "p", "r", "v", 1, "", tmp_path / "checkout", tmp_path / "reports", {}, stop, logging.getLogger("taxiway.test"), lambda _: ()
    )
    with pytest.raises(Cancelled):
        AGENT.run(ValidateInput(), replace(bench.ports, sandbox=Waiting()), stage)
    thread.join()


def test_a_project_without_a_manifest(bench: Bench) -> None:
    with pytest.raises(ProjectError, match=r"\.taxiway\.yaml"):
        bench.validate({"a.py": "x = 1\n"})
