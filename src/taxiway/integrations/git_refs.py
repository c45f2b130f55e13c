"""Refs of the shared repository, read and moved by compare-and-swap: in the local bare repository, or on a remote."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from taxiway.errors import OperatorError, ProjectError, StageError
from taxiway.integrations.git_command import Done, Git
from taxiway.integrations.git_folder import CHECKED_OUT

__all__ = ["LocalRefs", "Refs", "RemoteRefs"]

Moves = Mapping[str, tuple[str, str]]
"""Ref -> (what it must be now, "" for not there; what it becomes)."""

_NETWORK_S = 300.0
_WHOLE = "atomic transaction failed"
# The words of git's servers for "somebody was faster"; everything else that a server rejects is its own decision.
_MOVED = re.compile(
    r"stale info|fetch first|non-fast-forward|cannot lock ref|failed to update ref|failed to lock|incorrect old value"
    r"|reference already exists|already exists|atomic push failed|remote ref updated since checkout",
    re.IGNORECASE,
)


class Refs(Protocol):
    """The refs that all machines agree on."""

    def read(self, patterns: Sequence[str]) -> dict[str, str]:
        """The refs that exist of those named; a pattern may end in `/*`."""

    def default_head(self) -> str:
        """The commit at the head of the default branch; "" for an empty repository."""

    def default_branch(self) -> str:
        """The name of the default branch; "" where no branch is."""

    def fetch(self, commit: str, refs: Sequence[str]) -> None:
        """Make sure that the commit is here, looking at these refs where it is not."""

    def move(self, moves: Moves) -> bool:
        """Move all refs or none; False if one of them was not what it must be."""

    def drop(self, refs: Mapping[str, str]) -> None:
        """Delete refs that stand where the mapping says; one that moved since stays."""


def _no_default(where: str) -> OperatorError:
    return OperatorError(f"the default branch of {where} does not exist", hint="set the repository's default branch, or push `main`")


def _has(git: Git, commit: str) -> bool:
    return git.attempt("cat-file", "-e", f"{commit}^{{commit}}").code == 0


class LocalRefs:
    """The refs of a bare repository under the Taxiway home, which is itself the shared one."""

    def __init__(self, git: Git) -> None:
        self._git = git

    def read(self, patterns: Sequence[str]) -> dict[str, str]:
        """The refs that exist of those named."""
        names = [pattern.removesuffix("*") for pattern in patterns]
        lines = self._git("for-each-ref", "--format=%(objectname) %(refname)", *names).text.splitlines()
        return {name: commit for commit, name in (line.split(" ", 1) for line in lines)}

    def default_head(self) -> str:
        """The head of main, "" where nothing was committed yet."""
        return self.read(("refs/heads/main",)).get("refs/heads/main", "")

    def default_branch(self) -> str:
        """`main`, "" where nothing was committed yet."""
        return "main" if self.default_head() else ""

    def fetch(self, commit: str, refs: Sequence[str]) -> None:
        """Raise ProjectError where the commit is not here: there is nowhere else to look."""
        if not _has(self._git, commit):
            looked = ", ".join(refs)
            raise ProjectError(f"commit {commit[:12]} is not in {self._git.folder} ({looked})", hint="clear the run from its first stage")

    def move(self, moves: Moves) -> bool:
        """All or none, in one ref transaction."""
        zero = "0" * len(next(iter(moves.values()))[1])
        lines = "".join(f"update {ref} {after} {before or zero}\n" for ref, (before, after) in moves.items())
        done = self._git.attempt("update-ref", "--stdin", stdin=lines.encode())
        if done.code and not re.search(r"is at|but expected|already exists|unable to resolve reference", done.err):
            raise self._git.error("update-ref", done)
        return done.code == 0

    def drop(self, refs: Mapping[str, str]) -> None:
        """One by one, each only if it stands where it was seen."""
        lines = "".join(f"delete {ref} {commit}\n" for ref, commit in refs.items())
        self._git("update-ref", "--stdin", stdin=lines.encode())


class RemoteRefs:
    """The refs of a repository elsewhere, by ls-remote, fetch and push."""

    def __init__(self, git: Git, url: str) -> None:
        self._git, self._url = git, url

    def read(self, patterns: Sequence[str]) -> dict[str, str]:
        """The refs that exist of those named."""
        lines = self._git("ls-remote", "--refs", "--", self._url, *patterns, timeout_s=_NETWORK_S, stoppable=True).text.splitlines()
        found = {name: commit for commit, name in (line.split("\t", 1) for line in lines)}
        # ls-remote matches the tail of a name, so `refs/heads/main` also finds `refs/x/refs/heads/main`.
        return {n: c for n, c in found.items() if any(n == p or (p.endswith("*") and n.startswith(p[:-1])) for p in patterns)}

    def default_head(self) -> str:
        """The head of what HEAD names, else of main."""
        lines = self._git("ls-remote", "--", self._url, timeout_s=_NETWORK_S, stoppable=True).text.splitlines()
        found = {name: commit for commit, name in (line.split("\t", 1) for line in lines)}
        if head := found.get("HEAD") or found.get("refs/heads/main"):
            return head
        if any(name.startswith("refs/heads/") for name in found):
            raise _no_default(self._url)
        return ""

    def default_branch(self) -> str:
        """What HEAD names; where it names none that is there, the branch that stands at its commit, else main."""
        lines = self._git("ls-remote", "--symref", "--", self._url, timeout_s=_NETWORK_S, stoppable=True).text.splitlines()
        found = {name: said for said, name in (line.split("\t", 1) for line in lines if not line.startswith("ref: "))}
        named = [line[len("ref: ") : -len("\tHEAD")] for line in lines if line.startswith("ref: ") and line.endswith("\tHEAD")]
        at_head = [name for name, commit in found.items() if commit == found.get("HEAD")]
        names = (*named, *at_head, "refs/heads/main")
        return next((name.removeprefix("refs/heads/") for name in names if name.startswith("refs/heads/") and name in found), "")

    def fetch(self, commit: str, refs: Sequence[str]) -> None:
        """Fetch those of the refs that exist, then the commit by its id where the server gives it; raise ProjectError otherwise."""
        if _has(self._git, commit):
            return
        exist = self.read(refs)
        for wanted in ([f"+{name}:refs/fetched/{name.removeprefix('refs/')}" for name in exist], [commit]):
            done = self._fetch(wanted) if wanted else None
            if _has(self._git, commit):
                return
        assert done is not None  # noqa: S101 - the last round always fetches
        if not re.search(r"not our ref|unadvertised object|couldn't find remote ref", done.err):
            raise self._git.error("fetch", done)
        raise ProjectError(f"commit {commit[:12]} is not in {self._url}", hint="was it removed there? clear the run from its first stage")

    def _fetch(self, wanted: Sequence[str]) -> Done:
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules")
        return self._git.attempt("fetch", *options, "--", self._url, *wanted, timeout_s=_NETWORK_S, stoppable=True)

    def move(self, moves: Moves) -> bool:
        """All or none, in one atomic push. Raises StageError with the server's words where it rejects the push."""
        leases = [f"--force-with-lease={ref}:{before}" for ref, (before, _) in moves.items()]
        words = [f"{after}:{ref}" for ref, (_, after) in moves.items()]
        done = self._git.attempt(
            "push", "--porcelain", "--atomic", "--no-verify", *leases, "--", self._url, *words, timeout_s=_NETWORK_S, stoppable=True
        )
        if done.code == 0:
            return True
        rejected = [line.split("\t") for line in done.out.decode("utf-8", "replace").splitlines() if line.startswith("!")]
        if not rejected:
            raise self._git.error("push", done)
        reasons = [line[-1] for line in rejected]
        said = "\n".join(line for line in done.err.splitlines() if line.startswith("remote:"))[:2000]
        # Of a transaction that failed as a whole the report says no more; why stands in what the server said.
        if all(_MOVED.search(said if _WHOLE in reason else reason) for reason in reasons):
            return False
        why = "; ".join(reason for reason in reasons if "atomic" not in reason) or reasons[0]
        hint = "let the server's rules allow it, or merge elsewhere"
        if "currently checked out" in why:
            hint = CHECKED_OUT
        raise StageError(f"{self._url} rejected the push: {why}\n{said}".rstrip(), hint=hint)

    def drop(self, refs: Mapping[str, str]) -> None:
        """In one push. Raises StageError with the server's words where it rejects it."""
        if not refs:
            return
        leases = [f"--force-with-lease={ref}:{commit}" for ref, commit in refs.items()]
        done = self._git.attempt(
            "push",
            "--porcelain",
            "--no-verify",
            *leases,
            "--",
            self._url,
            *(f":{ref}" for ref in refs),
            timeout_s=_NETWORK_S,
            stoppable=True,
        )
        rejected = [line for line in done.out.decode("utf-8", "replace").splitlines() if line.startswith("!")]
        if done.code and not all(_MOVED.search(line) for line in rejected):
            raise self._git.error("push", done)
