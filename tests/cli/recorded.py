"""A home with runs in it, as the embedded Airflow leaves it: its tables (the columns that are read), its log files, real commits."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from taxiway.compiler import Plan
from taxiway.home import Home
from taxiway.integrations.airflow_archive import log_file
from taxiway.integrations.git import GitWorkspace
from taxiway.records import Result
from taxiway.stage import run_key

TABLES = """
CREATE TABLE dag_run (id INTEGER PRIMARY KEY, dag_id, run_id, state, start_date, end_date, conf, run_after, created_dag_version_id);
CREATE TABLE dag_code (dag_version_id, source_code);
CREATE TABLE task_instance (id INTEGER PRIMARY KEY, dag_id, run_id, task_id, map_index, state, try_number, start_date, end_date);
CREATE TABLE task_instance_note (ti_id, content);
CREATE TABLE xcom (dag_id, run_id, task_id, map_index, key, value);
"""
STARTED = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LEASE = SimpleNamespace(check=lambda: None)


class Recorded:
    """`add` a run, its `task`s, their `say`ings; commit as a stage."""

    def __init__(self, home: Home) -> None:
        self.home = home
        home.airflow.mkdir(parents=True)
        self._do(lambda db: db.executescript(TABLES))

    @contextmanager
    def connected(self):
        with closing(sqlite3.connect(self.home.airflow / "airflow.db")) as db, db:
            yield db

    def _do(self, act) -> None:
        with self.connected() as db:
            act(db)

    def add(self, dag: str, run: str, state: str = "success", minute: int = 0, conf: dict | None = None) -> None:
        began = f"2026-03-01 12:{minute:02d}:00.000000"
        ended = f"2026-03-01 12:{minute:02d}:30.500000" if state in ("success", "failed") else None
        row = (dag, run, state, None if state == "queued" else began, ended, json.dumps(conf or {}), began)
        names = "dag_id, run_id, state, start_date, end_date, conf, run_after"
        self._do(lambda db: db.execute(f"INSERT INTO dag_run ({names}) VALUES (?,?,?,?,?,?,?)", row))

    def began_with(self, run: str, plan: Plan) -> None:
        """Keep the module that a run began with, as the bundle writes it."""
        module = f"# source: x\nfrom taxiway_airflow.dag import build_dag\n\ndag = build_dag({plan.to_json()!a})\n"
        with self.connected() as db:
            db.execute("UPDATE dag_run SET created_dag_version_id = ? WHERE run_id = ?", (run, run))
            db.execute("INSERT INTO dag_code VALUES (?,?)", (run, module))

    def state(self, run: str, state: str) -> None:
        self._do(lambda db: db.execute("UPDATE dag_run SET state = ? WHERE run_id = ?", (state, run)))

    def task(
        self, dag: str, run: str, task: str, state: str = "success", tries: int = 1, *, result: Result | None = None, second: int = 0
    ) -> None:
        began = f"2026-03-01 12:00:{second:02d}.000000" if tries else None
        names = "dag_id, run_id, task_id, map_index, state, try_number, start_date, end_date"
        row = (dag, run, task, -1, state, tries, began, began)
        self._do(lambda db: db.execute(f"INSERT INTO task_instance ({names}) VALUES (?,?,?,?,?,?,?,?)", row))
        if result is not None:
            row = (dag, run, task, -1, "return_value", result.model_dump_json())
            self._do(lambda db: db.execute("INSERT INTO xcom VALUES (?,?,?,?,?,?)", row))

    def say(self, dag: str, run: str, task: str, *events: dict | str, attempt: int = 1) -> None:
        path = log_file(self.home, dag, run, task, attempt)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            for event in events:
                whole = event if isinstance(event, str) else json.dumps({"timestamp": "2026-03-01T12:00:01Z", "level": "info", **event})
                file.write(whole + "\n")

    def workspace(self, dag: str, run: str, url: str = "") -> GitWorkspace:
        return GitWorkspace(home=self.home, pipeline=dag, run=run_key(dag, run), started=STARTED, url=url)

    def commit(  # noqa: PLR0917 - what a commit is made of
        self, workspace: GitWorkspace, dag: str, run: str, stage: str, files: dict[str, str], parent: str, scratch: Path
    ) -> str:
        """Change files as a stage does; the commit."""
        scratch.mkdir()
        workspace.checkout(parent, scratch)
        for name, text in files.items():
            (scratch / name).write_text(text)
        trailers = {"Taxiway-Run": run_key(dag, run), "Taxiway-Stage": stage, "Taxiway-Attempt": "1", "Taxiway-Agent": "scaffold"}
        with nullcontext(LEASE) as lease:
            return workspace.commit(scratch, parent=parent, message=stage, trailers=trailers, lease=lease)
