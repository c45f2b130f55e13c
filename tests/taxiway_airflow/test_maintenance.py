"""The maintenance DAGs, and what they ask of Airflow; tests/airflow/test_maintenance_live.py runs them."""

import os
import subprocess
import sys
import time

import pytest

from taxiway.integrations.ledger import SqliteLedger
from taxiway.ports import RunRecord
from taxiway_airflow.bundle import PipelineBundle
from taxiway_airflow.database import main
from taxiway_airflow.maintaining import AirflowRuns, configured_bundles
from taxiway_airflow.maintenance import build_maintenance
from taxiway_airflow.snapshots import Snapshots


class Task:
    """The part of Airflow's task SDK that is asked; runs are {(dag, run): (state, {task: state})}."""

    def __init__(self, runs, results=None):
        self.runs, self.results = runs, results or {}

    def get_dr_count(self, dag_id, run_ids=None, states=None):
        return sum(
            dag == dag_id and (run_ids is None or run in run_ids) and (states is None or state in states)
            for (dag, run), (state, _) in self.runs.items()
        )

    def get_dagrun_state(self, dag_id, run_id):
        return self.runs[dag_id, run_id][0]

    def get_task_states(self, dag_id, run_ids):
        return {run: self.runs[dag_id, run][1] for run in run_ids if (dag_id, run) in self.runs}

    def xcom_pull(self, *, task_ids, dag_id, run_id, map_indexes):
        return self.results.get((run_id, task_ids))


@pytest.fixture
def ledger(tmp_path):
    return SqliteLedger(tmp_path / "ledger.db")


@pytest.mark.parametrize(
    ("state", "expected"), [("running", "live"), ("queued", "live"), ("success", "success"), ("failed", "failed"), (None, "gone")]
)
def test_states_of_runs(ledger, state, expected):
    runs = AirflowRuns(Task({("shop", "r"): (state, {})} if state else {}), ledger)
    assert runs.state("shop", "r") == expected


def test_stages_that_did_not_end_well(ledger):
    states = {"a": "success", "b": "failed", "c": "skipped", "d": "skipped", "e": "upstream_failed", "f": None}
    task = Task({("shop", "r"): ("failed", states)}, {("r", "c"): {"outcome": "skipped"}})
    assert AirflowRuns(task, ledger).unwell("shop", "r", ["a", "b", "c", "d", "e", "f", "ghost"]) == ["b", "d", "e", "f", "ghost"]


def test_runs_that_wait(ledger):
    ledger.enter(RunRecord(run="one", pipeline="shop", run_id="begun", born=1.0))
    task = Task({("shop", "begun"): ("running", {}), ("shop", "new"): ("queued", {}), ("other", "x"): ("queued", {})})
    assert AirflowRuns(task, ledger).waiting("shop") == 1
    assert AirflowRuns(Task({("shop", "begun"): ("running", {})}), ledger).waiting("shop") == 0


def test_the_dags():
    dags = {dag.dag_id: dag for dag in build_maintenance()}
    assert sorted(dags) == ["taxiway_db_clean", "taxiway_gc", "taxiway_reconcile"]
    for dag in dags.values():
        assert (dag.catchup, dag.max_active_runs, len(dag.tasks)) == (False, 1, 1)
        assert dag.params.validate()["dry_run"] is False


def test_the_bundle_brings_them(tmp_path):
    (tmp_path / "pipelines").mkdir()
    bundle = PipelineBundle(name="p", source=str(tmp_path / "pipelines"), store=str(tmp_path / "store"))
    bundle.initialize()
    (module,) = bundle.path.glob("*.py")
    space = {}
    exec(compile(module.read_bytes(), module.name, "exec"), space)
    assert {space[n].dag_id for n in ("reconcile", "gc", "db_clean")} == {"taxiway_reconcile", "taxiway_gc", "taxiway_db_clean"}
    assert b"airflow" in module.read_bytes().lower()


def test_configured_bundles(monkeypatch):
    entry = '{"name": "p", "classpath": "taxiway_airflow.bundle.PipelineBundle", "kwargs": {"source": "/x", "store": "/y"}}'
    other = '{"name": "dags", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {}}'
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", f"[{entry}, {other}]")
    (bundle,) = configured_bundles()
    assert str(bundle.snapshots.root) == "/y"


def test_versions_go_by_when_they_were_replaced(tmp_path):
    store = Snapshots(tmp_path)
    versions = [store.publish({"a.py": b"same", "b.py": text}) for text in (b"1", b"22", b"333")]
    assert store.collect(set(), time.time() - 60, dry_run=False) == []
    for version in versions:
        os.utime(store.folder(version), (1, 1))
    assert [name for name, _ in store.collect({versions[0]}, time.time() - 60, dry_run=True)] == [versions[1]]
    assert store.collect({versions[0]}, time.time() - 60, dry_run=False) == [(versions[1], 2)]
    assert sorted(p.name for p in (tmp_path / "versions").iterdir()) == sorted([versions[0], versions[2]])
    assert sorted(p.read_bytes() for p in (tmp_path / "objects").iterdir()) == [b"1", b"333", b"same"]
    assert (store.folder(versions[0]) / "a.py").read_bytes() == b"same"
    assert store.publish({"a.py": b"same", "b.py": b"22"}) == versions[1]
    assert store.folder(versions[2]).stat().st_mtime > time.time() - 60, "replaced just now"


def test_no_store_yet(tmp_path):
    assert Snapshots(tmp_path / "new").collect(set(), time.time(), dry_run=False) == []


DATABASE = """
import datetime
from airflow.utils.db import initdb
initdb()
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import update
from taxiway_airflow.database import clean
now = datetime.datetime.now(datetime.timezone.utc)
with create_session() as session:
    for name, days in (("old", 100), ("young", 1)):
        moment = now - datetime.timedelta(days=days)
        dates = {"run_after": moment, "start_date": moment, "queued_at": moment}
        session.add(DagRun(dag_id="shop", run_id=name, run_type="manual", state="success", **dates))
said = [clean(30, dry_run=True)]
for state in ("running", "failed"):
    with create_session() as session:
        session.execute(update(DagRun).where(DagRun.run_id == "old").values(state=state))
    said += [clean(30, dry_run=False)]
print("said", [rows.get("dag_run") for rows in (*said, clean(30, dry_run=False))])
"""


def test_the_database_keeps_what_unfinished_runs_need(tmp_path):
    """On a real database: old rows go, but none that is younger than the oldest unfinished run."""
    environ = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run([sys.executable, "-c", DATABASE], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "said [1, None, 1, None]"


def test_arguments(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["taxiway_airflow.database"])
    with pytest.raises(SystemExit):
        main()
    assert "days" in capsys.readouterr().err
