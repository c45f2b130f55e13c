"""What a model may do to a checkout: list, read, search, write, replace, delete, run a declared check. Nothing else, nowhere else.

Every path is walked from the checkout's own directory, one name after the other, following no link: whatever a model asks for, and whatever
lies in the checkout, nothing outside of it is read or written.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError

from taxiway.errors import ProjectError
from taxiway.ports import Cancellation, Command, Sandbox
from taxiway.records import Model

__all__ = ["LIMITS", "PROTECTED", "TOOLS", "Limits", "ToolError", "Tools", "is_protected", "plain_name"]

PROTECTED = (
    *(".taxiway.yaml", ".gitmodules", ".gitattributes", "*/.gitattributes"),
    *(".github/*", ".gitlab-ci.yml", ".gitlab/*", ".gitea/*", ".forgejo/*", ".circleci/*", ".buildkite/*", "Jenkinsfile"),
    *(".woodpecker*", ".drone.yml", ".travis.yml", "azure-pipelines.yml", "bitbucket-pipelines.yml", "appveyor.yml", ".appveyor.yml"),
)
"""Patterns of what decides how a project is run and delivered; a model changes it only where the pipeline allows the path."""


def is_protected(path: str, protected: Sequence[str], allowed: Sequence[str]) -> bool:
    """Whether a path of the project, `/` between its parts, matches a pattern of `protected` in any case and none of `allowed`."""
    return any(fnmatchcase(path.lower(), p.lower()) for p in protected) and not any(fnmatchcase(path, a) for a in allowed)


@dataclass(frozen=True)
class Limits:
    """Bytes of a file that is read or written, characters of one answer, entries of one listing, files that may be changed, seconds
    of one search."""

    file_bytes: int = 400_000
    answer: int = 20_000
    entries: int = 400
    changed: int = 200
    search_s: float = 20.0


LIMITS = Limits()


class ToolError(Exception):
    """A call that the model can mend: its text goes back to it as the result."""


Name = Annotated[str, StringConstraints(min_length=1, max_length=400)]


class List(Model):
    """List the files and folders of a folder of the project, with sizes in bytes."""

    path: Name = Field(default=".", description="Folder, from the project's root")


class Read(Model):
    """Read a text file of the project, or some lines of it. Lines are numbered from 1; the numbers are not part of the file."""

    path: Name = Field(description="File, from the project's root")
    first: int = Field(default=1, ge=1, description="First line")
    last: int = Field(default=0, ge=0, description="Last line; 0 for all that fits")


class Search(Model):
    """Find lines of the project's text files that match an extended regular expression (as `grep -E`)."""

    pattern: Annotated[str, StringConstraints(min_length=1, max_length=500)] = Field(description="What to look for")
    path: Name = Field(default=".", description="File or folder to look in")


class Write(Model):
    """Write a text file of the project, new or whole anew. Folders are made as needed."""

    path: Name = Field(description="File, from the project's root")
    content: str = Field(description="All of its text")


class Replace(Model):
    """Replace a piece of a text file that occurs in it exactly once."""

    path: Name = Field(description="File, from the project's root")
    old: Annotated[str, StringConstraints(min_length=1)] = Field(
        description="The text as it stands now, with enough around it to be unique"
    )
    new: str = Field(description="What to write in its place")


class Delete(Model):
    """Delete a file of the project."""

    path: Name = Field(description="File, from the project's root")


class Check(Model):
    """Run one of the project's checks on the files as they are now, and see what it finds."""

    name: Name = Field(description="Which check")


TOOLS: Mapping[str, type[Model]] = MappingProxyType(
    {"list": List, "read": Read, "search": Search, "write": Write, "replace": Replace, "delete": Delete, "check": Check}
)
"""All there are, with what each takes; a stage offers some of them."""

Checks = Mapping[str, Callable[[], str]]
"""Name -> what runs it and tells what it found."""


