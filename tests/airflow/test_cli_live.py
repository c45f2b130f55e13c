"""runs, logs, diff, retry and cancel on a real Airflow: over REST with a token, and from the files of its home."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import httpx
import pytest

from taxiway.integrations.airflow_archive import Archive
from taxiway.integrations.airflow_settings import USER, secrets_of

MENDED = """
pipeline: cli_mended
policy: open
defaults: {timeout: 1m, retries: {attempts: 1, first: 1s, factor: 1, most: 1s}}
stages:
  write: {agent: scribe, with: {files: {a.txt: hello}}}
  look: {agent: probe, with: {fail: stage, times: 1, value: 3}, gates: [value >= 2]}
  more: {agent: scribe, with: {files: {b.txt: world}}}
"""
LONG = """
pipeline: cli_long
policy: open
defaults: {timeout: 2m, retries: {attempts: 1, first: 1s, factor: 1, most: 1s}}
stages:
  look: {agent: probe, with: {seconds: 110}}
  after: {agent: probe}
"""


@pytest.fixture(scope="module")
def token(airflow):
    own = {"username": USER, "password": secrets_of(airflow.home).password}
    with httpx.Client(trust_env=False) as client:
        return client.post(f"{airflow.client.url}/auth/token", json=own).json()["access_token"]


@pytest.fixture(scope="module")
def taxiway(airflow, token):
    """The command, in the project's folder; `there` asks the session's Airflow by its address."""

    def call(*words, there=False):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("TAXIWAY")}
        own = {"TAXIWAY_HOME": str(airflow.home.path)}
        if there:
            own |= {"TAXIWAY_AIRFLOW_URL": f"{airflow.client.url}/", "TAXIWAY_AIRFLOW_TOKEN": token}
        return subprocess.run(
            [sys.executable, "-m", "taxiway.cli", *words],
            cwd=airflow.pipelines.parent,
            env=clean | own,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return call


@pytest.fixture(scope="module")
def started(airflow):
    for text in (MENDED, LONG):
        airflow.save(text)
    return {name: airflow.trigger(text) for name, text in (("mended", MENDED), ("long", LONG))}


@pytest.fixture(scope="module")
def cancelled(airflow, started, taxiway):
    run = started["long"]
    deadline = time.monotonic() + 120
    while not any(t.state == "running" for t in airflow.client.tasks(run.dag, run.id)):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return taxiway("cancel", "cli_long", there=True)


@pytest.fixture(scope="module")
def failed(airflow, started):
    done = airflow.finish(started["mended"])
    assert done.states()["look"] == "failed"
    return done


@pytest.fixture(scope="module")
def retried(failed, taxiway):
    return taxiway("retry", "cli_mended", "--from", "look", there=True)


def test_a_cancelled_run_has_stopped(airflow, started, cancelled):
    assert cancelled.returncode == 0, cancelled.stderr
    assert "nothing of it works any more" in cancelled.stdout
    assert airflow.client.run("cli_long", started["long"].id).state == "failed"
    assert not any(t.state == "running" for t in airflow.client.tasks("cli_long", started["long"].id))


def test_retry_goes_on_from_the_stage(airflow, retried):
    assert retried.returncode == 0, retried.stderr + retried.stdout
    (run,) = airflow.client.runs("cli_mended")
    tasks = {t.id: t for t in airflow.client.tasks(run.dag, run.id)}
    assert {name: (t.state, t.tries) for name, t in tasks.items()} == {
        "write": ("success", 1),
        "look": ("success", 2),
        "more": ("success", 1),
        "outcome": ("success", 2),
    }


@pytest.mark.parametrize("there", [False, True], ids=["from files", "over REST"])
def test_what_is_said_of_it(retried, cancelled, taxiway, there):
    assert [line.split()[2] for line in taxiway("runs", "cli_mended", there=there).stdout.splitlines()[1:]] == ["success"]
    assert [line.split()[2] for line in taxiway("runs", "cli_long", there=there).stdout.splitlines()[1:]] == ["failed"]
    logs = taxiway("logs", "cli_mended", there=there).stdout
    assert "--- look: success, try 2 of 2" in logs
    assert 'scribe: {"files": {"b.txt": "world"}}' in logs
    assert "DAG bundles loaded" not in logs, "Airflow's housekeeping"
    first = taxiway("logs", "cli_mended", "look", "--try", "1", there=there).stdout
    assert "it was told to fail\n            hint: do not tell it so" in first
    # The home is here, wherever the run is asked for.
    whole = taxiway("diff", "cli_mended", there=there).stdout
    assert ("+hello" in whole, "+world" in whole) == (True, True)
    assert "+world" not in taxiway("diff", "cli_mended", "write", there=there).stdout
    assert "changed nothing" in taxiway("diff", "cli_mended", "look", there=there).stderr


def test_files_and_rest_agree(airflow, retried, cancelled):
    archive = Archive(airflow.home)
    for dag in ("cli_mended", "cli_long"):
        assert archive.runs(dag) == airflow.client.runs(dag)
        (run,) = archive.runs(dag)
        assert archive.run(dag, run.id) == run
        by_id = [sorted(found.tasks(dag, run.id), key=lambda t: t.id) for found in (archive, airflow.client)]
        assert by_id[0] == by_id[1]
        for task in by_id[0]:
            assert archive.result(dag, run.id, task.id) == airflow.client.result(dag, run.id, task.id)
    written = archive.result("cli_mended", archive.runs("cli_mended")[0].id, "write")
    assert written
    assert len(written.commit) == 40
