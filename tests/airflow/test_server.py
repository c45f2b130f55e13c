"""The embedded Airflow's life, with an Airflow of its own: what it serves is one plain DAG."""

from __future__ import annotations

import json
import os
import signal
import stat
import time

import psutil
import pytest

from taxiway.errors import InputError, OperatorError
from taxiway.home import Home
from taxiway.integrations.airflow_processes import listening
from taxiway.integrations.airflow_rest import AirflowClient, Credentials, NotThere
from taxiway.integrations.airflow_server import AirflowServer, health_of
from taxiway.integrations.airflow_state import read_state

STAY = "import time; time.sleep(120)"
DAG = """
from airflow.sdk import DAG, Param, task

with DAG("plain", params={"number": Param(1, type="integer")}):

    @task
    def first(params):
        print("the number is", params["number"])
        return params["number"]

    @task
    def second():
        raise ValueError("on purpose")

    first() >> second()

with DAG("slow"):

    @task
    def sleep():
        import subprocess, sys, time
        # What leaves the session on purpose, as a deployed service does, survives.
        stay = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True)
        print("pid", stay.pid)
        time.sleep(120)

    sleep()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own airflow")  # a space in the path is the user's right
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / "plain.py").write_text(DAG)
    kwargs = {"path": str(folder / "pipelines"), "refresh_interval": 2}
    bundle = [{"name": "pipelines", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": kwargs}]
    server = AirflowServer(
        Home(folder / "home"),
        folder / "pipelines",
        settings={"dag_processor": {"dag_bundle_config_list": json.dumps(bundle)}},
        environ=os.environ | {"AIRFLOW__CORE__EXECUTOR": "NoSuchExecutor", "AIRFLOW_HOME": "/nowhere"},
    )
    yield server
    server.stop()


def leftovers(home):
    """What is left of the server, and not what the slow task detached (Airflow begins a task anew that was lost)."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("AIRFLOW_HOME") != str(home.airflow):
                continue
            if STAY in process.cmdline():
                process.kill()
            else:
                found.append(process)
        except psutil.Error:
            continue
    return found


def client_of(running):
    return AirflowClient(running.url, Credentials("", running.username, running.password))


@pytest.mark.timeout(400)
def test_a_life(server):
    home, said = server.home, []
    running = server.start(say=said.append)
    assert not running.reused
    assert said == ["preparing Airflow's database (once)"]

    state = read_state(home)
    heard = {name: listening(process) for name, process in state.components.items()}
    assert heard == {"api-server": {("127.0.0.1", state.port)}, "scheduler": set(), "dag-processor": set()}
    for name in ("airflow.cfg", "secrets.json", "passwords.json", "server.json"):
        assert stat.S_IMODE((home.airflow / name).stat().st_mode) == 0o600, name

    # Another user joins it and leaves it; it stays.
    second = AirflowServer(home, server.pipelines, settings=server._settings)
    with second.running() as joined:
        assert (joined.reused, joined.url) == (True, running.url)
    assert health_of(running.url)["scheduler"]["status"] == "healthy"

    # One with other settings may not replace it.
    with pytest.raises(OperatorError, match="other settings is in use"):
        AirflowServer(home, server.pipelines).start()

    with client_of(running) as client:
        rest(client)
        slow = client.trigger("slow", {})
        pid = detached(client, slow)

    # A component dies: said, and the next start ends the rest and begins anew on the same port.
    os.kill(state.components["scheduler"].pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while read_state(home).running and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(OperatorError, match="scheduler ended"):
        server.check()
    assert read_state(home).components["scheduler"].members(), "its workers are left, and known"
    again = second.start(say=said.append)
    assert (again.reused, again.url) == (False, running.url)
    assert said[1:] == ["stopping what an earlier taxiway left"]
    assert psutil.pid_exists(pid), "what left the session on purpose survives"

    # The last one to leave stops it, all of it.
    server.leave()
    assert read_state(home).running
    second.leave()
    assert leftovers(home) == []
    assert read_state(home).components == {}
    assert not second.stop()


def rest(client):
    client.wait_for_dag("plain")
    with pytest.raises(InputError, match="number"):
        client.trigger("plain", {"number": "many"})
    with pytest.raises(NotThere):
        client.trigger("nothing", {})
    with pytest.raises(OperatorError, match="no DAG nothing"):
        client.wait_for_dag("nothing", timeout_s=0)
    run = client.trigger("plain", {"number": 7})
    ended = client.wait("plain", run.id, timeout_s=60)
    assert ended.state == "failed"
    assert ended.ended >= ended.started > 0
    tasks = {t.id: t for t in client.tasks("plain", run.id)}
    assert {name: (t.state, t.tries) for name, t in tasks.items()} == {"first": ("success", 1), "second": ("failed", 1)}
    assert client.xcom("plain", run.id, "first") == 7
    assert client.xcom("plain", run.id, "second") is None
    assert client.result("plain", run.id, "first") is None
    assert any("the number is 7" in str(e["event"]) for e in client.log("plain", run.id, "first", 1))
    assert any("on purpose" in str(e) for e in client.log("plain", run.id, "second", 1))
    assert client.log("plain", run.id, "second", 9) == []
    client.clear("plain", run.id, ["second"])
    assert client.wait("plain", run.id, timeout_s=60).state == "failed"
    assert {t.id: t.tries for t in client.tasks("plain", run.id)} == {"first": 1, "second": 2}
    client.cancel("plain", run.id)  # it ended: nothing to do
    assert [r.id for r in client.runs("plain", states=["failed"])] == [run.id]


def detached(client, run):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        tasks = client.tasks(run.dag, run.id)
        for event in client.log(run.dag, run.id, "sleep", 1) if tasks and tasks[0].tries else []:
            if str(event["event"]).startswith("pid "):
                return int(event["event"].split()[1])
        time.sleep(0.3)
    raise AssertionError("the task did not start")


@pytest.mark.timeout(120)
def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path):
    (tmp_path / "pipelines").mkdir()
    server = AirflowServer(Home(tmp_path / "home"), tmp_path / "pipelines", settings={"core": {"executor": "NoSuchExecutor"}})
    with pytest.raises(OperatorError, match=r"ended; its last words:(.|\n)*NoSuchExecutor"), server.running():
        pass
    assert leftovers(server.home) == []
    assert read_state(server.home).components == {}
