import json
import subprocess
import sys
from dataclasses import fields, replace
from datetime import timedelta

import pytest
from airflow.serialization.serialized_objects import DagSerialization
from jsonschema import ValidationError, validate

from taxiway.compiler.plan import (
    Budget,
    Gate,
    Limits,
    ModelChoice,
    PlannedModels,
    PlannedPolicy,
    Repair,
    Repository,
    Retries,
    Schedule,
    Waiver,
)
from taxiway_airflow.dag import build_dag


def serialized(plan):
    return DagSerialization.to_dict(build_dag(plan.to_json()))["dag"]


def tasks(plan):
    return {t["__var"]["task_id"]: t["__var"] for t in serialized(plan)["tasks"]}


PLAN_CHANGES = [
    ("pipeline", "other"),
    ("description", "Something else."),
    ("owner", "somebody"),
    ("tags", ("service", "two")),
    ("params", {"name": {"type": "string", "default": "other"}}),
    ("params", {}),
    ("schedule", None),
    ("schedule", Schedule("0 7 * * 1", "Europe/Berlin", "2026-01-01")),
    ("schedule", Schedule("0 6 * * 1", "Asia/Tokyo", "2026-01-01")),
    ("schedule", Schedule("0 6 * * 1", "Europe/Berlin", "2026-02-01")),
    ("schedule", Schedule("", "UTC", "2026-01-01", (("orders", "s3://bucket/orders"),))),
    ("limits", Limits(1, 5, 3600.0)),
    ("limits", Limits(4, 1, 3600.0)),
    ("limits", Limits(4, 5, 60.0)),
    ("policy", PlannedPolicy("other", (), False)),
    ("policy", PlannedPolicy("default", (), True)),
    ("policy", PlannedPolicy("default", (Repository("https://git.example/a.git", trusted=True, connection=""),), False)),
    ("policy", PlannedPolicy("default", (), False, {"browsers": 2})),
    ("policy", PlannedPolicy("default", (), False, services={"redis": "tests_cache"})),
    ("policy", PlannedPolicy("default", (), False, models=PlannedModels("", {"": ModelChoice("m", "", 1000, "")}, {}))),
    ("budget", Budget(1.0, None, 0.8)),
    ("source", "other.yaml"),
    ("digest", "e" * 64),
    ("taxiway", "9"),
    ("templates", (("checked", "t.yaml"),)),
]
STAGE_CHANGES = [
    ("agent", "monitor"),
    ("effect", "writes"),
    ("inputs", {"checks": ["lint"]}),
    ("needs", ()),
    ("when", "params.name == 'x'"),
    ("gates", ()),
    ("gates", (Gate("coverage.line", ">=", 81.0),)),
    ("gates", (Gate("coverage.line", ">=", 80.0, blocking=False),)),
    ("gates", (Gate("coverage.branch", ">=", 80.0),)),
    ("gates", (Gate("coverage.line", ">", 80.0),)),
    ("gates", (Gate("coverage.line", ">=", 80.0, source="policy"),)),
    ("gates", (Gate("coverage.line", ">=", 80.0, waiver=Waiver("ann", "2026-01-01", "old")),)),
    ("timeout_s", 61.0),
    ("retries", Retries(1, 2.0, 2.0, 30.0)),
    ("retries", Retries(3, 3.0, 2.0, 30.0)),
    ("retries", Retries(3, 2.0, 3.0, 30.0)),
    ("retries", Retries(3, 2.0, 2.0, 31.0)),
    ("recovers", ("scaffold",)),
    ("continue_on_failure", True),
    ("uses", ("scaffold",)),
    ("requires", ("scaffold",)),
    ("mandatory", ("scaffold",)),
    ("touches", "the world"),
    ("line", 4),
    ("matrix", {"browser": "chromium"}),
    ("pool", "browsers"),
    ("queue", "large"),
    ("priority", 2),
    ("repair", Repair(2, ())),
    ("model_writes", True),
]


def test_no_field_is_left_out(plan):
    check = plan.stage("check")
    # A stage's own fields are below; another format is refused.
    assert {f.name for f in fields(plan)} == {name for name, _ in PLAN_CHANGES} | {"stages", "format"}
    # Another id is another task; a group is shown with its cells.
    assert {f.name for f in fields(check)} == {name for name, _ in STAGE_CHANGES} | {"id", "group"}
    for base, name, changes in (
        (plan.limits, "limits", PLAN_CHANGES),
        (plan.schedule, "schedule", PLAN_CHANGES),
        (plan.policy, "policy", PLAN_CHANGES),
        (check.retries, "retries", STAGE_CHANGES),
    ):
        given = [value for field, value in changes if field == name and value is not None]
        assert {f.name for f in fields(base)} == {
            f.name for f in fields(base) for v in given if getattr(v, f.name) != getattr(base, f.name)
        }
    gates = [gates[0] for name, gates in STAGE_CHANGES if name == "gates" and gates]
    assert {f.name for f in fields(Gate)} == {
        f.name for f in fields(Gate) for g in gates if getattr(g, f.name) != getattr(check.gates[0], f.name)
    }


