"""Gates that could never pass, for nothing measures their metric or it never gets there; and those that could never fail."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from taxiway.agents.base import Agent, Metric
from taxiway.spec.matrix import Cell, cells_of
from taxiway.spec.models import Policy, StageSpec
from taxiway.spec.source import Node, Report
from taxiway.spec.stages import filled_inputs
from taxiway.spec.values import Threshold, accepts
from taxiway.spec.words import show

__all__ = ["check_measured", "check_range"]


def check_measured(
    gates: Iterable[tuple[Threshold, Node]], stage: StageSpec, agent: Agent, policy: Policy | None, *, node: Node, report: Report
) -> None:
    """Report blocking gates of the stage or its policy on metrics that need a word in an input which the stage leaves out."""
    place = node.get("with") or node
    for name in agent.metrics_by:
        for word, metrics in _left_out(name, stage, agent):
            found = [(f"`{gate}`", [gate.metric], at) for gate, at in gates if gate.blocking and gate.metric in metrics]
            if policy and (wanted := [metric for metric in _floor(policy, agent) if metric in metrics]):
                found.append((f"policy {show(policy.name)}", wanted, place.find([name])))
            for whose, needed, at in found:
                problem = f"{whose} needs {' and '.join(needed)}, which only {show(word)} in `{name}` measures"
                report.add(at, problem, rule="never-measured", hint=f"the stage could never pass: add `{word}` to {name}")


def check_range(gates: Iterable[tuple[Threshold, Node]], agent: Agent, report: Report) -> list[tuple[Threshold, Node]]:
    """Report blocking gates that pass, or fail, whatever the agent measures; those that decide something are returned."""
    sound = []
    for gate, at in gates:
        metric = agent.metrics.get(gate.metric)
        always = _always(gate, metric) if metric and gate.blocking else None
        if metric is None or always is None:
            sound.append((gate, at))
        elif always:
            hint = "mend the threshold; to see the number alone, write `blocking: false`"
            report.add(at, f"`{gate}` checks nothing: {gate.metric} is always {_bounds(metric)}", rule="idle-gate", hint=hint)
        else:
            hint = "the stage could never pass; mend the threshold"
            report.add(at, f"no value passes `{gate}`: {gate.metric} is always {_bounds(metric)}", rule="contradiction", hint=hint)
    return sound


def _always(gate: Threshold, metric: Metric) -> bool | None:
    """Whether every value of the metric passes (True) or none does (False); None where it depends."""
    least, most = -math.inf if metric.least is None else metric.least, math.inf if metric.most is None else metric.most
    if least < gate.value < most or (gate.op in ("==", "!=") and least <= gate.value <= most):
        return None
    at_ends = {accepts(gate, value) for value in (least, most)}
    return at_ends.pop() if len(at_ends) == 1 else None


def _bounds(metric: Metric) -> str:
    words = [f"at least {metric.least:g}"] if metric.least is not None else []
    return " and ".join([*words, *([f"at most {metric.most:g}"] if metric.most is not None else [])])


def _left_out(name: str, stage: StageSpec, agent: Agent) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The words that the stage, or one of its cells, does not say, each with the metrics that nothing else measures."""
    by_word = agent.metrics_by[name]
    left: dict[str, tuple[str, ...]] = {}
    for cell in cells_of(stage.matrix) or (Cell("", {}),):
        words = agent.words(name, by_word, filled_inputs(stage.with_, cell.values, agent))
        measured = {metric for word in words or () for metric in by_word[word]}
        if words is not None:
            left |= {word: rest for word, metrics in by_word.items() if (rest := tuple(m for m in metrics if m not in measured))}
    yield from left.items()


def _floor(policy: Policy, agent: Agent) -> list[str]:
    """The metrics of the policy's blocking gates that nobody has waived."""
    waived = {w.metric for w in policy.spec.waivers if w.agent == agent.name}
    return list(dict.fromkeys(g.metric for g in policy.gates.get(agent.name, ()) if g.blocking and g.metric not in waived))
