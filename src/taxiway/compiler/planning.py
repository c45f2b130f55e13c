"""A checked pipeline to its plan: every default settled, nothing left to look up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from taxiway import __version__
from taxiway.agents.base import Agent
from taxiway.compiler.plan import (
    FORMAT,
    Budget,
    Gate,
    Limits,
    ModelChoice,
    Plan,
    PlannedModels,
    PlannedPolicy,
    PlannedStage,
    Repair,
    Repository,
    Retries,
    Schedule,
    Waiver,
)
from taxiway.spec import CRON_PRESETS, DEFAULT_RETRIES, Pipeline, Policy, Threshold, implies, read_gate, seconds
from taxiway.spec.budget import own_price, settled_budget
from taxiway.spec.graph import ancestors, order
from taxiway.spec.models import ModelsSpec, RepairSpec, ScheduleSpec, StageSpec
from taxiway.spec.stages import axis_inputs, filled_inputs

__all__ = ["effective_gates", "plan"]


def plan(pipeline: Pipeline, agents: Mapping[str, Agent]) -> Plan:
    """Order the stages and settle every default. The same pipeline, policy, agents and Taxiway give the same plan."""
    spec = pipeline.spec
    gates = {
        i: effective_gates(agents[spec.stages[n].agent], w, pipeline.policy, pipeline.gates[n]) for n, i, w in _tasks(pipeline, agents)
    }
    stages = [cell for n in order(pipeline.needs) for cell in _cells(_stage(n, pipeline, agents, gates), pipeline, agents, gates)]
    return Plan(
        pipeline=spec.pipeline,
        description=spec.description,
        owner=spec.owner,
        tags=tuple(dict.fromkeys(spec.tags)),
        params={name: param.schema_() for name, param in spec.params.items()},
        schedule=_schedule(spec.schedule),
        limits=Limits(spec.limits.runs, spec.limits.stages, seconds(spec.limits.duration)),
        stages=tuple(stages),
        policy=_policy(pipeline.policy),
        source=PurePath(pipeline.path).name,
        digest=_digest(pipeline, agents),
        taxiway=__version__,
        templates=tuple((name, PurePath(path).name) for name, path, _ in pipeline.templates),
        budget=Budget(*settled_budget(spec.budget, pipeline.policy.spec.budget if pipeline.policy else None)),
    )


def effective_gates(agent: Agent, given: Mapping[str, Any], policy: Policy | None, own: tuple[Threshold, ...]) -> tuple[Gate, ...]:
    """The default gates for this `with`, the policy's and the stage's own, without those that a stricter one makes superfluous."""
    # Of two that say the same the policy's stays, then the default: the source tells who to ask.
    everything = [_gate(g, "policy", agent, policy) for g in (policy.gates.get(agent.name, ()) if policy else ())]
    everything += [_gate(read_gate(text), "default", agent, policy) for text in agent.default_gates(given)]
    everything += [_gate(g, "spec", agent, policy) for g in own]
    rivals = list(enumerate(everything))
    kept = [g for i, g in rivals if not any(_covers(other, g, j < i) for j, other in rivals if j != i and other.metric == g.metric)]
    return tuple(sorted(kept, key=lambda g: (g.metric, g.op, g.threshold, not g.blocking)))


def _covers(strict: Gate, loose: Gate, earlier: bool) -> bool:
    a, b = (Threshold(g.metric, g.op, g.threshold, g.blocking) for g in (strict, loose))
    stronger = (strict.blocking and strict.waiver is None, strict.blocking) >= (loose.blocking and loose.waiver is None, loose.blocking)
    if not (implies(a, b) and stronger):
        return False
    same = implies(b, a) and (strict.blocking, strict.waiver) == (loose.blocking, loose.waiver)
    return earlier if same else True


def _gate(gate: Threshold, source: Any, agent: Agent, policy: Policy | None) -> Gate:
    waiver = None
    if source != "spec" and policy:
        found = (w for w in policy.spec.waivers if w.agent == agent.name and w.metric == gate.metric)
        waiver = next((Waiver(w.owner, w.expires, w.reason) for w in found), None)
    return Gate(gate.metric, gate.op, gate.value, gate.blocking, source, waiver)


def _tasks(pipeline: Pipeline, agents: Mapping[str, Agent]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every stage, or each of its cells: the stage's name, the task's id, and `with` as far as it is known before a run."""
    for name, stage in pipeline.spec.stages.items():
        for cell in pipeline.cells.get(name, ()):
            yield name, f"{name}.{cell.name}", filled_inputs(stage.with_, cell.values, agents[stage.agent])
        if name not in pipeline.cells:
            yield name, name, stage.with_


def _cells(
    stage: PlannedStage, pipeline: Pipeline, agents: Mapping[str, Agent], gates: Mapping[str, tuple[Gate, ...]]
) -> list[PlannedStage]:
    """The stage itself, or its cells: each is a stage of its own that knows the value of every axis."""
    cells = []
    for cell in pipeline.cells.get(stage.id, ()):
        name = f"{stage.id}.{cell.name}"
        inputs = {**axis_inputs(cell.values, agents[stage.agent], stage.inputs), **stage.inputs}
        cells.append(replace(stage, id=name, inputs=inputs, gates=gates[name], group=stage.id, matrix=dict(cell.values)))
    return cells or [stage]


def _ids(names: Iterable[str], pipeline: Pipeline) -> tuple[str, ...]:
    """The stages by the ids of their tasks: each cell instead of a stage that has some."""
    ids = [[f"{name}.{cell.name}" for cell in pipeline.cells.get(name, ())] or [name] for name in names]
    return tuple(dict.fromkeys(i for found in ids for i in found))


