"""Tests of pipelines as YAML: what a file says, checked against the pipeline that it tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from taxiway.agents import Agent
from taxiway.agents.loop import HAND_IN
from taxiway.agents.tools import TOOLS
from taxiway.compiler.files import compile_file, read_bytes
from taxiway.compiler.plan import Plan
from taxiway.errors import OperatorError, SpecError
from taxiway.integrations.cassettes import check_recorded
from taxiway.records import Model
from taxiway.spec.params import faults
from taxiway.spec.reading import validate
from taxiway.spec.source import Node, Report, parse
from taxiway.spec.values import refuse
from taxiway.spec.words import did_you_mean, show

__all__ = ["Case", "CaseSpec", "Expected", "ReplySpec", "TestFile", "load_cases"]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9 _,.'-]{0,99}$"


def _inside(path: str) -> str:
    if path.startswith("/") or {"..", ".git"} & set(path.split("/")):
        raise refuse("bad-value", f"{show(path)} is no path in the project", "write it as seen from the project's root")
    return path


ProjectPath = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_inside)]
Relative = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class ReplySpec(Model):
    """One answer of the scripted model."""

    say: str | None = Field(default=None, description="Text")
    use: dict[str, dict[str, Any]] = Field(default_factory=dict, max_length=20, description="Tools to call, each with its arguments")
    stop: Literal["max_tokens", "refusal"] | None = Field(default=None, description="Why the answer ends, where it is not done")
    fail: Annotated[int, Field(ge=400, le=599)] | None = Field(default=None, description="An error status instead of an answer")


class FileSpec(Model):
    """What a file holds in the end."""

    contains: str | None = Field(default=None, description="Text that stands in it")
    absent: bool = Field(default=False, description="There is no such file")


class CostSpec(Model):
    """The most that models may take."""

    usd: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(default=None, description="US dollars, at most")
    tokens: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Tokens read and written, at most")
    calls: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Answered calls, at most")


class Expected(Model):
    """What must be so in the end. What is not named is not looked at."""

    outcome: Literal["success", "failed"] = Field(default="success", description="failed where a stage failed and was not tolerated")
    stages: dict[str, Literal["success", "failed", "skipped", "not_run"]] = Field(default_factory=dict, description="How stages ended")
    gates: dict[str, Literal["passed", "failed"]] = Field(
        default_factory=dict, description="By stage: passed if all its blocking gates did, failed if one did not"
    )
    files: dict[ProjectPath, FileSpec] = Field(default_factory=dict, max_length=200, description="Files of the last commit")
    cost: CostSpec = Field(default_factory=CostSpec, description="The most that models may take")


class CaseSpec(Model):
    """One run of the pipeline's stages."""

    params: dict[str, Any] = Field(default_factory=dict, description="Params of the run")
    repository: Relative | None = Field(default=None, description="Folder with the project that the run starts from, seen from this file")
    files: dict[ProjectPath, str] = Field(default_factory=dict, max_length=200, description="The project's files, on top of the folder's")
    cassette: Relative | None = Field(default=None, description="Folder of recorded answers (taxiway run --record), seen from this file")
    replies: list[ReplySpec] = Field(default_factory=list, max_length=500, description="What the model answers, in this order")
    stages: list[str] = Field(default_factory=list, max_length=100, description="Only these stages run; all of them if left out")
    expect: Expected = Field(default_factory=Expected, description="What must be so in the end")


class TestFile(Model):
    """Tests of one pipeline."""

    __test__ = False  # pytest takes the name for a test

    pipeline: Relative = Field(description="The pipeline's file, seen from this one")
    cases: dict[Annotated[str, StringConstraints(pattern=_NAME)], CaseSpec] = Field(
        min_length=1, max_length=200, description="Runs by name, and what must come of them"
    )


@dataclass(frozen=True)
class Case:
    """One case, ready to run: its file, its name, what it says, and the plan that it tests."""

    file: Path
    name: str
    spec: CaseSpec
    plan: Plan

    def place(self, name: str) -> Path:
        """A path that the file names, as seen from the file."""
        return self.file.parent / name


def load_cases(path: Path, agents: Mapping[str, Agent]) -> tuple[Case, ...]:
    """The cases of a file; raise SpecError with every problem of it, or with those of the pipeline that it tests."""
    source = parse(read_bytes(path), str(path), begin="`pipeline: ../pipelines/NAME.yaml` and `cases:`")
    root, report = source.root, source.report
    _refuse_others(root, report)
    spec = validate(TestFile, root, report, needed={"pipeline": "", "cases": {}})
    report.raise_if_any()
    plan = _plan(path, spec, root, report, agents)
    found = tuple(Case(path, name, case, plan) for name, case in spec.cases.items())
    for case in found:
        _check(case, root.find(["cases", case.name]), report)
    report.raise_if_any()
    return found


