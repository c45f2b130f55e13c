"""validate: checks of the code by real tools, measured so that the project is not its own judge."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from taxiway.agents.base import Agent, AgentInput, Metric, StageAttempt
from taxiway.agents.validate.checks import CHECKS
from taxiway.agents.validate.lists import Licences
from taxiway.ports import Ports
from taxiway.records import Result

__all__ = ["AGENT", "Licences", "ValidateInput"]

CheckName = Literal["tests", "lint", "types", "format", "security", "secrets", "complexity", "duplication", "dependencies", "licences"]


def _default_checks() -> list[CheckName]:
    return ["lint", "types", "tests", "security", "secrets"]


class ValidateInput(AgentInput):
    """What to check."""

    checks: list[CheckName] = Field(
        default_factory=_default_checks, min_length=1, description="Checks to run, side by side; each brings its default gates"
    )
    strict: bool = Field(default=False, description="All lint rules and strict types, not only those that find bugs")
    licences: Licences = Field(default_factory=Licences, description="What `licences.denied` counts")


def run(inputs: ValidateInput, ports: Ports, stage: StageAttempt) -> Result:
    """Measure the checkout; `Result.unmeasured` says why where there is no number."""
    from taxiway.agents.validate.work import validate  # noqa: PLC0415 - the declaration is read while DAGs are parsed

    return validate(inputs, ports, stage)


AGENT = Agent(
    name="validate",
    summary="Checks the code: lint, types, tests with coverage, security, secrets; where asked format, dependencies and more.",
    inputs=ValidateInput,
    run=run,
    metrics={name: metric for check in CHECKS.values() for name, metric in check.metrics.items()}
    | {
        "changes.test_infrastructure": Metric("files that decide how the tests run and that the run changed"),
        "changes.tests": Metric("tests, and what stands beside them in their files, that were there and that the run changed"),
    },
    gates_by={"checks": {check.name: check.gates for check in CHECKS.values()}},
    metrics_by={"checks": {check.name: tuple(check.metrics) for check in CHECKS.values()}},
    version="5",
)
