"""A stage's own count of tries and repairs, and what a failed one leaves for the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from taxiway.errors import Cancelled, GateFailed, LeaseLost, ModelError, RepairDue, StageError, TaxiwayError

__all__ = ["Memory", "Mending", "Tries"]


_LINE = 120


class Memory(Protocol):
    """Small JSON that outlives a try, of this stage in this run alone (Airflow's task state store)."""

    def get(self, key: str) -> Any:
        """What was set, None where nothing was."""

    def set(self, key: str, value: Any) -> None:
        """Keep a JSON value."""

    def delete(self, key: str) -> None:
        """Forget it; nothing where it was not set."""


@dataclass(frozen=True)
class Mending:
    """What the next repair starts from: the commit as it is, what is wrong with it (an artifact's URI, and in one line), and the
    best commit so far with the number of gates that it failed. `baseline` are the numbers of tests before the first repair."""

    commit: str
    evidence: str
    problem: str
    best: str
    failed: int
    baseline: Mapping[str, float]


class Tries:
    """One stage's count, kept by input commit and `generation` (which changes when a person clears the task).

    `limit` is the most that it counts to, `repairs` the most repairs; `last` says that nobody will try again, whatever the count.
    A try that ends with a repair due is none of the `limit`: those are for what another try may cure by itself.
    """

    def __init__(self, memory: Memory, *, commit: str, generation: str, attempt: int, limit: int, last: bool, repairs: int = 0) -> None:
        self._memory, self._attempt, self._limit, self._last, self._repairs = memory, attempt, limit, last, repairs
        self._key = f"attempts:{commit or 'none'}:{generation}"
        self._kept = {"tries": 0, "repairs": 0, "evidence": {}, "mending": None, "repaired": {}} | (memory.get(self._key) or {})
        # Counted before the work: a try whose process was killed is spent too.
        self._write(tries=self._kept["tries"] + 1)

    def evidence(self) -> Mapping[str, Any]:
        """What the last failed try left."""
        return dict(self._kept["evidence"])

    @property
    def mending(self) -> Mending | None:
        """What this try repairs before it measures; None for a try that only measures."""
        return Mending(**self._kept["mending"]) if self._kept["mending"] else None

    @property
    def repairs(self) -> int:
        """Which repair this try is, from 1; with nothing to mend, how many there were."""
        return int(self._kept["repairs"]) + (self._kept["mending"] is not None)

    @property
    def repaired(self) -> tuple[str, ...]:
        """What the repairs so far changed, a line each."""
        return tuple(text for _, text in sorted(self._kept["repaired"].items(), key=lambda made: int(made[0])))

    def note_repair(self, text: str) -> None:
        """Keep what this try's repair changed; a try that does it anew says it anew."""
        self._write(repaired={**self._kept["repaired"], str(self.repairs): text[:_LINE]})

    def spend(self, error: TaxiwayError, mending: Mending | None = None) -> TaxiwayError:
        """Keep the evidence; the error itself, one that announces a repair, or a final one where no try is left.

        `mending` is what a repair would start from, None where none can help.
        """
        if isinstance(error, LeaseLost):
            return error  # the newer try keeps the count now
        if isinstance(error, Cancelled):
            self._write(tries=self._kept["tries"] - 1)  # being stopped is nobody's failed try
            return error
        self._write(evidence=_evidence(error, self._attempt))
        if mending is not None and isinstance(error, GateFailed | ModelError):
            return self._repair_next(error, mending)
        if not error.retryable or (self._kept["tries"] < self._limit and not self._last):
            return error
        final = StageError(f"gave up after {self._kept['tries']} of {self._limit} tries: {error.problem}", hint=error.hint)
        final.artifacts = error.artifacts
        return final

    def _repair_next(self, error: GateFailed | ModelError, mending: Mending) -> TaxiwayError:
        done = self.repairs
        if done < self._repairs and not self._last:
            self._write(tries=self._kept["tries"] - 1, repairs=done, mending=asdict(mending))
            return _due(error, done + 1, self._repairs)
        return _spent(error, done) if done else error

    def forget(self) -> None:
        """The stage succeeded: a later clear starts anew."""
        self._memory.delete(self._key)

    def _write(self, **changes: Any) -> None:
        self._kept = {**self._kept, **changes}
        self._memory.set(self._key, self._kept)


def _due(error: GateFailed | ModelError, number: int, most: int) -> RepairDue:
    readings = error.readings if isinstance(error, GateFailed) else ()
    due = RepairDue(f"repair {number} of {most} comes next: {error.problem}", readings=readings)
    due.artifacts = error.artifacts
    return due


def _spent(error: GateFailed | ModelError, done: int) -> TaxiwayError:
    problem = f"{error.problem} (after {done} {'repair' if done == 1 else 'repairs'})"
    hint = "the reports hold the evidence, the best commit's diff (repairs.diff) and every conversation"
    final = GateFailed(problem, readings=error.readings, hint=hint) if isinstance(error, GateFailed) else StageError(problem, hint=hint)
    final.artifacts = error.artifacts
    return final


def _evidence(error: TaxiwayError, attempt: int) -> dict[str, Any]:
    readings = [r.model_dump() for r in error.readings] if isinstance(error, GateFailed) else []
    return {
        "attempt": attempt,
        "error": type(error).__name__,
        "problem": error.problem[:500],
        "gates": readings[:30],
        "artifacts": dict(list(error.artifacts.items())[:10]),
    }
