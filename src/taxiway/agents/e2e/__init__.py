"""e2e: a project's browser tests against its own app, in one sandbox, with accessibility by axe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from taxiway.agents.base import Agent, AgentInput, Metric, StageAttempt
from taxiway.ports import Ports
from taxiway.records import Result

__all__ = ["AGENT", "Duration", "E2eInput", "Path"]

Keep = Literal["never", "on-failure", "always"]
Path = Annotated[str, StringConstraints(pattern=r"^/[\w./~%?=&-]*$", max_length=201)]
Duration = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)$")]


class E2eInput(AgentInput):
    """Which browser, which pages, and what to keep."""

    browser: Literal["chromium", "firefox", "webkit"] = Field(
        default="chromium", description="Browser to test in; this machine must have it"
    )
    retries: int = Field(
        default=0, ge=0, le=5, description="Times that failed tests run again, with the app started anew; one that passes then is flaky"
    )
    timeout: Duration = Field(default="30s", description="Time for a test, and for a page to load")
    pages: list[Path] = Field(
        default_factory=lambda: ["/"], max_length=20, description="Paths to hold against axe-core's accessibility rules; [] for none"
    )
    trace: Keep = Field(default="on-failure", description="When to keep Playwright's trace of a test")
    screenshot: Keep = Field(default="on-failure", description="When to keep a picture of the page that a test ended on")
    video: Keep = Field(default="never", description="When to keep a video of a test; needs ffmpeg")


def run(inputs: E2eInput, ports: Ports, stage: StageAttempt) -> Result:
    """Measure the checkout in a browser; `Result.unmeasured` says why where there is no number."""
    from taxiway.agents.e2e.work import e2e  # noqa: PLC0415 - the declaration is read while DAGs are parsed

    return e2e(inputs, ports, stage)


AGENT = Agent(
    name="e2e",
    summary="Tests the app in a browser: Playwright tests, accessibility.",
    inputs=E2eInput,
    run=run,
    metrics={
        "e2e.total": Metric("browser tests that ran"),
        "e2e.passed": Metric("browser tests that passed at once"),
        "e2e.failed": Metric("browser tests that failed, each time, or could not run"),
        "e2e.flaky": Metric("browser tests that failed, and passed when they ran again"),
        "e2e.skipped": Metric("browser tests that skipped themselves"),
        "e2e.xfailed": Metric("browser tests that were expected to fail, and did"),
        "e2e.deselected": Metric("browser tests that the files define and that did not run"),
        "e2e.browsed": Metric("browser tests that passed, at once or again, and loaded a page of the app"),
        "e2e.console_errors": Metric("errors that pages wrote to the console or did not catch, during the first try"),
        "e2e.failed_requests": Metric("requests of pages that got no answer, during the first try"),
        "a11y.critical": Metric("critical accessibility violations on the listed pages, one a rule and page"),
        "a11y.serious": Metric("serious and critical accessibility violations on the listed pages, one a rule and page"),
        "a11y.moderate": Metric("moderate accessibility violations on the listed pages, one a rule and page"),
        "a11y.minor": Metric("minor accessibility violations on the listed pages, one a rule and page"),
    },
    gates=("e2e.total >= 1", "e2e.browsed >= 1", "e2e.failed == 0", "e2e.deselected == 0"),
)
