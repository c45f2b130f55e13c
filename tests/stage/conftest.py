import dataclasses
import functools
import logging
from datetime import UTC, datetime

import anthropic
import pytest
from pydantic import ConfigDict

from taxiway import stage
from taxiway.agents.base import Agent, AgentInput, Metric
from taxiway.compiler.plan import Budget, Gate, Limits, ModelChoice, Plan, PlannedModels, PlannedPolicy, PlannedStage, Retries
from taxiway.home import Home
from taxiway.integrations.artifacts import DirectoryArtifacts
from taxiway.integrations.claude import ClaudeModels
from taxiway.integrations.git import GitWorkspace
from taxiway.integrations.ledger import SqliteLedger
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.ports import Ports
from taxiway.records import Result
from taxiway.stop import Stop


class DictMemory(dict):
    """Airflow's task state store, as far as the engine uses it."""

    def set(self, key, value):
        self[key] = value

    def delete(self, key):
        self.pop(key, None)


class AnyInput(AgentInput):
    model_config = ConfigDict(extra="allow")


def make_stage(name, agent, **changes):
    base = PlannedStage(
        id=name,
        agent=agent,
        effect="measures",
        inputs={},
        needs=(),
        when="",
        gates=(),
        timeout_s=60,
        retries=Retries(3, 0, 1, 0),
        recovers=(),
        continue_on_failure=False,
        uses=(),
        requires=(),
        mandatory=(),
        touches="",
        line=1,
    )
    return dataclasses.replace(base, **changes)


class Bench:
    """A run on real git, a real ledger and a real artifact folder, whose agents are plain functions."""

    def __init__(self, folder):
        self.home = Home(folder / "home")
        self.agents = {}
        self.stages = []
        self.results = {}
        self.memories = {}
        self.started = datetime.now(UTC)
        self.duration_s = 600.0
        self.policy = PlannedPolicy("default", (), unisolated=False)
        self.budget = Budget(None, None, 0.8)
        self.workspace = GitWorkspace(home=self.home, pipeline="p", run="run-1", url="", credentials=None, started=self.started)
        self.ledger = SqliteLedger(self.home.ledger)
        self.ports = Ports(
            sandbox=None,
            environments=None,
            workspace=self.workspace,
            artifacts=DirectoryArtifacts(self.home.artifacts),
            ledger=self.ledger,
            targets={},
        )

    def agent(self, function, *, effect="measures", metrics=("value",), inputs=AnyInput, after=()):
        name = function.__name__
        self.agents[name] = Agent(
            name=name, summary="", inputs=inputs, run=function, effect=effect, metrics={m: Metric(m) for m in metrics}, after=after
        )
        return name

    def stage(self, name, function, **changes):
        effect = changes.pop("effect", "measures")
        metrics = changes.pop("metrics", ("value",))
        agent = self.agent(function, effect=effect, metrics=metrics, after=changes.pop("after", ()))
        self.stages.append(make_stage(name, agent, effect=effect, **changes))

    def built_in(self, name, agent, **changes):
        """A stage of one of Taxiway's own agents."""
        self.agents[agent.name] = agent
        self.stages.append(make_stage(name, agent.name, effect=agent.effect, **changes))

    def plan(self):
        return Plan(
            pipeline="p",
            description="",
            owner="",
            tags=(),
            params={},
            schedule=None,
            limits=Limits(1, 1, self.duration_s),
            stages=tuple(self.stages),
            policy=self.policy,
            budget=self.budget,
            source="p.yaml",
            digest="",
            taxiway="",
        )

    def run(self, name, *, attempt=1, params=None, stop=None, generation="", last=False):
        context = stage.RunContext(
            run="run-1",
            attempt=attempt,
            params=params or {},
            results=dict(self.results),
            started=self.started,
            memory=self.memories.setdefault(name, DictMemory()),
            scratch=self.home.checkouts,
            generation=generation,
            last=last,
        )
        log = logging.getLogger("test")
        result = stage.run(self.plan(), name, context, ports=self.ports, agents=self.agents, stop=stop or Stop(), log=log)
        self.results[name] = Result.model_validate_json(result.model_dump_json())
        return result

    def think(self, claude, *, budget=None, prices=None, retries=0):
        """Give every agent a model: the scripted one."""
        choice = ModelChoice("m", "", 4000, "")
        models = PlannedModels("", {"": choice}, prices or {"m": (1.0, 2.0, 1.0, 0.1)})
        self.policy = dataclasses.replace(self.policy, models=models)
        self.budget = budget or Budget(5.0, None, 0.8)
        connect = functools.partial(anthropic.Anthropic, api_key="test", base_url=claude.url, max_retries=retries)
        self.close()
        opened = ClaudeModels(connect, missing="set a key", environ={})
        self.ports = dataclasses.replace(self.ports, models=opened, sandbox=ProcessSandbox(trusted=True))

    def close(self):
        if self.ports.models:
            self.ports.models.close()

    def left_behind(self):
        return list(self.home.checkouts.glob("*")) if self.home.checkouts.exists() else []


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def gate():
    return Gate


@pytest.fixture
def write():
    def make(files):
        def writer(_inputs, _ports, attempt):
            for path, content in files.items():
                (attempt.checkout / path).parent.mkdir(parents=True, exist_ok=True)
                (attempt.checkout / path).write_text(content)
            return Result(summary="wrote")

        return writer

    return make
