"""How a run ended: as JSON, as Markdown, and as a table for the log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from taxiway.compiler.plan import Plan
from taxiway.compiler.show import budget_text
from taxiway.records import Result, total_cost
from taxiway_airflow.describe import cell

__all__ = ["StageEnd", "as_json", "as_markdown", "as_table", "failures"]

_GOOD = ("success", "skipped")
_HEAD = ("stage", "agent", "ended", "commit", "gates", "summary")


@dataclass(frozen=True)
class StageEnd:
    """A stage after the run: Airflow's state of its task, and its Result where it left one."""

    id: str
    agent: str
    state: str
    result: Result | None

    @property
    def outcome(self) -> str:
        """`success`, `failed`, `skipped`, `cancelled`, or Airflow's word for a task that did not get so far."""
        if self.result is None:
            return self.state
        # Airflow has no word for a task that was stopped: it calls it failed.
        told = self.state == "success" or (self.state == "failed" and self.result.outcome == "cancelled")
        return self.result.outcome if told else self.state


def failures(ends: Iterable[StageEnd]) -> list[str]:
    """Why the run did not succeed, a line each. A stage fails unless it is known to have ended well: a task that
    succeeded without leaving a Result is not believed."""
    return [reason for end in ends if (reason := _failure(end))]


def _failure(end: StageEnd) -> str:
    if end.state not in _GOOD:
        return f"{end.id} ended {end.outcome}"
    if end.state == "success" and end.result is None:
        return f"{end.id} left no result that can be read"
    return ""


def as_json(plan: Plan, run: str, ends: Sequence[StageEnd]) -> str:
    """Everything, for programs."""
    stages = [
        {"id": e.id, "agent": e.agent, "state": e.state, "outcome": e.outcome, "result": e.result and e.result.model_dump(mode="json")}
        for e in ends
    ]
    cost = total_cost(e.result for e in ends if e.result)
    spent = {"cost": cost.model_dump(mode="json"), "budget": asdict(plan.budget)} if cost else {}
    summary = {**_head(plan, run, ends), **spent, "failures": failures(ends), "stages": stages}
    return json.dumps(summary, indent=2, ensure_ascii=False) + "\n"


def as_markdown(plan: Plan, run: str, ends: Sequence[StageEnd]) -> str:
    """One page, for people."""
    head = _head(plan, run, ends)
    facts = "\n".join(f"- {name}: {cell(str(value))}" for name, value in {**head, "models": _spent(plan, ends)}.items() if value)
    rows = "\n".join("| " + " | ".join(cell(c) for c in _row(e)) + " |" for e in ends)
    table = f"| {' | '.join(_HEAD)} |\n|{'---|' * len(_HEAD)}\n{rows}"
    gates = "\n".join([*_gates(ends), *_costs(ends)])
    return f"# {cell(plan.pipeline)}: {head['outcome']}\n\n{facts}\n\n{table}\n" + (f"\n{gates}\n" if gates else "")


def as_table(ends: Sequence[StageEnd]) -> list[str]:
    """The stages as aligned lines."""
    rows = [_HEAD, *(tuple(" ".join(c.split()) for c in _row(e)) for e in ends)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _head(plan: Plan, run: str, ends: Sequence[StageEnd]) -> dict[str, Any]:
    results = [e.result for e in ends if e.result]
    return {
        "pipeline": plan.pipeline,
        "run": run,
        "outcome": "failed" if failures(ends) else "success",
        "commit": next((r.commit for r in reversed(results) if r.commit), ""),
        # After a failed run another release lives there, or none.
        "url": "" if failures(ends) else next((str(r.outputs["url"]) for r in reversed(results) if r.outputs.get("url")), ""),
        "spec": f"{plan.source} ({plan.digest})",
    }


def _spent(plan: Plan, ends: Sequence[StageEnd]) -> str:
    """What models did and cost in all, and of which budget; "" where none did anything."""
    cost = total_cost(e.result for e in ends if e.result)
    if cost is None:
        return ""
    bounds = budget_text(plan.budget)
    return f"{cost} of a budget of {bounds}" if bounds else str(cost)


def _row(end: StageEnd) -> tuple[str, ...]:
    result = end.result or Result()
    passed = sum(g.passed for g in result.gates)
    gates = f"{passed}/{len(result.gates)}" if result.gates else "-"
    return (end.id, end.agent, end.outcome, result.commit[:12] or "-", gates, result.summary or "-")


def _costs(ends: Iterable[StageEnd]) -> list[str]:
    return [f"- {cell(f'{end.id}: {end.result.cost}')}" for end in ends if end.result and end.result.cost]


def _gates(ends: Iterable[StageEnd]) -> list[str]:
    lines = []
    for end in ends:
        for g in end.result.gates if end.result else ():
            measured = "not measured" if g.measured is None else f"{g.measured:g}"
            verdict = "passed" if g.passed else "failed" if g.blocking else "failed, does not block"
            note = f" ({g.note})" if g.note else ""
            lines.append(f"- {cell(f'{end.id}: {g.metric} {g.wanted}: {measured}, {verdict}{note}')}")
    return lines
