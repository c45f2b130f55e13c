"""`python -m taxiway_airflow.database DAYS [--dry-run]`: Airflow's own clean-up of its database, around what unfinished runs need.

Runs where the settings name the database. The last line that it prints is JSON: table -> rows.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import sys
from datetime import UTC, datetime, timedelta

__all__ = ["clean", "main"]

_TABLES = (
    "dag_run",
    "task_instance",
    "task_instance_history",
    "task_reschedule",
    "task_state_store",
    "xcom",
    "asset_event",
    "log",
    "job",
    "callback",
    "revoked_token",
)
"""Not `dag`, `dag_version` and `trigger`: those that are old may still be in use."""

_FOUND = re.compile(r"^Checking table (\w+)$|^Found (\d+) rows meeting deletion criteria\.$", re.MULTILINE)


def clean(days: float, *, dry_run: bool) -> dict[str, int]:
    """Remove rows older than `days` days, but nothing since the oldest task of a run that has not ended; table -> rows."""
    from airflow.models.dagrun import DagRun  # noqa: PLC0415 - seconds to import
    from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415
    from airflow.sdk.timezone import coerce_datetime  # noqa: PLC0415
    from airflow.utils.db_cleanup import config_dict, run_cleanup  # noqa: PLC0415
    from airflow.utils.session import create_session  # noqa: PLC0415
    from airflow.utils.state import State  # noqa: PLC0415
    from sqlalchemy import func, select  # noqa: PLC0415

    before = datetime.now(UTC) - timedelta(days=days)
    with create_session() as session:
        unfinished = DagRun.state.in_(State.unfinished_dr_states)
        tasks = select(func.min(TaskInstance.start_date)).where(TaskInstance.run_id == DagRun.run_id, TaskInstance.dag_id == DagRun.dag_id)
        asked = (select(func.min(column)).where(unfinished) for column in (DagRun.start_date, DagRun.queued_at, DagRun.run_after))
        oldest = [session.scalar(query) for query in (*asked, tasks.where(unfinished))]
        # A second more: that run's own row is to stay too.
        before = min([before, *(moment - timedelta(seconds=1) for moment in oldest if moment)])
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            run_cleanup(
                clean_before_timestamp=coerce_datetime(before),
                table_names=[name for name in _TABLES if name in config_dict],
                dry_run=dry_run,
                confirm=False,
                skip_archive=True,
                session=session,
                error_on_cleanup_failure=True,
            )
    return _counts(said.getvalue())


def _counts(said: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    table = ""
    for found in _FOUND.finditer(said):
        table = found[1] or table
        if found[2] and int(found[2]):
            counts[table] = int(found[2])
    return counts


def main() -> None:
    """Read the arguments, clean, print the counts."""
    parser = argparse.ArgumentParser(prog="taxiway_airflow.database")
    parser.add_argument("days", type=float)
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    rows = clean(given.days, dry_run=given.dry_run)
    sys.stdout.write("\n" + json.dumps({"dry_run": given.dry_run, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
