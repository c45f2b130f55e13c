"""Small projects and the means to validate them: a real sandbox and real environments, installed once a session."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from taxiway.agents.base import StageAttempt
from taxiway.agents.validate import AGENT, ValidateInput
from taxiway.errors import ProjectError
from taxiway.ports import Cancellation, Environment, Ports, Sandbox
from taxiway.records import Result
from taxiway.stop import Stop

MANIFEST = "name: tiny\n"
CODE = '''\
"""Arithmetic."""


def double(number: int) -> int:
    """Return twice the number."""
    if number < 0:
        return -double(-number)
    return number + number
'''
TEST = """\
from tiny import double


def test_double() -> None:
    assert double(2) == 4


def test_negative() -> None:
    assert double(-2) == -4
"""
HONEST = {".taxiway.yaml": MANIFEST, "src/tiny/__init__.py": CODE, "tests/test_tiny.py": TEST}


def write(root: Path, files: Mapping[str, str]) -> Path:
    """A checkout of these files."""
    for path, text in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root


@dataclass(frozen=True)
class Installed:
    """Environments that are there already."""

    environment: Environment
    pinned: Environment

    def project(self, checkout: Path, stop: Cancellation) -> Environment:
        return self.environment

    def tools(self, stop: Cancellation) -> Environment:
        return self.pinned

    def tool(self, name: str, version: str, stop: Cancellation) -> Environment:
        raise ProjectError(f"{name} {version} is not there")


@dataclass(frozen=True)
class Folder:
    """A workspace whose only commit is a folder."""

    place: Path
    url: str = ""
    branch: str = "run"

    def start(self) -> str:
        return "1" * 40

    def checkout(self, commit: str, into: Path) -> None:
        shutil.copytree(self.place, into, dirs_exist_ok=True)


@dataclass(frozen=True)
class Bench:
    """Validates folders."""

    ports: Ports
    scratch: Path
    reports: list[Path] = field(default_factory=list)

    def validate(
        self, files: Mapping[str, str], *, before: Mapping[str, str] | None = None, timeout_s: float = 120, **inputs: Any
    ) -> Result:
        """The Result for a project of these files, that began as `before`."""
        root = Path(self.scratch)
        checkout, start, reports = root / "checkout", root / "start", root / "reports"
        for place in (checkout, start, reports):
            place.mkdir()
        write(checkout, files)
        write(start, before or {})
        return self.run(checkout, reports, start, timeout_s, **inputs)

    def run(self, checkout: Path, reports: Path, start: Path, timeout_s: float = 120, **inputs: Any) -> Result:
        stop = Stop()
        stop.arm(timeout_s, None)
        stage = StageAttempt(
            pipeline="p",
            run="r",
            name="validate",
            attempt=1,
            commit="2" * 40,
            checkout=checkout,
            reports=reports,
            results={},
            stop=stop,
            log=logging.getLogger("taxiway.test"),
            verify=_never,
        )
        ports = replace(self.ports, workspace=Folder(start))
        return AGENT.run(ValidateInput(**inputs), ports, stage)

    def with_sandbox(self, sandbox: Sandbox) -> Bench:
        return replace(self, ports=replace(self.ports, sandbox=sandbox))

    def with_environments(self, environments: Any) -> Bench:
        return replace(self, ports=replace(self.ports, environments=environments))


def _never(commit: str) -> NoReturn:
    raise AssertionError(commit)


def failing(result: Result, checks: str = "") -> dict[str, str]:
    """The gates that do not pass: validate's own for what was checked, and a line coverage of 80 %."""
    checked = {name.split(".")[0] for name in (*result.metrics, *result.unmeasured)}
    gates = (*AGENT.default_gates(), "coverage.line >= 80")
    wanted = [g for g in gates if (g.split(".")[0] in checks if checks else g.split(".")[0] in checked)]
    return {g: why for g in wanted if (why := _why(g, result))}


def _why(gate: str, result: Result) -> str:
    metric, operator, value = gate.split()
    if metric not in result.metrics:
        return f"not measured: {result.unmeasured[metric]}"
    measured = result.metrics[metric]
    passed = {">=": measured >= float(value), "==": measured == float(value)}[operator]
    return "" if passed else f"{measured:g}"