@pytest.mark.parametrize(("field", "value"), PLAN_CHANGES)
def test_every_field_of_a_plan_changes_the_dag(plan, field, value):
    assert serialized(replace(plan, **{field: value})) != serialized(plan)


@pytest.mark.parametrize(("field", "value"), STAGE_CHANGES)
def test_every_field_of_a_stage_changes_its_task(plan, field, value):
    stages = tuple(replace(s, **{field: value}) if s.id == "check" else s for s in plan.stages)
    changed = replace(plan, stages=stages)
    assert tasks(changed)["check"] != tasks(plan)["check"] or serialized(changed) != serialized(plan)


def test_settings_of_airflow(plan):
    dag = build_dag(plan.to_json())
    assert (dag.max_active_runs, dag.max_active_tasks, dag.catchup) == (4, 5, False)
    assert dag.start_date.isoformat() == "2025-12-31T23:00:00+00:00"
    check = dag.get_task("check")
    assert (check.retries, check.retry_delay, check.max_retry_delay) == (2, timedelta(seconds=2), timedelta(seconds=30))
    assert check.execution_timeout == timedelta(seconds=90)
    assert check.owner == "platform"
    assert check.operator_name == "Validate"


def test_rules_and_edges(plan):
    dag = build_dag(plan.to_json())
    rules = {t.task_id: t.trigger_rule.value for t in dag.tasks}
    assert rules == {
        "scaffold": "none_failed",
        "check": "none_failed",
        "deploy": "none_failed",
        "undo": "one_failed",
        "outcome": "all_done",
    }
    assert {t.task_id: sorted(t.upstream_task_ids) for t in dag.tasks} == {
        "scaffold": [],
        "check": ["scaffold"],
        "deploy": ["check"],
        "undo": ["deploy"],
        "outcome": ["check", "deploy", "scaffold", "undo"],
    }
    assert dag.get_task("outcome").retries == 0


def test_the_cells_of_a_matrix_are_a_group_of_tasks(plan):
    check, deploy = plan.stage("check"), plan.stage("deploy")
    cells = tuple(replace(check, id=f"check.{name}", group="check", matrix={"browser": name}) for name in ("chromium", "firefox"))
    after = replace(deploy, needs=tuple(c.id for c in cells))
    dag = build_dag(replace(plan, stages=(plan.stage("scaffold"), *cells, after)).to_json())
    dag = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    assert dag.task_group.children.keys() == {"scaffold", "check", "deploy", "outcome"}
    assert dag.task_group.children["check"].children.keys() == {"check.chromium", "check.firefox"}
    assert dag.get_task("check.firefox").label == "firefox"
    assert dag.get_task("check.firefox").upstream_task_ids == {"scaffold"}
    assert dag.get_task("deploy").upstream_task_ids == {"check.chromium", "check.firefox"}


def test_it_survives_serialization(plan):
    dag = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(build_dag(plan.to_json())))))
    assert dag.get_task("deploy").operator_name == "Deploy"
    assert dag.get_task("deploy").extra_links == ["Conversation", "Reports", "Service"]


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string", "pattern": "^[a-z]+$"}, "abc", "ABC"),
        ({"type": "integer", "minimum": 1, "default": 3}, 1, 0),
        ({"type": "string", "enum": ["a", "b"], "default": "a"}, "b", "c"),
        ({"type": "string", "format": "multiline", "minLength": 5}, "a\nb\nc", "x"),
        ({"type": "boolean", "default": False, "title": "Sure?", "schema": "x"}, True, "yes"),
    ],
)
def test_params_keep_their_schema(plan, schema, good, bad):
    param = build_dag(replace(plan, schedule=None, params={"p": schema}).to_json()).params.get_param("p")
    validate(good, param.schema)
    with pytest.raises(ValidationError):
        validate(bad, param.schema)
    assert param.has_value == ("default" in schema)
    assert param.schema.get("format") == schema.get("format")


def test_text_in_the_documentation_is_only_text(plan):
    hostile = "a | b\n# <script>x</script> ```` [l](javascript:x)"
    stages = tuple(replace(s, inputs={"x": hostile}, when=hostile) for s in plan.stages)
    dag = build_dag(replace(plan, description=hostile, stages=stages).to_json())
    assert dag.doc_md.startswith("a \\| b \\# \\<script\\>x\\</script\\> \\`\\`\\`\\` \\[l\\]\\(javascript:x\\)")
    assert dag.get_task("check").doc_md.startswith("`````json\n")


def test_another_format_is_refused(plan):
    with pytest.raises(ValueError, match="format 99"):
        build_dag(replace(plan, format=99).to_json())


def test_parsing_imports_neither_compiler_nor_engine():
    # A worker does it at every task's start.
    heavy = ("taxiway.spec", "taxiway.agents", "taxiway.integrations", "taxiway.stage", "copier", "aiohttp", "anthropic", "boto3", "git")
    script = (
        f"import sys, taxiway_airflow.dag; print([m for m in sys.modules if m.startswith({tuple(f'{m}.' for m in heavy)}) or m in {heavy}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]"
