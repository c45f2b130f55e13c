"""Workers of different versions in one run: what one hands on and another does not know."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from taxiway.errors import OperatorError
from taxiway.integrations.airflow_rest import result_of
from taxiway.records import Result
from taxiway_airflow.running import results_of


def handed_on(**changes):
    """A task instance as Airflow gives it, of a stage `build` that left this."""
    left = {**Result(summary="built").model_dump(mode="json"), **changes}
    return SimpleNamespace(xcom_pull=lambda task_ids, map_indexes: {"build": left}.get(task_ids))


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"sealed_by": "x"}, "sealed_by"), ({"outcome": "paused"}, "outcome"), ({"repairs": [{"commit": "c"}]}, "repairs.0")],
    ids=["a field", "a word", "a form"],
)
def test_what_a_newer_version_added_is_said_and_not_passed_over(changes, field):
    with pytest.raises(OperatorError, match=f"stage build cannot be read by Taxiway .* on this worker: {field}: ") as caught:
        results_of(handed_on(**changes), ["build"])
    assert "the same Taxiway on all workers" in caught.value.hint
    assert "\n" not in caught.value.problem


def test_what_an_older_version_did_not_know_has_its_default():
    ti = handed_on()
    old = ti.xcom_pull("build", -1)
    for later in ("cost", "repairs"):
        del old[later]
    assert results_of(ti, ["build", "other"]) == {"build": Result(summary="built")}


def test_who_only_looks_sees_no_result_of_a_newer_version():
    newer = {**Result().model_dump(mode="json"), "sealed_by": "x"}
    assert result_of(newer) is result_of(json.dumps(newer)) is None
