"""Finding things: the home, the folder of pipelines, one pipeline by its id or its file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from taxiway.errors import InputError, OperatorError
from taxiway.home import Home, find_home

__all__ = ["Project", "find_pipeline", "find_project", "is_policy", "is_spec", "known_pipelines", "pipeline_files"]

_ID = re.compile(r"[A-Za-z0-9_.-]{1,250}")
_KEY = re.compile(rb"^pipeline[ \t]*:[ \t]*[\"']?([A-Za-z0-9_.-]+)[\"']?[ \t\r]*(?:#.*)?$", re.MULTILINE)
_TOP = re.compile(rb"^pipeline[ \t]*:", re.MULTILINE)
_POLICY = re.compile(rb"^policy[ \t]*:", re.MULTILINE)
_HEAD = 65_536


@dataclass(frozen=True)
class Project:
    """A folder of pipelines, and the home beside it."""

    home: Home
    pipelines: Path


def find_project(start: Path, environ: Mapping[str, str]) -> Project:
    """The nearest `pipelines/` at or above `start`, or the one beside the home; raise OperatorError if there is none."""
    home = find_home(start, environ)
    folders = [folder / "pipelines" for folder in (start.resolve(), *start.resolve().parents, home.path.parent)]
    for folder in folders:
        if folder.is_dir():
            return Project(home, folder)
    raise OperatorError(f"no pipelines/ folder at or above {start}", hint="change to your project's folder, or `mkdir pipelines`")


def is_spec(name: str) -> bool:
    """Whether a file of this name is taken for a pipeline."""
    return name.lower().endswith((".yaml", ".yml"))


def find_pipeline(name: str, project: Project) -> Path:
    """The file of a pipeline, by id or by path; raise InputError if there is none or it lies elsewhere."""
    if is_spec(name) or os.sep in name:
        return _by_path(Path(name), project)
    if not _ID.fullmatch(name):
        raise InputError(f"{name!r} is no id of a pipeline", hint="give its id (the value of `pipeline:`) or the path of its file")
    files = list(_files(project.pipelines))
    # The id counts; the name of the file helps where the file is broken.
    for found in [p for p in files if _declared(p) == name] or [p for p in files if p.stem == name and not _declared(p)]:
        return found
    known = known_pipelines(project)
    raise InputError(
        f"no pipeline {name!r} in {project.pipelines}", hint=f"there is {', '.join(known)}" if known else "the folder holds none"
    )


def known_pipelines(project: Project) -> list[str]:
    """The ids that the project's files declare, sorted."""
    return sorted(filter(None, map(_declared, _files(project.pipelines))))


def pipeline_files(folder: Path) -> list[tuple[Path, str]]:
    """The files of a folder with the ids that they declare; [] where there is no such folder."""
    return [(path, _declared(path)) for path in _files(folder)] if folder.is_dir() else []


def is_policy(path: Path) -> bool:
    """Whether a file is a policy and no pipeline."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return not _TOP.search(head) and _POLICY.search(head) is not None


def _by_path(path: Path, project: Project) -> Path:
    if not path.is_file():
        raise InputError(f"no file {path}", hint="give the id of a pipeline or the path of its file")
    if is_policy(path):
        raise InputError(f"{path} is a policy: it does not run", hint=f"`taxiway check {path}` checks it; run a pipeline on it")
    if path.resolve().parent != project.pipelines.resolve():
        hint = "move it there; Airflow reads that folder"
        raise InputError(f"{path} is not in {project.pipelines}", hint=hint)
    return project.pipelines / path.name


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(p for p in folder.iterdir() if is_spec(p.name) and p.name[0] != "." and p.is_file())
    except OSError as error:
        raise OperatorError(f"cannot read {folder}: {error.strerror or error}", hint="mend the folder's rights") from error


def _declared(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = _KEY.search(file.read(_HEAD))
    except OSError:
        return ""
    return found[1].decode() if found else ""
