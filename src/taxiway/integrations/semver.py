"""Semantic versions (semver.org, 2.0.0), as far as choosing among published ones needs them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from taxiway.ports import Level

__all__ = ["Precedence", "accepts", "precedence", "within"]

_SEMVER = re.compile(r"(\d{1,16})\.(\d{1,16})\.(\d{1,16})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?", re.ASCII)
_SIMPLE = re.compile(r"([~^]?)(\d{1,16}\.\d{1,16}\.\d{1,16})", re.ASCII)


@dataclass(frozen=True, order=True)
class Precedence:
    """Orders versions; `released` is False for pre-releases, whose identifiers follow."""

    major: int
    minor: int
    patch: int
    released: bool
    identifiers: tuple[tuple[bool, int, str], ...] = ()


def precedence(version: str) -> Precedence | None:
    """None for what is no semantic version."""
    if (found := _SEMVER.fullmatch(version)) is None:
        return None
    words = found[4].split(".") if found[4] else []
    # Numbers come before words.
    identifiers = tuple((False, int(w), "") if w.isdecimal() and len(w) < 17 else (True, 0, w) for w in words)  # noqa: PLR2004 - as above
    return Precedence(int(found[1]), int(found[2]), int(found[3]), not words, identifiers)


def within(version: str, before: str, level: Level) -> bool:
    """Whether a release is `before` or newer, and no further from it than the level allows."""
    one, other = precedence(version), precedence(before)
    if one is None or other is None or not one.released or one < other:
        return False
    if level == "patch":
        return (one.major, one.minor) == (other.major, other.minor)
    return level == "major" or one.major == other.major


def accepts(wanted: str, version: str) -> bool | None:
    """Whether a range of npm's plainest forms (`1.2.3`, `~1.2.3`, `^1.2.3`) accepts a version; None for every other form."""
    simple, given = _SIMPLE.fullmatch(wanted), precedence(version)
    if simple is None or given is None or (least := precedence(simple[2])) is None:
        return None
    same = {"": 3, "~": 2, "^": 1 if least.major else 2 if least.minor else 3}[simple[1]]
    numbers, others = ((v.major, v.minor, v.patch) for v in (given, least))
    return given.released and given >= least and numbers[:same] == others[:same]
