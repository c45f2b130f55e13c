"""What the checks share: their place to work, running a tool, reading what it wrote, and saying why nothing was measured."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from taxiway.agents.validate.files import copy_project
from taxiway.agents.validate.finding import Finding
from taxiway.agents.validate.lists import Licences
from taxiway.agents.validate.toolset import Tool, Toolset
from taxiway.errors import ProjectError
from taxiway.manifest import Manifest, read_inside
from taxiway.ports import Advisories, Cancellation, Command, CommandResult, Environment, Sandbox, Servers
from taxiway.project import Project

__all__ = ["Context", "Measured", "NotMeasured", "count", "load_json", "read_report", "tail"]

_TIME_SHARE = 0.8
_REPORT_BYTES = 64_000_000


class NotMeasured(Exception):
    """A check has no number to give; the text says why, in one line."""


@dataclass
class Measured:
    """What one check found: numbers, the reason for each number that is missing, and what the numbers count. `notes` say
    what people should know and no finding says."""

    metrics: dict[str, float] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def missing(self, names: Sequence[str], why: str) -> None:
        """Say why these were not measured; a number that is there stays."""
        for name in names:
            if name not in self.metrics:
                self.unmeasured.setdefault(name, why)

    def withdraw(self, names: Sequence[str], why: str) -> None:
        """Take back numbers that turned out not to be trustworthy."""
        for name in names:
            self.metrics.pop(name, None)
            self.unmeasured[name] = why


@dataclass(frozen=True)
class Context:
    """One attempt as its checks see it. `work` is private to the attempt and new; `reports` is what people read later.
    `hidden` are secrets that the tests were given, and that nobody shall read there."""

    checkout: Path
    project: Project
    strict: bool
    sandbox: Sandbox
    tools: Environment
    toolset: Toolset
    environment: Environment | None
    work: Path
    reports: Path
    stop: Cancellation
    log: logging.Logger
    licences: Licences = field(default_factory=Licences)
    advisories: Advisories | None = None
    servers: Servers | None = None
    hidden: set[str] = field(default_factory=set)

    @property
    def manifest(self) -> Manifest:
        """What the project says, completed by what was found."""
        return self.project.manifest

    def copy(self, name: str) -> Path:
        """A new copy of the project to run or rewrite, with the files that its build would write."""
        place = self.folder(name)
        copy_project(self.checkout, place)
        if self.project.distribution is not None:
            self.project.distribution.write_generated(place)
        return place

    def folder(self, name: str) -> Path:
        """A new empty folder that a command may write to."""
        place = self.work / name
        place.mkdir()
        return place

    def tool(self, name: str) -> str:
        """The path of a tool; raise NotMeasured where it is not installed."""
        place = self.chosen(name).environment.path.absolute() / "bin" / name
        if not place.exists():
            raise NotMeasured(f"{name} is not in Taxiway's tools")
        return str(place)

    def chosen(self, name: str) -> Tool:
        """The tool in the version that was chosen for this project; a command that runs it says `tools=` its environment."""
        return self.toolset[name] if name in self.toolset else Tool(name, "", "taxiway", self.tools)

    def run(self, command: Command, what: str, *, codes: Sequence[int]) -> CommandResult:
        """Run to the end; raise NotMeasured unless it ended by itself with one of `codes` and said all of it."""
        # A part of the stage's time is kept, so that a hanging check is a finding and not a try to repeat.
        budget = max(0.5, min(command.timeout_s, self.stop.remaining_s() * _TIME_SHARE))
        result = self.sandbox.run(replace(command, timeout_s=budget, tools=command.tools or self.tools), self.stop)
        self.log.info("%s: %s with code %d after %.1f s", what, result.ended, result.exit_code, result.duration_s)
        if result.ended != "exited":
            raise NotMeasured(_ended(what, result, budget))
        if result.exit_code not in codes:
            raise NotMeasured(f"{what} crashed with exit code {result.exit_code}: {tail(result.stderr or result.stdout)}")
        return result

    def keep(self, name: str, content: str | bytes | Path) -> None:
        """Put a report where people find it."""
        place = self.reports / name
        if isinstance(content, Path):
            shutil.copyfile(content, place)
        else:
            place.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def _ended(what: str, result: CommandResult, budget: float) -> str:
    why = {
        "timeout": f"took longer than {budget:.0f} s",
        "memory": "was killed for using too much memory",
        "processes": "was killed for starting too many processes",
    }
    return f"{what} {why.get(result.ended, 'was stopped')}"


def tail(text: str, length: int = 300) -> str:
    """The end of an output on one line."""
    return " | ".join(line.strip() for line in text.strip().splitlines() if line.strip())[-length:] or "(no output)"


def read_report(folder: Path, name: str) -> bytes:
    """A file that a command left in its folder; the folder is as hostile as the command. Raise NotMeasured without it."""
    try:
        return read_inside(folder, name, limit=_REPORT_BYTES)
    except ProjectError as error:
        raise NotMeasured(f"no usable report: {error.problem}") from error


def load_json(text: str | bytes, what: str) -> Any:
    """Parsed JSON; raise NotMeasured where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotMeasured(f"the report of {what} cannot be read: {tail(str(error))}") from error


def count(data: Mapping[str, Any], name: str, what: str) -> int:
    """A whole number of a report, zero or more; raise NotMeasured for anything else."""
    value = data.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise NotMeasured(f"the report of {what} has no usable {name!r}")
    return value
