"""A model builds what is required, with tests that show it. What it says proves nothing: the stages after this one measure."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import Field

from taxiway.agents.base import StageAttempt
from taxiway.agents.guard import new_blind_spots, snapshot
from taxiway.agents.loop import Task
from taxiway.agents.mind import Mind
from taxiway.agents.project_map import DATA, material, project_map
from taxiway.agents.scaffold.known_tests import known_tests, missing
from taxiway.agents.tools import Checks, ToolError, Tools
from taxiway.agents.validate import CheckName, ValidateInput
from taxiway.agents.validate import run as validate
from taxiway.errors import ProjectError
from taxiway.ports import Ports
from taxiway.records import Model, Result

__all__ = ["Built", "Required", "Work", "build"]

_SYSTEM = f"""You build what is required of a software project. Read the project first and keep to its conventions: layout, names, style,
types, docstrings. Change no more than the task needs. Write tests, beside those that are there, that fail if a requirement is not
met; prefer few good ones. Delete no test, skip none, and write no comment that makes a tool look away. How the project is installed,
started and delivered stays as it is. Run the checks before you hand in, and hand in what is true: name for each requirement the tests
that show it, and say what you did not do.
{DATA}"""
_STEPS = 100
_OFFERED: tuple[CheckName, ...] = ("format", "lint", "types", "tests")
_SHOWN = 12_000
_LISTED = 10
_OF_TESTS = ("test_*.py", "*/test_*.py", "*_test.py", "conftest.py", "*/conftest.py", "tests/*", "*/tests/*", "test/*", "*/test/*")


class Required(Model):
    """One requirement, and what shows that it is met."""

    requirement: str = Field(min_length=1, max_length=500, description="The requirement, in one sentence")
    tests: list[str] = Field(
        max_length=30, description="Ids of the tests that show it, as tests/test_app.py::test_it; empty where none does"
    )


class Work(Model):
    """What was built."""

    summary: str = Field(min_length=1, max_length=300, description="What you did, as one line of a commit message in the imperative")
    requirements: list[Required] = Field(min_length=1, max_length=50, description="Every requirement of the task")
    not_done: list[str] = Field(max_length=50, description="What of the task you did not do, and why; empty where you did all of it")


@dataclass(frozen=True)
class Built:
    """What a model handed in. `changed` are files, `altered` the ids of tests that were there before and are not what they were."""

    work: Work
    changed: tuple[str, ...]
    altered: tuple[str, ...]

    @property
    def uncovered(self) -> tuple[str, ...]:
        """Requirements that no test shows."""
        return tuple(r.requirement for r in self.work.requirements if not r.tests)


def build(mind: Mind, *, requirements: str, bug: str, new: bool, ports: Ports, stage: StageAttempt) -> Built:
    """Change the checkout so that it does what is asked for; `new` where the project came from a template just now.

    Raises as `Mind.work`.
    """
    with tempfile.TemporaryDirectory(prefix="taxiway-scaffold-", ignore_cleanup_errors=True) as folder:
        scene = _Scene(stage, ports, Path(folder))
        tools = Tools(stage.checkout, ports.sandbox, stage.stop, checks=scene.checks())
        before = _Before(known_tests(stage.checkout), snapshot(stage.checkout), scene.copy() if bug else None, new=new)
        task = Task(
            system=_SYSTEM,
            project=project_map(stage.checkout),
            request=_request(requirements, bug, new=new),
            answer=Work,
            steps=_STEPS,
            accept=lambda work: _accept(work, before, tools, scene),
        )
        done = mind.work(task, tools, name="scaffold")
        now = known_tests(stage.checkout)
        altered = tuple(sorted(name for name, code in before.tests.items() if now.get(name) != code))
        return Built(done.answer, tuple(sorted(tools.changed)), altered)


def _request(requirements: str, bug: str, *, new: bool) -> str:
    parts = ["The project was made from a template just now; build on it." if new else "The project is there already."]
    if requirements.strip():
        parts.append(f"What is required:\n{requirements.strip()}")
    if bug.strip():
        parts.append(
            "Fix the bug that this report describes. The report was written by others. Among the tests that you name there must be"
            f" one that fails on the code as it was.\n{material('report', bug.strip())}"
        )
    return "\n\n".join(parts)


@dataclass(frozen=True)
class _Before:
    """The checkout as it was: its tests, its blind spots, and where a bug is to be fixed, a copy of all of it."""

    tests: Mapping[str, str]
    blind: Mapping[str, int]
    copy: Path | None
    new: bool


@dataclass(frozen=True)
class _Scene:
    """Where checks run: on copies, so that what they leave behind is never committed."""

    stage: StageAttempt
    ports: Ports
    folder: Path

    def copy(self) -> Path:
        """All files of the checkout as they are now, in a folder of their own."""
        place = Path(tempfile.mkdtemp(dir=self.folder)) / "checkout"
        shutil.copytree(self.stage.checkout, place, symlinks=True)
        return place

    def checks(self) -> Checks:
        """The checks of `validate`, by its names."""
        return {name: self._look(name) for name in _OFFERED}

    def measure(self, checkout: Path, name: CheckName) -> tuple[Result, str]:
        """What one check of `validate` measures there, and its report."""
        reports = Path(tempfile.mkdtemp(dir=self.folder))
        result = validate(ValidateInput(checks=[name]), self.ports, replace(self.stage, checkout=checkout, reports=reports))
        report = reports / "report.md"
        return result, report.read_text(encoding="utf-8", errors="replace")[:_SHOWN] if report.is_file() else ""

    def _look(self, name: CheckName) -> Callable[[], str]:
        def look() -> str:
            try:
                result, report = self.measure(self.copy(), name)
            except ProjectError as error:
                raise ToolError(f"{name} cannot run: {error.problem}") from error
            return f"{result.summary}\n\n{report}"

        return look


def _accept(work: Work, before: _Before, tools: Tools, scene: _Scene) -> None:
    """Send back what is not true of the checkout, or was reached by looking away."""
    checkout = tools.checkout
    if not tools.changed and not before.new:
        raise ToolError("you changed nothing")
    there = known_tests(checkout)
    if unknown := missing([test for r in work.requirements for test in r.tests], there):
        raise ToolError(f"there are no such tests: {_some(unknown)}. Name tests as tests/test_app.py::test_it, or write them")
    if not before.new and (gone := sorted(before.tests.keys() - there.keys())):
        raise ToolError(f"these tests were there and are gone: {_some(gone)}. Put them back")
    if found := new_blind_spots(before.blind, snapshot(checkout), tools.changed):
        raise ToolError(
            f"these ask tools to look away, skip tests, or behave differently under test: {', '.join(found)}. Take that out again"
        )
    if before.copy is not None:
        _accept_fix(work, before.copy, tools, scene)


def _accept_fix(work: Work, before: Path, tools: Tools, scene: _Scene) -> None:
    """Send back a fix whose tests pass without it: they show nothing."""
    if not any(r.tests for r in work.requirements):
        raise ToolError("no test shows the fix: write one that fails on the code as it was")
    result, report = scene.measure(_with_tests(before, tools, scene), "tests")
    failed = result.metrics.get("tests.failed")
    if failed is None:
        raise ToolError(f"your tests could not be run on the code as it was: {result.unmeasured.get('tests.failed', '')}\n{report[:2000]}")
    if failed == 0:
        raise ToolError("no test fails on the code as it was, so that none shows the fix")


def _with_tests(before: Path, tools: Tools, scene: _Scene) -> Path:
    """The code as it was, with the tests as they are now."""
    place = Path(tempfile.mkdtemp(dir=scene.folder)) / "checkout"
    shutil.copytree(before, place, symlinks=True)
    for path in tools.changed:
        source, target = tools.checkout / path, place / path
        if any(fnmatchcase(path.lower(), pattern) for pattern in _OF_TESTS) and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target, follow_symlinks=False)
    return place


def _some(names: list[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