def _stage(name: str, pipeline: Pipeline, agents: Mapping[str, Agent], gates: Mapping[str, tuple[Gate, ...]]) -> PlannedStage:
    stage, defaults = pipeline.spec.stages[name], pipeline.spec.defaults
    agent = agents[stage.agent]
    required = _required(name, pipeline, agents, gates) if agent.effect in ("merges", "deploys") or stage.repair else ()
    return PlannedStage(
        id=name,
        agent=agent.name,
        effect=agent.effect,
        inputs=stage.with_,
        needs=_ids(pipeline.needs[name], pipeline),
        when=stage.when or "",
        gates=gates.get(name, ()),
        timeout_s=seconds(stage.timeout or defaults.timeout),
        retries=_retries(pipeline, stage),
        recovers=_ids(stage.recovers, pipeline),
        continue_on_failure=stage.continue_on_failure,
        uses=pipeline.uses[name],
        requires=required,
        mandatory=tuple(i for i in required if _gated_by_policy(pipeline, i.partition(".")[0])),
        touches=_touches(agent, stage),
        line=pipeline.lines[name],
        pool=stage.pool or defaults.pool or "",
        queue=stage.queue or defaults.queue or "",
        priority=stage.priority or defaults.priority,
        repair=_repair(stage.repair),
        model_writes=_model_writes(agent, stage, agents, pipeline.policy),
    )


def _required(name: str, pipeline: Pipeline, agents: Mapping[str, Agent], gates: Mapping[str, tuple[Gate, ...]]) -> tuple[str, ...]:
    """The stages whose verdicts say that the code is good; what watches a running service says nothing about a commit."""
    before = ancestors(pipeline.needs)
    of = {n: agents[pipeline.spec.stages[n].agent] for n in before if n in before[name]}
    found = _ids((n for n, agent in of.items() if agent.effect == "measures" and not agent.after), pipeline)
    return tuple(i for i in found if any(g.blocking for g in gates[i]))


def _gated_by_policy(pipeline: Pipeline, name: str) -> bool:
    policy = pipeline.policy
    return policy is not None and any(g.blocking for g in policy.gates.get(pipeline.spec.stages[name].agent, ()))


def _retries(pipeline: Pipeline, stage: StageSpec) -> Retries:
    shared, own = (r.model_dump(exclude_none=True) for r in (pipeline.spec.defaults.retries, stage.retries))
    settled = {**DEFAULT_RETRIES, **shared, **own}
    return Retries(settled["attempts"], seconds(settled["first"]), float(settled["factor"]), seconds(settled["most"]))


def _repair(repair: RepairSpec | None) -> Repair | None:
    return Repair(repair.attempts, tuple(repair.may_change), repair.agent or "", repair.with_) if repair else None


def _model_writes(agent: Agent, stage: StageSpec, agents: Mapping[str, Agent], policy: Policy | None) -> bool:
    models = _models(policy.spec.models) if policy and policy.spec.models else None
    writers = [agent.name] if agent.thinks(stage.with_) else []
    if stage.repair and stage.repair.agent is None:
        writers.append("repair")
    elif stage.repair and stage.repair.agent and agents[stage.repair.agent].thinks(stage.repair.with_):
        writers.append(stage.repair.agent)
    return models is not None and any(models.has(name) for name in writers)


def _schedule(schedule: str | ScheduleSpec | None) -> Schedule | None:
    if schedule is None:
        return None
    settled = ScheduleSpec(cron=schedule) if isinstance(schedule, str) else schedule
    assets = tuple((a, a) if isinstance(a, str) else (a.name, a.uri) for a in settled.assets or ())
    cron = settled.cron or ""
    return Schedule(" ".join(CRON_PRESETS.get(cron, cron).split()), settled.timezone, settled.start, assets)


def _policy(policy: Policy | None) -> PlannedPolicy:
    if policy is None:
        return PlannedPolicy("", (), unisolated=False)
    repositories = tuple(Repository(r.url, r.trusted, r.connection, r.forge or "", r.api or "") for r in policy.spec.repositories)
    return PlannedPolicy(
        policy.name,
        repositories,
        policy.spec.unisolated,
        dict(policy.spec.pools),
        {str(name): connection for name, connection in policy.spec.services.items()},
        _models(policy.spec.models) if policy.spec.models else None,
    )


def _models(models: ModelsSpec) -> PlannedModels:
    shared = ModelChoice(models.model, models.effort or "", models.max_tokens, models.fallback or "")
    own = {name: {k: v for k, v in spec.model_dump().items() if v is not None} for name, spec in models.agents.items()}
    prices = {name: own_price(price) for name, price in models.prices.items()}
    return PlannedModels(models.connection, {"": shared, **{name: replace(shared, **words) for name, words in own.items()}}, prices)


def _touches(agent: Agent, stage: StageSpec) -> str:
    text = agent.touches
    fields = {info.alias or name: info for name, info in agent.inputs.model_fields.items() if not info.is_required()}
    words = {name: info.get_default(call_default_factory=True) for name, info in fields.items() if "{" + name + "}" in text}
    for name, value in {**words, **stage.with_}.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def _digest(pipeline: Pipeline, agents: Mapping[str, Agent]) -> str:
    stages = pipeline.spec.stages.values()
    used = sorted({s.agent for s in stages} | {s.repair.agent for s in stages if s.repair and s.repair.agent})
    policy = pipeline.policy.digest if pipeline.policy else ""
    templates = [[name, digest] for name, _, digest in pipeline.templates]
    parts = [FORMAT, __version__, pipeline.digest, policy, templates, [[name, agents[name].version] for name in used]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
