"""A plan for people: text and Mermaid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from taxiway.compiler.plan import NONE, Budget, Gate, Plan, PlannedModels, PlannedStage

__all__ = ["as_mermaid", "as_text", "budget_text", "time_text"]


def time_text(seconds: float) -> str:
    """Seconds as a spec writes them: `90s`, `5m`, `1h`, `500ms`."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s" if seconds >= 1 or seconds == 0 else f"{seconds * 1000:g}ms"


def budget_text(budget: Budget) -> str:
    """What it bounds; "" for nothing."""
    usd = [f"{budget.usd:g} USD"] if budget.usd is not None else []
    return " and ".join([*usd, *([f"{budget.tokens} tokens"] if budget.tokens is not None else [])])


def as_text(
    plan: Plan,
    values: Mapping[str, object],
    models: Mapping[str, Sequence[str]] = MappingProxyType({}),
    unrepaired: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Order, settled settings, edges, gates with their source, and what each stage will touch. `models` says, by stage, which
    model it may ask and through what; `unrepaired` why what it says of repairs comes to nothing."""
    limits = plan.limits
    side_by_side = f"{limits.runs} runs side by side, {limits.stages} stages side by side in each"
    head = [
        ("pipeline", f"{plan.pipeline} ({plan.source}, digest {plan.digest[:12]})"),
        ("description", plan.description),
        ("owner", plan.owner),
        ("tags", ", ".join(plan.tags)),
        ("policy", _policy(plan)),
        ("templates", ", ".join(f"{name} ({file})" for name, file in plan.templates)),
        ("schedule", _schedule(plan)),
        ("budget", _budget(plan)),
        ("models", _models(plan)),
        ("limits", f"{side_by_side}; a run ends after {time_text(limits.duration_s)}"),
        *((f"param {name}", _param(schema, values.get(name))) for name, schema in plan.params.items()),
    ]
    width = max(len(word) for word, _ in head)
    lines = [f"{word.ljust(width)}  {text}" for word, text in head if text]
    shown = {stage.group or stage.id: stage for stage in reversed(plan.stages)}
    for number, stage in enumerate(reversed(shown.values()), 1):
        cells = [s for s in plan.stages if s.group and s.group == stage.group]
        name = stage.group or stage.id
        repair = unrepaired.get(name) or _repair(stage, plan.policy.models)
        lines += ["", *_stage(number, stage, cells, repair, models.get(name, ()))]
    return "\n".join(lines)


def as_mermaid(plan: Plan) -> str:
    """The graph as a Mermaid flowchart; dotted arrows lead to recoveries."""
    lines = ["flowchart LR"]
    groups: dict[str, list[str]] = {}
    for s in plan.stages:
        shape = '("{}")' if s.recovers else '["{}"]'
        groups.setdefault(s.group or s.id, []).append(_node(s.id) + shape.format(f"{s.id.removeprefix(s.group + '.')}<br/>{s.agent}"))
    for name, nodes in groups.items():
        of_cells = any(s.group == name for s in plan.stages)
        lines += [f"    subgraph {_node(name)}[{name}]", *(f"        {n}" for n in nodes), "    end"] if of_cells else [f"    {nodes[0]}"]
    lines += [f"    {_node(before)} {'-. fails .->' if s.recovers else '-->'} {_node(s.id)}" for s in plan.stages for before in s.needs]
    return "\n".join(lines)


def _node(name: str) -> str:
    # `end` and other words of Mermaid are names of stages too.
    return f"s_{name.replace('.', '__')}"


def _schedule(plan: Plan) -> str:
    schedule = plan.schedule
    if schedule is None:
        return "only when started"
    if schedule.assets:
        return "after updates of " + ", ".join(name if name == uri else f"{name} ({uri})" for name, uri in schedule.assets)
    return f"{schedule.cron} in {schedule.timezone} from {schedule.start}"


def _budget(plan: Plan) -> str:
    bounds = budget_text(plan.budget)
    return f"{bounds} of models a run, with a warning at {plan.budget.warn_at:.0%}" if bounds else ""


def _models(plan: Plan) -> str:
    models = plan.policy.models
    if models is None:
        return "none: templates and measurements alone"
    used = {s.agent for s in plan.stages} | {s.repair.agent or "repair" for s in plan.stages if s.repair}
    own = [f"{name}: {choice.model}" for name, choice in models.choices.items() if name in used]
    return "; ".join([models.choice("").model, *own]) + (f" by connection {models.connection}" if models.connection else "")


def _policy(plan: Plan) -> str:
    policy = plan.policy
    words = [policy.name or "none"]
    words += [
        f"{r.url} {'trusted' if r.trusted else 'not trusted'}"
        + (f" by {r.connection}" if r.connection else "")
        + (f" at {r.forge} {r.api}".rstrip() if r.forge else "")
        for r in policy.repositories
    ]
    words += [f"pool {name} of {slots}" for name, slots in policy.pools.items()]
    words += [f"tests use the {name} of {connection}" for name, connection in policy.services.items()]
    words += ["untrusted code may run unisolated"] if plan.unisolated() else []
    return "; ".join([*words, *(["models write code: it runs isolated or not at all"] if plan.written_by_models else [])])


def _param(schema: Mapping[str, object], value: object) -> str:
    rest = {k: v for k, v in schema.items() if k not in ("type", "default", "description", "title")}
    given = f"= {value!r}" if value is not None else "has no value yet"
    return f"{schema.get('type')} {given}" + (f"  {rest}" if rest else "")


def _stage(number: int, stage: PlannedStage, cells: Sequence[PlannedStage], repair: str, asks: Sequence[str]) -> list[str]:
    retries = stage.retries
    waits = f"{time_text(retries.first_s)} x{retries.factor:g} up to {time_text(retries.most_s)}"
    word = "on failure of" if stage.recovers else "after"
    rows = [
        (word, ", ".join(stage.needs) or "nothing: it starts at once"),
        ("with", ", ".join(f"{k}={v}" for k, v in stage.inputs.items() if not cells or (k, v) not in stage.matrix.items())),
        *(("cell", f"{cell.id}: {', '.join(f'{axis}={value}' for axis, value in cell.matrix.items())}") for cell in cells),
        ("when", stage.when),
        ("uses", ", ".join(stage.uses)),
        ("touches", stage.touches),
        *(("gate", _gate(gate)) for gate in stage.gates),
        ("repair", repair),
        *(("model", text) for text in asks),
        ("requires", ", ".join(f"{n}{' (policy)' * (n in stage.mandatory)}" for n in stage.requires)),
        ("tries", f"{retries.attempts}, each at most {time_text(stage.timeout_s)}, waiting about {waits}"),
        ("pool", stage.pool),
        ("queue", stage.queue),
        ("priority", str(stage.priority) if stage.priority > 1 else ""),
        ("on failure", "is noted; the run goes on" if stage.continue_on_failure else ""),
        ("deadline", "none: a recovery finishes" if stage.recovers else ""),
    ]
    return [f"{number}. {stage.group or stage.id} ({stage.agent}, {stage.effect}, line {stage.line})"] + [
        f"   {w.ljust(13)} {' '.join(text.split())}" for w, text in rows if text
    ]


def _repair(stage: PlannedStage, models: PlannedModels | None) -> str:
    if stage.repair is None:
        return ""
    may = f"; may also change {', '.join(stage.repair.may_change)}" if stage.repair.may_change else ""
    if stage.repair.agent:
        inputs = ", ".join(f"{k}={v}" for k, v in stage.repair.inputs.items())
        given = f" with {inputs}" if inputs else ""
        return f"up to {stage.repair.attempts} by agent {stage.repair.agent}{given}, each committed and measured again{may}"
    model = models.choice("repair").model if models else NONE
    if model == NONE:
        return "none: the policy names no model for it, and the gates fail at once"
    return f"up to {stage.repair.attempts} by {model}, each committed and measured again{may}"


def _gate(gate: Gate) -> str:
    text = f"{gate.metric} {gate.op} {gate.threshold:g}  [{gate.source}]"
    if not gate.blocking:
        text += " not blocking"
    if gate.waiver:
        text += f" waived by {gate.waiver.owner} until {gate.waiver.expires}: {gate.waiver.reason}"
    return text
