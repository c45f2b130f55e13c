"""uv.lock and poetry.lock as constraints: which version of each package, and the hashes of its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.markers import InvalidMarker, Marker
from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from taxiway.errors import ProjectError
from taxiway.project.files import as_dict, as_list, exists, read_toml

__all__ = ["Pin", "read_lock"]

_ELSEWHERE = ("git", "url", "path", "directory", "editable", "virtual", "file")


class Pin:
    """One package of a lock: a constraint in pip's format, or with `elsewhere` where it comes from instead of an index."""

    def __init__(self, name: str, constraint: str = "", hashes: tuple[str, ...] = (), elsewhere: str = "") -> None:
        self.name = name
        self.constraint = constraint
        self.hashes = hashes
        self.elsewhere = elsewhere


def read_lock(checkout: Path, lock: str) -> list[Pin]:
    """Every package of the lock; raise ProjectError where it is missing or no lock."""
    if not exists(checkout, lock):
        raise ProjectError(f"there is no {lock}", hint="commit it, or name another file in install: {from: ...}")
    data = read_toml(checkout, lock)
    packages = data.get("package")
    if not isinstance(packages, list) or not all(isinstance(p, dict) for p in packages):
        raise ProjectError(
            f"{lock} names no packages", hint=f"write it anew with the tool that wrote it ({lock.removesuffix('.lock')} lock)"
        )
    files = as_dict(as_dict(data.get("metadata")).get("files"))  # where Poetry kept hashes before 1.3
    pins = [pin for package in packages for pin in _pins(package, lock, files)]
    count: dict[str, int] = {}
    for pin in pins:
        count[pin.name] = count.get(pin.name, 0) + 1
    # Two versions with no word on when which one holds: the resolver chooses.
    return [p for p in pins if count[p.name] == 1 or ";" in p.constraint or p.elsewhere]


def _pins(package: Mapping[str, Any], lock: str, files: Mapping[str, Any]) -> Iterator[Pin]:
    try:
        name = str(canonicalize_name(str(package.get("name")), validate=True))
    except InvalidName as error:
        raise ProjectError(f"{lock}: {error}", hint="write the lock anew") from error
    source = as_dict(package.get("source"))
    kind = next((k for k in _ELSEWHERE if k in source), str(source.get("type")) if source.get("type") in _ELSEWHERE else "")
    if kind:
        yield Pin(name, elsewhere=kind)
        return
    try:
        version = Version(str(package.get("version")))
    except InvalidVersion as error:
        raise ProjectError(f"{lock}: {name}: {error}", hint="write the lock anew") from error
    marker = _marker(package)
    wheels = package.get("wheels", package.get("files", files.get(str(package.get("name")), [])))
    tables = [as_dict(w) for w in (wheels if isinstance(wheels, list) else [])] + [as_dict(package.get("sdist"))]
    hashes = tuple(dict.fromkeys(h for t in tables if isinstance(h := t.get("hash"), str)))
    yield Pin(name, f"{name}=={version}" + (f" ; {marker}" if marker else ""), hashes)


def _marker(package: Mapping[str, Any]) -> str:
    """When this version of a package that is locked in several versions is the one."""
    wanted = [m for m in as_list(package.get("resolution-markers")) if _is_marker(m)]
    return " or ".join(f"({m})" for m in wanted)


def _is_marker(text: str) -> bool:
    try:
        Marker(text)
    except InvalidMarker:
        return False
    return True
