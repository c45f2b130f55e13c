"""Requirement files as a project wrote them: their lines, those of the files that they name, and what none of them may lead to."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from taxiway.errors import OperatorError, ProjectError
from taxiway.integrations.indexes import CREDENTIALS
from taxiway.integrations.upgrading.files import is_plain, text_of

__all__ = ["Line", "check_indexes", "elsewhere", "lines_of", "without_indexes"]

_COMMENT = re.compile(r"(?:^|\s)#.*$")
_INCLUDED = re.compile(r"(?:-(r|c)|--(r)equirements?|--(c)onstraints?)(?:\s*=\s*|\s+|(?<=-[rc]))(\S.*)")
_INDEX = re.compile(r"(?:-i|--index-url|--extra-index-url|-f|--find-links)(?:\s*=\s*|\s+|(?<=-[if]))(\S+)")
_ELSEWHERE = re.compile(
    r"(?:(?:-e|--editable)(?:\s*=\s*|\s+))?(?:[A-Za-z0-9][\w.-]*\s*(?:\[[^\]]*\])?\s*@\s*)?((?:(?:git|hg|svn|bzr)\+\S+?:|https?:|ssh:)//\S+)",
    re.ASCII,
)
_LONG = 4000  # what is longer is no requirement, and patterns take their time
_FILES = 200
_HINT = "publish it on an index that the workers know, or update without this file (`manager`)"


@dataclass(frozen=True)
class Line:
    """A line of a file without its comment, the first number of those that it was written on, and how many these are. `limits` says that
    the file only constrains: its indexes count for nothing."""

    path: str
    number: int
    count: int
    text: str
    limits: bool = False

    @property
    def place(self) -> str:
        """For people."""
        return f"{self.path}:{self.number}"


def lines_of(checkout: Path, path: str, *, limits: bool = False) -> Sequence[Line]:
    """All that says something, of this file and of those that it names and the checkout has."""
    found: list[Line] = []
    _read(checkout, path, limits, found, set())
    return found


def check_indexes(lines: Iterable[Line], machine: Iterable[str]) -> Sequence[Line]:
    """The lines that name indexes, all of which are the machine's; raise OperatorError for one that is not."""
    from taxiway.integrations.upgrading.origins import same_address  # noqa: PLC0415 - half a second to import

    known, found = {same_address(url) for url in machine}, []
    for line in lines:
        if line.limits or (named := _INDEX.match(line.text)) is None or not _leads_out(named[1]):
            continue
        try:
            ours = same_address(named[1]) in known
        except ValueError:
            ours = False
        if not ours:
            raise OperatorError(
                f"{line.place}: the project takes packages from {_shown(named[1])}, which this machine's settings do not name",
                hint="name it in the settings for uv or pip of the workers (UV_INDEX, PIP_EXTRA_INDEX_URL), with its credentials,"
                " or take the line out",
            )
        found.append(line)
    return found


def elsewhere(lines: Iterable[Line]) -> Iterator[tuple[Line, ProjectError]]:
    """Requirements that come from git or an address, which a sandbox with the index alone cannot reach."""
    for line in lines:
        if named := _ELSEWHERE.match(line.text):
            what = "git" if named[1].startswith("git+") else "an address"
            problem = f"{line.place}: {_shown(line.text)} comes from {what}, and the sandbox reaches the package index alone"
            yield line, ProjectError(problem, hint=_HINT)
        elif (named := _INCLUDED.match(line.text)) and "://" in named[4] and not named[4].startswith("file:"):
            problem = f"{line.place}: {_shown(named[4])} is a file at an address, and the sandbox reaches the package index alone"
            yield line, ProjectError(problem, hint="commit the file, and name it by its path")


def without_indexes(folder: Path, lines: Iterable[Line]) -> None:
    """Take these lines out of the files, which stay as long as they were."""
    for line in lines:
        text = text_of(folder, line.path).split("\n")
        text[line.number - 1 : line.number - 1 + line.count] = [""] * line.count
        (folder / line.path).write_text("\n".join(text), encoding="utf-8")


def _read(checkout: Path, path: str, limits: bool, found: list[Line], seen: set[tuple[str, bool]]) -> None:
    if (path, limits) in seen or len(seen) >= _FILES or path.startswith(("/", "../")) or not is_plain(checkout, path):
        return
    seen.add((path, limits))
    for number, count, text in _logical(text_of(checkout, path)):
        found.append(Line(path, number, count, text, limits))
        if named := _INCLUDED.match(text):
            inner = posixpath.normpath(posixpath.join(posixpath.dirname(path), named[4].strip("\"'")))
            _read(checkout, inner, limits or "c" in (named[1], named[3]), found, seen)


def _logical(text: str) -> Iterator[tuple[int, int, str]]:
    """Number, count and text of each."""
    parts: list[str] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        bare = line.rstrip("\r")
        open_ = bare.endswith("\\") and not bare.lstrip().startswith("#") and number < len(lines)
        parts.append(bare.removesuffix("\\") if open_ else bare)
        if open_:
            continue
        if said := _COMMENT.sub("", "".join(parts)).strip():
            yield number - len(parts) + 1, len(parts), said[:_LONG]
        parts = []


def _leads_out(address: str) -> bool:
    return ("://" in address and not address.startswith("file:")) or "$" in address


def _shown(text: str) -> str:
    """For people: without credentials, and without a query, which may hold some."""
    return CREDENTIALS.sub("***@", text.partition("?")[0])[:200]
