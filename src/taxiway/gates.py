"""Gates: thresholds held against measurements. They fail closed: what was not measured has not passed."""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Callable, Sequence
from datetime import date

from taxiway.compiler.plan import Gate
from taxiway.records import Reading, Result, Verdict

__all__ = ["evaluate", "failures", "fingerprint", "passed", "table", "verdict"]

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}


def evaluate(gates: Sequence[Gate], result: Result, today: date) -> tuple[Reading, ...]:
    """One reading a gate, in the gates' order; a waiver that has not expired makes its gate non-blocking."""
    return tuple(_read(gate, result, today) for gate in gates)


def passed(readings: Sequence[Reading]) -> bool:
    """Whether every blocking gate passed."""
    return not failures(readings)


def failures(readings: Sequence[Reading]) -> tuple[Reading, ...]:
    """The blocking gates that did not pass."""
    return tuple(r for r in readings if r.blocking and not r.passed)


def fingerprint(gates: Sequence[Gate]) -> str:
    """Identifies a set of gates: 12 hex digits of SHA-256 over the blocking ones, whatever their order."""
    lines = sorted(f"{g.metric} {g.op} {g.threshold!r}" for g in gates if g.blocking)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def verdict(stage: str, commit: str, gates: Sequence[Gate], readings: Sequence[Reading]) -> Verdict:
    """The verdict of a stage's gates on a commit."""
    return Verdict(stage=stage, commit=commit, gates=fingerprint(gates), passed=passed(readings))


def table(readings: Sequence[Reading]) -> str:
    """The gates as text: metric, wanted, measured, verdict."""
    rows = [("gate", "wanted", "measured", "verdict"), *(_row(r) for r in readings)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, [*widths, 0], strict=True)).rstrip() for row in rows)


def _row(reading: Reading) -> tuple[str, str, str, str]:
    measured = "not measured" if reading.measured is None else f"{reading.measured:g}"
    word = "passed" if reading.passed else "FAILED" if reading.blocking else "failed, not blocking"
    return reading.metric, reading.wanted, measured, f"{word} ({reading.note})" if reading.note else word


def _read(gate: Gate, result: Result, today: date) -> Reading:
    measured = result.metrics.get(gate.metric)
    if measured is not None and not math.isfinite(measured):
        measured = None
    ok = measured is not None and _COMPARE[gate.op](measured, gate.threshold)
    waived = gate.waiver is not None and today <= date.fromisoformat(gate.waiver.expires)
    note = ""
    if measured is None:
        note = result.unmeasured.get(gate.metric, "the agent reported no such measurement")
    if waived and gate.waiver is not None and not ok:
        note = f"waived by {gate.waiver.owner} until {gate.waiver.expires}: {gate.waiver.reason}" + (f"; {note}" if note else "")
    return Reading(
        metric=gate.metric,
        wanted=f"{gate.op} {gate.threshold:g}",
        measured=measured,
        passed=ok,
        blocking=gate.blocking and not waived,
        source=gate.source,
        note=note,
    )
