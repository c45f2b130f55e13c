"""uv.lock as data: what it pins and from which indexes, and its text with addresses exchanged."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from taxiway.errors import ProjectError
from taxiway.integrations.upgrading.levels import canonical
from taxiway.ports import Pins

__all__ = ["Lock", "read_lock", "with_old_files", "with_registries"]

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9.!+_-]{1,100}", re.ASCII)
_REGISTRY = re.compile(r'(?:(?<=\bregistry = ")|(?<=\bindex = "))[^"\n]*(?=")')
_FILES = re.compile(r"^(?:sdist = .*|wheels = \[(?:.*\]|\n(?:[ \t].*\n)*\]))\n", re.MULTILINE)
_BLOCK = "[[package]]\n"
_OPTIONS = {"resolution-mode": "resolution", "prerelease-mode": "prerelease", "exclude-newer-span": "exclude-newer"}
_HINT = "write it anew with `uv lock`"


@dataclass(frozen=True)
class Lock:
    """`pins` are the packages that an index serves; `files` their files, by package and then by name: hash and address.
    `registries` are the indexes' addresses as the lock has them, `elsewhere` says which packages come from git or an address;
    `members` are the folders of the project's own packages, `direct` the packages that these ask for by name, `options` what it was made
    with, as uv's options, and `cool_downs` since when which package is left out, or for how long, False for one that is not held to
    that of all."""

    text: str
    pins: Pins
    registries: frozenset[str]
    files: Mapping[str, Mapping[str, tuple[str, str]]]
    elsewhere: tuple[str, ...]
    members: tuple[str, ...]
    direct: frozenset[str]
    options: Mapping[str, str]
    cool_downs: Mapping[str, str | Literal[False]]


def read_lock(text: str) -> Lock:
    """Raise ProjectError for what uv has not written."""
    try:
        data = tomllib.loads(text)
        packages = data.get("package", [])
    except (ValueError, RecursionError) as error:
        raise ProjectError(f"uv.lock is not TOML: {error}", hint=_HINT) from error
    if not isinstance(packages, list) or not all(isinstance(p, dict) and isinstance(p.get("source", {}), dict) for p in packages):
        raise ProjectError("uv.lock has no packages as uv writes them", hint=_HINT)
    pins: dict[str, list[str]] = {}
    files: dict[str, dict[str, tuple[str, str]]] = {}
    registries, elsewhere, members, direct = set(), [], [], set()
    for package in packages:
        name, source = _checked(package.get("name"), _NAME, "name"), package.get("source", {})
        if "registry" in source:
            if not (address := str(source["registry"])).startswith(("http://", "https://")):
                raise ProjectError(f"uv.lock takes {name} from a folder of one machine: {address[:200]}", hint="lock it from an index")
            registries.add(address)
            pins.setdefault(name, []).append(_checked(package.get("version"), _VERSION, "version"))
            files.setdefault(name, {}).update(_files(package))
        elif "git" in source or "url" in source:
            elsewhere.append(f"{name} from {'git' if 'git' in source else 'an address'}")
        else:
            direct |= set(_asked(package))
            members += [str(source[kind]) for kind in ("virtual", "editable", "directory") if kind in source]
    pinned = {name: tuple(versions) for name, versions in pins.items()}
    options = data.get("options")
    return Lock(
        text=text,
        pins=pinned,
        registries=frozenset(registries),
        files=files,
        elsewhere=tuple(elsewhere),
        members=tuple(members),
        direct=frozenset(direct),
        options=dict(_options(options)),
        cool_downs=dict(_cool_downs(options)),
    )


def with_registries(text: str, exchanged: Callable[[str], str]) -> str:
    """The lock with other addresses of indexes."""
    return _REGISTRY.sub(lambda m: exchanged(m[0]), text)


def with_old_files(new: str, old: str) -> str:
    """The new lock, in which packages that have the same version from the same index also have the same files as in the old one: what an
    index says of them by now, or says no more, is no update."""
    known = {_head(block): block for block in old.split(_BLOCK)[1:]}
    first, *blocks = new.split(_BLOCK)
    return _BLOCK.join([first, *(_with_files_of(b, known[_head(b)]) if _head(b) in known else b for b in blocks)])


def _with_files_of(block: str, before: str) -> str:
    found = list(_FILES.finditer(block))
    files = "".join(m[0] for m in _FILES.finditer(before))
    if not found or not files:
        return block
    return block[: found[0].start()] + files + _FILES.sub("", block[found[0].start() :])


def _head(block: str) -> str:
    """Name, version and source: the first three lines."""
    return "\n".join(block.split("\n")[:3])


def _checked(value: Any, pattern: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ProjectError(f"uv.lock has {str(value)[:80]!r} as the {what} of a package", hint=_HINT)
    return canonical(value) if what == "name" else value


def _files(package: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    wheels = package.get("wheels", [])
    for file in [package.get("sdist"), *(wheels if isinstance(wheels, list) else [])]:
        if isinstance(file, dict) and isinstance(file.get("url"), str):
            address = file["url"].partition("#")[0]
            yield address.rpartition("/")[2], (str(file.get("hash", "")), address)


def _options(table: Any) -> Iterator[tuple[str, str]]:
    for key, value in table.items() if isinstance(table, dict) else ():
        # A span stands before the moment that it led to, which moves on.
        name = _OPTIONS.get(str(key), str(key))
        if isinstance(value, str) and not (key == "exclude-newer" and "exclude-newer-span" in table):
            yield name, value


def _cool_downs(options: Any) -> Iterator[tuple[str, str | Literal[False]]]:
    table = options.get("exclude-newer-package") if isinstance(options, dict) else None
    for package, moment in table.items() if isinstance(table, dict) else ():
        # Of a span the moment means nothing.
        value = moment.get("span") if isinstance(moment, dict) else moment
        if isinstance(value, str) or value is False:
            yield package, value


def _asked(package: Mapping[str, Any]) -> Iterator[str]:
    groups = [package.get("dependencies", [])]
    for table in ("optional-dependencies", "dev-dependencies"):
        found = package.get(table, {})
        groups += found.values() if isinstance(found, dict) else []
    for group in groups:
        yield from (canonical(d["name"]) for d in group if isinstance(d, dict) and isinstance(d.get("name"), str))
