"""A project's requirements, read as hostile input: names, versions, markers and hashes, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from taxiway.errors import ProjectError
from taxiway.manifest import MANIFEST, Install, read_inside
from taxiway.project.locks import read_lock
from taxiway.project.metadata import Metadata, read_metadata

__all__ = ["Requirements", "read_requirements"]

_MOST = 2000
_HASH = re.compile(r"\s--hash[=\s](\S+)")
_HASH_VALUE = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_INCLUDE = re.compile(r"(?:-r\s*|--requirement(?:=|\s+))(\S+)")
_CONSTRAIN = re.compile(r"(?:-c\s*|--constraint(?:=|\s+))(\S+)")
# The project itself is never installed: its sources are put on the path, and its dependencies are those of its metadata.
_ITSELF = re.compile(r"(?:(?:-e\s*|--editable(?:=|\s+))[\"']?)?(?:\.|file:\.)/?(?:\[([\w., -]*)\])?[\"']?")
_ARCHIVE = (".whl", ".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".tar", ".egg")
_WHEELS_HINT = "name a package of the index, such as `httpx==0.28.1`; only wheels of the index are installed"


@dataclass(frozen=True)
class Requirements:
    """What to install, in a form of our own writing: no text of the project reaches the installer unparsed. `constraints` say
    which versions, and with which hashes, of whatever is installed."""

    lines: tuple[str, ...]
    hashed: bool
    constraints: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """A requirements file."""
        return "".join(f"{line}\n" for line in self.lines)

    @property
    def constraints_text(self) -> str:
        """A constraints file."""
        return "".join(f"{line}\n" for line in self.constraints)


@dataclass
class _Found:
    """What the files say: requirements with whether each has hashes, constraints, and extras of the project itself."""

    lines: dict[str, bool] = field(default_factory=dict)
    constraints: dict[str, None] = field(default_factory=dict)
    itself: bool = False
    extras: set[str] = field(default_factory=set)

    def add(self, line: str, where: str, *, hashed: bool = False) -> None:
        self.lines[line] = hashed
        if len(self.lines) > _MOST:
            raise ProjectError(f"{where}: more than {_MOST} requirements")


def read_requirements(checkout: Path, install: Install) -> Requirements:
    """The requirements in the files that `install` names, in those that they include with `-r`, and those of the project's own
    metadata, at the versions of its lock where it names one; raise ProjectError naming file and line."""
    found = _Found(extras=set(install.extras))
    for file in install.requirements:
        _read(checkout, file, found, seen=set())
    for text in install.packages:
        found.add(_requirement(text, f"{MANIFEST}: packages")[0], MANIFEST)
    if install.source or found.itself:
        _add_own(checkout, install, found)
    hashed = bool(found.lines) and all(found.lines.values())
    return Requirements(tuple(found.lines), hashed, tuple(found.constraints))


def _add_own(checkout: Path, install: Install, found: _Found) -> None:
    """The project's own dependencies with the chosen extras and groups."""
    metadata = read_metadata(checkout)
    if metadata is None or (install.source and not (checkout / install.source).is_file()):
        file = install.source or "pyproject.toml, setup.cfg or setup.py"
        raise ProjectError(f"there is no {file} that names dependencies", hint="name the file that does in install: {from: ...}")
    elsewhere = dict(metadata.elsewhere)
    for pin in read_lock(checkout, install.source) if install.source in ("uv.lock", "poetry.lock") else ():
        if pin.elsewhere:
            elsewhere.setdefault(pin.name, pin.elsewhere)
        else:
            line, _ = _requirement(" ".join([pin.constraint, *(f"--hash={h}" for h in pin.hashes)]), str(install.source))
            found.constraints[line] = None
    texts = [*metadata.dependencies, *metadata.extras.get("", ())]
    texts += [t for group in install.groups for t in _part(metadata.groups, group, "dependency group", metadata)]
    own = canonicalize_name(metadata.name) if metadata.name else ""
    extras, done = sorted(found.extras), set[str]()
    while texts or extras:
        while extras:
            if (extra := str(canonicalize_name(extras.pop()))) not in done:
                done.add(extra)
                texts += _part(metadata.extras, extra, "extra", metadata)
        if texts:
            line, _ = _requirement(text := texts.pop(0), metadata.file)
            requirement = Requirement(line)
            name = canonicalize_name(requirement.name)
            if name == own:
                extras += requirement.extras
            elif name in elsewhere:
                raise ProjectError(f"{metadata.file}: {text!r} comes from a {elsewhere[name]}, not from the index", hint=_WHEELS_HINT)
            else:
                found.add(line, metadata.file)


