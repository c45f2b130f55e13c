"""Merges tried on objects alone: no work tree, no branch moved, the same inputs give the same commit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from taxiway.errors import InputError, MergeConflict, ProjectError
from taxiway.integrations.git_command import Git
from taxiway.integrations.git_favor import decide
from taxiway.integrations.git_torn import By, decided_by, shown, torn_files
from taxiway.ports import SOURCE_TRAILER as SOURCE
from taxiway.ports import Conflict, Favor, Merge, Resolve, Strategy

__all__ = ["How", "format_message", "merge"]

_BY_LINES = {"CONFLICT (contents)", "CONFLICT (binary)"}
_MOST_COMMITS = 1000
_MOST_LINES = 1000
_MOST_TOLD, _LONGEST_TOLD, _ALL_TOLD = 50, 2_000, 30_000
"""Commits whose words a squashed one repeats; characters of one of them, and of all."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_TRAILER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")


@dataclass(frozen=True)
class _Tried:
    tree: str
    conflicts: tuple[Conflict, ...] = ()
    decided: tuple[Conflict, ...] = ()


@dataclass(frozen=True)
class _Message:
    """One of git's informational messages: paths, stable short type, words."""

    paths: tuple[str, ...]
    kind: str
    text: str


@dataclass(frozen=True)
class How:
    """What the commit says, and who decides a hunk that both sides changed: nobody, one side, or `resolve`. `costs` are the trailers
    that are known once that was asked."""

    message: str
    trailers: Mapping[str, str]
    favor: Favor = "fail"
    resolve: Resolve | None = None
    costs: Callable[[], Mapping[str, str]] = dict


def format_message(git: Git, message: str, trailers: Mapping[str, str]) -> str:
    """The message with the trailers in its last paragraph; one of ours replaces one of the same name that was there."""
    for name, value in trailers.items():
        if not _TRAILER.fullmatch(name) or "\n" in value or _CONTROL.search(value):
            raise InputError(f"{name!r}: {value!r} cannot be a trailer", hint="a name of letters and dashes, a value of one line")
    clean = _CONTROL.sub("", message).strip() or "Change"
    words = [word for name, value in trailers.items() for word in ("--trailer", f"{name}: {value}")]
    done = git("interpret-trailers", "--no-divider", "--if-exists=replace", *words, stdin=(clean + "\n").encode("utf-8", "replace"))
    return done.out.decode("utf-8", "replace")


def merge(git: Git, commit: str, *, base: str, into: str, strategy: Strategy, how: How) -> Merge:
    """What merging `commit` into the branch `into`, whose head is `base`, gives.

    Raises MergeConflict where the strategy itself does not apply, ProjectError where the histories share nothing.
    """
    if not base:
        return Merge(commit=commit, base="")
    common = git("merge-base", base, commit, ok=(0, 1)).text
    if not common:
        raise ProjectError(f"{commit[:12]} shares no history with {into}", hint="start the run from that branch's repository")
    if found := _brought_in(git, commit, base, common, how.trailers) or (commit if common == commit else ""):
        return Merge(commit=found, base=base, up_to_date=True)
    if strategy == "fast-forward":
        return _fast_forward(commit, base, common, into)
    how = replace(how, trailers={**how.trailers, SOURCE: commit})
    # A rebase asks for each of its commits, and not for all of them together.
    asked = replace(how, resolve=None) if strategy == "rebase" else how
    tried = _merge_trees(git, base, commit, asked, By(f"{common}..{base}", f"{common}..{commit}"))
    if not tried.conflicts and tried.tree == _tree(git, base):
        return Merge(commit=base, base=base, up_to_date=True, decided=tried.decided)
    if strategy == "rebase":
        return _rebase(git, commit, base, common, how)
    parents = (base, commit) if strategy == "merge" else (base,)
    told = _told(git, common, commit) if strategy == "squash" else ""
    made = "" if tried.conflicts else _make(git, tried.tree, parents, replace(how, message=f"{how.message}\n\n{told}"))
    return Merge(commit=made, base=base, conflicts=tried.conflicts, decided=tried.decided, told=told)


