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
from taxiway.spec.thinking import REPAIR, check_models, check_thinks
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
    for name in _below(root, "gates").plain():
        agent = find_agent(name, root.find(["gates", name], key=True), agents, report)
        node = root.find(["gates", name])
        found = stages.read_gates(spec.gates.get(name, ()), node, report)
        gates[name] = tuple(gate for gate, _ in found)
        if agent:
            stages.check_metrics(found, agent, report)
            stages.check_floor(check_range(found, agent, report), agent, None, report)
    unread = not spec.gates and bool(_below(root, "gates").plain())
    for node in waivers if isinstance(waivers := root.find(["waivers"]).value, list) else ():
        _check_waiver(node, None if unread else gates, agents, report)
    if spec.models:
        check_models(spec.models, root.find(["models"]), report)
    # By the file's own words: one that is broken must not hide the others.
    for name in _below(_below(root, "models"), "agents").plain():
        at = root.find(["models", "agents", name], key=True)
        if name != REPAIR and (agent := find_agent(name, at, agents, report, beside=[REPAIR])):
            check_thinks(agent, at, agents, report)
    report.raise_if_any()
    lines = tuple(root.find(["waivers", index]).line for index in range(len(spec.waivers)))
    return Policy(spec, path, hashlib.sha256(content).hexdigest(), gates, lines)


def _below(node: Node, key: str) -> Node:
    """The mapping below `key`; an empty one where there is none."""
    found = node.get(key)
    return found if found and isinstance(found.value, dict) else Node(node.line, node.column, {})


def _check_waiver(node: Node, gates: Mapping[str, tuple[Threshold, ...]] | None, agents: Mapping[str, Agent], report: Report) -> None:
    """Report a waiver of what is no gate; `gates` are the policy's own, None where they cannot be read."""
    name, metric = (found.value if (found := node.get(word)) else None for word in ("agent", "metric"))
    if not isinstance(name, str) or not name:
        return  # reported already
    agent = find_agent(name, node.find(["agent"]), agents, report)
    if agent is None or gates is None or not isinstance(metric, str) or not metric:
        return
    floor = [*gates.get(name, ()), *(read_gate(g) for g in agent.default_gates())]
    if not any(gate.metric == metric for gate in floor):
        hint = did_you_mean(metric, {g.metric for g in floor}, otherwise="only default gates and the policy's own can be waived")
        report.add(node.find(["metric"]), f"there is no gate on {show(metric)} to waive", rule="unknown-metric", hint=hint)


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
