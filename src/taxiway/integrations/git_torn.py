"""Text files that do not merge by themselves, taken apart into what merges and hunks, and put together again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taxiway.integrations.git_command import Git
from taxiway.integrations.git_favor import BINARY_LOOK, replaced
from taxiway.ports import Conflict, Hunk, Resolve, TornFile

__all__ = ["By", "Torn", "decided_by", "shown", "torn_files"]

_REGULAR = "100"
_BASE, _OURS, _THEIRS = 1, 2, 3
_MARK = re.compile(rb"^(<+|>+|=+|\|+)", re.MULTILINE)
_LONGEST_MARK = 1_000
_MOST_BYTES = 1_000_000
_MOST_MESSAGES, _MESSAGES_LIMIT = "5", 4_000


@dataclass(frozen=True)
class By:
    """The commits that changed each side, as git's ranges."""

    ours: str
    theirs: str


@dataclass(frozen=True)
class Torn:
    """A file in parts; `path` and `mode` are git's own words for where it goes."""

    path: str
    mode: str
    file: TornFile


def torn_files(git: Git, places: Mapping[str, Mapping[int, str]], by: By) -> tuple[Torn, ...]:
    """The files at `places` (path -> stage -> `mode blob`) in parts; none where one of them is no text that both sides have alike."""
    found = []
    with git.scratch() as scratch:
        for path, stages in places.items():
            parts = _parts(git, scratch, stages)
            if not any(isinstance(part, Hunk) for part in parts):
                return ()
            file = TornFile(shown(path), parts, _messages(git, by.ours, path), _messages(git, by.theirs, path))
            found.append(Torn(path, stages[_OURS].split()[0], file))
    return tuple(found)


def decided_by(git: Git, tree: str, files: Sequence[Torn], resolve: Resolve) -> tuple[str, tuple[Conflict, ...], tuple[Conflict, ...]]:
    """The tree, and the hunks that `resolve` left and that it decided. With one that it left, the tree is what it was."""
    left, decided, entries = list[Conflict](), list[Conflict](), dict[str, str]()
    for torn in files:
        given = resolve(torn.file)
        for hunk, resolution in zip(torn.file.hunks, given, strict=True):
            where = left if resolution.text is None else decided
            where.append(Conflict(torn.file.path, hunk.line, "contents", shown(resolution.reason)))
        content = torn.file.mended([r.text or "" for r in given]).encode("utf-8")
        entries[torn.path] = f"{torn.mode} {git('hash-object', '-w', '--no-filters', '--stdin', stdin=content).text}"
    if left:
        return tree, tuple(left), ()
    return replaced(git, tree, entries), (), tuple(decided)


def shown(text: str) -> str:
    """Text that may stand in a report: one line, printable."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)[:500]


def _messages(git: Git, commits: str, path: str) -> str:
    """What the newest commits of a range that changed a file say of it."""
    done = git.attempt("log", f"-{_MOST_MESSAGES}", "--format=%B", commits, "--", f":(literal){path}")
    return done.out.decode("utf-8", "replace").strip()[:_MESSAGES_LIMIT] if done.code == 0 else ""


def _parts(git: Git, scratch: Path, stages: Mapping[int, str]) -> tuple[str | Hunk, ...]:
    """The file's parts; () where it is no text, not on both sides, or of different modes."""
    modes = {stages[stage].split()[0] for stage in (_OURS, _THEIRS) if stage in stages}
    if _OURS not in stages or _THEIRS not in stages or len(modes) > 1 or not all(e.startswith(_REGULAR) for e in stages.values()):
        return ()
    contents = {s: git("cat-file", "blob", stages[s].split()[1]).out if s in stages else b"" for s in (_OURS, _BASE, _THEIRS)}
    if any(b"\0" in c[:BINARY_LOOK] or len(c) > _MOST_BYTES for c in contents.values()):
        return ()
    # Longer than anything that looks like one in the files: what stands in them is never taken for a marker.
    size = max([7, *(len(found) + 1 for content in contents.values() for found in _MARK.findall(content))])
    if size > _LONGEST_MARK:
        return ()
    files = []
    for stage, content in contents.items():
        files.append(scratch / f"part-{stage}")
        files[-1].write_bytes(content)
    words = ("-p", "--zdiff3", "--quiet", f"--marker-size={size}", *("-L", "ours", "-L", "base", "-L", "theirs"))
    try:
        merged = git.attempt("merge-file", *words, *map(str, files)).out.decode("utf-8")
    except UnicodeDecodeError:
        return ()
    return _split(merged, size)


def _split(merged: str, size: int) -> tuple[str | Hunk, ...]:
    marks = {f"{'<' * size} ours": "ours", f"{'|' * size} base": "base", "=" * size: "theirs", f"{'>' * size} theirs": "both"}
    parts, side, line = list[str | Hunk](), "both", 1
    texts = _none()
    for text in re.findall(r"[^\n]*\n|[^\n]+", merged):
        turned = marks.get(text.rstrip("\r\n"))
        if turned == "ours":
            parts.append("".join(texts["both"]))
            texts = _none()
        elif turned == "both":
            parts.append(Hunk(line, *("".join(texts[name]) for name in ("base", "ours", "theirs"))))
            line += len(texts["ours"])
            texts = _none()
        elif turned is None:
            texts[side].append(text)
            line += side == "both"
        side = turned or side
    return (*parts, "".join(texts["both"]))


def _none() -> dict[str, list[str]]:
    return {"ours": [], "base": [], "theirs": [], "both": []}
