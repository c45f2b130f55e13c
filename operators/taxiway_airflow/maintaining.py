"""Between Airflow's context and the maintenance of an installation."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.configuration import conf
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from taxiway.errors import OperatorError, TaxiwayError, TransientError
from taxiway.home import Home
from taxiway.integrations.git import GitWorkspace
from taxiway.integrations.ledger import SqliteLedger
from taxiway.integrations.local.target import LocalTarget
from taxiway.maintenance import gc, reconcile
from taxiway.ports import Cancellation, RunRecord
from taxiway.stop import Stop
from taxiway_airflow.bundle import PipelineBundle
from taxiway_airflow.connections import git_credentials, taxiway_home
from taxiway_airflow.modules import pipeline_of
from taxiway_airflow.snapshots import Snapshots

__all__ = ["AirflowRuns", "configured_bundles", "maintain"]

log = logging.getLogger("taxiway.maintenance")

_CLEAN_S = 3_600.0
_LOOK_S = 0.2
_LIVE = ["queued", "running"]


def maintain(work: str, context: Context, stop: Stop) -> dict[str, Any]:
    """Do the work and return its report. Raises AirflowFailException where it could not be done, or something needs a person."""
    params = context["params"]
    acts: dict[str, Callable[[Any, Mapping[str, Any], Stop], tuple[dict[str, Any], Sequence[str]]]] = {
        "reconcile": _reconcile,
        "gc": _gc,
        "db_clean": _db_clean,
    }
    try:
        report, problems = acts[work](context["ti"], params, stop)
    except TaxiwayError as error:
        kind = AirflowException if error.retryable else AirflowFailException
        raise kind(f"{type(error).__name__}: {error}") from None
    log.info("%s", json.dumps(report, indent=1))
    if problems:
        context["ti"].xcom_push("return_value", report)
        raise AirflowFailException("not everything could be done:\n" + "\n".join(problems))
    return report


class AirflowRuns:
    """What the task's Airflow says of runs, through the task SDK: a task has no way to the database."""

    def __init__(self, ti: Any, ledger: SqliteLedger) -> None:
        self._ti, self._ledger = ti, ledger

    def state(self, pipeline: str, run_id: str) -> reconcile.RunState:
        """How a run is; `gone` where it was deleted."""
        if not self._ti.get_dr_count(dag_id=pipeline, run_ids=[run_id]):
            return "gone"
        state = str(getattr(found := self._ti.get_dagrun_state(pipeline, run_id), "value", found))
        return "success" if state == "success" else "failed" if state == "failed" else "live"

    def waiting(self, pipeline: str) -> int:
        """Runs of which no stage has begun since they were started or cleared."""
        known = [r.run_id for r in self._ledger.runs(unsettled=True) if r.pipeline == pipeline and r.run_id]
        begun = self._ti.get_dr_count(dag_id=pipeline, run_ids=known, states=_LIVE) if known else 0
        return int(self._ti.get_dr_count(dag_id=pipeline, states=_LIVE) - begun)

    def unwell(self, pipeline: str, run_id: str, stages: Sequence[str]) -> list[str]:
        """Those of the stages that neither succeeded nor skipped themselves."""
        states = self._ti.get_task_states(dag_id=pipeline, run_ids=[run_id]).get(run_id, {})
        return [stage for stage in stages if not self._well(pipeline, run_id, stage, states.get(stage))]

    def _well(self, pipeline: str, run_id: str, stage: str, state: Any) -> bool:
        word = str(getattr(state, "value", state))
        if word != "skipped":
            return word == "success"
        # Marking a run failed makes what has not begun skipped too; a stage that skipped itself left a Result.
        left = self._ti.xcom_pull(task_ids=stage, dag_id=pipeline, run_id=run_id, map_indexes=-1)
        return isinstance(left, dict) and left.get("outcome") == "skipped"


def _reconcile(ti: Any, params: Mapping[str, Any], stop: Stop) -> tuple[dict[str, Any], Sequence[str]]:
    home = taxiway_home()
    ledger, target = SqliteLedger(home.ledger), LocalTarget(home)
    world = reconcile.World(ledger, {"local": target}, AirflowRuns(ti, ledger), _workspace_of(home, stop), target.revive)
    found = reconcile.reconcile(world, stop=stop, say=log.info, dry_run=params["dry_run"])
    return reconcile.as_json(found), found.failed


