"""integrate: brings the run's commit to a branch that others see, after its gates passed on the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from taxiway.agents.base import Agent, AgentInput, Metric, ModelUse, StageAttempt
from taxiway.agents.integrate import pulling, pushing
from taxiway.agents.integrate.task import Conflicts, Task
from taxiway.errors import InputError, StageError
from taxiway.ports import Ports, Strategy
from taxiway.records import Result

if TYPE_CHECKING:
    from taxiway.agents.integrate.asking import Asking

__all__ = ["AGENT", "IntegrateInput"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class IntegrateInput(AgentInput):
    """Where and how to merge."""

    into: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w./-]*$", max_length=100)] = Field(
        default="main", description="Branch to merge into"
    )
    strategy: Strategy = Field(default="squash", description="How the change becomes part of the branch")
    conflicts: Conflicts = Field(
        default="fail",
        description="Who decides a hunk that both sides changed: nobody, the branch (ours), the change (theirs) or a model (ask_model)",
    )
    threshold: float = Field(
        default=0.85, ge=0, le=1, description="Confidence from which on a model's resolution of a hunk is taken (ask_model)"
    )
    mode: Literal["push", "pull_request"] = Field(
        default="push", description="push moves the branch; pull_request opens one, waits for checks and reviews, and merges it"
    )
    title: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        default=None, description="Title of the pull request and of what a squash or merge becomes; names pipeline and run if left out"
    )
    wait: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,6}(s|m|h|d)$")] | None = Field(
        default=None, description="How long to wait for checks and reviews; nine tenths of the stage's time if left out"
    )

    @field_validator("conflicts")
    @classmethod
    def _acts(cls, value: Conflicts, info: ValidationInfo) -> Conflicts:
        if value != "fail" and info.data.get("strategy") == "fast-forward":
            raise _idle("conflicts", "strategy fast-forward merges no hunks", "use another strategy, or leave it out")
        return value

    @field_validator("threshold")
    @classmethod
    def _acts_on_a_model(cls, value: float, info: ValidationInfo) -> float:
        if info.data.get("conflicts", "ask_model") != "ask_model":
            raise _idle("threshold", "no model is asked", "add `conflicts: ask_model`, or leave it out")
        return value

    @field_validator("title", "wait")
    @classmethod
    def _acts_in_this_mode(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("mode") == "push":
            raise _idle(str(info.field_name), "mode push opens no pull request", "add `mode: pull_request`, or leave it out")
        return value


def _idle(name: str, why: str, hint: str) -> PydanticCustomError:
    return PydanticCustomError("spec", "{problem}", {"rule": "idle-input", "problem": f"`{name}` does nothing here: {why}", "hint": hint})


def run(inputs: IntegrateInput, ports: Ports, stage: StageAttempt) -> Result:
    """Try the merge, verify the result, move the branch once: by a push, or by a pull request.

    Raises MergeConflict where it does not merge (the reports name the files and hunks), GateFailed where the result
    does not pass, TransientError where the branch kept moving. Nothing is merged in any of these cases.
    """
    if not stage.commit:
        raise StageError("there is no commit to integrate", hint="a stage before this one must start from or make one")
    title = " ".join("".join(c if c.isprintable() else " " for c in inputs.title or "").split())
    task = Task(
        into=inputs.into,
        strategy=inputs.strategy,
        conflicts=inputs.conflicts,
        title=title or f"Integrate {stage.pipeline} run {stage.run} into {inputs.into}",
        ports=ports,
        stage=stage,
        asking=_asking(inputs, ports, stage),
    )
    return pushing.push(task) if inputs.mode == "push" else pulling.pull_request(task, wait_s=_wait_s(inputs, stage))


def _asking(inputs: IntegrateInput, ports: Ports, stage: StageAttempt) -> Asking | None:
    from taxiway.agents.integrate.asking import Asking  # noqa: PLC0415 - most attempts ask nobody

    return Asking(stage.mind, inputs.threshold, ports.sandbox, stage) if inputs.conflicts == "ask_model" and stage.mind else None


def _wait_s(inputs: IntegrateInput, stage: StageAttempt) -> float | None:
    if inputs.wait is None:
        return None
    left = stage.stop.remaining_s()
    wait_s = float(inputs.wait[:-1]) * _UNITS[inputs.wait[-1]]
    if wait_s > left:
        raise InputError(
            f"waiting for {inputs.wait} does not fit into the {left:.0f} s that the stage has left",
            hint="raise the stage's timeout or limits.duration, or wait for less",
        )
    return wait_s


AGENT = Agent(
    name="integrate",
    summary="Merges the run's commit into a branch once its gates pass on the resulting tree.",
    inputs=IntegrateInput,
    run=run,
    metrics={
        "conflicts": Metric("hunks that do not merge by themselves; those that `conflicts` decided", example="<= 3"),
        "files.changed": Metric("files that the merge changes"),
    },
    effect="merges",
    touches="moves branch {into} of the repository",
    asks="what a conflicting hunk becomes, with `conflicts: ask_model`",
    uses_model=lambda given: ModelUse("a conflict will fail the stage") if given.get("conflicts") == "ask_model" else None,
    thinks=lambda given: any(word in str(given.get("conflicts")) for word in ("ask_model", "{{")),
    outputs=("branch", "merged", "pull_request"),
)
