"""What a policy says of models, held against agents and stages that ask one, or that never do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from taxiway.agents.base import Agent, ModelUse
from taxiway.spec.models import ModelsSpec, Policy, StageSpec
from taxiway.spec.source import Node, Report
from taxiway.spec.words import show

__all__ = ["NONE", "REPAIR", "UNREPAIRED", "check_asked", "check_thinks", "chosen"]

NONE = "none"
REPAIR = "repair"
"""What stands for repairs among the agents of `models:`."""
UNREPAIRED = ModelUse("nothing will be repaired", idle=True)
"""What comes of `repair` without a model."""


def chosen(models: ModelsSpec, name: str) -> str:
    """The model of an agent, or of `repair`; `none` for no model."""
    own = models.agents.get(name)
    return (own.model if own else None) or models.model


def check_thinks(agent: Agent, at: Node, agents: Mapping[str, Agent], report: Report) -> None:
    """Report an agent among the policy's `models:` that never asks one."""
    if not agent.asks:
        hint = f"those that ask a model: {', '.join([*(a.name for a in agents.values() if a.asks), REPAIR])}"
        if agent.effect == "measures" and not agent.after:
            hint += f"; what mends the code after {agent.name} is {REPAIR}"
        report.add(at, f"agent {show(agent.name)} never asks a model", rule="idle-model", hint=hint)


def check_asked(
    stages: Mapping[str, StageSpec], agents: Mapping[str, Agent | None], nodes: Mapping[str, Node], policy: Policy | None, report: Report
) -> None:
    """Report stages that ask for what a model does, on a policy that says which models are asked and gives them none.

    A policy without `models:` says nothing, and where it names a model the workers' environment decides whether that can be reached:
    both are told before a run, not here.
    """
    models = policy.spec.models if policy else None
    if policy is None or models is None:
        return
    for name, stage in stages.items():
        for who, at, without, instead in _asking(stage, agents[name], nodes[name]):
            if chosen(models, who) == NONE:
                hint = f"give it one in the policy: `models: {{agents: {{{who}: {{model: ...}}}}}}`, or {instead}"
                report.add(at, f"policy {show(policy.name)} names no model for {who}: {without}", rule="no-model", hint=hint)


def _asking(stage: StageSpec, agent: Agent | None, node: Node) -> Iterator[tuple[str, Node, str, str]]:
    """Who asks in the stage, where it says so, what comes of it without a model, and what to do instead."""
    use = agent.uses_model(stage.with_) if agent and agent.asks else None
    if agent and use and (use.fails or use.idle):
        yield agent.name, node.find(["agent"]), use.without, "remove the stage" if use.fails else "do not ask one in `with`"
    if stage.repair:
        yield REPAIR, node.find(["repair"], key=True), UNREPAIRED.without, "remove `repair`"
