"""What of a Result crosses between stages: all that decides, in at most 4 kB of JSON."""

from __future__ import annotations

from collections.abc import Collection

from taxiway.errors import Cancelled, GateFailed, OperatorError, TaxiwayError
from taxiway.records import Outcome, Result

__all__ = ["XCOM_LIMIT", "compact", "failed_result"]

XCOM_LIMIT = 4_000
"""Bytes of a Result as JSON: what crosses between stages stays small wherever XCom is kept."""


def failed_result(error: TaxiwayError, commit: str = "") -> Result:
    """What a failed stage leaves for people to read: the gates that were held, and the error with its hint as its summary. No
    verdict. One that somebody stopped is `cancelled`: nothing is known of what it was checking."""
    outcome: Outcome = "cancelled" if isinstance(error, Cancelled) else "failed"
    readings = error.readings if isinstance(error, GateFailed) else ()
    metrics = {r.metric: r.measured for r in readings if r.measured is not None}
    left = Result(
        outcome=outcome,
        commit=commit,
        gates=readings,
        metrics=metrics,
        artifacts=error.artifacts,
        summary=str(error),
        cost=error.cost,
        repairs=error.repairs,
    )
    return _compact_failure(left)


def _compact_failure(left: Result) -> Result:
    try:
        return compact(left)
    except OperatorError:  # why the stage failed must not be hidden by how much there is to say
        return compact(left.model_copy(update={"gates": (), "metrics": {}}))


def compact(result: Result, limit: int = XCOM_LIMIT, *, named: Collection[str] = ()) -> Result:
    """`result` with its longest texts, then the metrics that are neither gated nor `named` by later stages, then gates that passed, cut
    until its JSON has at most `limit` bytes.

    The whole of it is in the artifact store, as result.json. Raises OperatorError if even the rest is larger.
    """
    for width in (500, 120, 40, 0):
        short = result.model_copy(
            update={
                "summary": _cut(result.summary, max(width, 120)),
                "repairs": tuple(_cut(text, max(width, 40)) for text in result.repairs),
                "unmeasured": {k: _cut(v, width) for k, v in result.unmeasured.items()},
                "gates": tuple(r.model_copy(update={"note": _cut(r.note, width)}) for r in result.gates),
            }
        )
        if _size(short) <= limit:
            return short
    kept = {r.metric for r in short.gates} | set(named)
    short = short.model_copy(update={"unmeasured": {}, "metrics": {k: v for k, v in short.metrics.items() if k in kept}})
    # That they passed is in the verdict, and each of them in gates.json; those that do not block say least.
    passed = sorted((r for r in short.gates if r.passed), key=lambda r: r.blocking)
    for n in range(1, len(passed) + 1):
        if _size(short) <= limit:
            break
        left_out = {id(g) for g in passed[:n]}
        said = f"{_cut(result.summary, 120)} ({n} gate{'s' * (n > 1)} that passed: see gates.json)"
        gates = tuple(r for r in short.gates if id(r) not in left_out)
        short = short.model_copy(update={"gates": gates, "summary": said})
    if _size(short) > limit:
        raise OperatorError(
            f"the result has {_size(short)} bytes where {limit} is the most", hint="the agent hands on too many outputs or artifacts"
        )
    return short


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + ("…" if width else "")


def _size(result: Result) -> int:
    return len(result.model_dump_json().encode())