def _refuse_others(root: Node, report: Report) -> None:
    """Say at once what a pipeline or a policy is, instead of every key that a test file does not have."""
    if root.get("cases") is not None:
        return
    for key, kind in (("stages", "a pipeline"), ("policy", "a policy"), ("templates", "templates of stages")):
        if root.get(key) is not None:
            hint = "write them into a file of their own, with `pipeline:` (the path of the pipeline's file) and `cases:`"
            report.add(root.find([key], key=True), f"this file is {kind}, and holds no test cases", rule="no-cases", hint=hint)
            report.raise_if_any()


def _plan(path: Path, spec: TestFile, root: Node, report: Report, agents: Mapping[str, Agent]) -> Plan:
    file = path.parent / spec.pipeline
    if not file.is_file():
        hint = "write its path as seen from this file, such as ../pipelines/shop.yaml"
        report.add(root.find(["pipeline"]), f"there is no file {show(str(file))}", rule="no-file", hint=hint)
        raise SpecError(report.problems)
    return compile_file(file, agents)


def _check(case: Case, node: Node, report: Report) -> None:
    spec, stages = case.spec, [s.id for s in case.plan.stages if not s.recovers]
    _known(spec.stages, stages, "stage", report, lambda _, index: node.find(["stages", index]))
    _known(spec.expect.stages, stages, "stage", report, lambda name, _: node.find(["expect", "stages", name], key=True))
    _known(spec.expect.gates, stages, "stage", report, lambda name, _: node.find(["expect", "gates", name], key=True))
    _check_params(case, node, report)
    for key, named in (("repository", spec.repository), ("cassette", spec.cassette)):
        if named is not None and not case.place(named).is_dir():
            hint = "write its path as seen from this file"
            report.add(node.find([key]), f"there is no folder {show(str(case.place(named)))}", rule="no-file", hint=hint)
        elif key == "cassette" and named is not None:
            try:
                check_recorded(case.place(named))
            except OperatorError as error:
                report.add(node.find([key]), error.problem, rule="no-file", hint=f"{error.hint}; or give `replies:`")
    if spec.cassette is not None and spec.replies:
        report.add(node.find(["cassette"]), "a case has replies or a cassette, not both", rule="bad-value", hint="remove one of the two")
    for index, reply in enumerate(spec.replies):
        _check_reply(reply, node.find(["replies", index]), report)
    for name, file in spec.expect.files.items():
        if (file.contains is None) is not file.absent:
            hint = "write {contains: TEXT} or {absent: true}"
            report.add(node.find(["expect", "files", name]), "say what is in the file, or that it is absent", rule="bad-value", hint=hint)


def _check_params(case: Case, node: Node, report: Report) -> None:
    given, declared = case.spec.params, case.plan.params
    # A case with a project of its own gives its address.
    has = "repository" if case.spec.repository is not None or case.spec.files else ""
    _known(given, declared, "param", report, lambda name, _: node.find(["params", name], key=True))
    for name, value in given.items():
        for fault in faults(declared[name], value) if name in declared else ():
            report.add(node.find(["params", name]), f"param {show(name)}: {fault}", rule="bad-value", hint="see the pipeline's `params`")
    if missing := [name for name, schema in declared.items() if "default" not in schema and name not in given and name != has]:
        report.add(node, f"params without a value: {', '.join(missing)}", rule="missing-key", hint="give them below `params:`")


def _check_reply(reply: ReplySpec, at: Node, report: Report) -> None:
    says = reply.say is not None or bool(reply.use) or reply.stop is not None
    if says is (reply.fail is not None):
        hint = "write {say: TEXT}, {use: {TOOL: {...}}}, {stop: refusal} or {fail: 529}"
        report.add(at, "a reply says something, uses tools, stops, or fails", rule="bad-value", hint=hint)
    known = [*TOOLS, HAND_IN]
    for name in reply.use:
        if name not in known:
            place = at.find(["use", name], key=True)
            report.add(place, f"no model has a tool {show(name)}", rule="unknown-tool", hint=did_you_mean(name, known))
        elif name in TOOLS:  # what is handed in differs by agent, and is checked when it comes
            validate(TOOLS[name], at.find(["use", name]), report, needed=dict.fromkeys(TOOLS[name].model_fields, "x"))


def _known(given: Iterable[str], known: Iterable[str], kind: str, report: Report, at: Callable[[str, int], Node]) -> None:
    names = list(known)
    for index, name in enumerate(given):
        if name not in names:
            report.add(at(name, index), f"the pipeline has no {kind} {show(name)}", rule=f"unknown-{kind}", hint=did_you_mean(name, names))
