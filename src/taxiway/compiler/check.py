"""Files and folders held against everything that can be known without running them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
    `policies` and `templates` are those; a pipeline's are those beside it, and what is wrong with one that it does not
    need is not its problem. Two pipelines with one id are a problem."""
    asked = _asked(paths)
    problems: list[Problem] = []
    warnings: list[Problem] = []
    taken: dict[str, Path] = {}
    loaded = {folder: (*load_policies(folder / POLICIES, agents), read_templates(folder)) for folder in asked.homes()}
    for policies, broken, templates in loaded.values():
        problems += [p for error in (broken, templates.broken) if error for p in error.problems if asked.covers(p.at.path)]
        warnings += [w for policy in policies.values() if asked.covers(policy.path) for w in _expired(policy, today)]
    for path in asked.pipelines:
        policies, broken, templates = loaded[path.parent]
        content = b""
        try:
            content = read_bytes(path)
            plan = compile_content(content, str(path), agents, policies, broken, templates=templates)
        except SpecError as error:
            problems += error.problems
            name = declared(content)
        else:
            name = plan.pipeline
            warnings += _expired(policies[plan.policy.name], today) if plan.policy.name else []
        if name and (first := taken.setdefault(name, path)) != path:
            problems += duplicate("pipeline", name, path, first).problems
    return Checked(asked.count(), tuple(sorted(set(problems), key=lambda p: (p.at, p.problem))), tuple(dict.fromkeys(warnings)))


@dataclass(frozen=True)
class _Asked:
    """What is to be checked: pipelines, and policies and templates by file and by folder."""

    pipelines: dict[Path, None] = field(default_factory=dict)
    beside: dict[Path, None] = field(default_factory=dict)
    folders: dict[Path, None] = field(default_factory=dict)

    def homes(self) -> dict[Path, None]:
        """The folders of pipelines beside which all of it stands."""
        near = [p.parent.parent for p in self.beside] + [p.parent for p in (*self.folders, *self.pipelines)]
        return dict.fromkeys(near)

    def covers(self, path: str) -> bool:
        """Whether a policy or template was asked for; a folder of them that cannot be read is its own path."""
        return Path(path) in self.beside or Path(path) in self.folders or Path(path).parent in self.folders

    def count(self) -> int:
        """How many files that is."""
        inside = {p for folder in self.folders for p in _specs(folder)}
        return len(self.pipelines) + len(inside.union(self.beside))


def _specs(folder: Path) -> list[Path]:
    try:
        return specs_in(folder)
    except SpecError:  # reported with the policies
        return []


def _asked(paths: Iterable[Path]) -> _Asked:
    asked = _Asked()
    for path in paths:
        if path.is_dir() and path.name in _BESIDE:
            asked.folders[path] = None
        elif path.is_dir():
            asked.pipelines.update(dict.fromkeys(specs_in(path)))
            asked.folders.update({path / name: None for name in _BESIDE})
        elif path.parent.name in _BESIDE:
            asked.beside[path] = None
        else:
            asked.pipelines[path] = None
    return asked


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
