"""A second Airflow that has a dags folder and not our bundle: the files of dags/ are all that it needs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from taxiway.home import Home
from taxiway.integrations.airflow_rest import AirflowClient, Credentials
from taxiway.integrations.airflow_server import AirflowServer

FILES = Path(__file__).parents[2] / "dags"
GOOD = """\
pipeline: {name}
policy: open
defaults: {{timeout: 60s, retries: {{attempts: 1, first: 1s, factor: 1, most: 1s}}}}
stages:
  look: {{agent: probe, with: {{say: {say}}}}}
"""
DAGS = {"name": "dags-folder", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {"refresh_interval": 2}}
OURS = {"name": "pipelines", "classpath": "taxiway_airflow.bundle.PipelineBundle"}
MARKER = "from airflow.sdk import DAG\n\ndag = DAG('marker', schedule=None)\n"


@pytest.fixture(scope="module")
def plain(airflow, tmp_path_factory):
    """Its client, its home, and two folders of pipelines beside the files of dags/; the second is served by our bundle too. The
    session's Airflow is asked for first: its agents are on the path then."""
    folder = tmp_path_factory.mktemp("plain")
    for name in ("alone", "bundled"):
        (folder / "dags" / name / "dags").mkdir(parents=True)
        for file in FILES.glob("pipelines*.py"):
            (folder / "dags" / name / "dags" / file.name).symlink_to(file)
        specs = folder / "dags" / name / "pipelines"
        (specs / "policies").mkdir(parents=True)
        (specs / "policies" / "open.yaml").write_text("policy: open\n")
        (specs / f"{name}.yaml").write_text(GOOD.format(name=name, say="one"))
        (specs / "bad.yaml").write_text("pipeline: bad\nstagse: {}\n")
    (folder / "dags" / "alone" / "dags" / "taxiway_maintenance.py").symlink_to(FILES / "taxiway_maintenance.py")
    marker = folder / "dags" / "bundled" / "dags" / "marker.py"
    marker.write_text(MARKER)
    os.utime(marker, (1e9, 1e9))  # the oldest is parsed last
    ours = {**OURS, "kwargs": {"source": str(specs), "home": str(folder / "home"), "refresh_interval": 1, "maintenance": False}}
    settings = {
        "core": {"dags_folder": str(folder / "dags")},
        "dag_processor": {
            "dag_bundle_config_list": json.dumps([DAGS, ours]),
            "min_file_process_interval": "2",
            "file_parsing_sort_mode": "modified_time",
        },
    }
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent / "agents"), os.environ.get("PYTHONPATH")]))
    environ = {k: v for k, v in os.environ.items() if k != "TAXIWAY_PIPELINES"} | {"PYTHONPATH": path}
    server = AirflowServer(Home(folder / "home"), specs, settings=settings, environ=environ)
    with server.running() as running, AirflowClient(running.url, Credentials("", running.username, running.password)) as client:
        yield client, server.home, folder / "dags" / "alone" / "pipelines"


def until(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.2)
    return found


def alone(client):
    """Import errors of the folder that only the files of dags/ serve."""
    return [failure for failure in client.import_failures() if "/alone/" in failure.text]


def test_good_specs_run_and_bad_ones_are_import_errors(plain):
    client, _, specs = plain
    client.wait_for_dag("alone")
    run = client.trigger("alone", {})
    (failure,) = until(lambda: alone(client))
    assert failure.file.endswith("pipelines_errors.py")
    assert "bad.yaml:2:1: error: unknown key 'stagse'" in failure.text
    assert client.wait("alone", run.id, timeout_s=180).state == "success"
    assert client.result("alone", run.id, "look").outputs["said"] == "one"
    for name in ("taxiway_reconcile", "taxiway_gc", "taxiway_db_clean"):
        client.wait_for_dag(name)

    (specs / "alone.yaml").write_text(GOOD.format(name="alone", say="two"))
    (specs / "bad.yaml").write_text(GOOD.format(name="mended", say="three"))
    again = client.trigger("alone", {})
    client.wait_for_dag("mended")
    until(lambda: not alone(client))
    assert client.wait("alone", again.id, timeout_s=180).state == "success"
    assert client.result("alone", again.id, "look").outputs["said"] == "two", "without versions a worker reads what is there now"


def test_nothing_happens_where_the_bundle_serves_the_same_folder(plain):
    client, _, _ = plain
    client.wait_for_dag("marker")
    found = client.wait_for_dag("bundled")
    assert found["bundle_name"] == "pipelines"
    (failure,) = until(lambda: [f for f in client.import_failures() if "/alone/" not in f.text])
    assert "bad.yaml:2:1: error: unknown key 'stagse'" in failure.text
    assert not failure.file.endswith("pipelines_errors.py")


def test_a_worker_compiles_only_the_spec_that_it_runs(plain, tmp_path):
    client, home, specs = plain
    readers = tmp_path / "readers"
    with forgetting(home.plans):
        for name in ("asked", "other"):
            text = GOOD.format(name=name, say=name).replace("say:", f"readers: {readers}, say:")
            (specs / f"{name}.yaml").write_text(text)
        client.wait_for_dag("asked")
        client.wait_for_dag("other")
        run = client.trigger("asked", {})
        assert client.wait("asked", run.id, timeout_s=180).state == "success"
    lines = set(readers.read_text().splitlines())
    assert {"- read asked", "- read other"} <= lines, "the dag-processor reads all"
    assert {line for line in lines if not line.startswith("- ")} == {"asked read asked"}


@contextlib.contextmanager
def forgetting(plans):
    """Nothing is kept below the folder: whoever wants a plan compiles it."""
    kept = plans.with_name("kept")
    plans.rename(kept)
    while True:
        try:
            plans.touch(exist_ok=False)
            break
        except FileExistsError:  # a parse was faster
            shutil.rmtree(plans, ignore_errors=True)
    yield
    plans.unlink()
    kept.rename(plans)
