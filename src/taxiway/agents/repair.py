"""A repair: a model reads why the gates did not pass and changes the code, but nothing that judges it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import Field

from taxiway.agents.guard import JUDGES, new_blind_spots, pins_of_judges, snapshot
from taxiway.agents.loop import Task
from taxiway.agents.mind import Mind
from taxiway.agents.project_map import DATA, material, project_map
from taxiway.agents.tools import Checks, ToolError, Tools, is_protected
from taxiway.errors import ModelInvalid, ProjectError
from taxiway.ports import Cancellation, Sandbox
from taxiway.project import read_project
from taxiway.records import Model

__all__ = ["Judge", "Repaired", "repair"]

_SYSTEM = f"""You mend a software project whose checks failed. Find the cause in the code and change the code, as little as needed,
in the project's own style. You may not change what judges you: tests, their settings, the settings of checkers, coverage or lint
exclusions, comments that make a tool look away. Code that only behaves well under test is no repair. Run the check before you hand in.
{DATA}"""
_STEPS = 60


class Repaired(Model):
    """What was done, in the model's words."""

    cause: str = Field(min_length=1, max_length=2000, description="Why the checks failed")
    summary: str = Field(min_length=1, max_length=300, description="What you changed, as one line of a commit message in the imperative")


def repair(
    mind: Mind,
    *,
    checkout: Path,
    evidence: str,
    number: int,
    may_change: Sequence[str],
    sandbox: Sandbox,
    stop: Cancellation,
    checks: Checks,
) -> Repaired:
    """Change the checkout so that its gates may pass; ModelInvalid where the model changed nothing. What it says proves nothing:
    the stage is measured afterwards."""
    judge = Judge(checkout, may_change)
    tools = Tools(
        checkout,
        sandbox,
        stop,
        checks=checks,
        allowed=may_change,
        protected=judge.protected,
        because="judges this repair (tests, settings of checks, delivery)",
    )
    task = Task(
        system=_SYSTEM,
        project=project_map(checkout),
        request=f"This is repair {number}. What failed, as the checks reported it:\n{material('evidence', evidence)}",
        answer=Repaired,
        steps=_STEPS,
        accept=lambda _: _refuse_blind_spots(judge, tools),
    )
    done = mind.work(task, tools, name="repair")
    if not tools.changed:
        raise ModelInvalid(f"the model changed nothing: {done.answer.cause[:300]}", hint="see its conversation, repair.html")
    return done.answer


class Judge:
    """What judges a checkout, as it is before a repair. `may_change` are the patterns of it that a repair may change all the same."""

    def __init__(self, checkout: Path, may_change: Sequence[str]) -> None:
        self._checkout, self._may_change, self._before = checkout, may_change, snapshot(checkout)
        self._pins = pins_of_judges(checkout)
        self.protected = (*JUDGES, *_test_places(checkout))

    def blind_spots(self, changed: Iterable[str]) -> str:
        """The changed files that ask tools to look away more often than before; "" for none."""
        return ", ".join(new_blind_spots(self._before, snapshot(self._checkout), changed))

    def other_judges(self, changed: Iterable[str]) -> str:
        """The changed files that have other versions, or plugins, of what measures installed than before; "" for none."""
        now = pins_of_judges(self._checkout)
        free = {path for path in changed if any(fnmatchcase(path, pattern) for pattern in self._may_change)}
        return ", ".join(p for p in sorted(set(changed) - free) if (self._pins.get(p) or []) != (now.get(p) or []))

    def refuses(self, changed: Iterable[str]) -> str:
        """Of the changed paths those that a repair may not change, or not like that; "" where it may."""
        paths = sorted(changed)
        wrong = [path for path in paths if is_protected(path, self.protected, self._may_change)]
        return ", ".join([*wrong, *filter(None, [self.blind_spots(paths)])])


def _refuse_blind_spots(judge: Judge, tools: Tools) -> None:
    if found := judge.blind_spots(tools.changed):
        raise ToolError(f"these ask tools to look away, skip tests, or behave differently under test: {found}. Take that out again")
    if found := judge.other_judges(tools.changed):
        raise ToolError(f"these choose other tools to judge this repair (pytest and its plugins, linters, type checkers): {found}")


def _test_places(checkout: Path) -> tuple[str, ...]:
    """Where the project itself says that its tests lie."""
    try:
        paths = read_project(checkout).manifest.test.paths
    except ProjectError:
        return ()
    return tuple(pattern for path in paths if path not in (".", "") for pattern in (path.lower(), f"{path.lower().rstrip('/')}/*"))
