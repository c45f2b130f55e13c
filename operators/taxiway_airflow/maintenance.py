"""The maintenance DAGs: settle what ended runs left, remove what nobody needs, shorten Airflow's database. Parsed often, so it is small."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, BaseOperator, Context, CronTriggerTimetable, Param

from taxiway.stop import Stop

__all__ = ["DB_CLEAN", "GC", "RECONCILE", "MaintenanceOperator", "build_maintenance"]

RECONCILE, GC, DB_CLEAN = "taxiway_reconcile", "taxiway_gc", "taxiway_db_clean"
_TIMEOUT = timedelta(hours=2)


class MaintenanceOperator(BaseOperator):
    """Does `work` (reconcile, gc or db_clean) and returns its report as JSON. It fails where something needs a person."""

    template_fields = ()
    ui_color = "#eeeeee"

    def __init__(self, *, work: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.work = work
        self._stop = Stop()

    def execute(self, context: Context) -> dict[str, Any]:
        """Do it, with the run's params."""
        # Imported here: a DAG is parsed far more often than it runs.
        from taxiway_airflow.maintaining import maintain  # noqa: PLC0415

        return maintain(self.work, context, self._stop)

    def on_kill(self) -> None:
        """Called in the signal handler: only ask the work to end."""
        self._stop.cancel()


def build_maintenance() -> tuple[DAG, DAG, DAG]:
    """taxiway_reconcile, taxiway_gc and taxiway_db_clean. Times are UTC; what was due while Airflow was down runs once when it is up."""
    dry_run = Param(False, type="boolean", description="Only say what would be done")
    days = Param(30, type="number", minimum=1, maximum=36_500, description="Keep what was used in so many days")
    return (
        _dag(RECONCILE, "*/10 * * * *", "Settles what ended runs left in progress, and brings services back.", {"dry_run": dry_run}),
        _dag(
            GC,
            "17 3 * * *",
            "Removes reports, repositories, environments, checkouts and versions that no run and no service needs.",
            {
                "dry_run": dry_run,
                "older_than_days": days,
                "keep_runs": Param(20, type="integer", minimum=0, description="Keep the last runs of each pipeline, whatever their age"),
                "remote_branches": Param(
                    False, type="boolean", description="Also delete the old runs' branches and refs in repositories that were given by URL"
                ),
            },
        ),
        _dag(DB_CLEAN, "47 3 * * *", "Shortens Airflow's database.", {"dry_run": dry_run, "older_than_days": days}),
    )


def _dag(name: str, cron: str, description: str, params: dict[str, Param]) -> DAG:
    dag = DAG(
        dag_id=name,
        description=description,
        tags=["taxiway", "maintenance"],
        schedule=CronTriggerTimetable(cron, timezone="UTC"),
        catchup=False,
        max_active_runs=1,
        params=params,
        default_args={"owner": "taxiway"},
        doc_md=f"{description} See docs/operating.md.",
    )
    work = name.removeprefix("taxiway_")
    MaintenanceOperator(dag=dag, task_id=work, work=work, retries=0, execution_timeout=_TIMEOUT)
    return dag