def _part(table: Mapping[str, tuple[str, ...]], name: str, kind: str, metadata: Metadata) -> list[str]:
    key = str(canonicalize_name(name))
    if key not in table:
        known = ", ".join(sorted(n for n in table if n)) or "none"
        raise ProjectError(f"{metadata.file} has no {kind} {name!r}", hint=f"it has: {known}")
    return list(table[key])


def _read(checkout: Path, file: str, found: _Found, seen: set[str], *, constrain: bool = False) -> None:
    if file in seen:
        return
    seen.add(file)
    try:
        text = read_inside(checkout, file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProjectError(f"{file} is not UTF-8: {error}", hint="save it as UTF-8") from error
    for number, line in _logical_lines(text):
        where = f"{file}:{number}"
        if include := _INCLUDE.fullmatch(line):
            _read(checkout, _beside(file, include[1], where), found, seen, constrain=constrain)
        elif include := _CONSTRAIN.fullmatch(line):
            _read(checkout, _beside(file, include[1], where), found, seen, constrain=True)
        elif itself := _ITSELF.fullmatch(line):
            found.itself = True
            found.extras |= {e.strip() for e in (itself[1] or "").split(",") if e.strip()}
        elif line != "--require-hashes":
            said, hashed = _requirement(line, where)
            if constrain:
                found.constraints[said] = None
            else:
                found.add(said, where, hashed=hashed)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, continued ones joined, with the number of the first."""
    joined, first = "", 0
    for number, line in enumerate(text.split("\n"), start=1):
        first = first if joined else number
        joined += _COMMENT.sub("", line.rstrip("\r"))
        if joined.endswith("\\"):
            joined = joined[:-1] + " "
            continue
        if joined.strip():
            yield first, joined.strip()
        joined = ""
    if joined.strip():
        yield first, joined.strip()


def _beside(file: str, included: str, where: str) -> str:
    parts: list[str] = []
    for part in (PurePosixPath(file).parent / included).parts:
        if part == ".." and parts:
            parts.pop()
        elif part in ("..", "/"):
            raise ProjectError(f"{where}: {included} leads out of the project", hint="include only files of the project")
        else:
            parts.append(part)
    return "/".join(parts)


def _requirement(line: str, where: str) -> tuple[str, bool]:
    hashes = _HASH.findall(line)
    text = _HASH.sub("", line).strip()
    if text.startswith("-") or " --" in text:
        option = next(word for word in text.split() if word.startswith("-"))
        raise ProjectError(
            f"{where}: option {option[:60]} is not taken from a project", hint="indexes are settings of the machine that runs Taxiway"
        )
    for value in hashes:
        if not _HASH_VALUE.fullmatch(value):
            raise ProjectError(f"{where}: {value[:80]} is not a hash", hint="write --hash=sha256:<64 hex digits>")
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise ProjectError(f"{where}: {text[:100]!r} is not a requirement: {str(error).splitlines()[0]}", hint=_WHEELS_HINT) from error
    if requirement.url is not None or requirement.name.lower().endswith(_ARCHIVE):
        raise ProjectError(f"{where}: {text[:100]!r} is an address or a file, not a package of the index", hint=_WHEELS_HINT)
    return " ".join([str(requirement), *(f"--hash={value}" for value in hashes)]), bool(hashes)