@dataclass
class Tools:
    """The tools of one attempt on one checkout. Paths that match `protected` may be changed only where they match `allowed` too;
    `because` says why, to the model. `veto` may refuse further paths: it says why, or "".
    """

    checkout: Path
    sandbox: Sandbox
    stop: Cancellation
    checks: Checks = field(default_factory=dict)
    allowed: Sequence[str] = ()
    protected: Sequence[str] = PROTECTED
    because: str = "decides how the project is run and delivered"
    veto: Callable[[str], str] = lambda _: ""
    writable: bool = True
    limits: Limits = LIMITS
    changed: set[str] = field(default_factory=set)

    @property
    def specifications(self) -> list[dict[str, Any]]:
        """The tools as the Messages API wants them, in an order that never changes (the prompt cache wants that)."""
        return [
            {"name": name, "description": (TOOLS[name].__doc__ or "").strip(), "input_schema": _schema(TOOLS[name])} for name in self._all()
        ]

    def call(self, name: str, arguments: Any) -> str:
        """Do it and tell what came of it, bounded in length; raise ToolError for what the model can mend."""
        self.stop.check()
        if name not in self._all():
            raise ToolError(f"there is no tool {name!r}; there are: {', '.join(self._all())}")
        try:
            asked = TOOLS[name].model_validate(arguments)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or name}: {e['msg']}" for e in error.errors()[:5])
            raise ToolError(f"{name} does not take this: {faults}") from error
        try:
            return self._cut(self._all()[name](asked))
        except (OSError, UnicodeError) as error:
            raise ToolError(f"{name}: {getattr(error, 'strerror', None) or type(error).__name__}") from error

    def _all(self) -> dict[str, Callable[[Any], str]]:
        tools: dict[str, Callable[[Any], str]] = {"list": self._list, "read": self._read, "search": self._search}
        if self.writable:
            tools |= {"write": self._write, "replace": self._replace, "delete": self._delete}
        return {**tools, "check": self._check} if self.checks else tools

    # --- reading ----------------------------------------------------------------------------------

    def _list(self, asked: List) -> str:
        with self._folder(_names(asked.path)) as folder, os.scandir(folder) as entries:
            lines = [line for entry in sorted(entries, key=lambda e: e.name) if (line := _entry(entry))]
        rest = len(lines) - self.limits.entries
        return "\n".join([*lines[: self.limits.entries], *([f"... and {rest} more"] if rest > 0 else [])]) or "(empty)"

    def _read(self, asked: Read) -> str:
        lines = self._text(asked.path).splitlines()
        if asked.first > max(1, len(lines)):
            raise ToolError(f"{asked.path} has {len(lines)} lines")
        last = min(asked.last or len(lines), len(lines))
        return "\n".join(f"{n:>5}  {lines[n - 1]}" for n in range(asked.first, last + 1)) or "(empty)"

    def _search(self, asked: Search) -> str:
        if not all(c.isprintable() or c == "\t" for c in asked.pattern):
            raise ToolError("search: a pattern is one line of printable characters")
        place = "/".join([".", *_names(asked.path)])
        # In the sandbox: a pattern may take for ever, and grep follows no link that is not named.
        argv = ("grep", "-rnIE", "--exclude-dir=.git", "-m", "50", "-e", asked.pattern, "--", place)
        done = self.sandbox.run(Command(argv=argv, checkout=self.checkout, timeout_s=self.limits.search_s, output_limit=200_000), self.stop)
        if done.ended != "exited" or done.exit_code > 1:
            raise ToolError(f"search: {done.stderr.strip()[:300] or 'it took too long; search for something simpler'}")
        return "\n".join(line.removeprefix("./") for line in done.stdout.splitlines()) or "(no match)"

    # --- changing ---------------------------------------------------------------------------------

    def _write(self, asked: Write) -> str:
        self._put(asked.path, asked.content)
        return f"wrote {asked.path}, {len(asked.content.splitlines())} lines"

    def _replace(self, asked: Replace) -> str:
        text = self._text(asked.path)
        if (times := text.count(asked.old)) != 1:
            raise ToolError(f"the old text occurs {times} times in {asked.path}; it must occur once")
        self._put(asked.path, text.replace(asked.old, asked.new))
        return f"changed {asked.path}"

    def _delete(self, asked: Delete) -> str:
        names = self._may_change(asked.path)
        with self._folder(names[:-1]) as folder:
            _plain(os.stat(names[-1], dir_fd=folder, follow_symlinks=False), asked.path)
            os.unlink(names[-1], dir_fd=folder)
        self.changed.add("/".join(names))
        return f"deleted {asked.path}"

    def _check(self, asked: Check) -> str:
        if asked.name not in self.checks:
            raise ToolError(f"there is no check {asked.name!r}; there are: {', '.join(self.checks)}")
        try:
            return self.checks[asked.name]()
        except ProjectError as error:  # what the model wrote may not even be measurable, and that it can mend
            raise ToolError(f"{asked.name} cannot run: {error.problem}") from error

    def _put(self, path: str, text: str) -> None:
        names, content = self._may_change(path), text.encode("utf-8")
        if len(content) > self.limits.file_bytes:
            raise ToolError(f"{path} would have {len(content)} bytes; {self.limits.file_bytes} are the most")
        if "\0" in text:
            raise ToolError("only text can be written")
        with self._folder(names[:-1], make=True) as folder:
            try:
                _plain(os.stat(names[-1], dir_fd=folder, follow_symlinks=False), path)
                mode = None
            except FileNotFoundError:
                mode = 0o644
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(names[-1], flags, mode or 0o644, dir_fd=folder), "wb") as file:
                file.write(content)
        self.changed.add("/".join(names))

    def _may_change(self, path: str) -> list[str]:
        names = _names(path)
        if not names:
            raise ToolError(f"{path!r} is no file")
        plain = "/".join(names)
        if is_protected(plain, self.protected, self.allowed):
            raise ToolError(f"{plain} {self.because}; this pipeline does not allow to change it")
        if why := self.veto(plain):
            raise ToolError(f"{plain}: {why}")
        if plain not in self.changed and len(self.changed) >= self.limits.changed:
            raise ToolError(f"{self.limits.changed} files were changed; no more may be")
        return names

    # --- the checkout -----------------------------------------------------------------------------

    @contextmanager
    def _folder(self, names: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """A descriptor of a folder of the checkout, reached without following a link."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        current = os.open(self.checkout, flags)
        try:
            for name in names:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=current)
                try:
                    inner = os.open(name, flags, dir_fd=current)
                except (NotADirectoryError, OSError) as error:
                    raise ToolError(f"{'/'.join(names)}: {name} is no folder of the project") from error
                os.close(current)
                current = inner
            yield current
        finally:
            os.close(current)

    def _text(self, path: str) -> str:
        names = _names(path)
        if not names:
            raise ToolError(f"{path!r} is no file")
        with self._folder(names[:-1]) as folder:
            found = os.stat(names[-1], dir_fd=folder, follow_symlinks=False)
            _plain(found, path)
            if found.st_size > self.limits.file_bytes:
                raise ToolError(f"{path} has {found.st_size} bytes; {self.limits.file_bytes} are the most that can be read")
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(names[-1], flags, dir_fd=folder), "rb") as file:
                content = file.read(self.limits.file_bytes)
        if b"\0" in content:
            raise ToolError(f"{path} is no text file")
        return content.decode("utf-8", errors="replace")

    def _cut(self, text: str) -> str:
        most = self.limits.answer
        return text if len(text) <= most else f"{text[:most]}\n... cut: {len(text) - most} more characters; ask for less"


def _names(path: str) -> list[str]:
    """The names on the way from the checkout to a path; ToolError for one that leads elsewhere or into git's own files."""
    if path.startswith(("/", "~")) or "\\" in path:
        raise ToolError(f"{path!r}: paths are relative to the project's root, with / between names")
    names = [name for name in path.split("/") if name not in ("", ".")]
    for name in names:
        if name == ".." or any(unicodedata.category(c).startswith("C") for c in name):
            raise ToolError(f"{path!r} leads out of the project, or is no plain name")
        # What a file system that ignores case, trailing dots or compatibility forms would take for it.
        folded = unicodedata.normalize("NFKC", name).casefold().rstrip(". ").split(":")[0]
        if folded in (".git", "git~1"):
            raise ToolError(f"{path!r} is git's own")
    return names


def plain_name(name: str) -> str:
    """The name of a file as it can be shown: what is not printable, a line's end say, as `?`."""
    return "".join(c if c.isprintable() else "?" for c in name)


def _plain(found: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise ToolError(f"{path} is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise ToolError(f"{path} is no plain file")
    if found.st_nlink > 1:
        raise ToolError(f"{path} is one file under several names")


def _entry(entry: os.DirEntry[str]) -> str:
    if entry.name == ".git":
        return ""
    shown = plain_name(entry.name)
    if entry.is_symlink():
        return f"{shown} (a link, which is not followed)"
    if entry.is_dir(follow_symlinks=False):
        return f"{shown}/"
    return f"{shown}  {entry.stat(follow_symlinks=False).st_size}"


def _schema(model: type[Model]) -> dict[str, Any]:
    schema = model.model_json_schema()
    schema.pop("description", None)
    schema.pop("title", None)
    for inner in schema.get("properties", {}).values():
        inner.pop("title", None)
    return schema
