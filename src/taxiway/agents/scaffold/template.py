"""A project from a template. Never overwrites what is there."""

from __future__ import annotations

import keyword
import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from taxiway.errors import ProjectError

__all__ = ["TEMPLATES", "fill", "library_package", "package_name", "place"]

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
_NAMED = 20
_DESCRIPTIONS = {
    "python-service": "A small web service that greets people by name.",
    "python-library": "A small library that shortens texts.",
}
_OF_THE_CHECKS = {
    *("coverage", "iniconfig", "librt", "mypy", "mypyc", "packaging", "pathspec", "pluggy", "py", "pygments", "pytest", "ruff"),
    *("src", "test", "tests", "true", "false", "null", "yes", "no", "on", "off"),
}


def package_name(name: str) -> str:
    """A Python package for a service of that name; the ending keeps it apart from keywords and from every library (`json`, `fastapi`)."""
    package = name.strip("-").replace("-", "_")
    return package if package.endswith("_service") else f"{package}_service"


def library_package(name: str) -> str:
    """A Python package for a library of that name; where that is a keyword, a standard module or a tool of its checks, with an ending."""
    package = name.strip("-").replace("-", "_")
    return f"{package}_library" if keyword.iskeyword(package) or package in {*sys.stdlib_module_names, *_OF_THE_CHECKS} else package


def fill(template: str, name: str, description: str) -> Mapping[PurePosixPath, bytes]:
    """The files of the filled template, by path."""
    import copier  # noqa: PLC0415 - takes half a second, and a DAG is parsed without it

    answers = {
        "name": name,
        "description": description or _DESCRIPTIONS[template],
        "package": library_package(name) if template == "python-library" else package_name(name),
    }
    with tempfile.TemporaryDirectory(prefix="taxiway-scaffold-") as folder:
        root = Path(folder) / "project"
        # A person's own copier settings must not change what a run makes, so none are read.
        copier.run_copy(str(TEMPLATES / template), root, data=answers, settings=copier.Settings(), defaults=True, quiet=True, unsafe=False)
        return {PurePosixPath(p.relative_to(root).as_posix()): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def place(files: Mapping[PurePosixPath, bytes], checkout: Path) -> list[PurePosixPath]:
    """Write the files that are not there yet and return them; raise ProjectError before the first, if a different one is in the way."""
    in_the_way = sorted({found for path, content in files.items() if (found := _obstacle(checkout, path, content))})
    if in_the_way:
        rest = f" and {len(in_the_way) - _NAMED} more" if len(in_the_way) > _NAMED else ""
        raise ProjectError(
            f"scaffold never overwrites, and these are there already with other content: {', '.join(in_the_way[:_NAMED])}{rest}",
            hint="start from an empty repository, or take the scaffold stage out of the pipeline",
        )
    missing = [path for path in files if not os.path.lexists(checkout / path)]
    for path in missing:
        target = checkout / path
        _make_folders(checkout, path.parents)
        # O_EXCL: should something have appeared since we looked, this fails and nothing of it is lost.
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with os.fdopen(fd, "wb") as file:
            file.write(files[path])
    return missing


def _obstacle(checkout: Path, path: PurePosixPath, content: bytes) -> str:
    """What stands where the file belongs, if it is not that file: the path, or the part of it that is no folder.

    A link counts as in the way wherever it leads: the checkout is not ours, and through a link we would read or write outside.
    """
    for folder in reversed(path.parents[:-1]):
        mode = _mode(checkout / folder)
        if mode is None:
            return ""
        if not stat.S_ISDIR(mode):
            return str(folder)
    target = checkout / path
    mode = _mode(target)
    if mode is None:
        return ""
    same = stat.S_ISREG(mode) and target.stat().st_size == len(content) and target.read_bytes() == content
    return "" if same else str(path)


def _mode(path: Path) -> int | None:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None


def _make_folders(checkout: Path, parents: Iterable[PurePosixPath]) -> None:
    for folder in reversed(list(parents)):
        (checkout / folder).mkdir(mode=0o755, exist_ok=True)
