"""Files and folders held against everything that can be known without running them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path

from taxiway.agents.base import Agent
from taxiway.compiler.files import (
    POLICIES,
    TEMPLATES,
    compile_content,
    declared,
    duplicate,
    load_policies,
    read_bytes,
    read_templates,
    specs_in,
)
from taxiway.errors import Position, Problem, SpecError
from taxiway.spec import Policy
from taxiway.spec.formats import Checked

__all__ = ["check"]

_BESIDE = (POLICIES, TEMPLATES)


def check(paths: Iterable[Path], agents: Mapping[str, Agent], today: date) -> Checked:
    """Every problem of the files and folders, and waivers that have expired as warnings. Files in folders named
    `policies` and `templates` are those; a pipeline's are those beside it. Two pipelines with one id are a problem."""
    pipelines, folders = _targets(paths)
    problems: list[Problem] = []
    warnings: list[Problem] = []
    taken: dict[str, Path] = {}
    loaded = {
        f: (*load_policies(f / POLICIES, agents), read_templates(f)) for f in dict.fromkeys([*folders, *(p.parent for p in pipelines)])
    }
    for policies, broken, templates in loaded.values():
        problems += [p for error in (broken, templates.broken) if error for p in error.problems]
        warnings += [w for policy in policies.values() for w in _expired(policy, today)]
    for path in pipelines:
        policies, broken, templates = loaded[path.parent]
        content = b""
        try:
            content = read_bytes(path)
            name = compile_content(content, str(path), agents, policies, broken, templates=templates).pipeline
        except SpecError as error:
            problems += error.problems
            name = declared(content)
        if name and (first := taken.setdefault(name, path)) != path:
            problems += duplicate("pipeline", name, path, first).problems
    files = len(pipelines) + sum(_count(folder / name) for folder in loaded for name in _BESIDE)
    return Checked(files, tuple(sorted(set(problems), key=lambda p: (p.at, p.problem))), tuple(warnings))


def _count(folder: Path) -> int:
    try:
        return len(specs_in(folder))
    except SpecError:  # reported with the policies
        return 0


def _targets(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    pipelines: list[Path] = []
    folders: list[Path] = []
    for path in paths:
        if path.is_dir() and path.name not in _BESIDE:
            pipelines += specs_in(path)
            folders.append(path)
        elif path.is_dir() or path.parent.name in _BESIDE:
            folders.append(path.parent if path.is_dir() else path.parent.parent)
        else:
            pipelines.append(path)
    return list(dict.fromkeys(pipelines)), folders


def _expired(policy: Policy, today: date) -> list[Problem]:
    return [
        Problem(
            Position(policy.path, policy.lines[index], 1),
            f"the waiver of {waiver.owner} for {waiver.metric} expired on {waiver.expires}: the gate blocks again",
            "remove it, or agree on a new date",
            rule="expired-waiver",
        )
        for index, waiver in enumerate(policy.spec.waivers)
        if date.fromisoformat(waiver.expires) < today
    ]
