"""Templates of stages: what a stage says is laid over what its template says, as data, before anything is checked.

Every value keeps its place, so a problem is shown in the file that holds it, and says where that was extended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from taxiway.errors import Problem, SpecError
from taxiway.records import Model
from taxiway.spec.models import STAGE_ID, StageSpec
from taxiway.spec.reading import validate
from taxiway.spec.source import Entry, Node, Origin, Report, parse
from taxiway.spec.words import did_you_mean, show

__all__ = ["Template", "TemplateFileSpec", "TemplateSpec", "Templates", "extend", "load_templates", "used_by"]

_MERGED = ("with", "retries")
"""Mappings of which a stage may say a part."""


class TemplateSpec(StageSpec):
    """What stages share; a stage that extends it may say everything anew."""

    agent: str | None = Field(default=None, description="Which agent does the work")  # type: ignore[assignment]


class TemplateFileSpec(Model):
    """Templates of stages, by name."""

    templates: dict[Annotated[str, StringConstraints(pattern=STAGE_ID)], TemplateSpec] = Field(
        min_length=1, max_length=100, description="Templates by the name that stages extend"
    )


@dataclass(frozen=True)
class Template:
    """One template: where it stands, and the SHA-256 of its file."""

    name: str
    report: Report
    node: Node
    at: Node
    digest: str

    @property
    def extends(self) -> str | None:
        """The template below it."""
        found = self.node.get("extends")
        return found.value if found and isinstance(found.value, str) else None


@dataclass(frozen=True)
class Templates:
    """All templates of a folder by name, and what is wrong with those that are not among them."""

    found: Mapping[str, Template] = field(default_factory=dict)
    broken: SpecError | None = None

    def chain(self, name: str) -> list[Template]:
        """The template and those below it, the lowest first; [] where there is none."""
        result: list[Template] = []
        following: str | None = name
        while following is not None and following in self.found:
            result.insert(0, self.found[following])
            following = self.found[following].extends
        return result


def load_templates(files: Mapping[str, bytes]) -> Templates:
    """The templates of all files (path -> content). Nobody can name what is broken, or stands on what is."""
    known: dict[str, Template] = {}
    problems: list[Problem] = []
    for path, content in files.items():
        try:
            found = _load_file(content, path)
        except SpecError as error:
            problems += error.problems
            continue
        for name, template in found.items():
            if first := known.get(name):
                hint = f"{first.report.path} has it already; choose another name"
                template.report.add(template.at, f"the template name {show(name)} is taken", rule="duplicate-template", hint=hint)
                problems += template.report.problems
            else:
                known[name] = template
    good = {name: template for name, template in known.items() if _stands(template, known)}
    problems += [p for template in known.values() for p in template.report.problems]
    return Templates(good, SpecError(dict.fromkeys(problems)) if problems else None)


def _load_file(content: bytes, path: str) -> dict[str, Template]:
    source = parse(content, path)
    root, report = source.root, source.report
    validate(TemplateFileSpec, root, report, kind="template", needed={"templates": {"x": {}}})
    report.raise_if_any()
    digest = hashlib.sha256(content).hexdigest()
    entries: dict[str, Entry] = root.find(["templates"]).value
    return {name: Template(name, report, entry.node, entry.key, digest) for name, entry in entries.items()}


def _stands(template: Template, known: Mapping[str, Template]) -> bool:
    """Whether the chain below a template ends; report where it does not."""
    path = [template.name]
    here = template
    while here.extends is not None:
        if here.extends not in known:
            at = here.node.find(["extends"])
            here.report.add(at, f"unknown template {show(here.extends)}", rule="unknown-template", hint=did_you_mean(here.extends, known))
            return False
        path.append(here.extends)
        if here.extends in path[:-1]:
            if here.extends == template.name:
                at = template.node.find(["extends"])
                problem = f"the templates extend each other: {' -> '.join(path)}"
                template.report.add(at, problem, rule="cycle", hint="take one `extends` away")
            return False
        here = known[here.extends]
    return True


def extend(stage: Node, templates: Templates, report: Report) -> Node:
    """A stage laid over the template that it extends; the stage itself where it extends none that is there.

    Keys of the stage replace those of the template; `with` and `retries` are merged key by key; gates add up.
    """
    at = stage.get("extends")
    if at is None or not isinstance(at.value, str):
        return stage
    chain = templates.chain(at.value)
    if not chain:
        hint = did_you_mean(at.value, templates.found, otherwise="write it to a file in templates/ beside this file")
        report.add(at, f"unknown template {show(at.value)}", rule="unknown-template", hint=hint)
        return replace(stage, partial=True)
    used = f"{report.path}:{at.line}:{at.column} extends it"
    merged: dict[str, Entry] = {}
    for template in chain:
        merged = _laid_over(_moved(template.node, Origin(template.name, template.report.path, template.report.lines, used)).value, merged)
    return replace(stage, value=_laid_over(stage.value, merged))


def _laid_over(upper: dict[str, Entry], lower: dict[str, Entry]) -> dict[str, Entry]:
    return {**lower, **{key: _joined(key, lower[key], entry) if key in lower else entry for key, entry in upper.items()}}


def _joined(key: str, lower: Entry, upper: Entry) -> Entry:
    below, above = lower.node.value, upper.node.value
    if key in _MERGED and isinstance(below, dict) and isinstance(above, dict):
        return Entry(upper.key, replace(upper.node, value={**below, **above}))
    if key == "gates" and isinstance(below, list) and isinstance(above, list):
        return Entry(upper.key, replace(upper.node, value=[*below, *above]))
    return upper


def _moved(node: Node, origin: Origin) -> Node:
    """A copy whose values know that they come from another file."""
    value: Any = node.value
    if isinstance(value, dict):
        value = {key: Entry(replace(entry.key, origin=origin), _moved(entry.node, origin)) for key, entry in value.items()}
    elif isinstance(value, list):
        value = [_moved(item, origin) for item in value]
    return replace(node, value=value, origin=origin)


def used_by(stages: Mapping[str, StageSpec], templates: Templates) -> Iterator[Template]:
    """Every template that the stages stand on, once."""
    seen: set[str] = set()
    for stage in stages.values():
        for template in templates.chain(stage.extends) if stage.extends else ():
            if template.name not in seen:
                seen.add(template.name)
                yield template
