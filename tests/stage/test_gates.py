from datetime import date

import pytest

from taxiway import gates
from taxiway.compiler.plan import Gate, Waiver
from taxiway.records import Result

TODAY = date(2026, 11, 22)


def read(gate, **result):
    return gates.evaluate([gate], Result(**result), TODAY)[0]


@pytest.mark.parametrize(
    ("op", "below", "equal", "above"),
    [
        (">=", False, True, True),
        (">", False, False, True),
        ("<=", True, True, False),
        ("<", True, False, False),
        ("==", False, True, False),
        ("!=", True, False, True),
    ],
)
def test_every_operator_on_each_side_of_its_threshold(op, below, equal, above):
    gate = Gate("coverage.line", op, 80)
    assert [read(gate, metrics={"coverage.line": v}).passed for v in (79.999, 80.0, 80.001)] == [below, equal, above]


@pytest.mark.parametrize("op", [">=", ">", "<=", "<", "==", "!="])
@pytest.mark.parametrize("measured", [None, float("nan"), float("inf"), float("-inf")], ids=str)
def test_what_was_not_measured_has_not_passed(op, measured):
    metrics = {} if measured is None else {"lint.errors": measured}
    reading = read(Gate("lint.errors", op, 0), metrics=metrics, unmeasured={"lint.errors": "ruff is missing"})
    assert not reading.passed
    assert reading.measured is None
    assert reading.note == "ruff is missing"
    assert gates.failures([reading])


def test_a_failed_gate_that_does_not_block_is_shown_and_passes():
    reading = read(Gate("complexity.max", "<=", 10, blocking=False), metrics={"complexity.max": 12.0})
    assert not reading.passed
    assert gates.passed([reading])
    assert "failed, not blocking" in gates.table([reading])


@pytest.mark.parametrize(("expires", "blocks"), [("2026-11-21", True), ("2026-11-22", False), ("2027-01-01", False)])
def test_a_waiver_holds_until_the_end_of_its_last_day(expires, blocks):
    gate = Gate("lint.errors", "==", 0, waiver=Waiver("jane", expires, "legacy"))
    reading = read(gate, metrics={"lint.errors": 3.0})
    assert not reading.passed
    assert bool(gates.failures([reading])) is blocks
    assert ("waived by jane" in reading.note) is not blocks


def test_the_fingerprint_knows_the_blocking_gates_and_not_their_order():
    a, b = Gate("a", ">=", 1), Gate("b", ">=", 2)
    assert gates.fingerprint([a, b]) == gates.fingerprint([b, a])
    assert gates.fingerprint([a, b]) != gates.fingerprint([a])
    assert gates.fingerprint([a, b]) != gates.fingerprint([a, Gate("b", ">=", 2.5)])
    assert gates.fingerprint([a, Gate("b", ">=", 2, blocking=False)]) == gates.fingerprint([a])


def test_the_table_names_metric_wanted_measured_and_verdict():
    readings = gates.evaluate([Gate("tests.total", ">=", 1), Gate("lint.errors", "==", 0)], Result(metrics={"tests.total": 12}), TODAY)
    lines = gates.table(readings).splitlines()
    assert lines[0].split() == ["gate", "wanted", "measured", "verdict"]
    assert lines[1].split() == ["tests.total", ">=", "1", "12", "passed"]
    assert lines[2].split()[:6] == ["lint.errors", "==", "0", "not", "measured", "FAILED"]
