"""Files and folders of pipelines to plans. Reads, and does nothing else."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from taxiway.agents.base import Agent
from taxiway.compiler.plan import Plan
from taxiway.compiler.planning import plan
from taxiway.errors import Position, Problem, SpecError
from taxiway.spec import DEFAULT_POLICY, Pipeline, Policy, load_pipeline, load_policy
from taxiway.spec.extends import Templates, load_templates

__all__ = [
    "POLICIES",
    "TEMPLATES",
    "compile_content",
    "compile_file",
    "compile_folder",
    "declared",
    "duplicate",
    "load_policies",
    "read_bytes",
    "read_templates",
    "specs_in",
]

POLICIES = "policies"
TEMPLATES = "templates"
_LIMIT = 1_048_576
_ENDINGS = (".yaml", ".yml")
_ID = re.compile(rb"^pipeline[ \t]*:[ \t]*[\"']?([a-z][a-z0-9_]*)[\"']?[ \t\r]*(?:#.*)?$", re.MULTILINE)

_POLICY_ID = re.compile(_ID.pattern.replace(b"pipeline", b"policy"), re.MULTILINE)


def specs_in(folder: Path) -> list[Path]:
    """The YAML files right in a folder, by name, hidden ones left out; [] where there is no such folder.

    Raises SpecError where the folder cannot be read.
    """
    return [p for p in _named_as_specs(folder) if not p.is_dir()]


def _named_as_specs(folder: Path) -> list[Path]:
    try:
        files = list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        problem = f"the folder cannot be read: {error.strerror or error}"
        raise SpecError([Problem(Position(str(folder), 1, 1), problem, "check its permissions", rule="unreadable")]) from error
    return sorted(p for p in files if p.suffix.lower() in _ENDINGS and not p.name.startswith("."))


def compile_file(path: Path, agents: Mapping[str, Agent]) -> Plan:
    """The plan of one file, with the policies and templates beside it; raise SpecError with every problem."""
    policies, broken = load_policies(path.parent / POLICIES, agents)
    return compile_content(read_bytes(path), str(path), agents, policies, broken, templates=read_templates(path.parent))


def compile_folder(folder: Path, agents: Mapping[str, Agent]) -> dict[Path, Plan | SpecError]:
    """The plan or the problems of every pipeline file right in a folder. The second file with a pipeline's id is refused."""
    policies, broken = load_policies(folder / POLICIES, agents)
    templates = read_templates(folder)
    result: dict[Path, Plan | SpecError] = {}
    taken: dict[str, Path] = {}
    for path in specs_in(folder):
        content = b""
        try:
            content = read_bytes(path)
            found = compile_content(content, str(path), agents, policies, broken, templates=templates)
        except SpecError as error:
            first = taken.get(declared(content))
            result[path] = SpecError([*error.problems, *duplicate("pipeline", declared(content), path, first).problems]) if first else error
            continue
        if first := taken.get(found.pipeline):
            result[path] = duplicate("pipeline", found.pipeline, path, first)
        else:
            taken[found.pipeline] = path
            result[path] = found
    return result


def declared(content: bytes) -> str:
    """The pipeline id that a file declares, whatever else is wrong with it; "" where it shows none."""
    found = _ID.search(content)
    return found[1].decode() if found else ""


