"""Agents for tests, found by entry point like anybody's: they fail on demand, and die at given points of the real ones."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from taxiway.agents import deploy, integrate
from taxiway.agents.base import Agent, AgentInput, Metric, StageAttempt
from taxiway.errors import ProjectError, TransientError
from taxiway.ports import Cancellation, Command, Ports
from taxiway.records import Output, Result

Failure = Literal["", "stage", "transient", "bug", "killed", "hang", "hang_in_sandbox", "supervisor_killed"]


class ProbeInput(AgentInput):
    """How to behave."""

    fail: Failure = Field(default="", description="How to fail")
    times: int = Field(default=100, description="On how many first tries")
    value: float | None = Field(default=1, description="The measured value; null measures nothing")
    say: Any = Field(default=None, description="Anything; handed on as output `said`")
    marks: str = Field(default="", description="A file that gets one line a try")
    until: int = Field(default=0, description="How many lines to wait for in `marks`")
    seconds: float = Field(default=0, description="How long to take")
    readers: str = Field(default="", description="A file that gets a line from everybody who reads this: for which DAG Airflow parses")

    @model_validator(mode="after")
    def _read(self) -> Self:
        mark(self.readers, f"{os.environ.get('_AIRFLOW_PARSING_CONTEXT_DAG_ID', '-')} read {self.say}")
        return self


def mark(path: str, line: str) -> None:
    if path:
        with Path(path).open("a") as file:
            file.write(line + "\n")


def probe(inputs: ProbeInput, ports: Ports, stage: StageAttempt) -> Result:
    mark(inputs.marks, f"{stage.name} {stage.attempt} start")
    while inputs.until and len(Path(inputs.marks).read_text().splitlines()) < inputs.until:
        stage.stop.wait(0.05)
    if inputs.fail and stage.attempt <= inputs.times:
        misbehave(inputs.fail, ports, stage, inputs.marks)
    stage.stop.wait(inputs.seconds)
    mark(inputs.marks, f"{stage.name} {stage.attempt} end")
    (stage.reports / "probe.txt").write_text(f"probe {stage.attempt} on {stage.commit}\n")
    said: dict[str, Output] = {"said": inputs.say, "type": type(inputs.say).__name__} if inputs.say is not None else {}
    metrics = {} if inputs.value is None else {"value": float(inputs.value)}
    unmeasured = {"value": "nothing to measure"} if inputs.value is None else {}
    return Result(
        metrics=metrics, unmeasured=unmeasured, outputs=said, summary=f"probed, evidence {dict(stage.evidence).get('error', 'none')}"
    )


def misbehave(fail: Failure, ports: Ports, stage: StageAttempt, marks: str) -> None:
    if fail == "stage":
        raise ProjectError("it was told to fail", hint="do not tell it so")
    if fail == "transient":
        raise TransientError("it was told to fail for a while")
    if fail == "bug":
        raise ZeroDivisionError("a bug of a foreign agent")
    if fail == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fail == "supervisor_killed":
        os.kill(os.getppid(), signal.SIGKILL)
        outlive(marks, f"{stage.name} {stage.attempt + 1} end")
        mark(marks, f"{stage.name} {stage.attempt} lives on")
    if fail == "hang":
        stage.stop.wait(300)
    if fail == "hang_in_sandbox":
        command = Command(argv=("/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"), checkout=stage.checkout, timeout_s=300)
        ports.sandbox.run(command, stage.stop)


def outlive(marks: str, line: str) -> None:
    """Go on living until the next try has taken over and marked its end."""
    end = time.monotonic() + 300
    while line not in Path(marks).read_text() and time.monotonic() < end:
        time.sleep(0.2)


class ScribeInput(AgentInput):
    """What to write."""

    files: dict[str, str] = Field(default_factory=dict, description="Path -> content")
    seconds: float = 0


def scribe(inputs: ScribeInput, ports: Ports, stage: StageAttempt) -> Result:
    for path, content in inputs.files.items():
        (stage.checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (stage.checkout / path).write_text(content)
    stage.stop.wait(inputs.seconds)
    return Result(summary=f"wrote {len(inputs.files)} files")


class _Killing:
    """Passes every call on, and kills a process once (or holds it until it is stopped), before or after the named call."""

    def __init__(self, inner: Any, point: str, victim: str, once: Path, stop: Cancellation) -> None:
        self._inner, self._point, self._victim, self._once, self._stop = inner, point, victim, once, stop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value) or name not in self._point:
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._point == f"inside:{name}" and "say" in kwargs:
                say = kwargs["say"]
                kwargs["say"] = lambda text: (say(text), kill(self._victim, self._once, self._stop))[0]
            if self._point == f"before:{name}":
                kill(self._victim, self._once, self._stop)
            answer = value(*args, **kwargs)
            if self._point == f"after:{name}":
                kill(self._victim, self._once, self._stop)
            return answer

        return call


def kill(victim: str, once: Path, stop: Cancellation) -> None:
    if once.exists():
        return
    once.touch()
    if victim == "hold":
        stop.wait(300)
        return
    if victim == "task":
        os.kill(os.getpid(), signal.SIGKILL)
    os.kill(os.getppid(), signal.SIGKILL)


def _killed(inputs: Any, ports: Ports, stage: StageAttempt) -> Ports:
    def wrap(inner: Any) -> Any:
        return _Killing(inner, inputs.point, inputs.victim, Path(inputs.once), stage.stop)

    return dataclasses.replace(
        ports,
        workspace=wrap(ports.workspace),
        ledger=wrap(ports.ledger),
        targets={name: wrap(target) for name, target in ports.targets.items()},
    )


class KilledIntegrateInput(integrate.IntegrateInput):
    """integrate, and where to die."""

    point: str
    victim: Literal["task", "supervisor", "hold"] = "task"
    once: str


class KilledDeployInput(deploy.DeployInput):
    """deploy, and where to die, or to be held."""

    point: str
    victim: Literal["task", "supervisor", "hold"] = "task"
    once: str


def killed_integrate(inputs: KilledIntegrateInput, ports: Ports, stage: StageAttempt) -> Result:
    return integrate.run(inputs, _killed(inputs, ports, stage), stage)


def killed_deploy(inputs: KilledDeployInput, ports: Ports, stage: StageAttempt) -> Result:
    return deploy.run(inputs, _killed(inputs, ports, stage), stage)


PROBE = Agent(
    name="probe",
    summary="Behaves as told.",
    inputs=ProbeInput,
    run=probe,
    metrics={"value": Metric("what it was told")},
    outputs=("said", "type"),
)
UNDOER = dataclasses.replace(PROBE, name="undoer", effect="undoes", touches="nothing, and says so")
SCRIBE = Agent(name="scribe", summary="Writes files.", inputs=ScribeInput, run=scribe, effect="writes", touches="writes files")
KILLED_INTEGRATE = dataclasses.replace(integrate.AGENT, name="killed_integrate", inputs=KilledIntegrateInput, run=killed_integrate)
KILLED_DEPLOY = dataclasses.replace(deploy.AGENT, name="killed_deploy", inputs=KilledDeployInput, run=killed_deploy)
