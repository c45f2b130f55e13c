"""What a policy says of models, held against agents and stages that ask one, or that never do."""

from __future__ import annotations

from collections.abc import Mapping

from taxiway.agents.base import REPAIR, Agent, ModelUse
from taxiway.spec.models import ModelsSpec, Policy, StageSpec
from taxiway.spec.source import Node, Report
from taxiway.spec.words import show

__all__ = ["NONE", "REPAIR", "UNREPAIRED", "check_asked", "check_models", "check_thinks", "chosen"]

NONE = "none"
UNREPAIRED = ModelUse("nothing will be repaired")
"""What comes of `repair` without a model."""


def chosen(models: ModelsSpec, name: str) -> str:
    """The model of an agent, or of `repair`; `none` for no model."""
    own = models.agents.get(name)
    return (own.model if own else None) or models.model


def check_models(models: ModelsSpec, node: Node, report: Report) -> None:
    """Report a fallback, and a connection, that no model is asked by."""
    if all(name == NONE for name in (models.model, *(own.model for own in models.agents.values() if own.model))):
        for word in ("connection", "fallback"):
            if getattr(models, word):
                hint = "name one, `models: {model: ...}`, or remove it"
                report.add(node.find([word], key=True), f"{show(word)} says nothing where no model is named", rule="idle-model", hint=hint)
    elif models.fallback:
        _check_fallback(models.fallback, models.model, node, report)
    for name, own in models.agents.items():
        if own.fallback:
            _check_fallback(own.fallback, chosen(models, name), node.find(["agents", name]), report)


def _check_fallback(fallback: str, model: str, node: Node, report: Report) -> None:
    if fallback == NONE:
        report.add(node.find(["fallback"]), "'none' is no model to fall back to", rule="bad-value", hint="leave `fallback` out")
    elif fallback == model:
        report.add(node.find(["fallback"]), f"{show(model)} is its own fallback", rule="bad-value", hint="name another model, or remove it")


def check_thinks(agent: Agent, at: Node, agents: Mapping[str, Agent], report: Report) -> None:
    """Report an agent among the policy's `models:` that never asks one."""
    if not agent.asks:
        hint = f"those that ask a model: {', '.join([*(a.name for a in agents.values() if a.asks), REPAIR])}"
        if agent.effect == "measures" and not agent.after:
            hint += f"; what mends the code after {agent.name} is {REPAIR}"
        report.add(at, f"agent {show(agent.name)} never asks a model", rule="idle-model", hint=hint)


def check_asked(
    stages: Mapping[str, StageSpec],
    agents: Mapping[str, Agent | None],
    known: Mapping[str, Agent],
    *,
    nodes: Mapping[str, Node],
    policy: Policy | None,
    report: Report,
) -> None:
    """Report stages, and agents that repair, that cannot work without a model, on a policy that says which models are asked and
    gives them none.

    What only asks one where it may (`repair`, `conflicts: ask_model`, requirements beside a template) goes on without. A policy without
    `models:` says nothing, and where it names a model the workers' environment decides whether that can be reached: both are told before
    a run, not here.
    """
    models = policy.spec.models if policy else None
    if policy is None or models is None:
        return
    for name, stage in stages.items():
        mender = known.get(stage.repair.agent or "") if stage.repair else None
        for agent, given, at in (
            (agents[name], stage.with_, ("agent",)),
            (mender, stage.repair.with_ if stage.repair else {}, ("repair", "agent")),
        ):
            use = agent.needs_model(given) if agent else None
            if agent and use and chosen(models, agent.name) == NONE:
                without, what = (UNREPAIRED.without, "the repair") if agent is mender else (use.without, "the stage")
                hint = f"give it one in the policy: `models: {{agents: {{{agent.name}: {{model: ...}}}}}}`, or remove {what}"
                problem = f"policy {show(policy.name)} names no model for {agent.name}: {without}"
                report.add(nodes[name].find(at), problem, rule="no-model", hint=hint)
