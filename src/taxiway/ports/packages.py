"""What is known about packages, and how pins are made anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from taxiway.ports.running import Cancellation

__all__ = ["Advisories", "Audit", "Level", "PackageManager", "Pinned", "Pins", "Severity", "Upgraded", "Vulnerability"]


Level = Literal["patch", "minor", "major"]
"""How far an update may go: 1.2.3 to 1.2.x, to 1.x, to whatever is newest."""

Pins = Mapping[str, tuple[str, ...]]
"""Name of a package, as its manager spells it -> its pinned versions: more than one where several are installed, or markers tell
them apart."""


@dataclass(frozen=True)
class Pinned:
    """A file of a checkout that pins dependencies, by its path there, and what it pins."""

    path: str
    pins: Pins


@dataclass(frozen=True)
class Upgraded:
    """Pins made anew. `files` are the checkout's files (path -> text) that differ now, `pins` is what the pinning one pins now.

    By name of a package: `links` are addresses of changelogs that changed packages name themselves, `held` newer versions within the level
    that something (a range of the project, another package) forbids, `reasons` what that is, where the project itself says it. `tested` is
    the command that ran the project's own tests, which passed with the new pins, "" where they were not run, and then `untested` says why,
    "" where a stage of its own does that.
    """

    files: Mapping[str, str]
    pins: Pins
    links: Mapping[str, str] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    tested: str = ""
    untested: str = ""


class PackageManager(Protocol):
    """Writes a project's pins anew, with a package manager's own commands."""

    @property
    def expects(self) -> str:
        """The files that it looks for, and how a project gets them, in one line."""

    def find(self, checkout: Path) -> Sequence[Pinned]:
        """The files of a checkout that hold its pins, in the order in which they are to be written; raise ProjectError for one that
        cannot be read."""

    def spelled(self, name: str) -> str:
        """A person's name of a package as it stands in `Pinned.pins`."""

    def upgrade(self, checkout: Path, pinned: Pinned, *, names: Sequence[str], level: Level, stop: Cancellation) -> Upgraded:
        """The file made anew: the packages `names` as new as the level and the project allow, all others as they are. Raise
        ProjectError where that cannot be met or breaks the project's own tests, TransientError where the index does not answer,
        OperatorError where this machine lacks the manager or the index, NotTrusted where it has no isolation."""


Severity = Literal["critical", "high", "medium", "low", "unrated"]


@dataclass(frozen=True)
class Vulnerability:
    """A known vulnerability of one version of a package. `ids` are all its names, that of the advisory first; `severity` is
    the worst that any of its records gives, `unrated` where none gives one; `fixed` are versions that mend it."""

    ids: tuple[str, ...]
    severity: Severity
    summary: str = ""
    fixed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audit:
    """What an advisory service said about packages, by (name, version). Each that was asked for is in exactly one of these:
    `vulnerabilities`, an empty tuple where the service knows the version and nothing against it; `unknown`, where the
    service does not know it; `failed`, where it gave no usable answer; the last two say why."""

    vulnerabilities: Mapping[tuple[str, str], tuple[Vulnerability, ...]]
    unknown: Mapping[tuple[str, str], str]
    failed: Mapping[tuple[str, str], str]


class Advisories(Protocol):
    """Knows the vulnerabilities of published packages."""

    def audit(self, packages: Sequence[tuple[str, str]], stop: Cancellation) -> Audit:
        """Ask about packages by normalised name and version. A service that does not answer, or badly, is in the Audit and
        raises nothing; raise only as `stop` does."""
