"""Hunks that both sides changed, decided for one side as `git merge -X` does: older gits have no -X for merges of trees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from taxiway.errors import ProjectError
from taxiway.integrations.git_command import Git

__all__ = ["BINARY_LOOK", "decide", "replaced"]

_REGULAR = "100"
BINARY_LOOK = 8000
"""Bytes in which git looks for a NUL to call a file binary (buffer_is_binary in xdiff-interface.c)."""


def decide(git: Git, tree: str, places: Mapping[str, Mapping[int, str]], favor: Literal["ours", "theirs"]) -> str:
    """`tree`, which holds conflict markers, with each of `places` (path -> stage -> `mode blob`) merged again: what only one
    side changed is kept, a hunk that both changed is that of `favor`. A file that does not merge by lines is that side's."""
    with git.scratch() as scratch:
        entries = {path: _entry(git, scratch, path, stages, favor) for path, stages in places.items()}
    return replaced(git, tree, entries)


def replaced(git: Git, tree: str, entries: Mapping[str, str]) -> str:
    """`tree` with other files (path -> `mode blob`) in place of those that it has."""
    with git.scratch() as scratch:
        env = {"GIT_INDEX_FILE": str(scratch / "index")}
        git("read-tree", tree, env=env)
        lines = "".join(f"{entry}\t{path}\0" for path, entry in entries.items())
        git("update-index", "-z", "--index-info", stdin=lines.encode("utf-8", "surrogateescape"), env=env)
        return git("write-tree", env=env).text


def _entry(git: Git, scratch: Path, path: str, stages: Mapping[int, str], favor: Literal["ours", "theirs"]) -> str:
    own = stages.get(2 if favor == "ours" else 3)
    if own is None:
        raise ProjectError(f"{path!r} is not on both sides", hint="merge it by hand")
    mode, blob = own.split()
    if all(entry.startswith(_REGULAR) for entry in stages.values()):
        blob = _merged(git, scratch, {stage: entry.split()[1] for stage, entry in stages.items()}, favor) or blob
    return f"{mode} {blob}"


def _merged(git: Git, scratch: Path, blobs: Mapping[int, str], favor: str) -> str:
    """The blob of the merge by lines; "" where the files are no text."""
    files = []
    for stage in (2, 1, 3):
        content = git("cat-file", "blob", blobs[stage]).out if stage in blobs else b""
        if b"\0" in content[:BINARY_LOOK]:
            return ""
        files.append(scratch / f"stage-{stage}")
        files[-1].write_bytes(content)
    merged = git("merge-file", "-p", f"--{favor}", "--quiet", *map(str, files)).out
    return git("hash-object", "-w", "--no-filters", "--stdin", stdin=merged).text
