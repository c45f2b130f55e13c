"""update_dependencies: newer pins, as far as a level allows, made by the package managers' own commands."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from taxiway.agents.base import Agent, AgentInput, Metric, StageAttempt
from taxiway.errors import OperatorError, ProjectError
from taxiway.ports import Level, PackageManager, Pinned, Pins, Ports, Upgraded
from taxiway.records import Output, Result

__all__ = ["AGENT", "UpdateInput"]

_LISTED = 200
_TESTED = "dependencies.tested"
_NUMBERS = re.compile(r"v?(?:(\d+)!)?(\d+)(?:\.(\d+))?")

Name = Annotated[str, StringConstraints(pattern=r"^(?:@[A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]


class UpdateInput(AgentInput):
    """What to update, and how far."""

    level: Level = Field(
        default="minor", description="patch: 1.2.3 to 1.2.x; minor: to 1.x; major: to whatever is newest. No package goes further"
    )
    only: list[Name] = Field(default_factory=list, description="Packages to update; empty for all that are pinned")
    manager: Literal["auto", "pip", "uv", "npm"] = Field(
        default="auto",
        description="What pins the dependencies: pip for *.in files with a *.txt beside, written by `uv pip compile`; uv for uv.lock;"
        " npm for package-lock.json; auto for each that the project has",
    )


@dataclass(frozen=True)
class _Change:
    """A package, and its versions before and after: "" where it was not there."""

    name: str
    old: str
    new: str
    link: str = ""

    def __str__(self) -> str:
        if not (self.old and self.new):
            return f"{self.name} {self.new} (new)" if self.new else f"{self.name} {self.old} (no longer needed)"
        return f"{self.name} {self.old} -> {self.new}{_level(self.old, self.new)}" + (f": {self.link}" if self.link else "")


@dataclass
class _Work:
    """What came of the files so far: changes by file, and in which files something is held back."""

    changes: dict[str, list[_Change]] = field(default_factory=dict)
    held: dict[str, list[str]] = field(default_factory=dict)
    tested: list[str] = field(default_factory=list)
    untested: list[str] = field(default_factory=list)
    files: int = 0

    @property
    def updated(self) -> int:
        """How many packages have another version now."""
        return len({c.name for c in self._all if c.old and c.new})

    def title(self, level: Level) -> str:
        """What was done, in one line."""
        added, gone = ({c.name for c in self._all if not getattr(c, side)} for side in ("old", "new"))
        done = [f"update {_many(self.updated, 'dependency', 'dependencies')} ({level})"] if self.updated else []
        # Where nothing moved, nothing else can have asked for them.
        done += [f"add {_many(len(added), 'pin' if self.updated else 'missing pin')}"] if added else []
        done += [f"remove {_many(len(gone), 'pin')}"] if gone else []
        words = " and ".join([", ".join(done[:-1]), done[-1]] if done[1:] else done)
        first = words[:1].upper() + words[1:] if words else f"nothing to update within level {level}"
        return first + (f", {len(self.held)} held back" if self.held else "")

    @property
    def _all(self) -> Iterator[_Change]:
        return itertools.chain.from_iterable(self.changes.values())


def run(inputs: UpdateInput, ports: Ports, stage: StageAttempt) -> Result:
    """Write the pins anew; raise ProjectError where the project pins nothing that this can update."""
    if not ports.upgrades:
        raise OperatorError("this installation has no package manager to update with", hint="run the stage on a Taxiway worker")
    managers = {n: m for n, m in ports.upgrades.items() if inputs.manager in ("auto", n)}
    found = [(manager, pinned) for manager in managers.values() for pinned in manager.find(stage.checkout)]
    if not found:
        raise ProjectError(
            "the project pins nothing that can be updated: there is no " + ", no ".join(m.expects for m in managers.values()),
            hint="name the dependencies in one of these files, write the pins with the command, and commit both",
        )
    if missing := [n for n in inputs.only if not any(m.spelled(n) in p.pins for m, p in found)]:
        raise ProjectError(f"nothing pins {', '.join(missing)}", hint="name packages that the project's files pin, or leave `only` out")
    work = _Work()
    for manager, pinned in found:
        _take(manager, pinned, inputs, stage, work)
    stage.log.info("%s", work.title(inputs.level))
    return _result(work, inputs.level)


def _take(manager: PackageManager, pinned: Pinned, inputs: UpdateInput, stage: StageAttempt, work: _Work) -> None:
    wanted = {manager.spelled(n) for n in inputs.only}
    if not (names := sorted(wanted & pinned.pins.keys() if wanted else pinned.pins)):
        return
    stage.stop.check()
    done = manager.upgrade(stage.checkout, pinned, names=names, level=inputs.level, stop=stage.stop)
    for path, text in done.files.items():
        _put(stage.checkout, path, text)
    path = _plain(pinned.path)
    held = [_held(name, newest, done) for name, newest in done.held.items()]
    for line in held:
        work.held.setdefault(line, []).append(path)
    if held:
        stage.log.info("%s: %s", path, "; ".join(held))
    if not done.files:
        return
    changes = list(_changes(pinned.pins, done))
    work.changes[path] = changes
    work.files += len(done.files)
    work.tested += [f"{done.tested} passed with the new versions of {path}"] if done.tested else []
    work.untested += [f"{path}: {done.untested}"] if done.untested else []
    stage.log.info("%s: %s", path, "; ".join(map(str, changes)))
    if done.tested or done.untested:
        stage.log.info("%s: %s", path, f"{done.tested} passed" if done.tested else f"no tests ran: {done.untested}")


def _result(work: _Work, level: Level) -> Result:
    numbers: dict[str, Output] = {"updated": work.updated, "files": work.files, "held": len(work.held)}
    metrics = {"dependencies.updated": float(work.updated), "dependencies.held": float(len(work.held))}
    metrics |= {_TESTED: float(len(work.tested))} if work.tested and not work.untested else {}
    why = "; ".join(work.untested) or "the tests are for a stage of their own: validate"
    unmeasured = {} if _TESTED in metrics else {_TESTED: why}
    lines = list(_grouped(work.changes))
    if said := [*work.tested, *(f"no tests ran: {why}" for why in work.untested)]:
        lines += ["", *said]
    if work.held:
        several = len(work.changes.keys() | set(itertools.chain.from_iterable(work.held.values()))) > 1
        held = [f"{line} ({', '.join(paths)})" if several else line for line, paths in work.held.items()]
        lines += ["", "Held back by what the project or a package asks for:", "", *_listed(held)]
    summary = "\n".join([work.title(level), "", *lines]).strip()
    return Result(metrics=metrics, unmeasured=unmeasured, outputs=numbers, summary=re.sub(r"\n{3,}", "\n\n", summary))


def _grouped(changes: Mapping[str, Sequence[_Change]]) -> Iterator[str]:
    """By file, where there is more than one."""
    if len(changes) == 1:
        yield from _listed([str(c) for found in changes.values() for c in found])
        return
    pairs = [(path, change) for path, found in changes.items() for change in found]
    for path, found in itertools.groupby(pairs[:_LISTED], key=lambda pair: pair[0]):
        yield from ("", f"In {path}:", "", *(f"- {change}" for _, change in found))
    if len(pairs) > _LISTED:
        yield f"- and {len(pairs) - _LISTED} more"


def _held(name: str, newest: str, done: Upgraded) -> str:
    why = done.reasons.get(name, "something else: the range of a package, the level, a cool-down, its Python")
    return _plain(f"{name} stays at {', '.join(done.pins.get(name, ()))}: {newest} is not allowed by {why}")


def _listed(lines: Sequence[str]) -> list[str]:
    return [f"- {line}" for line in lines[:_LISTED]] + ([f"- and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else [])


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"


def _plain(text: str) -> str:
    """For one line: the project chooses how its files are called."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _changes(before: Pins, done: Upgraded) -> Iterator[_Change]:
    for name in sorted(before.keys() | done.pins.keys()):
        old, new = (", ".join(pins.get(name, ())) for pins in (before, done.pins))
        if old != new:
            yield _Change(name, old, new, done.links.get(name, ""))


def _level(old: str, new: str) -> str:
    """By the first number that differs; "" where one side has several versions."""
    one, other = (None if "," in text else _NUMBERS.match(text) for text in (old, new))
    if one is None or other is None:
        return ""
    if one.groups("0")[:2] != other.groups("0")[:2]:
        return " (major)"
    return " (minor)" if one.groups("0") != other.groups("0") else " (patch)"


def _put(checkout: Path, path: str, text: str) -> None:
    # O_NOFOLLOW: the checkout is not ours, and a link could lead elsewhere.
    handle = os.open(checkout / path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


AGENT = Agent(
    name="update_dependencies",
    summary="Updates pinned dependencies as far as a level allows, in one commit that says what changed and where that is told.",
    inputs=UpdateInput,
    run=run,
    metrics={
        "dependencies.updated": Metric("packages whose pinned version changed"),
        "dependencies.held": Metric("newer versions within the level that the project or one of its packages does not allow"),
        _TESTED: Metric("projects whose own tests passed with the new pins, where this stage runs them (npm)"),
    },
    effect="writes",
    touches="writes the project's pins anew on the run's branch",
    outputs=("updated", "files", "held"),
)
