"""Bytes of a policy file to a checked Policy, or a SpecError with everything that is wrong with it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from taxiway.agents.base import Agent
from taxiway.spec import stages
from taxiway.spec.measured import check_range
from taxiway.spec.models import PIPELINE_ID, Policy, PolicySpec
from taxiway.spec.reading import validate
from taxiway.spec.source import Node, Report, parse
from taxiway.spec.thinking import REPAIR, check_thinks
from taxiway.spec.values import Threshold, read_gate
from taxiway.spec.words import did_you_mean, show

__all__ = ["DEFAULT_POLICY", "find_agent", "find_policy", "load_policy"]

DEFAULT_POLICY = "default"


def load_policy(content: bytes, path: str, agents: Mapping[str, Agent]) -> Policy:
    """The policy in `content`; raise SpecError with every problem of the file."""
    source = parse(content, path, begin="`policy: NAME`")
    root, report = source.root, source.report
    spec = validate(PolicySpec, root, report, kind="policy", needed={"policy": "x"})
    gates: dict[str, tuple[Threshold, ...]] = {}
    for name, raw in spec.gates.items():
        agent = find_agent(name, root.find(["gates", name], key=True), agents, report)
        node = root.find(["gates", name])
        found = stages.read_gates(raw, node, report)
        gates[name] = tuple(gate for gate, _ in found)
        if agent:
            stages.check_metrics(found, agent, report)
            stages.check_floor(check_range(found, agent, report), agent, None, report)
    for index, waiver in enumerate(spec.waivers):
        node = root.find(["waivers", index])
        agent = find_agent(waiver.agent, node.find(["agent"]), agents, report)
        floor = [*gates.get(waiver.agent, ()), *(read_gate(g) for g in agent.default_gates())] if agent else []
        if agent and not any(gate.metric == waiver.metric for gate in floor):
            hint = did_you_mean(waiver.metric, {g.metric for g in floor}, otherwise="only default gates and the policy's own can be waived")
            report.add(node.find(["metric"]), f"there is no gate on {show(waiver.metric)} to waive", rule="unknown-metric", hint=hint)
    for name in spec.models.agents if spec.models else ():
        at = root.find(["models", "agents", name], key=True)
        if name != REPAIR and (agent := find_agent(name, at, agents, report, beside=[REPAIR])):
            check_thinks(agent, at, agents, report)
    report.raise_if_any()
    lines = tuple(root.find(["waivers", index]).line for index in range(len(spec.waivers)))
    return Policy(spec, path, hashlib.sha256(content).hexdigest(), gates, lines)


def find_policy(name: str | None, policies: Mapping[str, Policy], root: Node, report: Report) -> Policy | None:
    """The policy that a pipeline names, or `default`; None where there is none, reported where it names one."""
    if name is None:
        return policies.get(DEFAULT_POLICY)
    at = root.find(["policy"])
    if name in policies:
        return policies[name]
    if re.fullmatch(PIPELINE_ID, name):
        hint = did_you_mean(name, policies, otherwise=f"write it to policies/{name[:40]}.yaml beside this file")
        report.add(at, f"unknown policy {show(name)}", rule="unknown-policy", hint=hint)
    else:
        own = re.sub(r"\.ya?ml$", "", name.rpartition("/")[2])
        hint = f"name it: `policy: {own}`" if own in policies else f"write the value of `policy:` in its file; {_known(policies)}"
        report.add(at, f"{show(name)} is no id of a policy", rule="bad-id", hint=hint)
    return None


def _known(policies: Mapping[str, Policy]) -> str:
    return f"there is {', '.join(sorted(policies))}" if policies else "there is none beside this file"


def find_agent(name: str, at: Node, agents: Mapping[str, Agent], report: Report, *, beside: Iterable[str] = ()) -> Agent | None:
    """The agent of that name; None, and reported at `at`, where none is installed. `beside` are other names that may stand there."""
    if name not in agents:
        hint = did_you_mean(name, [*agents, *beside]) or "install the package that brings it"
        report.add(at, f"unknown agent {show(name)}", rule="unknown-agent", hint=hint)
    return agents.get(name)