def _gc(ti: Any, params: Mapping[str, Any], stop: Stop) -> tuple[dict[str, Any], Sequence[str]]:
    home = taxiway_home()
    ledger = SqliteLedger(home.ledger)
    found = gc.collect(
        home,
        ledger,
        AirflowRuns(ti, ledger),
        keep=gc.Keep(days=params["older_than_days"], runs=params["keep_runs"]),
        versions=[_Versions(bundle.snapshots) for bundle in configured_bundles()],
        drop_branches=_drop_branches(home, stop) if params["remote_branches"] else None,
        stop=stop,
        say=log.info,
        dry_run=params["dry_run"],
    )
    return dict(gc.as_json(found)), found.problems


def _db_clean(ti: Any, params: Mapping[str, Any], stop: Stop) -> tuple[dict[str, Any], Sequence[str]]:  # noqa: ARG001
    # A task is kept from the database; a process of its own that reads the same settings is not.
    environ = {k: v for k, v in os.environ.items() if not v.startswith("airflow-db-not-allowed")}
    command = [
        sys.executable,
        "-m",
        "taxiway_airflow.database",
        str(params["older_than_days"]),
        *(["--dry-run"] if params["dry_run"] else []),
    ]
    done = _followed(command, environ, stop)
    for line in (done.stdout + done.stderr).splitlines():
        log.info("%s", line)
    if done.returncode:
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        raise OperatorError(
            f"Airflow's database cannot be cleaned from here: {last}",
            hint="a task reaches the database only where the worker reads the airflow.cfg that names it; elsewhere pause this DAG "
            "and run `airflow db clean` where the scheduler runs",
        )
    return dict(json.loads(done.stdout.splitlines()[-1])), ()


def _followed(command: list[str], environ: Mapping[str, str], stop: Stop) -> subprocess.CompletedProcess[str]:
    """How the command ended; one that is stopped, or takes too long, is killed."""
    until = time.monotonic() + _CLEAN_S
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            while True:
                stop.check()
                try:
                    out, err = process.communicate(timeout=min(_LOOK_S, max(0.0, until - time.monotonic())))
                    return subprocess.CompletedProcess(command, process.returncode, out, err)
                except subprocess.TimeoutExpired:
                    if time.monotonic() >= until:
                        raise TransientError(
                            f"Airflow's database was not cleaned within {_CLEAN_S:g} s", hint="it goes on next time"
                        ) from None
        except BaseException:
            process.kill()
            raise


class _Versions:
    """The versions of one bundle, and the pipelines that it has now."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots

    def collect(self, keep: set[str], before: float, *, dry_run: bool) -> Sequence[tuple[str, int]]:
        """See `Snapshots.collect`."""
        return self._snapshots.collect(keep, before, dry_run=dry_run)

    def pipelines(self) -> set[str]:
        """The ids of all pipelines that it serves."""
        contents = ((self._snapshots.current / name).read_bytes() for name in self._snapshots.names())
        return {found for content in contents if (found := pipeline_of(content))}


def configured_bundles() -> list[PipelineBundle]:
    """Every PipelineBundle of this Airflow."""
    wanted = f"{PipelineBundle.__module__}.{PipelineBundle.__qualname__}"
    listed = conf.getjson("dag_processor", "dag_bundle_config_list", fallback=[])
    entries = [e for e in listed if isinstance(e, dict) and e.get("classpath") == wanted] if isinstance(listed, list) else []
    return [PipelineBundle(name=e["name"], **e.get("kwargs", {})) for e in entries]


def _workspace_of(home: Home, stop: Cancellation) -> Callable[[RunRecord], GitWorkspace | None]:
    def workspace(run: RunRecord) -> GitWorkspace | None:
        if Path(run.url).is_relative_to(home.repositories):
            own = GitWorkspace(home=home, pipeline=run.pipeline, run=run.run, started=datetime.now(UTC))
            return own if Path(run.url).is_dir() and own.url == run.url else None
        credentials = git_credentials(run.connection) if run.connection else None
        return GitWorkspace(
            home=home, pipeline=run.pipeline, run=run.run, url=run.url, credentials=credentials, started=datetime.now(UTC), stop=stop
        )

    return workspace


def _drop_branches(home: Home, stop: Cancellation) -> Callable[[RunRecord], bool]:
    workspace_of = _workspace_of(home, stop)

    def drop(run: RunRecord) -> bool:
        workspace = workspace_of(run)
        return workspace is not None and workspace.drop_run()

    return drop
