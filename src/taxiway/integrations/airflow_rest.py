"""What Taxiway asks of an Airflow over its REST API v2: trigger, watch, read, cancel, clear."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from pathlib import PurePosixPath
from typing import Any, Self
from urllib.parse import quote

from pydantic import ValidationError

from taxiway.errors import OperatorError, TransientError
from taxiway.integrations.airflow_http import Credentials, NotThere, Wire
from taxiway.records import Result

__all__ = ["ENDED", "AirflowClient", "Credentials", "ImportFailure", "NotThere", "Run", "Task", "result_of"]

ENDED = frozenset({"success", "failed"})
_PAGE = 100
_EVERY_S = 0.3
_TRIGGER_PAUSES_S = (0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Run:
    """A DAG run. Times are seconds since the epoch, 0 where there is none yet."""

    dag: str
    id: str
    state: str
    started: float
    ended: float
    conf: Mapping[str, Any]

    @property
    def over(self) -> bool:
        """Whether it ended."""
        return self.state in ENDED


@dataclass(frozen=True)
class Task:
    """A task instance: its latest try. `state` is "" before the scheduler looked at it."""

    id: str
    state: str
    tries: int
    started: float
    ended: float
    map_index: int = -1
    note: str = ""

    def seconds(self, now: float) -> float:
        """How long the latest try took, or has been running."""
        return max(0.0, (self.ended or now) - self.started) if self.started else 0.0


@dataclass(frozen=True)
class ImportFailure:
    """A DAG file that Airflow cannot read, and why."""

    file: str
    text: str


class AirflowClient:
    """Speaks to one Airflow. Use as a context manager.

    What reads is tried again on a bad connection; what changes something is sent once. Raises TransientError where
    there is no answer, OperatorError for an address, rights or credentials that are wrong, InputError for refused
    params, NotThere for an unknown DAG, run or task.
    """

    def __init__(self, url: str, credentials: Credentials, *, pause: Callable[[float], object] | None = None) -> None:
        self._wire = Wire(url, credentials, pause=pause)
        self._pause = pause or threading.Event().wait
        self.url = self._wire.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.close()

    def version(self) -> str:
        """Airflow's version."""
        with _understood("its version"):
            return str(self._wire.get("/version")["version"])

    def recognise(self) -> str:
        """The version of the Airflow 3 there, asked before all else; raise OperatorError where it is none, or nothing to log in with."""
        self._wire.need_credentials()
        try:
            found = self._wire.greet()
            version = str(found["version"])
        except NotThere as error:
            raise OperatorError(f"{self.url} is no Airflow 3: {error.problem}", hint=error.hint) from error
        except (KeyError, TypeError) as error:
            hint = "check that this is the address of an Airflow 3 (without /api/v2)"
            raise OperatorError(f"{self.url} is no Airflow 3: it does not say its version", hint=hint) from error
        if version.partition(".")[0] != "3":
            raise OperatorError(f"{self.url} is an Airflow {version}", hint="Taxiway works with Airflow 3")
        return version

    # --- pipelines --------------------------------------------------------------------------------

    def dag(self, dag: str) -> dict[str, Any] | None:
        """What Airflow knows of a DAG; None where it knows none."""
        return self._maybe(f"/dags/{_q(dag)}")

    def source(self, dag: str) -> str:
        """The module that the newest version of a DAG was read from; "" where there is none."""
        found = self._maybe(f"/dagSources/{_q(dag)}")
        return str((found or {}).get("content") or "")

    def source_of(self, dag: str, run: str) -> str:
        """The module of a DAG in the version that a run began with; "" where Airflow does not know it any more."""
        versions = (self._maybe(f"/dags/{_q(dag)}/dagRuns/{_q(run)}") or {}).get("dag_versions") or []
        with _understood("a run's versions"):
            numbers = [int(version["version_number"]) for version in versions]
        found = self._maybe(f"/dagSources/{_q(dag)}", {"version_number": min(numbers)}) if numbers else None
        return str((found or {}).get("content") or "")

    def import_failures(self) -> list[ImportFailure]:
        """Every DAG file that Airflow cannot read."""
        found = self._all("/importErrors", "import_errors", {})
        with _understood("import errors"):
            return [ImportFailure(str(e["filename"]), str(e["stack_trace"])) for e in found]

    def params(self, dag: str) -> dict[str, dict[str, Any]]:
        """The params that a DAG declares, as JSON Schemas with their defaults."""
        details = self._maybe(f"/dags/{_q(dag)}/details") or {}
        with _understood("params"):
            found = {name: (dict(p.get("schema") or {}), p.get("value")) for name, p in (details.get("params") or {}).items()}
            return {name: {**schema, "default": value} if value is not None else schema for name, (schema, value) in found.items()}

    def order(self, dag: str) -> list[str]:
        """The ids of a DAG's tasks, each after those that it follows."""
        found = self._wire.get(f"/dags/{_q(dag)}/tasks")
        with _understood("tasks"):
            follows = {t["task_id"]: set(t["downstream_task_ids"]) for t in found["tasks"]}
        graph: dict[str, set[str]] = {name: {up for up, downs in follows.items() if name in downs} for name in follows}
        return list(TopologicalSorter(graph).static_order())

    def wait_for_dag(self, dag: str, *, digest: str = "", file: str = "", timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait until Airflow has read the DAG, in the version of `digest` (of the plan) if one is given.

        An import error (of this DAG's module, or one that names `file`) only counts when time is up: an old one
        stays until the mended file is read. Raises OperatorError.
        """
        until = time.monotonic() + timeout_s
        while True:
            found = self.dag(dag)
            if found and not found.get("is_stale") and (not digest or digest in self.source(dag)):
                if found.get("is_paused"):
                    raise OperatorError(f"pipeline {dag} is paused, its runs would not start", hint="switch it on in Airflow's web UI")
                return found
            if time.monotonic() >= until:
                raise self._absent(dag, file, found, timeout_s)
            self._pause(_EVERY_S)

    def _absent(self, dag: str, file: str, found: Mapping[str, Any] | None, timeout_s: float) -> OperatorError:
        for failure in self.import_failures():
            if PurePosixPath(failure.file).stem == dag or (file and f"/{file}:" in failure.text):
                return OperatorError(f"Airflow cannot read pipeline {dag}:\n{failure.text.rstrip()}", hint="mend the pipeline's file")
        if found and not found.get("is_stale"):
            return OperatorError(
                f"Airflow still has an older version of {dag} after {timeout_s:.0f} s", hint="read the dag-processor's log"
            )
        return OperatorError(
            f"Airflow has no DAG {dag} after {timeout_s:.0f} s",
            hint="check that the pipeline's file is in the folder that this Airflow reads",
        )

    def pause(self, dag: str, paused: bool = True) -> None:
        """Switch a DAG off (its runs wait) or on."""
        self._wire.send("PATCH", f"/dags/{_q(dag)}", {"is_paused": paused}, {"update_mask": "is_paused"})

    # --- runs -------------------------------------------------------------------------------------

    def trigger(self, dag: str, conf: Mapping[str, Any]) -> Run:
        """Start a run, once: its id is ours, so after a lost answer or a busy database we look whether it is there and ask again."""
        run = f"taxiway__{datetime.now(UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(3)}"
        body = {"dag_run_id": run, "logical_date": None, "conf": dict(conf)}
        for pause_s in _TRIGGER_PAUSES_S:
            try:
                return self._start(dag, body)
            except TransientError:
                self._pause(pause_s)
        return self._start(dag, body)

    def _start(self, dag: str, body: Mapping[str, Any]) -> Run:
        try:
            return _run(self._wire.send("POST", f"/dags/{_q(dag)}/dagRuns", body))
        except TransientError:
            started = self._maybe(f"/dags/{_q(dag)}/dagRuns/{_q(body['dag_run_id'])}")
            if started is None:
                raise
            return _run(started)

    def run(self, dag: str, run: str) -> Run:
        """How a run is."""
        return _run(self._wire.get(f"/dags/{_q(dag)}/dagRuns/{_q(run)}"))

    def runs(self, dag: str = "~", *, states: Sequence[str] = (), containing: str = "", limit: int = 0) -> list[Run]:
        """Runs of one DAG or of all, newest first: at most `limit` (0: all), with `containing` in their ids."""
        query: dict[str, Any] = {"state": list(states), "order_by": "-run_after"}
        if containing:
            query["run_id_pattern"] = f"%{containing}%"
        found = [_run(r) for r in self._all(f"/dags/{_q(dag)}/dagRuns", "dag_runs", query, limit)]
        # To Airflow "_" is any character.
        return [run for run in found if containing in run.id]

    def wait(self, dag: str, run: str, *, timeout_s: float, each: Callable[[Run], None] | None = None) -> Run:
        """Wait until the run ended, calling `each` with every look at it; raise TransientError when time is up."""
        until = time.monotonic() + timeout_s
        while True:
            now = self.run(dag, run)
            if each:
                each(now)
            if now.over:
                return now
            if time.monotonic() >= until:
                raise TransientError(
                    f"run {run} of {dag} is still {now.state} after {timeout_s:.0f} s", hint=f"look at it: {self.page(now)}"
                )
            self._pause(_EVERY_S)

    def cancel(self, dag: str, run: str) -> None:
        """Mark the run failed: what runs is stopped, what waits is skipped. A run that ended stays as it is."""
        if not self.run(dag, run).over:
            self.mark_failed(dag, run)

    def mark_failed(self, dag: str, run: str) -> None:
        """Mark the run failed, whatever it is."""
        self._wire.send("PATCH", f"/dags/{_q(dag)}/dagRuns/{_q(run)}", {"state": "failed"}, {"update_mask": "state"})

    def clear(self, dag: str, run: str, tasks: Sequence[str], *, downstream: bool = True) -> None:
        """Run tasks again, and all that follows them."""
        body = {"dry_run": False, "only_failed": False, "dag_run_id": run, "task_ids": list(tasks), "include_downstream": downstream}
        self._wire.send("POST", f"/dags/{_q(dag)}/clearTaskInstances", body)

    def missing_pools(self, dag: str) -> dict[str, str]:
        """Pools that tasks of a DAG name and Airflow does not have, each with such a task: it would wait for ever."""
        found = self._wire.get(f"/dags/{_q(dag)}/tasks")
        with _understood("tasks"):
            named = {str(t["pool"]): str(t["task_id"]) for t in found["tasks"]}
        if named.keys() <= {"default_pool"}:
            return {}
        pools = self._all("/pools", "pools", {})
        with _understood("pools"):
            return {pool: task for pool, task in named.items() if pool not in {p["name"] for p in pools}}

    def has_connection(self, name: str) -> bool:
        """Whether its database has that connection; those of variables and secrets backends are not seen."""
        return self._maybe(f"/connections/{_q(name)}") is not None

    def page(self, run: Run) -> str:
        """The run in the web UI."""
        return f"{self.url}/dags/{_q(run.dag)}/runs/{_q(run.id)}"

    # --- tasks ------------------------------------------------------------------------------------

    def tasks(self, dag: str, run: str) -> list[Task]:
        """All task instances of a run."""
        return [_task(t) for t in self._all(f"/dags/{_q(dag)}/dagRuns/{_q(run)}/taskInstances", "task_instances", {})]

    def xcom(self, dag: str, run: str, task: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """What a task handed on; None where it handed on nothing."""
        path = f"/dags/{_q(dag)}/dagRuns/{_q(run)}/taskInstances/{_q(task)}/xcomEntries/{_q(key)}"
        return (self._maybe(path, {"map_index": map_index}) or {}).get("value")

    def result(self, dag: str, run: str, task: str, *, map_index: int = -1) -> Result | None:
        """The Result of a stage; None where there is none (yet), or it is no Result."""
        return result_of(self.xcom(dag, run, task, map_index=map_index))

    def log(self, dag: str, run: str, task: str, attempt: int, *, map_index: int = -1) -> list[dict[str, Any]]:
        """The events of one try, oldest first; [] where there is no log."""
        path = f"/dags/{_q(dag)}/dagRuns/{_q(run)}/taskInstances/{_q(task)}/logs/{attempt}"
        found = self._maybe(path, {"map_index": map_index, "full_content": True}) or {}
        return [e if isinstance(e, dict) else {"event": str(e)} for e in found.get("content") or []]

    # --- reading ----------------------------------------------------------------------------------

    def _maybe(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        try:
            found = self._wire.get(path, query)
        except NotThere:
            return None
        return found if isinstance(found, dict) else None

    def _all(self, path: str, name: str, query: Mapping[str, Any], limit: int = 0) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            most = min(_PAGE, limit - len(found)) if limit else _PAGE
            page = self._wire.get(path, {**query, "limit": most, "offset": len(found)})
            with _understood(path):
                found += page[name]
                if not page[name] or len(found) >= (limit or page["total_entries"]) or len(found) >= page["total_entries"]:
                    return found


def result_of(value: Any) -> Result | None:
    """A Result from what a task handed on, as JSON or as its text; None where it is none."""
    try:
        return None if value is None else Result.model_validate_json(value if isinstance(value, str) else json.dumps(value))
    except ValidationError:
        return None


def _q(part: str) -> str:
    return quote(part, safe="~")


@contextmanager
def _understood(what: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        hint = "check that this is the address of an Airflow 3 (without /api/v2)"
        raise OperatorError(f"Airflow's answer about {what} has an unknown form: {error!r}", hint=hint) from error


def _run(data: Mapping[str, Any]) -> Run:
    with _understood("a run"):
        started, ended = _seconds(data["start_date"]), _seconds(data["end_date"])
        return Run(data["dag_id"], data["dag_run_id"], data["state"], started, ended, data.get("conf") or {})


def _task(data: Mapping[str, Any]) -> Task:
    with _understood("a task"):
        return Task(
            id=data["task_id"],
            state=data["state"] or "",
            tries=data["try_number"],
            started=_seconds(data["start_date"]),
            ended=_seconds(data["end_date"]),
            map_index=data["map_index"],
            note=data.get("note") or "",
        )


def _seconds(moment: str | None) -> float:
    return datetime.fromisoformat(moment).timestamp() if moment else 0.0
