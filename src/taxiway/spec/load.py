"""Bytes of a file to a checked Pipeline, or a SpecError with everything that is wrong with it."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from taxiway.agents.base import Agent
from taxiway.spec import graph, stages
from taxiway.spec.budget import check_budget
from taxiway.spec.extends import Templates, extend, used_by
from taxiway.spec.matrix import Cell, cells_of, check_matrix
from taxiway.spec.measured import check_measured, check_range
from taxiway.spec.models import (
    PARAM_NAME,
    STAGE_ID,
    ParamSpec,
    Pipeline,
    PipelineSpec,
    Policy,
    RepairSpec,
    ScheduleSpec,
    StageSpec,
)
from taxiway.spec.params import check_param
from taxiway.spec.policy import find_agent, find_policy
from taxiway.spec.reading import validate
from taxiway.spec.source import Node, Report, parse
from taxiway.spec.templates import TemplateProblem
from taxiway.spec.thinking import check_asked
from taxiway.spec.times import check_times
from taxiway.spec.values import Threshold, seconds
from taxiway.spec.words import did_you_mean, show

__all__ = ["DEFAULT_RETRIES", "load_pipeline"]

DEFAULT_RETRIES: dict[str, Any] = {"attempts": 3, "first": "2s", "factor": 2, "most": "30s"}
_EMPTY = Node(1, 1, {})


def load_pipeline(
    content: bytes, path: str, agents: Mapping[str, Agent], policies: Mapping[str, Policy], templates: Templates | None = None
) -> Pipeline:
    """The pipeline in `content`; raise SpecError with every problem of the file. `policies` (by name) and `templates` are
    those beside it.

    A pipeline that names no policy stands on `default` where there is one, so that leaving the word out lowers no floor.
    """
    source = parse(content, path)
    return _Loader(source.root, source.report, agents, policies, templates or Templates()).load(content)


RESERVED = "taxiway_"
"""No pipeline's id begins with it: the maintenance DAGs' do."""


class _Loader:
    """The checks of one pipeline file, each on what the ones before could read."""

    def __init__(
        self, root: Node, report: Report, agents: Mapping[str, Agent], policies: Mapping[str, Policy], templates: Templates
    ) -> None:
        self.root, self.report, self.known, self.policies, self.templates = root, report, agents, policies, templates
        self.params: dict[str, ParamSpec] = {}
        self.stages: dict[str, StageSpec] = {}
        self.nodes: dict[str, Node] = {}
        self.agents: dict[str, Agent | None] = {}
        self.gates: dict[str, list[tuple[Threshold, Node]]] = {}
        self.cells: dict[str, tuple[Cell, ...]] = {}
        self.broken_params = False

    def load(self, content: bytes) -> Pipeline:
        """Check everything, then hand the file out."""
        spec = self._read()
        if spec.pipeline.startswith(RESERVED):
            hint = "Taxiway's own DAGs have such names; choose another"
            self.report.add(self.root.find(["pipeline"]), f"names that begin with {RESERVED} are taken", rule="bad-id", hint=hint)
        policy = self._policy(spec)
        needs = self._edges()
        acyclic = self._check_cycle(needs)
        before = graph.ancestors(needs) if acyclic else {name: frozenset(self.stages) - {name} for name in self.stages}
        for name in self.stages:
            self._check_stage(name, policy, before[name])
        if acyclic:
            self._check_writers(before)
            self._check_work_before(before, policy)
            self._check_work_after(before, policy)
        self._check_schedule(spec)
        check_asked(self.stages, self.agents, self.known, nodes=self.nodes, policy=policy, report=self.report)
        check_budget(spec, policy, self.agents, self.known, root=self.root, report=self.report)
        self._check_times(spec)
        self.report.raise_if_any()
        uses = {name: self._uses(stage) for name, stage in self.stages.items()}
        gates = {name: tuple(gate for gate, _ in found) for name, found in self.gates.items()}
        used = tuple(sorted((t.name, t.report.path, t.digest) for t in used_by(self.stages, self.templates)))
        lines = {name: self.root.find(["stages", name], key=True).line for name in self.stages}
        return Pipeline(spec, self.report.path, hashlib.sha256(content).hexdigest(), policy, needs, gates, uses, self.cells, lines, used)

    def _read(self) -> PipelineSpec:
        # Params and stages are read one by one first: a broken one must not hide the others.
        self._read_params()
        self._read_stages()
        rest = {
            k: e
            for k, e in self.root.value.items()
            if k not in ("params", "stages") or not isinstance(e.node.value, dict) or not e.node.value
        }
        if "stages" not in self.root.value:
            self.report.add(self.root, "'stages' is missing", rule="missing-key", hint="add `stages:` with at least one stage")
        rest.pop("params", None) if self.root.get("params") and self.root.find(["params"]).value == {} else None
        top = validate(
            PipelineSpec,
            Node(self.root.line, self.root.column, {**rest, **self._stand_in(rest)}),
            self.report,
            kind="pipeline",
            needed={"pipeline": "x", "stages": {"x": {"agent": "x"}}},
        )
        return top.model_copy(update={"params": self.params, "stages": self.stages})

    def _stand_in(self, rest: dict[str, Any]) -> dict[str, Any]:
        from taxiway.spec.source import Entry  # noqa: PLC0415

        if "stages" in rest:
            return {}
        stage = Node(1, 1, {"agent": Entry(_EMPTY, Node(1, 1, "x"))})
        return {"stages": Entry(_EMPTY, Node(1, 1, {"x": Entry(_EMPTY, stage)}))}

    def _read_params(self) -> None:
        node = self.root.get("params")
        for name, entry in (node.value if node and isinstance(node.value, dict) else {}).items():
            before = len(self.report.problems)
            if not re.fullmatch(PARAM_NAME, name):
                self.report.add(entry.key, f"{show(name)} is not a param's name", rule="bad-id", hint=f"names match {PARAM_NAME}")
            param = validate(ParamSpec, entry.node, self.report, kind="param", needed={"type": "string"})
            if len(self.report.problems) == before:
                check_param(name, param, entry.node, self.report)
            self.params[name] = param
            self.broken_params |= len(self.report.problems) > before
        self.broken_params |= node is not None and not isinstance(node.value, dict)

    def _read_stages(self) -> None:
        node = self.root.get("stages")
        for name, entry in (node.value if node and isinstance(node.value, dict) else {}).items():
            if name == "outcome":
                hint = "the stage at the end of every run has it; choose another name"
                self.report.add(entry.key, "the stage name 'outcome' is taken", rule="bad-id", hint=hint)
            elif not re.fullmatch(STAGE_ID, name):
                self.report.add(entry.key, f"{show(name)} is not a stage's name", rule="bad-id", hint=f"names match {STAGE_ID}")
            self.nodes[name] = node = extend(entry.node, self.templates, self.report)
            self.stages[name] = stage = validate(StageSpec, node, self.report, kind="stage", needed={"agent": ""})
            self.agents[name] = find_agent(stage.agent, node.find(["agent"]), self.known, self.report) if stage.agent else None
            if stage.matrix:
                self.cells[name] = cells_of(stage.matrix)
            self.gates[name] = stages.read_gates(stage.gates, node.find(["gates"]), self.report)

    def _policy(self, spec: PipelineSpec) -> Policy | None:
        return find_policy(spec.policy, self.policies, self.root, self.report)

    def _edges(self) -> dict[str, tuple[str, ...]]:
        recovers = {n: s.recovers for n, s in self.stages.items() if self._is_recovery(n)}
        above: dict[str, None] = {}
        for name, stage in self.stages.items():
            node = self.nodes[name]
            for word, targets in (("needs", stage.needs or []), ("recovers", stage.recovers)):
                for index, target in enumerate(targets):
                    self._check_target(name, word, target, node.find([word, index]), above)
            if name in recovers and stage.needs is not None:
                hint = "`recovers` already says after what it runs"
                self.report.add(node.find(["needs"], key=True), "a recovery has no `needs`", rule="bad-recovery", hint=hint)
            above[name] = None
        return graph.predecessors({n: s.needs for n, s in self.stages.items()}, recovers)

    def _is_recovery(self, name: str) -> bool:
        agent = self.agents[name]
        return bool(self.stages[name].recovers) or (agent is not None and agent.after_failure)

    def _check_target(self, name: str, word: str, target: str, at: Node, above: Mapping[str, None]) -> None:
        if target == name:
            self.report.add(at, f"stage {show(name)} {word} itself", rule="cycle", hint=f"{name} -> {name}; remove it")
        elif target not in self.stages:
            known = [other for other in self.stages if other != name]
            self.report.add(at, f"unknown stage {show(target)}", rule="unknown-stage", hint=did_you_mean(target, known))
        elif self._is_recovery(target):
            hint = "nothing follows a recovery or a diagnosis"
            self.report.add(at, f"stage {show(target)} runs only after a failure", rule="bad-recovery", hint=hint)
        elif word == "recovers" and target not in above:
            hint = "write a recovery below the stages that it covers"
            self.report.add(at, f"stage {show(target)} stands below its recovery", rule="bad-recovery", hint=hint)

    def _check_cycle(self, needs: dict[str, tuple[str, ...]]) -> bool:
        clean = {name: tuple(n for n in before if n != name) for name, before in needs.items()}
        path = graph.cycle(clean)
        if path:
            # The edge that the author wrote: the first stage of the path that says `needs`.
            name = next((n for n in path[1:] if self.stages[n].needs), path[0])
            at = self.nodes[name].find(["needs"])
            self.report.add(
                at, f"the stages wait for each other: {' -> '.join(path)}", rule="cycle", hint="take one of them out of a `needs`"
            )
        if clean != needs:
            needs.update(clean)
        return not path

    def _check_stage(self, name: str, policy: Policy | None, before: frozenset[str]) -> None:
        stage, node, agent = self.stages[name], self.nodes[name], self.agents[name]
        scope = stages.Scope(
            name,
            self.params,
            {n: self.agents[n] for n in self.stages if n in before},
            tuple(self.stages),
            self.broken_params,
            stage.matrix,
            {n: [cell.name for cell in cells] for n, cells in self.cells.items()},
        )
        if stage.when:
            stages.check_condition(stage.when, node.find(["when"]), self.report, scope)
        self._check_retries(name)
        if agent is None:
            return
        if stage.matrix:
            self._check_matrix(stage, node, agent)
        if stage.repair:
            self._check_repair(name, agent)
            self._check_repairer(stage.repair, node.find(["repair"]), scope)
        stages.check_inputs(stage.with_, agent, node, self.report, scope, conditional=stage.when is not None)
        stages.check_metrics(self.gates[name], agent, self.report)
        gates = check_range(self.gates[name], agent, self.report)
        stages.check_contradictions(gates, self.report)
        stages.check_template(gates, self.report)
        stages.check_floor(gates, agent, policy, self.report, stage.with_)
        check_measured(gates, stage, agent, policy, node=node, report=self.report)
        # A commit without its verdict is refused later on; what watches a running service is the last to look.
        if stage.continue_on_failure and agent.after and policy and any(g.blocking for g in policy.gates.get(agent.name, ())):
            problem = f"policy {show(policy.name)} has gates for {show(agent.name)}, and its failure would stop nothing"
            hint = "remove `continue_on_failure`, or ask the policy's owner for a waiver"
            self.report.add(node.find(["continue_on_failure"]), problem, rule="loosens-policy", hint=hint)
        if stage.recovers and not agent.after_failure:
            known = [a.name for a in self.known.values() if a.after_failure]
            hint = f"agents that can: {', '.join(known)}"
            at = node.find(["recovers"], key=True)
            self.report.add(
                at, f"agent {show(agent.name)} can neither undo nor explain what other stages did", rule="bad-recovery", hint=hint
            )
        elif agent.after_failure and not stage.recovers and isinstance(node.value, dict):
            hint = "write `recovers: [deploy]` with the stages whose failure starts it"
            self.report.add(node, f"stage {show(name)} does not say what it recovers", rule="bad-recovery", hint=hint)

    def _check_repair(self, name: str, agent: Agent) -> None:
        at = self.nodes[name].find(["repair"], key=True)
        if agent.effect != "measures" or agent.after:
            hint = "put it on a stage that measures the code, such as validate"
            self.report.add(at, f"a failed {show(agent.name)} is not mended by changing the code", rule="bad-repair", hint=hint)
        elif name in self.cells:
            hint = "cells only measure; put the repair on a stage without a matrix"
            problem = f"stage {show(name)} has cells, and their repairs would contradict each other"
            self.report.add(at, problem, rule="bad-repair", hint=hint)

    def _check_repairer(self, repair: RepairSpec, node: Node, scope: stages.Scope) -> None:
        if repair.agent is None:
            if repair.with_:
                hint = "add `agent:`, or remove `with`; the policy chooses the model of repairs under `models: agents: repair`"
                self.report.add(node.find(["with"], key=True), "'with' says nothing without 'agent'", rule="bad-repair", hint=hint)
            return
        agent = find_agent(repair.agent, node.find(["agent"]), self.known, self.report)
        if agent is None:
            return
        if agent.effect != "writes":
            known = ", ".join(a.name for a in self.known.values() if a.effect == "writes")
            problem = f"agent {show(agent.name)} changes no code, so it repairs nothing"
            hint = f"agents that do: {known}; leave `agent` out for the policy's model"
            self.report.add(node.find(["agent"]), problem, rule="bad-repair", hint=hint)
            return
        stages.check_inputs(repair.with_, agent, node, self.report, scope, conditional=False)

    def _writes(self, name: str) -> bool:
        """Whether the stage may hand on another commit than it was given."""
        agent = self.agents[name]
        return agent is not None and (agent.writer or self.stages[name].repair is not None)

    def _check_times(self, spec: PipelineSpec) -> None:
        for name, stage in self.stages.items():
            if agent := self.agents[name]:
                timeout = stage.timeout or spec.defaults.timeout
                check_times(stage.with_, agent, self.nodes[name], self.report, timeout=timeout, duration=spec.limits.duration)

    def _check_matrix(self, stage: StageSpec, node: Node, agent: Agent) -> None:
        check_matrix(stage.matrix, node.find(["matrix"]), self.report)
        with contextlib.suppress(TemplateProblem):  # reported with its place
            stages.check_axes(stage, agent, node, self.report)

    def _check_retries(self, name: str) -> None:
        defaults = self.root.find([])
        shared = defaults.get("defaults")
        node = self.nodes[name].get("retries") or (shared.get("retries") if shared else None)
        if node is None or not isinstance(node.value, dict):
            return
        base = shared.get("retries") if shared else None
        settled = {**DEFAULT_RETRIES, **(base.plain() if base and isinstance(base.value, dict) else {}), **node.plain()}
        try:
            wrong = seconds(settled["most"]) < seconds(settled["first"])
        except (ValueError, TypeError):
            return  # reported already
        if wrong:
            problem = f"the longest wait ({settled['most']}) is shorter than the first ({settled['first']})"
            self.report.add(node, problem, rule="out-of-range", hint="raise `most`, or lower `first`")

    def _check_writers(self, before: Mapping[str, frozenset[str]]) -> None:
        names = [n for n in self.stages if not self._is_recovery(n)]
        for index, one in enumerate(names):
            for other in names[index + 1 :]:
                pair = [self.agents[one], self.agents[other]]
                if one in before[other] or other in before[one]:
                    continue
                if all(a and a.effect == "deploys" for a in pair):
                    node = self.nodes[other].get("needs") or self.root.find(["stages", other], key=True)
                    # A recovery starts at the first failure: it would miss what the other is about to deploy.
                    problem = f"stages {show(one)} and {show(other)} both deploy: neither runs before the other"
                    hint = f"only measuring stages run side by side; let one need the other: needs: [{one}]"
                    self.report.add(node, problem, rule="two-writers", hint=hint)
                if not self._writes(one) and not self._writes(other):
                    continue
                writer = one if self._writes(one) else other
                reader = other if writer == one else one
                node = self.nodes[other].get("needs") or self.root.find(["stages", other], key=True)
                problem = f"stage {show(writer)} changes the code beside {show(reader)}: neither runs before the other"
                self.report.add(
                    node,
                    problem,
                    rule="two-writers",
                    hint=f"only measuring stages run side by side; let one need the other: needs: [{one}]",
                )

    def _check_work_before(self, before: Mapping[str, frozenset[str]], policy: Policy | None) -> None:
        for name in self.stages:
            agent = self.agents[name]
            ran = {a.name for n in before[name] if (a := self.agents[n])}
            unknown = any(self.agents[n] is None for n in before[name])
            if agent is None or unknown:
                continue
            at = self.root.find(["stages", name], key=True)
            if agent.after and not ran & set(agent.after):
                hint = f"add a stage with agent {' or '.join(agent.after)} before it"
                self.report.add(
                    at, f"agent {show(agent.name)} has nothing to work on before {' or '.join(agent.after)}", rule="not-before", hint=hint
                )
            if policy and agent.effect in ("merges", "deploys"):
                for gated, gates in policy.gates.items():
                    other = self.known.get(gated)
                    if gated not in ran and other and other.effect == "measures" and not other.after and any(g.blocking for g in gates):
                        problem = f"policy {show(policy.name)} wants {show(gated)} before {show(agent.name)}"
                        hint = f"add a stage with agent {gated} before {show(name)}"
                        self.report.add(at, problem, rule="policy-requires", hint=hint)

    def _check_work_after(self, before: Mapping[str, frozenset[str]], policy: Policy | None) -> None:
        """What the policy gates after a deploy (monitor) has to run after every deploy, and may not be skipped."""
        for gated, gates in policy.gates.items() if policy else ():
            follower = self.known.get(gated)
            if follower is None or not follower.after or not any(g.blocking for g in gates):
                continue
            of_it = [n for n in self.stages if (a := self.agents[n]) and a.name == gated]
            for name in of_it:
                if (node := self.nodes[name].get("when")) is not None and node.value is not None:
                    problem = f"policy {show(policy.name)} gates {show(gated)}: {show(name)} may not be skipped" if policy else ""
                    self.report.add(node, problem, rule="loosens-policy", hint="drop `when`: it skips itself where nothing was deployed")
            for name in self.stages:
                agent = self.agents[name]
                if agent and agent.name in follower.after and not any(name in before[n] for n in of_it):
                    at = self.root.find(["stages", name], key=True)
                    problem = f"policy {show(policy.name)} wants {show(gated)} after {show(agent.name)}" if policy else ""
                    self.report.add(at, problem, rule="policy-requires", hint=f"add a stage with agent {gated} after {show(name)}")

    def _check_schedule(self, spec: PipelineSpec) -> None:
        node = self.root.get("schedule")
        if node is None or spec.schedule is None:
            return
        if isinstance(spec.schedule, ScheduleSpec):
            self._check_trigger(spec.schedule, node)
        for name, param in self.params.items():
            if "default" not in param.model_fields_set and isinstance(self.root.find(["params", name]).value, dict):
                hint = "nobody is there to give it when the schedule starts a run; add `default:`, or `schedule: null`"
                at = self.root.find(["params", name], key=True)
                self.report.add(
                    at, f"a scheduled pipeline needs a default for param {show(name)}", rule="schedule-without-default", hint=hint
                )

    def _check_trigger(self, schedule: ScheduleSpec, node: Node) -> None:
        if schedule.assets is None:
            if node.get("cron") is None and node.get("assets") is None:
                self.report.add(node, "'cron' is missing", rule="missing-key", hint="add `cron:` here, or `assets:`")
            return
        for word in ("cron", "timezone", "start"):
            if node.get(word) is not None:
                hint = "its updates start the runs; remove one of the two"
                self.report.add(node.find([word], key=True), f"{show(word)} says nothing beside assets", rule="bad-schedule", hint=hint)
        for index, asset in enumerate(schedule.assets):
            uri = asset if isinstance(asset, str) else asset.uri
            if uri.startswith("airflow:"):
                hint = "choose another scheme; Airflow keeps this one for itself"
                self.report.add(node.find(["assets", index]), f"{show(uri)} is no URI of an asset", rule="bad-value", hint=hint)

    def _uses(self, stage: StageSpec) -> tuple[str, ...]:
        try:
            cells = {name: [cell.name for cell in found] for name, found in self.cells.items()}
            given = {"with": stage.with_, "repair": stage.repair.with_ if stage.repair else {}}
            return stages.template_stages(given, stage.when, cells)
        except TemplateProblem:  # reported already, with its place
            return ()
