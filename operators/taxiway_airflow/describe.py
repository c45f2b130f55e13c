"""A plan as the Markdown that the Airflow UI shows for a DAG and for a task."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from taxiway.compiler.plan import Gate, Plan, PlannedStage

__all__ = ["cell", "pipeline", "stage"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&-])")


def pipeline(plan: Plan) -> str:
    """What the pipeline is, its stages in order, and all that holds for every stage."""
    head = "| stage | agent | after | gates | timeout | tries |\n|---|---|---|---|---|---|"
    rows = "\n".join(_row(s) for s in plan.stages)
    settings = {"limits": asdict(plan.limits), "budget": asdict(plan.budget), "policy": asdict(plan.policy), "params": plan.params}
    if plan.schedule:
        settings["schedule"] = asdict(plan.schedule)
    also = "".join(f", template {cell(name)} in {cell(file)}" for name, file in plan.templates)
    made = f"From {cell(plan.source)}{also} ({plan.digest}) by Taxiway {plan.taxiway}, plan format {plan.format}."
    return f"{cell(plan.description)}\n\n{head}\n{rows}\n\n{fenced(settings)}\n\n{made}\n"


def stage(settled: Mapping[str, Any]) -> str:
    """Every setting of a stage as it was settled."""
    return fenced(settled) + "\n"


def fenced(data: Any) -> str:
    """JSON in a code block that nothing inside can end."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}json\n{text}\n{fence}"


def cell(text: str) -> str:
    """Any text on one line of Markdown, shown as it is."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _row(stage: PlannedStage) -> str:
    after = f"failure of {', '.join(stage.recovers)}" if stage.recovers else ", ".join(stage.needs) or "the start"
    gates = "; ".join(_gate(g) for g in stage.gates) or "none"
    fields = (stage.id, stage.agent, after, gates, f"{stage.timeout_s:g} s", str(stage.retries.attempts))
    return "| " + " | ".join(cell(f) for f in fields) + " |"


def _gate(gate: Gate) -> str:
    note = "" if gate.blocking else " (does not block)"
    waived = f" (waived by {gate.waiver.owner} until {gate.waiver.expires})" if gate.waiver else ""
    return f"{gate.metric} {gate.op} {gate.threshold:g}{note}{waived}"
