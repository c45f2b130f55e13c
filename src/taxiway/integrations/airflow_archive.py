"""Runs of the embedded Airflow, read from its own database and log files: what there is to see while it does not run, too."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taxiway.errors import OperatorError, TransientError
from taxiway.home import Home
from taxiway.integrations.airflow_http import NotThere
from taxiway.integrations.airflow_rest import Run, Task, result_of
from taxiway.records import Result

__all__ = ["Archive", "log_file"]

_RUNS = "SELECT dag_id, run_id, state, start_date, end_date, conf FROM dag_run WHERE 1"
_TASKS = (
    "SELECT task_id, state, try_number, start_date, end_date, map_index, content FROM task_instance"
    " LEFT JOIN task_instance_note ON ti_id = id WHERE dag_id = ? AND run_id = ?"
)
_XCOM = "SELECT value FROM xcom WHERE dag_id = ? AND run_id = ? AND task_id = ? AND map_index = ? AND key = 'return_value'"
_SOURCE = "SELECT source_code FROM dag_code JOIN dag_run ON created_dag_version_id = dag_version_id WHERE dag_run.dag_id = ? AND run_id = ?"
_BUSY_S = 60.0


class Archive:
    """The runs of one home, as AirflowClient gives those of a server; reads, and does nothing else.

    Raises NotThere for an unknown run, OperatorError for a database of another Airflow, TransientError for a busy one.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._database = home.airflow / "airflow.db"

    def runs(self, dag: str = "~", *, states: Sequence[str] = (), containing: str = "", limit: int = 0) -> list[Run]:
        """Runs of one DAG or of all, newest first: at most `limit` (0: all), with `containing` in their ids."""
        query, values = _RUNS, []
        if dag != "~":
            query, values = f"{query} AND dag_id = ?", [dag]
        found = [_run(row) for row in self._rows(f"{query} ORDER BY run_after DESC, id DESC", *values)]
        chosen = [run for run in found if containing in run.id and (not states or run.state in states)]
        return chosen[:limit] if limit else chosen

    def run(self, dag: str, run: str) -> Run:
        """How a run is."""
        for row in self._rows(f"{_RUNS} AND dag_id = ? AND run_id = ?", dag, run):
            return _run(row)
        raise NotThere(f"there is no run {run} of {dag} in {self._home.path}", hint="`taxiway runs` lists them")

    def tasks(self, dag: str, run: str) -> list[Task]:
        """All task instances of a run."""
        return [
            Task(name, state or "", tries, _seconds(started), _seconds(ended), index, note or "")
            for name, state, tries, started, ended, index, note in self._rows(_TASKS, dag, run)
        ]

    def result(self, dag: str, run: str, task: str, *, map_index: int = -1) -> Result | None:
        """The Result of a stage; None where there is none (yet), or it is no Result."""
        for (value,) in self._rows(_XCOM, dag, run, task, map_index):
            return result_of(_json(value))
        return None

    def source_of(self, dag: str, run: str) -> str:
        """The module of a DAG in the version that a run began with; "" where Airflow does not know it any more."""
        return next((str(text) for (text,) in self._rows(_SOURCE, dag, run)), "")

    def log(self, dag: str, run: str, task: str, attempt: int, *, map_index: int = -1) -> list[dict[str, Any]]:
        """The events of one try, oldest first; [] where there is no log."""
        path = log_file(self._home, dag, run, task, attempt, map_index=map_index)
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise OperatorError(f"cannot read {path}: {error.strerror or error}", hint="mend its rights") from error
        # What is being written has no end of line yet.
        return [_event(line) for line in text.split("\n")[:-1]]

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(f"{self._database.as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as connection:
                yield connection
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise TransientError(f"{self._database} is busy: {error}", hint="try again") from error
            raise self._unreadable(error) from error
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: sqlite3.Error) -> OperatorError:
        hint = "mend its rights; a database of another Airflow version is migrated by `taxiway up`"
        return OperatorError(f"cannot read {self._database}: {error}", hint=hint)

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        if not self._database.exists():
            return []
        with self._opened() as connection:
            return connection.execute(query, values).fetchall()


def log_file(home: Home, dag: str, run: str, task: str, attempt: int, *, map_index: int = -1) -> Path:
    """Where the embedded Airflow writes the log of one try: the default of its `log_filename_template`."""
    folder = home.airflow / "logs" / f"dag_id={dag}" / f"run_id={run}" / f"task_id={task}"
    return (folder / f"map_index={map_index}" if map_index >= 0 else folder) / f"attempt={attempt}.log"


def _run(row: tuple[Any, ...]) -> Run:
    dag, run, state, started, ended, conf = row
    settings = _json(conf)
    return Run(dag, run, state, _seconds(started), _seconds(ended), settings if isinstance(settings, dict) else {})


def _json(text: str | None) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def _seconds(moment: str | None) -> float:
    """SQLite keeps UTC, without saying so."""
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() if moment else 0.0


def _event(line: str) -> dict[str, Any]:
    found = _json(line)
    return found if isinstance(found, dict) else {"event": line}
