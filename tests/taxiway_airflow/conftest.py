"""Airflow reads its settings when it is first imported: here it gets a home of its own before that."""

import atexit
import os
import shutil
import tempfile

import pytest

from taxiway.compiler.plan import (
    Gate,
    Limits,
    Plan,
    PlannedPolicy,
    PlannedStage,
    Repository,
    Retries,
    Schedule,
    Waiver,
)

_HOME = tempfile.mkdtemp(prefix="taxiway-airflow-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for _name in [n for n in os.environ if n.startswith("AIRFLOW__")]:
    del os.environ[_name]
os.environ["AIRFLOW_HOME"] = _HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH"] = f"{_HOME}/bundles"


def a_stage(name, **changes):
    settings = {
        "id": name,
        "agent": "validate",
        "effect": "measures",
        "inputs": {"checks": ["tests"]},
        "needs": (),
        "when": "",
        "gates": (Gate("tests.failed", "<=", 0.0, source="default"),),
        "timeout_s": 60.0,
        "retries": Retries(3, 2.0, 2.0, 30.0),
        "recovers": (),
        "continue_on_failure": False,
        "uses": (),
        "requires": (),
        "mandatory": (),
        "touches": "nothing",
        "line": 3,
    }
    return PlannedStage(**settings | changes)


@pytest.fixture
def stage():
    return a_stage


@pytest.fixture
def plan():
    return Plan(
        pipeline="shop",
        description="From a name to a shop.",
        owner="platform",
        tags=("service",),
        params={"name": {"type": "string", "default": "greeter", "description": "Its name"}},
        schedule=Schedule("0 6 * * 1", "Europe/Berlin", "2026-01-01"),
        limits=Limits(4, 5, 3600.0),
        stages=(
            a_stage("scaffold", agent="scaffold", effect="writes", inputs={"name": "{{ params.name }}"}, gates=()),
            a_stage(
                "check",
                needs=("scaffold",),
                gates=(Gate("coverage.line", ">=", 80.0, waiver=Waiver("me", "2027-01-01", "old code")),),
            ),
            a_stage("deploy", agent="deploy", effect="deploys", needs=("check",), requires=("check",), gates=()),
            a_stage("undo", agent="recover", effect="undoes", needs=("deploy",), recovers=("deploy",), gates=()),
        ),
        policy=PlannedPolicy("default", (Repository("https://git.example/*", True, "git"),), False),
        source="shop.yaml",
        digest="d" * 64,
        taxiway="0.1.0",
    )
