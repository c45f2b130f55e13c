"""A plan with the params of a run in it, as far as they are all that its templates need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from taxiway.compiler.plan import Plan, PlannedStage
from taxiway.errors import InputError
from taxiway.render import decide, render

__all__ = ["defaults_of", "fill", "filled", "runs"]


def defaults_of(plan: Plan) -> dict[str, Any]:
    """The values of params that a run need not give."""
    return {name: schema["default"] for name, schema in plan.params.items() if "default" in schema}


def filled(plan: Plan, values: Mapping[str, Any]) -> Plan:
    """The plan with `values` in what its stages take and touch."""
    return replace(plan, stages=tuple(_filled(stage, values) for stage in plan.stages))


def _filled(stage: PlannedStage, values: Mapping[str, Any]) -> PlannedStage:
    repair = stage.repair and replace(stage.repair, inputs=fill(stage.repair.inputs, values))
    return replace(stage, inputs=fill(stage.inputs, values), touches=fill(stage.touches, values), repair=repair)


def fill(value: Any, values: Mapping[str, Any]) -> Any:
    """With the params in it, each template for itself: one that names results of stages stays as it is."""
    if isinstance(value, dict):
        return {key: fill(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [fill(item, values) for item in value]
    try:
        return render(value, {"params": values})
    except InputError:
        return value


def runs(stage: PlannedStage, values: Mapping[str, Any]) -> bool | None:
    """Whether a stage will run with these params; None where only the run can tell."""
    if stage.recovers:
        return None
    try:
        return not stage.when or decide(stage.when, {"params": values})
    except InputError:
        return None