def _told(git: Git, since: str, commit: str) -> str:
    """What the commits since another say, oldest first: a list of their subjects, each with its text, without Taxiway's trailers."""
    log = git("log", "--reverse", "--topo-order", f"--max-count={_MOST_TOLD}", "--format=%s%x00%b%x00", f"{since}..{commit}", "--").out
    words = log.decode("utf-8", "replace").split("\0")
    parts = []
    for subject, body in zip(words[::2], words[1::2], strict=False):
        lines = [line.rstrip() for line in body.strip().splitlines() if not line.startswith("Taxiway-")]
        # Indented, so that nothing in it is a trailer of the commit that it goes into.
        text = "\n".join(f"  {line}" if line else "" for line in lines).strip("\n")[:_LONGEST_TOLD]
        parts.append(f"- {subject.strip()}" + (f"\n\n{text}" if text.strip() else ""))
    whole = _CONTROL.sub("", ("\n\n" if any("\n" in part for part in parts) else "\n").join(parts))
    return whole if len(whole) <= _ALL_TOLD else f"{whole[:_ALL_TOLD]}\n..."


def _tree(git: Git, commit: str) -> str:
    return git("rev-parse", f"{commit}^{{tree}}").text


def _brought_in(git: Git, commit: str, base: str, common: str, trailers: Mapping[str, str]) -> str:
    """The commit on the branch by which this run brought `commit` in before; "" where there is none."""
    run = trailers.get("Taxiway-Run", "")
    keys = f"%H%x00%(trailers:key={SOURCE},valueonly,separator=%x2C)%x00%(trailers:key=Taxiway-Run,valueonly,separator=%x2C)"
    done = git("log", "--first-parent", f"--grep={SOURCE}: {commit}", "--fixed-strings", f"--format={keys}", f"{common}..{base}", "--")
    for line in done.text.splitlines():
        found, source, by = line.split("\0")
        if source == commit and by == run:
            return found
    return ""


def _fast_forward(commit: str, base: str, common: str, into: str) -> Merge:
    if common == base:
        return Merge(commit=commit, base=base)
    raise MergeConflict(
        f"{into} has commits that the run's commit {commit[:12]} does not: no fast-forward",
        hint="use strategy squash, merge or rebase",
    )


def _rebase(git: Git, commit: str, base: str, common: str, how: How) -> Merge:
    if common == base:
        return Merge(commit=commit, base=base)
    listed = git("rev-list", "--reverse", "--topo-order", "--parents", f"{base}..{commit}").text.splitlines()
    if len(listed) > _MOST_COMMITS:
        raise ProjectError(f"{len(listed)} commits are too many to rebase", hint="use strategy squash or merge")
    head, decided = base, list[Conflict]()
    for line in listed:
        picked, *parents = line.split()
        if len(parents) != 1:
            raise ProjectError(f"commit {picked[:12]} is itself a merge and cannot be rebased", hint="use strategy squash or merge")
        tried = _pick(git, picked, parents[0], head, how=how, by=By(f"{common}..{base}", f"{parents[0]}..{picked}"))
        if tried.conflicts:
            return Merge(commit="", base=base, conflicts=_of_pick(tried.conflicts, picked))
        decided += _of_pick(tried.decided, picked)
        if picked == commit or tried.tree != _tree(git, head):
            head = _copy(git, picked, tried.tree, head, how if picked == commit else None)
    return Merge(commit=head, base=base, decided=tuple(decided))


def _of_pick(found: tuple[Conflict, ...], picked: str) -> tuple[Conflict, ...]:
    return tuple(replace(conflict, reason=f"{conflict.reason} (rebasing {picked[:12]})") for conflict in found)


def _pick(git: Git, picked: str, parent: str, onto: str, *, how: How, by: By) -> _Tried:
    """The change of one commit on another head. Stand-ins make its parent the merge base: --merge-base came with git 2.40."""
    below = git("commit-tree", f"{parent}^{{tree}}", stdin=b"base").text
    ours = git("commit-tree", f"{onto}^{{tree}}", "-p", below, stdin=b"ours").text
    theirs = git("commit-tree", f"{picked}^{{tree}}", "-p", below, stdin=b"theirs").text
    return _merge_trees(git, ours, theirs, how, by)


def _copy(git: Git, picked: str, tree: str, parent: str, how: How | None) -> str:
    """The commit again on another parent, by its author; the last of them says where all came from."""
    name, email, date, message = git("log", "-1", "--format=%an%x00%ae%x00%ad%x00%B", "--date=raw", picked, "--").text.split("\0", 3)
    author = {"GIT_AUTHOR_NAME": name or "unknown", "GIT_AUTHOR_EMAIL": email, "GIT_AUTHOR_DATE": date}
    if how:
        message = format_message(git, message, {**how.trailers, **how.costs()})
    given = message.encode("utf-8", "surrogateescape")
    return git("commit-tree", tree, "-p", parent, stdin=given, env=author).text


