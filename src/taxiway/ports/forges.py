"""Pull requests where a forge keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from taxiway.ports.code import Strategy

__all__ = ["Forge", "PullRequest", "Readiness"]


@dataclass(frozen=True)
class PullRequest:
    """A pull request (merge request at GitLab) as its forge shows it. `head` is the commit that it offers; `merged` the commit
    that it became on its target, "" while it is none."""

    number: int
    url: str
    state: Literal["open", "closed", "merged"]
    head: str
    title: str
    body: str
    draft: bool = False
    merged: str = ""


@dataclass(frozen=True)
class Readiness:
    """What an open pull request still lacks, each as words for people.

    `failed` are required checks that failed, `refused` reviewers who asked for changes; `waiting` is what may still
    come (checks that run, approvals). `conflicts` and `behind` mean that the target has moved: the forge cannot merge, or does
    not merge what is not on top of the target.
    """

    failed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    conflicts: bool = False
    behind: bool = False


class Forge(Protocol):
    """Where a repository has its pull requests.

    Raises TransientError where the forge does not answer or asks to come back later, OperatorError for tokens, rights and
    addresses, StageError with the forge's words for what it refuses.
    """

    @property
    def name(self) -> str:
        """What people call it: GitHub, GitLab."""

    def check(self, strategy: Strategy) -> None:
        """Raise where the token cannot do this, or the repository does not merge by this strategy."""

    def find(self, branch: str, into: str) -> PullRequest | None:
        """The pull request from a branch into another: the open one, else the newest."""

    def open(self, branch: str, into: str, *, title: str, body: str) -> PullRequest:
        """Open one; where there is an open one, that is returned."""

    def read(self, number: int) -> PullRequest:
        """One by its number, as it is now."""

    def readiness(self, pull: PullRequest, into: str) -> Readiness:
        """What it lacks."""

    def describe(self, number: int, *, title: str, body: str) -> None:
        """Replace its title and text."""

    def comment(self, number: int, text: str) -> None:
        """Say something below it."""

    def set_status(self, commit: str, *, passed: bool, text: str) -> None:
        """Set the commit status `taxiway`; one that says the same already stays."""

    def merge(self, number: int, *, head: str, strategy: Strategy, title: str, message: str) -> None:
        """Merge it if it still offers `head`; the commit that comes to be has this title and message where the forge makes one."""

    def close(self, number: int) -> None:
        """Close it without merging."""
