"""The maintenance DAGs on a real Airflow: a run marked failed in the middle of a deploy is settled, by its own Airflow's word."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time

import httpx
import pytest

from taxiway.integrations.airflow_rest import NotThere
from taxiway.integrations.ledger import SqliteLedger
from taxiway.integrations.local.target import LocalTarget
from taxiway.stage import run_key

SPEC = """
pipeline: live_settled
policy: open
limits: {{runs: 4, stages: 4, duration: 10m}}
defaults: {{timeout: 2m, retries: {{attempts: 2, first: 1s, factor: 1, most: 1s}}}}
stages:
  make:
    agent: scaffold
    with: {{name: live-settled}}
  ship:
    agent: killed_deploy
    with: {{service: live-settled, point: "after:deploy", victim: hold, once: "{once}"}}
  never:  # a recovery stands after some `deploy`
    agent: deploy
    when: "false"
    with: {{service: live-settled}}
  rollback:
    agent: recover
    recovers: [ship, never]
"""
DAGS = ("taxiway_reconcile", "taxiway_gc", "taxiway_db_clean")


@pytest.fixture(scope="module", autouse=True)
def awake(airflow):
    for dag in DAGS:
        airflow.client.pause(dag, False)
    yield
    for dag in DAGS:
        airflow.client.pause(dag)


def until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)
    return found


def maintained(airflow, dag, **conf):
    return report(airflow, airflow.client.trigger(dag, conf))


def report(airflow, run):
    done = airflow.finish(run)
    assert done.run.state == "success", done.story()
    return airflow.client.xcom(run.dag, run.id, run.dag.removeprefix("taxiway_"))


def test_a_run_marked_failed_in_the_middle_of_a_deploy(airflow, tmp_path):
    once = tmp_path / "held"
    once.touch()  # the first run is not held
    text = SPEC.format(once=once)
    first = airflow.run_pipeline(text)
    assert first.run.state == "success", first.story()
    target, ledger = LocalTarget(airflow.home, trusted=True), SqliteLedger(airflow.home.ledger)
    old = target.status("live-settled").live.id

    once.unlink()
    run = airflow.client.trigger("live_settled", {})
    until(once.exists)
    assert target.status("live-settled").live.id != old
    airflow.client.mark_failed(run.dag, run.id)
    key = run_key(run.dag, run.id)

    reports = [maintained(airflow, "taxiway_reconcile")]
    # A try that was still ending is waited for, and the next time comes.
    until(lambda: key not in {r.run for r in ledger.runs(unsettled=True)} or reports.append(maintained(airflow, "taxiway_reconcile")))
    now = target.status("live-settled")
    assert (now.live.id, now.state) == (old, "running")
    assert httpx.get(f"{now.url}/healthz", trust_env=False).status_code == 200
    assert [c.state for c in ledger.changes(key)] == ["undone"]
    settled = [line for report in reports for line in report["settled"] if run.id in line]
    assert settled == [f"live_settled {run.id}: live-settled runs release {old} again at {now.url}"]
    pid = now.pid
    again = maintained(airflow, "taxiway_reconcile")
    assert [line for line in again["settled"] if "live_settled" in line] == []
    assert target.status("live-settled").pid == pid


AGED = """
pipeline: live_aged
policy: open
defaults: {timeout: 1m, retries: {attempts: 1, first: 1s, factor: 1, most: 1s}}
stages:
  look: {agent: probe}
"""


def aged(airflow):
    """Two runs that ended, the first of them long ago as far as the database knows. Airflow keeps a DAG's last one whatever its age."""
    old, young = (airflow.run_pipeline(AGED).run for _ in range(2))
    with contextlib.closing(sqlite3.connect(airflow.home.airflow / "airflow.db", timeout=60)) as database, database:
        for table in ("dag_run", "task_instance"):
            database.execute(f"UPDATE {table} SET start_date = '2020-01-02 03:04:05.000000' WHERE run_id = ?", (old.id,))
    return old, young


def test_garbage_and_database(airflow):
    old, young = aged(airflow)
    lost = airflow.home.artifacts / "live_lost" / "run-1" / "stage"
    lost.mkdir(parents=True)
    (lost / "report.txt").write_text("x" * 10)
    for place in (lost / "report.txt", lost, lost.parent, lost.parent.parent):
        os.utime(place, (1, 1))
    # At once: one DAG's runs follow each other, the two DAGs run side by side.
    started = [airflow.client.trigger(dag, {"dry_run": dry_run}) for dry_run in (True, False) for dag in ("taxiway_gc", "taxiway_db_clean")]
    looked, database_looked, done, cleaned = (report(airflow, run) for run in started)
    for found in (looked, done):
        assert found["removed"]["artifacts"] == {"count": 1, "bytes": 10}
        assert found["problems"] == []
    assert not lost.exists()
    assert [r["dry_run"] for r in (database_looked, cleaned)] == [True, False]
    for found in (database_looked, cleaned):
        assert {table: found["rows"].get(table, 0) for table in ("dag_run", "task_instance")} == {"dag_run": 1, "task_instance": 2}
    assert [run.id for run in airflow.client.runs("live_aged")] == [young.id]
    with pytest.raises(NotThere):
        airflow.client.run("live_aged", old.id)


def test_params_are_checked(airflow):
    with pytest.raises(Exception, match=r"older_than_days|minimum"):
        airflow.client.trigger("taxiway_gc", {"older_than_days": 0})
