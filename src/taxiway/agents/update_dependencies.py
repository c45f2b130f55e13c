"""update_dependencies: newer pins, as far as a level allows, made by the package manager's own command."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import Field, StringConstraints

from taxiway.agents.base import Agent, AgentInput, Later, Metric, StageAttempt
from taxiway.errors import OperatorError, ProjectError
from taxiway.manifest import read_inside
from taxiway.ports import Ports
from taxiway.records import Output, Result

__all__ = ["AGENT", "UpdateInput"]

_MOST = 4 << 20
_PIN = re.compile(r"^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:\[[^\]\n]*\])?==([^\s;\\\n]+)", re.MULTILINE)
_LISTED = 200

Level = Literal["patch", "minor", "major"]
Pins = Mapping[str, tuple[str, ...]]
"""Normalised name -> its pinned versions: more than one where markers tell them apart."""


class UpdateInput(AgentInput):
    """What to update, and how far."""

    level: Level = Field(
        default="minor", description="patch: 1.2.3 to 1.2.x; minor: to 1.x; major: to whatever is newest. No package goes further"
    )
    only: list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]] = Field(
        default_factory=list, description="Packages to update; empty for all that are pinned"
    )
    manager: Annotated[Literal["auto", "pip"], Later(("uv", "npm"))] = Field(
        default="auto", description="What pins the dependencies: pip for *.in files with a *.txt beside, written by `uv pip compile`"
    )


def run(inputs: UpdateInput, ports: Ports, stage: StageAttempt) -> Result:
    """Write the pins anew; raise ProjectError where the project pins nothing that this can update."""
    if ports.upgrades is None:
        raise OperatorError("this installation has no package manager to update with", hint="run the stage on a Taxiway worker")
    pairs = list(_pairs(stage.checkout))
    if not pairs:
        raise ProjectError(
            "the project has no *.in file with a *.txt of pins beside it",
            hint="name the dependencies in requirements.in and pin them: uv pip compile requirements.in -o requirements.txt",
        )
    wanted = {str(canonicalize_name(name)) for name in inputs.only}
    before = {pinned: _text(stage.checkout, pinned) for _, pinned in pairs}
    if missing := sorted(wanted - {name for text in before.values() for name in _pins(text)}):
        raise ProjectError(f"nothing pins {', '.join(missing)}", hint="name packages of the *.txt files, or leave `only` out")
    changes: dict[tuple[str, str, str], None] = {}
    files = 0
    for source, pinned in pairs:
        pins = _pins(before[pinned])
        bounds = [
            bound for name in sorted(wanted & pins.keys() or (() if wanted else pins)) for bound in _bounds(name, pins[name], inputs.level)
        ]
        if not bounds:
            continue
        stage.stop.check()
        text = ports.upgrades.pins(stage.checkout, source, pinned, bounds=bounds, stop=stage.stop)
        found = list(_changes(pins, _pins(text)))
        if found:
            _put(stage.checkout, pinned, text)
            changes.update(dict.fromkeys(found))
            files += 1
            stage.log.info("%s: %s", pinned, "; ".join(_said(c) for c in found))
    return _result(list(changes), files, inputs.level)


def _result(changes: Sequence[tuple[str, str, str]], files: int, level: Level) -> Result:
    updated = len({name for name, old, new in changes if old and new})
    numbers: dict[str, Output] = {"updated": updated, "files": files}
    metrics = {"dependencies.updated": float(updated)}
    if not changes:
        return Result(metrics=metrics, outputs=numbers, summary=f"nothing to update within level {level}")
    line = f"Update {updated} {'dependency' if updated == 1 else 'dependencies'} ({level})"
    rest = [f"- {_said(c)}" for c in changes[:_LISTED]] + ([f"- and {len(changes) - _LISTED} more"] if len(changes) > _LISTED else [])
    return Result(metrics=metrics, outputs=numbers, summary="\n".join([line, "", *rest]))


def _pairs(checkout: Path) -> Iterator[tuple[str, str]]:
    """The *.in files with their pins, shorter names first: what others constrain themselves by is written before them."""
    found = [p for pattern in ("*.in", "requirements/*.in") for p in checkout.glob(pattern)]
    for source in sorted(found, key=lambda p: (len(p.name), p.as_posix())):
        pinned = source.with_suffix(".txt")
        if all(p.is_file() and not p.is_symlink() and not p.parent.is_symlink() for p in (source, pinned)):
            yield source.relative_to(checkout).as_posix(), pinned.relative_to(checkout).as_posix()


def _text(checkout: Path, path: str) -> str:
    return read_inside(checkout, path, limit=_MOST).decode("utf-8", errors="replace")


def _pins(text: str) -> Pins:
    found: dict[str, tuple[str, ...]] = {}
    for name, version in _PIN.findall(text):
        key = str(canonicalize_name(name))
        found[key] = (*found.get(key, ()), version)
    return found


def _bounds(name: str, versions: Sequence[str], level: Level) -> Iterator[str]:
    """How far the package may go. One that markers pin at several versions stays: one bound cannot hold for all of them."""
    try:
        (version,) = {Version(v) for v in versions}
    except (InvalidVersion, ValueError):
        return
    epoch = f"{version.epoch}!" if version.epoch else ""
    above = {
        "patch": f",<{epoch}{version.major}.{version.minor + 1}",
        "minor": f",<{epoch}{version.major + 1}",
        "major": "",
    }
    yield f"{name}>={version.public}{above[level]}"


def _changes(before: Pins, after: Pins) -> Iterator[tuple[str, str, str]]:
    for name in sorted(before.keys() | after.keys()):
        old, new = (", ".join(pins.get(name, ())) for pins in (before, after))
        if old != new:
            yield name, old, new


def _said(change: tuple[str, str, str]) -> str:
    name, old, new = change
    return f"{name} {old} -> {new}" if old and new else f"{name} {new} (new)" if new else f"{name} {old} (no longer needed)"


def _put(checkout: Path, path: str, text: str) -> None:
    # O_NOFOLLOW: the checkout is not ours, and a link could lead elsewhere.
    handle = os.open(checkout / path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


AGENT = Agent(
    name="update_dependencies",
    summary="Updates pinned dependencies as far as a level allows, in one commit that says what changed.",
    inputs=UpdateInput,
    run=run,
    metrics={"dependencies.updated": Metric("packages whose pinned version changed")},
    effect="writes",
    touches="writes the project's pins anew on the run's branch",
    outputs=("updated", "files"),
)