def _make(git: Git, tree: str, parents: tuple[str, ...], how: How) -> str:
    text = format_message(git, how.message, {**how.trailers, **how.costs()})
    return git("commit-tree", tree, *(word for parent in parents for word in ("-p", parent)), stdin=text.encode()).text


def _merge_trees(git: Git, ours: str, theirs: str, how: How, by: By) -> _Tried:
    done = git("merge-tree", "--write-tree", "-z", "--messages", ours, theirs, ok=(0, 1))
    tree, _, rest = done.out.decode("utf-8", "surrogateescape").partition("\0")
    if done.code == 0:
        return _Tried(tree)
    stages, _, told = rest.partition("\0\0")
    messages = [message for message in _messages(told) if message.kind.startswith("CONFLICT")]
    places = _places(stages)
    by_lines = {m.kind for m in messages} <= _BY_LINES and {_path(m) for m in messages} == places.keys()
    favor = how.favor
    if favor != "fail" and by_lines:
        resolved = decide(git, tree, places, favor)
        return _Tried(resolved, decided=_listed(git, tree, (ours, theirs), messages))
    if how.resolve and by_lines and (files := torn_files(git, places, by)):
        return _Tried(*decided_by(git, tree, files, how.resolve))
    # What one side can decide is not in the way of the merge: only the rest is.
    left = [m for m in messages if favor == "fail" or m.kind not in _BY_LINES] or messages
    unnamed = Conflict(shown(next(iter(places), "")), 1, "unknown", "does not merge")
    return _Tried(tree, _listed(git, tree, (ours, theirs), left) or (unnamed,))


def _places(text: str) -> dict[str, dict[int, str]]:
    """Path -> stage (1 the base, 2 the branch, 3 the change) -> `mode blob`, of all files that do not merge."""
    found: dict[str, dict[int, str]] = {}
    for entry in filter(None, text.split("\0")):
        facts, _, path = entry.partition("\t")
        mode, blob, stage = facts.split()
        found.setdefault(path, {})[int(stage)] = f"{mode} {blob}"
    return found


def _listed(git: Git, tree: str, sides: tuple[str, str], messages: list[_Message]) -> tuple[Conflict, ...]:
    found = [conflict for message in messages for conflict in _conflict(git, tree, sides, message)]
    return tuple(dict.fromkeys(found))[:_MOST_LINES]


def _path(message: _Message) -> str:
    return message.paths[0] if message.paths else ""


def _messages(text: str) -> list[_Message]:
    fields = text.split("\0")
    found, at = [], 0
    while at < len(fields) and fields[at].strip().isdigit():
        kind = at + 1 + int(fields[at])
        found.append(_Message(tuple(fields[at + 1 : kind]), fields[kind], fields[kind + 1].strip()))
        at = kind + 2
    return found


def _conflict(git: Git, tree: str, sides: tuple[str, str], message: _Message) -> list[Conflict]:
    """One a hunk."""
    path, kind = _path(message), message.kind.removeprefix("CONFLICT (").removesuffix(")")
    if message.kind in _BY_LINES:
        lines = _hunks(git, tree, path, sides[0])
        if not lines:
            return [Conflict(shown(path), 1, "binary", "both sides changed this file, and it does not merge by lines")]
        return [Conflict(shown(path), line, kind, "both sides changed these lines") for line in lines]
    words = message.text.removeprefix(message.kind).lstrip(": ").replace(sides[0], "the branch").replace(sides[1], "the change")
    return [Conflict(shown(path), 1, kind, shown(words) or message.kind)]


def _hunks(git: Git, tree: str, path: str, ours: str) -> list[int]:
    """The lines of the branch's own file at which git wrote conflict markers into the merged one."""
    found, line, side = [], 1, "both"
    for text in git.attempt("cat-file", "blob", f"{tree}:{path}").out.split(b"\n"):
        word = text.rstrip(b"\r")
        if side == "both" and word == b"<<<<<<< " + ours.encode():
            found.append(line)
            side = "ours"
        elif side == "ours" and word == b"=======":
            side = "theirs"
        elif side == "theirs" and word.startswith(b">>>>>>> "):
            side = "both"
        elif side != "theirs":
            line += 1
    return found
