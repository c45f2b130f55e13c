"""`taxiway run` as a process, against the session's Airflow: what it shows, how it ends, how it is interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from taxiway.integrations.airflow_settings import USER, secrets_of

PROBE = """
pipeline: {name}
policy: open
params:
  count: {{type: integer, default: 1}}
defaults: {{timeout: 1m, retries: {{attempts: 1, first: 1s, factor: 1, most: 1s}}}}
stages:
  look:
    agent: probe
    with: {settings}
"""


@pytest.fixture
def taxiway(airflow):
    """Starts `taxiway run` with the session's Airflow as `--url`."""
    started = []

    def call(*arguments):
        own = {"TAXIWAY_AIRFLOW_USERNAME": USER, "TAXIWAY_AIRFLOW_PASSWORD": secrets_of(airflow.home).password}
        process = subprocess.Popen(
            [sys.executable, "-m", "taxiway.cli", "run", *arguments, "--url", airflow.client.url],
            cwd=airflow.pipelines.parent,
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.wait(5)
        process.stdout.close()


def finish(process):
    timer = threading.Timer(150, process.kill)
    timer.start()
    said = process.stdout.read()
    code = process.wait(10)
    timer.cancel()
    return code, said


def test_a_run_that_succeeds(airflow, taxiway):
    airflow.wait_for(PROBE.format(name="cli_good", settings="{}"))
    code, said = finish(taxiway("cli_good", "--param", "count=2"))
    assert code == 0, said
    assert "look: success in" in said
    assert "run       cli_good taxiway__" in said
    (run,) = airflow.client.runs("cli_good")
    assert run.conf == {"count": 2}


def test_a_run_that_fails_says_why_and_where(airflow, taxiway):
    airflow.wait_for(PROBE.format(name="cli_bad", settings="{fail: stage}"))
    code, said = finish(taxiway("cli_bad"))
    assert code == 1, said
    assert "look failed: " in said
    assert "it was told to fail" in said
    assert f"  log: {airflow.client.url}/dags/cli_bad/runs/" in said
    assert "Traceback" not in said


def test_a_refused_param_ends_with_2(airflow, taxiway):
    airflow.wait_for(PROBE.format(name="cli_param", settings="{}"))
    code, said = finish(taxiway("cli_param", "--param", "count=many"))
    assert (code, "no integer" in said) == (2, True), said
    assert airflow.client.runs("cli_param") == []


def test_a_signal_cancels_the_run_and_settles_it(airflow, taxiway):
    airflow.wait_for(PROBE.format(name="cli_stop", settings="{seconds: 55}"))
    process = taxiway("cli_stop")
    deadline = time.monotonic() + 90
    while not (runs := airflow.client.runs("cli_stop")) or not any(
        t.state == "running" for t in airflow.client.tasks("cli_stop", runs[0].id)
    ):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    code, said = finish(process)
    assert code == 130, said
    assert "stopping the run" in said
    assert re.search(r"^look +cancelled +1 .* the run was stopped$", said, re.MULTILINE), said
    assert airflow.client.runs("cli_stop")[0].state == "failed"
    assert not any(t.state == "running" for t in airflow.client.tasks("cli_stop", runs[0].id))