def compile_content(
    content: bytes,
    path: str,
    agents: Mapping[str, Agent],
    policies: Mapping[str, Policy],
    broken: SpecError | None = None,
    *,
    templates: Templates | None = None,
) -> Plan:
    """The plan of a file's content. `broken` is what is wrong with policy files: a pipeline that may stand on one of
    them is refused with it, since a floor that cannot be read is not a floor that is not there."""
    templates = templates or Templates()
    pipeline: Pipeline | None = None
    problems: tuple[Problem, ...] = ()
    try:
        pipeline = load_pipeline(content, path, agents, policies, templates)
    except SpecError as error:
        problems = error.problems
    if templates.broken and any(p.rule == "unknown-template" for p in problems):
        problems = (*(p for p in problems if p.rule != "unknown-template"), *templates.broken.problems)
    unknown = any(p.rule == "unknown-policy" for p in problems)
    if broken and (unknown or (pipeline and pipeline.spec.policy is None and DEFAULT_POLICY not in policies)):
        # A name that a broken file declares is not unknown.
        if unknown and _declares(broken, _POLICY_ID.search(content)):
            problems = tuple(p for p in problems if p.rule != "unknown-policy")
        raise SpecError([*problems, *broken.problems])
    if pipeline is None:
        raise SpecError(problems)
    return plan(pipeline, agents)


def _declares(broken: SpecError, named: re.Match[bytes] | None) -> bool:
    """Whether one of the broken policy files may be the one that a pipeline names."""
    for path in {Path(p.at.path) for p in broken.problems}:
        if path.suffix.lower() not in _ENDINGS or named is None or path.stem.encode() == named[1]:
            return True  # of a folder that cannot be read nobody knows what it holds
        with contextlib.suppress(SpecError):
            if (found := _POLICY_ID.search(read_bytes(path))) and found[1] == named[1]:
                return True
    return False


def load_policies(folder: Path, agents: Mapping[str, Agent]) -> tuple[dict[str, Policy], SpecError | None]:
    """The policies of a folder by name, and the problems of those that are broken."""
    policies: dict[str, Policy] = {}
    files: dict[str, Path] = {}
    problems: list[Problem] = []
    try:
        # A folder called default.yaml, or a file called policies, is a floor that cannot be read, not one that is not there.
        paths = _named_as_specs(folder)
        if os.path.lexists(folder) and not folder.is_dir():
            raise SpecError([Problem(Position(str(folder), 1, 1), "this is not a folder", "put the policies into one", rule="unreadable")])
    except SpecError as error:
        return {}, error
    for path in paths:
        try:
            policy = load_policy(read_bytes(path), str(path), agents)
        except SpecError as error:
            problems += error.problems
            continue
        if policy.name in files:
            problems += duplicate("policy", policy.name, path, files[policy.name]).problems
        else:
            policies[policy.name], files[policy.name] = policy, path
    return policies, SpecError(problems) if problems else None


def read_templates(folder: Path) -> Templates:
    """The templates beside the pipelines of a folder."""
    files: dict[str, bytes] = {}
    problems: list[Problem] = []
    try:
        paths = specs_in(folder / TEMPLATES)
    except SpecError as error:
        return Templates({}, error)
    for path in paths:
        try:
            files[str(path)] = read_bytes(path)
        except SpecError as error:
            problems += error.problems
    found = load_templates(files)
    problems += found.broken.problems if found.broken else ()
    return Templates(found.found, SpecError(problems) if problems else None)


def duplicate(kind: str, name: str, path: Path, first: Path) -> SpecError:
    """The problem of a second file with an id that `first` has."""
    lines = read_bytes(path).decode(errors="replace").splitlines()
    line, text = next(((i, t) for i, t in enumerate(lines, 1) if t.startswith(f"{kind}:")), (1, ""))
    hint = f"{first.name} has it already; choose another name"
    return SpecError([Problem(Position(str(path), line, 1), f"the {kind} id {name!r} is taken", hint, text, f"duplicate-{kind}")])


def read_bytes(path: Path) -> bytes:
    """At most one byte more than is allowed, so that the loader can refuse it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SpecError([Problem(Position(str(path), 1, 1), "this is not a plain file", "replace it by one", rule="unreadable")])
            return file.read(_LIMIT + 1)
    except OSError as error:
        problem = f"the file cannot be read: {error.strerror or error}"
        raise SpecError([Problem(Position(str(path), 1, 1), problem, "check its name and its permissions", rule="unreadable")]) from error
