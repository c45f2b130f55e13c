"""Which stages of a plan may ask a model, which one, and what comes of them without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from taxiway.agents.base import REPAIR, Agent, ModelUse
from taxiway.compiler.plan import NONE, ModelChoice, Plan, PlannedStage
from taxiway.spec.thinking import UNREPAIRED

__all__ = ["Asked", "asked"]


@dataclass(frozen=True)
class Asked:
    """A stage (of cells the first) whose `agent`, or `repair`, may ask a model: the policy's choice, None for no model."""

    stage: PlannedStage
    agent: str
    use: ModelUse
    choice: ModelChoice | None

    @property
    def name(self) -> str:
        """The stage, as its file calls it."""
        return self.stage.group or self.stage.id


def asked(plan: Plan, agents: Mapping[str, Agent]) -> tuple[Asked, ...]:
    """What may ask, in the plan's order. Inputs that are templates are taken for what they say: fill them in before."""
    found: dict[tuple[str, str], Asked] = {}
    for stage in plan.stages:
        for who, use in _uses(stage, agents):
            if use:
                found.setdefault((stage.group or stage.id, who), Asked(stage, who, use, _choice(plan, who)))
    return tuple(found.values())


def _uses(stage: PlannedStage, agents: Mapping[str, Agent]) -> Iterator[tuple[str, ModelUse | None]]:
    agent, repair = agents[stage.agent], stage.repair
    yield agent.name, agent.uses_model(stage.inputs) if agent.asks else None
    if repair and repair.agent:
        mender = agents[repair.agent]
        use = mender.uses_model(repair.inputs) if mender.asks else None
        # The stage fails without its repair as it does without a repair at all: by its gates.
        yield mender.name, UNREPAIRED if use and use.fails else use
    elif repair:
        yield REPAIR, UNREPAIRED


def _choice(plan: Plan, who: str) -> ModelChoice | None:
    choice = plan.policy.models.choice(who) if plan.policy.models else None
    return choice if choice and choice.model != NONE else None
