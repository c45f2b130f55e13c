"""The run's repository: commits, merges, and what does not merge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from taxiway.ports.keeping import Lease

__all__ = ["SOURCE_TRAILER", "Conflict", "Favor", "Hunk", "Merge", "Resolution", "Resolve", "Strategy", "TornFile", "Workspace"]


Strategy = Literal["merge", "squash", "rebase", "fast-forward"]


SOURCE_TRAILER = "Taxiway-Source"
"""The trailer that says which commit of a run a merge brought in: a second attempt finds the first one's work by it."""

Favor = Literal["fail", "ours", "theirs"]
"""Who decides a hunk that both sides changed: nobody, the branch merged into (ours), or the change (theirs)."""


@dataclass(frozen=True)
class Conflict:
    """A place that does not merge by itself. `line` counts in the branch's own file; `kind` is git's word (contents, binary,
    modify/delete, ...), `reason` a sentence."""

    path: str
    line: int
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Merge:
    """A merge tried without touching anything: the commit that it would make, or its conflicts.

    `base` is the target branch's head that it was tried on ("" where the branch does not exist yet). `decided` are
    the conflicts that one side won; with `conflicts` there is no commit. `told` is what the commits said that became one
    (squash), for its message.
    """

    commit: str
    base: str
    conflicts: tuple[Conflict, ...] = ()
    up_to_date: bool = False
    decided: tuple[Conflict, ...] = ()
    told: str = ""


@dataclass(frozen=True)
class Hunk:
    """Lines that both sides changed: as they were, as the branch that is merged into has them (ours), and as the change has them
    (theirs). `line` is as in Conflict."""

    line: int
    base: str
    ours: str
    theirs: str


@dataclass(frozen=True)
class TornFile:
    """A text file that does not merge by itself: what does, as text, and the hunks in between. The messages are those of the
    commits that changed it, newest first."""

    path: str
    parts: tuple[str | Hunk, ...]
    ours_messages: str = ""
    theirs_messages: str = ""

    @property
    def hunks(self) -> tuple[Hunk, ...]:
        """What has to be decided, from the top."""
        return tuple(part for part in self.parts if isinstance(part, Hunk))

    def mended(self, texts: Sequence[str]) -> str:
        """The file with a text in place of each hunk; nothing else of it changes."""
        given = iter(texts)
        return "".join(part if isinstance(part, str) else next(given) for part in self.parts)


@dataclass(frozen=True)
class Resolution:
    """The lines that a hunk becomes, None where it stays a conflict; and why, in one line."""

    text: str | None
    reason: str


Resolve = Callable[[TornFile], Sequence[Resolution]]
"""Decides the hunks of a file, each of them, from the top."""


class Workspace(Protocol):
    """The run's git repository: one branch a run, one commit a stage that changed something."""

    @property
    def url(self) -> str:
        """Where the repository is, without credentials."""

    @property
    def branch(self) -> str:
        """The run's branch."""

    def start(self) -> str:
        """The commit that the run starts from: the default branch's head; a new repository gets an empty first commit."""

    def checkout(self, commit: str, into: Path) -> None:
        """Write the files of a commit into an empty directory, without a `.git`."""

    def commit(self, files: Path, *, parent: str, message: str, trailers: Mapping[str, str], lease: Lease) -> str:
        """Commit what `files` differs in from `parent` on the run's branch and return the commit; `parent`
        where nothing differs. Doing it again with the same content gives the commit that is already there."""

    def changed(self, files: Path, *, parent: str) -> tuple[str, ...]:
        """The paths in which `files` differs from `parent`, as `commit` would have them; a renamed file is two."""

    def diff(self, base: str, commit: str) -> str:
        """The change as a unified diff with statistics, bounded in length."""

    def head(self, branch: str) -> str:
        """The commit at the head of a branch of the shared repository; "" where there is none."""

    def default_branch(self) -> str:
        """The name of the default branch of the shared repository; "" where it holds no files yet."""

    def contains(self, commit: str, branch: str) -> bool:
        """Whether a branch of the shared repository holds a commit, at its head or below."""

    def merge(
        self,
        commit: str,
        *,
        into: str,
        strategy: Strategy,
        message: str,
        trailers: Mapping[str, str],
        favor: Favor = "fail",
        resolve: Resolve | None = None,
        costs: Callable[[], Mapping[str, str]] = dict,
    ) -> Merge:
        """Try a merge with no work tree and move no branch. What `favor` cannot decide (a file that one side deleted) stays a conflict.
        With `resolve` that is asked, where all that does not merge are lines of text files; `costs` are trailers that are known
        only afterwards."""

    def push(self, commit: str, *, branch: str, expected: str, lease: Lease) -> None:
        """Move a branch from `expected` to `commit`, once; raise TransientError if it moved meanwhile,
        LeaseLost if a newer attempt took over. A branch that already stands at `commit` is success."""

    def offered(self, into: str) -> str:
        """The branch that a pull request of this run into a branch offers."""

    def offer(self, commit: str, *, into: str, measured: str, lease: Lease) -> None:
        """Move `offered(into)` to `commit`, wherever this run has put it before, and keep the merge that was measured for it.
        Raise StageError where somebody else has pushed to that branch."""
