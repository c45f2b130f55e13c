"""Plan -> DAG. Runs at every parse and at every task's start: no YAML, no file, no network, no client."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from airflow.sdk import DAG, Asset, CronTriggerTimetable, TaskGroup, TriggerRule, WeightRule
from airflow.sdk.api.datamodels._generated import DagRunType

from taxiway.compiler.plan import Plan, PlannedStage, Schedule
from taxiway_airflow import describe
from taxiway_airflow.operators import StageOperator
from taxiway_airflow.outcome import OUTCOME, OutcomeOperator
from taxiway_airflow.params import to_airflow

__all__ = ["GRACE", "build_dag"]

GRACE = timedelta(seconds=30)
"""What Airflow waits beyond a stage's own deadline, which must come first: it stops the work and keeps the evidence."""

_CLOSED = "(Takes no new runs: its file cannot be used, see the import errors.)"
# Airflow insists that a DAG allows what its schedule starts; this asset is never updated.
_NEVER = [Asset(name="taxiway_closed", uri="taxiway://closed")]


def build_dag(plan_json: str, *, closed: bool = False) -> DAG:
    """The DAG of a plan, from what `Plan.to_json` wrote; ValueError for another format.

    A `closed` one takes no new runs: it stands in for a spec that was broken meanwhile. Without it Airflow would
    hold the runs that have started, for it schedules nothing of a DAG whose file has an import error.
    """
    plan = Plan.from_json(plan_json)
    if closed:
        plan = replace(plan, params={}, description=f"{_CLOSED} {plan.description}")
    dag = DAG(
        dag_id=plan.pipeline,
        description=plan.description,
        doc_md=describe.pipeline(plan),
        tags=list(plan.tags),
        params=to_airflow(plan.params),
        default_args={"owner": plan.owner},
        max_active_runs=plan.limits.runs,
        max_active_tasks=plan.limits.stages,
        catchup=False,
        allowed_run_types=[DagRunType.ASSET_TRIGGERED] if closed else None,
        schedule=_NEVER if closed else _timetable(plan.schedule),
        start_date=_start(plan.schedule),
    )
    groups = {name: TaskGroup(name, dag=dag) for name in dict.fromkeys(s.group for s in plan.stages if s.group)}
    tasks = {
        stage.id: StageOperator(dag=dag, stage_id=stage.id, plan=plan, task_group=groups.get(stage.group), **_settings(stage))
        for stage in plan.stages
    }
    for stage in plan.stages:
        tasks[stage.id].set_upstream([tasks[name] for name in sorted({*stage.needs, *stage.recovers})])
    outcome = OutcomeOperator(dag=dag, task_id=OUTCOME, plan=plan)
    outcome.set_upstream(list(tasks.values()))
    return dag


def _timetable(schedule: Schedule | None) -> CronTriggerTimetable | list[Asset] | None:
    if schedule is None:
        return None
    if schedule.assets:
        return [Asset(name=name, uri=uri) for name, uri in schedule.assets]
    return CronTriggerTimetable(schedule.cron, timezone=schedule.timezone)


def _start(schedule: Schedule | None) -> datetime | None:
    if schedule is None:
        return None
    start = datetime.fromisoformat(schedule.start)
    return start if start.tzinfo else start.replace(tzinfo=ZoneInfo(schedule.timezone))


def _settings(stage: PlannedStage) -> dict[str, Any]:
    retries = stage.retries
    return {
        # The group puts its own name in front.
        "task_id": stage.id.removeprefix(f"{stage.group}."),
        "doc_md": describe.stage(asdict(stage)),
        "trigger_rule": TriggerRule.ONE_FAILED if stage.recovers else TriggerRule.NONE_FAILED,
        # The stage keeps its own count of both; this is only the room for them.
        "retries": retries.attempts - 1 + (stage.repair.attempts if stage.repair else 0),
        "retry_delay": timedelta(seconds=retries.first_s),
        "retry_exponential_backoff": retries.factor,
        "max_retry_delay": timedelta(seconds=retries.most_s),
        "execution_timeout": timedelta(seconds=stage.timeout_s) + GRACE,
        "priority_weight": stage.priority,
        # Airflow's own rule adds up what follows: the longer pipeline would win. Ours means the same number everywhere.
        "weight_rule": WeightRule.ABSOLUTE,
        **({"pool": stage.pool} if stage.pool else {}),
        **({"queue": stage.queue} if stage.queue else {}),
    }
