"""Semantic versions (semver.org, 2.0.0), as far as choosing among published ones needs them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from taxiway.ports import Level

__all__ = ["Precedence", "precedence", "within"]

_SEMVER = re.compile(r"(\d{1,16})\.(\d{1,16})\.(\d{1,16})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?", re.ASCII)


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
