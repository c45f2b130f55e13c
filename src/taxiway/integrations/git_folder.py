"""What can be known of a repository in a folder of this machine before anything is pushed to it."""

from __future__ import annotations

import os
from pathlib import Path

from taxiway.errors import TaxiwayError
from taxiway.integrations.git_process import Bounds, Done, run

__all__ = ["CHECKED_OUT", "checked_out", "no_repository"]

CHECKED_OUT = "give a bare repository, check another branch out there, or set `git config receive.denyCurrentBranch updateInstead`"
"""What to do about a branch that git does not let others move."""

_ALLOWED = ("ignore", "warn", "updateinstead", "false", "no", "off", "0")
_BRANCH = "branch refs/heads/"
_BOUNDS = Bounds(timeout_s=10, limit=1_000_000, held=None)


def checked_out(folder: Path) -> frozenset[str]:
    """The branches that git refuses to have pushed to, for files of the folder (or of a work tree of it) stand on them; none where
    it is bare, allows it, or is no repository that can be read."""
    try:
        trees = _git(folder, "worktree", "list", "--porcelain")
        allowed = _git(folder, "config", "--get", "receive.denyCurrentBranch").text.lower() in _ALLOWED
    except (TaxiwayError, OSError):  # the run says it, in its own words
        return frozenset()
    if trees.code or allowed:
        return frozenset()
    return frozenset(line.removeprefix(_BRANCH) for line in trees.text.splitlines() if line.startswith(_BRANCH))


def no_repository(folder: Path) -> str:
    """Why git cannot clone the folder, where that shows at once; "" where it can, or where git itself says nothing."""
    if not folder.exists():
        return "does not exist on this machine"
    try:
        # As a clone asks: a folder inside a repository is none.
        told = _git(Path("/"), "ls-remote", "--quiet", str(folder))
    except (TaxiwayError, OSError):  # the run says it, in its own words
        return ""
    return "is no git repository" if told.code and "does not appear to be a git repository" in told.err else ""


def _git(folder: Path, *words: str) -> Done:
    # As a push runs it: with the settings of the repository, and nobody's else.
    env = {"PATH": os.environ.get("PATH", os.defpath), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "LC_ALL": "C"}
    return run(("git", "-C", str(folder), *words), env, b"", _BOUNDS)
