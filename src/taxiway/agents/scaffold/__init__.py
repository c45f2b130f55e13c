"""scaffold: a project from a template, and code that does what was asked for, written by a model where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from taxiway.agents.base import Agent, AgentInput, ModelUse, StageAttempt
from taxiway.errors import OperatorError
from taxiway.ports import Ports
from taxiway.records import Output, Result

__all__ = ["AGENT", "ScaffoldInput"]

NO_TEMPLATE = "none"
Template = Literal["none", "python-service", "python-library"]


def _one_line(text: str) -> str:
    """The text on one line, without what nobody can see (control and direction characters)."""
    line = " ".join(text.split())
    if not line.isprintable():
        raise ValueError("must be printable text")
    return line


class ScaffoldInput(AgentInput):
    """What to make."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"template": {"pattern": r"^none$|\{\{"}}, "required": ["template"]},
            "else": {"required": ["name"]},
        }
    )

    template: Template = Field(default="python-service", description="Project template; none to work on the project that is there")
    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{1,39}$")] | None = Field(
        default=None,
        validate_default=True,
        examples=["greeter"],
        description="Name of the project: lower case letters, digits, dashes; a template needs it",
    )
    description: Annotated[str, AfterValidator(_one_line)] = Field(
        default="", max_length=500, description="One sentence for the README and the web page"
    )
    bug: str = Field(
        default="",
        max_length=50_000,
        description="Bug to fix: an issue's text, a traceback, a failing test. A test that fails without the fix is asked for",
    )
    requirements: str = Field(
        default="",
        max_length=50_000,
        validate_default=True,
        examples=["The page greets who is named in ?name=."],
        description="What to build, by a model; without a model the template alone is made, and the result says `degraded`",
    )

    @field_validator("name")
    @classmethod
    def _named(cls, name: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("template") == NO_TEMPLATE:
            _refuse_idle("name", name)
        elif name is None and "template" in info.data:
            raise _refuse("missing-key", "'name' is missing", "add `name:` here")
        return name

    @field_validator("description", "bug")
    @classmethod
    def _acts(cls, text: str, info: ValidationInfo) -> str:
        if info.field_name == "description" and info.data.get("template") == NO_TEMPLATE:
            _refuse_idle("description", text)
        if info.field_name == "bug" and text and info.data.get("template") in ("python-service", "python-library"):
            raise _refuse("idle-input", "`bug` does nothing here: a new project has none", "add `template: none`, or leave it out")
        return text

    @field_validator("requirements")
    @classmethod
    def _asked(cls, text: str, info: ValidationInfo) -> str:
        bug = info.data.get("bug", "?").strip()
        # A template may turn out to be nothing.
        if text.strip() and bug.strip("?") and "{{" not in bug:
            hint = "leave one of the two out; what else is to be built is a stage of its own"
            raise _refuse("idle-input", "`requirements` beside `bug`: a stage fixes a bug, or builds what is required", hint)
        if info.data.get("template") == NO_TEMPLATE and not text.strip() and not bug:
            raise _refuse("missing-key", "'requirements' is missing", "without a template, say what to build: `requirements:` or `bug:`")
        return text

    @property
    def asks(self) -> bool:
        """Whether there is something to build, which takes a model."""
        return bool(self.requirements.strip() or self.bug.strip())


def _refuse_idle(name: str, value: str | None) -> None:
    if value:
        problem = f"`{name}` does nothing here: template none makes no project"
        raise _refuse("idle-input", problem, "name a template, or leave it out")


def _refuse(rule: str, problem: str, hint: str) -> PydanticCustomError:
    return PydanticCustomError("spec", "{problem}", {"rule": rule, "problem": problem, "hint": hint})


def run(inputs: ScaffoldInput, ports: Ports, stage: StageAttempt) -> Result:
    """Fill the template into the checkout, then let a model build what is asked for.

    Raises ProjectError, touching nothing, where a file of the project is in the template's way; OperatorError where there is no
    template and no model; and what `Mind.work` raises.
    """
    from taxiway.agents.mind import required  # noqa: PLC0415 - the declaration is read while DAGs are parsed
    from taxiway.agents.scaffold.build import build  # noqa: PLC0415
    from taxiway.agents.scaffold.reporting import report, report_degraded  # noqa: PLC0415

    mind = required(stage.mind, stage.no_mind) if inputs.template == NO_TEMPLATE else stage.mind
    added, files = _place(inputs, stage) if inputs.name else (0, 0)
    outputs: dict[str, Output] = {"name": inputs.name or "", "files": files, "added": added}
    outputs |= {"degraded": False, "requirements": 0, "covered": 0}
    done = f"added {added} of {files} files" if added else f"all {files} files were there already"
    summary = f"{inputs.name} from template {inputs.template}: {done}"
    if not inputs.asks:
        return Result(outputs=outputs, summary=f"{summary} (template alone)")
    if mind is None:
        stage.log.warning("degraded: no model builds the requirements; %s", stage.no_mind)
        report_degraded(stage.reports, inputs.requirements, stage.no_mind)
        return Result(outputs={**outputs, "degraded": True}, summary=f"{summary} (degraded: no model; {stage.no_mind})")
    built = build(mind, requirements=inputs.requirements, bug=inputs.bug, new=inputs.template != NO_TEMPLATE, ports=ports, stage=stage)
    report(stage.reports, built)
    for shown in built.uncovered:
        stage.log.warning("no test shows: %s", shown)
    counts = {"requirements": len(built.work.requirements), "covered": len(built.work.requirements) - len(built.uncovered)}
    return Result(outputs={**outputs, **counts}, summary=built.work.summary)


def _place(inputs: ScaffoldInput, stage: StageAttempt) -> tuple[int, int]:
    """How many of the template's files were added, and of how many."""
    from taxiway.agents.scaffold.template import fill, place  # noqa: PLC0415

    files = fill(inputs.template, inputs.name or "", inputs.description)
    stage.stop.check()
    try:
        added = place(files, stage.checkout)
    except OSError as error:
        raise OperatorError(f"cannot write the project: {error}", hint="check the disk under the Taxiway home") from error
    for path in added:
        stage.log.info("added %s", path)
    return len(added), len(files)


def _uses_model(given: Mapping[str, Any]) -> ModelUse | None:
    if given.get("template") == NO_TEMPLATE:
        return ModelUse("this stage will fail", fails=True)
    return ModelUse("template alone (degraded)") if given.get("requirements") else None


AGENT = Agent(
    name="scaffold",
    summary="Makes a project from a template, or takes the one that is there; a model builds what is required, with tests that show it.",
    inputs=ScaffoldInput,
    run=run,
    effect="writes",
    touches="adds the template's files, and what a model writes for the requirements, to the run's branch",
    outputs=("name", "files", "added", "degraded", "requirements", "covered"),
    asks="code and tests for `requirements` or a `bug`",
    uses_model=_uses_model,
    thinks=lambda given: bool(given.get("requirements") or given.get("bug")),
    version="2",
)
