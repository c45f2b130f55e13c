"""write_e2e: a model writes browser tests; those stay that pass on the app and fail when what they test is broken."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from taxiway.agents.base import Agent, AgentInput, Metric, ModelUse, StageAttempt
from taxiway.agents.e2e import Duration, Path
from taxiway.ports import Ports
from taxiway.records import Result

__all__ = ["AGENT", "WriteE2eInput"]


class WriteE2eInput(AgentInput):
    """What to test, and on which pages."""

    requirements: Annotated[str, StringConstraints(min_length=20, max_length=20_000)] = Field(
        description="What the app is to do, in words; tests are written for this", examples=["The page greets who is named in ?name=."]
    )
    most: int = Field(default=5, ge=1, le=10, description="Tests to write at most")
    pages: list[Path] = Field(
        default_factory=lambda: ["/"], min_length=1, max_length=20, description="Paths whose content the model is shown before it writes"
    )
    browser: Literal["chromium", "firefox", "webkit"] = Field(
        default="chromium", description="Browser to try the tests in; this machine must have it"
    )
    timeout: Duration = Field(default="10s", description="Time for a test, and for a page to load")


def run(inputs: WriteE2eInput, ports: Ports, stage: StageAttempt) -> Result:
    """Write tests into the checkout's folder of browser tests; raise OperatorError without a model."""
    from taxiway.agents.write_e2e.work import write_e2e  # noqa: PLC0415 - the declaration is read while DAGs are parsed

    return write_e2e(inputs, ports, stage)


AGENT = Agent(
    name="write_e2e",
    summary="Lets a model write browser tests; keeps those that pass, and fail when what they test is broken.",
    inputs=WriteE2eInput,
    run=run,
    metrics={
        "tests.proposed": Metric("browser tests that the model handed in"),
        "tests.kept": Metric("of these, tests that passed each time on the app and failed with their feature broken"),
        "tests.discarded": Metric("of these, tests that did not, or that could not be judged; their files are deleted"),
    },
    gates=("tests.kept >= 1",),
    effect="writes",
    touches="adds files below the project's folder of browser tests to the run's branch",
    thinks=lambda _: True,
    asks="browser tests for the requirements",
    uses_model=lambda _: ModelUse("this stage will fail", fails=True),
)
