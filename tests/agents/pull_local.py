"""A run of three stages (build writes, check measures, integrate) on a repository at a forge, one process or several."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from taxiway import stage
from taxiway.agents.base import Agent, AgentInput, Metric
from taxiway.agents.integrate import AGENT
from taxiway.compiler.plan import Gate, Limits, Plan, PlannedPolicy, PlannedStage, Retries
from taxiway.home import Home
from taxiway.integrations.artifacts import DirectoryArtifacts
from taxiway.integrations.forges import find_forge
from taxiway.integrations.git import GitCredentials, GitWorkspace
from taxiway.integrations.ledger import SqliteLedger
from taxiway.ports import Ports
from taxiway.records import Result
from taxiway.stop import Stop

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TOKEN = "s3cret-token"


class Memory(dict):
    def set(self, key, value):
        self[key] = value

    def delete(self, key):
        self.pop(key, None)


class Dies:
    """Passes every call on, and kills this process right before or after one of them."""

    def __init__(self, inner, step, when):
        self._inner, self._step, self._when = inner, step, when

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        if name != self._step:
            return found

        def call(*args, **named):
            if self._when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            found(*args, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        return call


class Run:
    """`value` is what check measures; `seen` the contents of `a` that it was given."""

    def __init__(self, folder, kind, url, api, *, token=TOKEN, name="run-1", stop=None):
        self.folder, self.name, self.value, self.seen = folder, name, 1.0, []
        self.stop = stop or Stop()
        self.home = Home(folder / "home")
        self.files = {"a": "1\n"}
        self.summary = "wrote the shop"
        self.during = lambda: None
        self.results, self.memory, self.log = {}, {}, logging.getLogger("test")
        self.started = datetime.now(UTC)
        self.ports = Ports(
            sandbox=None,
            environments=None,
            workspace=GitWorkspace(
                home=self.home,
                pipeline="web",
                run=name,
                url=url,
                started=STARTED,
                credentials=GitCredentials(token=TOKEN),
                stop=self.stop,
            ),
            artifacts=DirectoryArtifacts(self.home.artifacts),
            ledger=SqliteLedger(self.home.ledger),
            targets={},
            forge=find_forge(url, kind=kind, api=api, token=token, stop=self.stop),
        )
        self.agents = {
            "build": Agent("build", "", AgentInput, self.build, effect="writes"),
            "check": Agent("check", "", AgentInput, self.check, metrics={"value": Metric("v")}),
            "integrate": AGENT,
        }

    def build(self, _inputs, _ports, attempt):
        for path, text in self.files.items():
            (attempt.checkout / path).write_text(text)
        return Result(summary=self.summary)

    def check(self, _inputs, _ports, attempt):
        self.seen.append({p.name: p.read_text() for p in attempt.checkout.iterdir()})
        self.during()
        return Result(metrics={"value": self.value}, summary="measured")

    def stage(self, name, *, attempt=1, stop=None, timeout_s=300.0, ports=None, **inputs):
        gates = (Gate("value", ">=", 1.0),)
        rest = {"when": "", "recovers": (), "continue_on_failure": False, "uses": (), "mandatory": (), "touches": "", "line": 1}
        rest |= {"retries": Retries(3, 0, 1, 0), "timeout_s": timeout_s}
        stages = (
            PlannedStage(id="build", agent="build", effect="writes", inputs={}, needs=(), gates=(), requires=(), **rest),
            PlannedStage(id="check", agent="check", effect="measures", inputs={}, needs=("build",), gates=gates, requires=(), **rest),
            PlannedStage(
                id="integrate", agent="integrate", effect="merges", inputs=inputs, needs=("check",), gates=(), requires=("check",), **rest
            ),
        )
        policy = PlannedPolicy("default", (), unisolated=False)
        texts = {"description": "", "owner": "", "source": "p.yaml", "digest": "", "taxiway": ""}
        plan = Plan(pipeline="web", tags=(), params={}, schedule=None, limits=Limits(1, 1, 600), stages=stages, policy=policy, **texts)
        context = stage.RunContext(
            run=self.name,
            attempt=attempt,
            params={},
            results=dict(self.results),
            started=self.started,
            memory=self.memory.setdefault(name, Memory()),
            scratch=self.home.checkouts,
        )
        result = stage.run(plan, name, context, ports=ports or self.ports, agents=self.agents, stop=stop or self.stop, log=self.log)
        self.results[name] = result
        return result

    def begin(self):
        self.stage("build")
        return self.stage("check").commit

    def integrate(self, **more):
        return self.stage("integrate", **{"mode": "pull_request", **more})

    def changes(self):
        return self.ports.ledger.changes(self.name)


def main(folder, kind, url, api, *death):
    """One whole run in this process, which a step of one of its ports kills."""
    run = Run(Path(folder), kind, url, api)
    run.begin()
    port, step, when = death
    ports = dataclasses.replace(run.ports, **{port: Dies(getattr(run.ports, port), step, when)})
    run.integrate(ports=ports)


if __name__ == "__main__":
    main(*sys.argv[1:])
