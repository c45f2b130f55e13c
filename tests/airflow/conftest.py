"""One real Airflow for the whole session, in folders of its own.

How to use it: put the test into tests/airflow/ and take the fixture `airflow`.

    def test_something(airflow):
        done = airflow.run_pipeline(YAML, {"name": "greeter"})
        assert done.run.state == "success"
        assert done.tasks["validate"].tries == 1
        assert done.result("validate").metrics["tests.run"] > 0

- The policies `open` (no floor), `thinking` (no floor, with models) and `default` (the shipped one) are there.
- The pipeline's id in YAML must be the test's own: all tests share the server, and runs of other tests stay in it.
- `airflow.save(yaml)` only writes the file; `airflow.wait_for(yaml)` waits until Airflow has this very text.
- `airflow.trigger(...)` starts a run without waiting, for tests that kill, edit or cancel meanwhile; `airflow.finish(run)` waits.
- `airflow.trigger_all({key: yaml})` starts the runs of a whole module at once; look at them one by one.
- `airflow.claude` answers for all models, as thinking.py says: for a project that is none of its scenarios it builds and repairs nothing.
- `airflow.client` is the REST client, `airflow.home` the Taxiway home, `airflow.server` the processes.
- A task whose supervisor is killed counts as dead after 40 s here, not after a minute: start such runs first, look at them last.
- Under `pytest -n N` one worker runs the whole folder (tests/conftest.py).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from taxiway.agents import registry
from taxiway.compiler import compile_file
from taxiway.home import Home
from taxiway.integrations.airflow_rest import AirflowClient, Credentials, Run, Task
from taxiway.integrations.airflow_server import AirflowServer
from taxiway.integrations.local.client import Client
from taxiway.records import Result

sys.path.insert(0, str(Path(__file__).parent))

from thinking import Claude, answer

SETTINGS = {
    # Runs that wait for a dead task to be noticed hold a place each.
    "core": {"parallelism": "16"},
    "scheduler": {
        # Less than 40 s, and on a busy machine Airflow takes living tasks for dead.
        "task_instance_heartbeat_timeout": "40",
        "task_instance_heartbeat_timeout_detection_interval": "2",
        "orphaned_tasks_check_interval": "10",
    },
    "workers": {"min_heartbeat_interval": "2"},
}
TOKEN = "token-that-no-log-may-show"
"""The password of connection `repository_token`."""
CLAUDE = {"conn_type": "anthropic", "password": "key-that-no-log-may-show"}
CONNECTIONS = {"AIRFLOW_CONN_REPOSITORY_TOKEN": json.dumps({"conn_type": "git", "login": "ci", "password": TOKEN})}
MAINTENANCE = ("taxiway_reconcile", "taxiway_gc", "taxiway_db_clean")
HERE = Path(__file__).parent
AGENTS = HERE / "agents"
SHIPPED = HERE.parents[1] / "pipelines"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.airflow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show with a failed test what became of the tasks of the runs that it looked at."""
    report = yield
    if report.when == "call" and report.failed and item.path.is_relative_to(HERE):
        for finished in Finished.looked_at:
            report.sections.append((f"{finished.run.dag} {finished.run.id}: {finished.run.state}", finished.story()))
    if report.when == "call":
        Finished.looked_at.clear()
    return report


@dataclass(frozen=True)
class Finished:
    """A run that ended, with its tasks by id."""

    run: Run
    tasks: dict[str, Task]
    client: AirflowClient
    looked_at: ClassVar[list[Finished]] = []

    def story(self) -> str:
        """Every task's state, and the end of the log of what failed."""
        lines = []
        for name, task in self.tasks.items():
            lines.append(f"{name}: {task.state}, tries {task.tries}, {task.seconds(time.time()):.1f} s {task.note}")
            if task.state not in ("success", "skipped", "upstream_failed", ""):
                lines += [f"    {line}" for line in self.log(name).splitlines()[-12:]]
        return "\n".join(lines)

    def result(self, stage: str) -> Result:
        """What a stage handed on."""
        found = self.client.result(self.run.dag, self.run.id, stage)
        assert found is not None, f"{stage} handed on nothing"
        return found

    def log(self, stage: str, attempt: int = 0) -> str:
        """The log of one try, of the last one by default."""
        events = self.client.log(self.run.dag, self.run.id, stage, attempt or self.tasks[stage].tries)
        return "\n".join(f"{e.get('event')} {e.get('error_detail') or ''}" for e in events)

    def said(self, stage: str) -> list[str]:
        """What Taxiway itself logged in the last try, in order."""
        events = self.client.log(self.run.dag, self.run.id, stage, self.tasks[stage].tries)
        return [str(e.get("event")) for e in events if str(e.get("logger", "")).startswith("taxiway")]

    def states(self) -> dict[str, str]:
        """Task id -> state."""
        return {name: task.state for name, task in self.tasks.items()}


@dataclass(frozen=True)
class Airflow:
    """The session's Airflow."""

    server: AirflowServer
    client: AirflowClient
    claude: Claude
    token: ClassVar[str] = TOKEN

    @property
    def home(self) -> Home:
        return self.server.home

    @property
    def pipelines(self) -> Path:
        return self.server.pipelines

    def save(self, text: str) -> str:
        """Write the pipeline's file, as an editor does; its id."""
        dag = str(yaml.safe_load(text)["pipeline"])
        place = self.pipelines / f"{dag}.yaml"
        if place.exists() and place.read_text(encoding="utf-8") == text:
            return dag
        part = self.pipelines / f".{dag}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(place)
        return dag

    def wait_for(self, text: str, *, timeout_s: float = 120.0) -> str:
        """Save it and wait until Airflow has read it, in this very version; its id."""
        dag = self.save(text)
        # The agents of tests/airflow/agents are found by entry point; only here, since this process runs other tests too.
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(AGENTS)
            plan = compile_file(self.pipelines / f"{dag}.yaml", registry())
        self.client.wait_for_dag(dag, digest=plan.digest, file=f"{dag}.yaml", timeout_s=timeout_s)
        return dag

    def trigger(self, text: str, params: Mapping[str, Any] | None = None) -> Run:
        """Save it, wait for it, start a run."""
        return self.client.trigger(self.wait_for(text), params or {})

    def trigger_all(self, texts: Mapping[str, str]) -> dict[str, Run]:
        """Key -> run, of pipelines by key: save them all, wait for all, then start one run each."""
        for text in texts.values():
            self.save(text)
        dags = {key: self.wait_for(text) for key, text in texts.items()}
        return {key: self.client.trigger(dag, {}) for key, dag in dags.items()}

    def finish(self, run: Run, *, timeout_s: float = 300.0) -> Finished:
        """Wait until a run ended."""
        self.server.check()
        ended = self.client.wait(run.dag, run.id, timeout_s=timeout_s)
        finished = Finished(ended, {t.id: t for t in self.client.tasks(run.dag, run.id)}, self.client)
        Finished.looked_at.append(finished)
        return finished

    def run_pipeline(self, text: str, params: Mapping[str, Any] | None = None, *, timeout_s: float = 300.0) -> Finished:
        """Save it, run it, wait for its end."""
        return self.finish(self.trigger(text, params), timeout_s=timeout_s)


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "pipelines" / "policies").mkdir(parents=True)
    (folder / "pipelines" / "policies" / "open.yaml").write_text("policy: open\ndescription: No floor.\n")
    (folder / "pipelines" / "policies" / "thinking.yaml").write_text(
        "policy: thinking\nmodels: {model: claude-sonnet-5-5, max_tokens: 4000, connection: claude}\n"
    )
    shutil.copy(SHIPPED / "policies" / "default.yaml", folder / "pipelines" / "policies")
    path = os.pathsep.join(filter(None, [str(AGENTS), os.environ.get("PYTHONPATH")]))
    claude = Claude(answer)
    with claude:
        # Both ways to a model: policy `default` takes the worker's environment, `thinking` the connection.
        model = {"ANTHROPIC_BASE_URL": claude.url, "AIRFLOW_CONN_CLAUDE": json.dumps({**CLAUDE, "host": claude.url})}
        environ = {**os.environ, "PYTHONPATH": path, **model, **CONNECTIONS}
        yield from _running(AirflowServer(Home(folder / "home"), folder / "pipelines", settings=SETTINGS, environ=environ), claude)


def _running(server: AirflowServer, claude: Claude) -> Iterator[Airflow]:
    try:
        with server.running() as running, AirflowClient(running.url, Credentials("", running.username, running.password)) as client:
            # Their schedules would settle and remove what tests look at; tests of theirs switch them on.
            for dag in MAINTENANCE:
                client.wait_for_dag(dag)
                client.pause(dag)
            yield Airflow(server, client, claude)
    finally:
        # What runs deployed outlives Airflow on purpose.
        for service in server.home.services.glob("*"):
            Client(server.home, service.name).stop(rest=True)
        shutil.rmtree(server.home.sockets, ignore_errors=True)


@pytest.fixture
def client(airflow: Airflow) -> AirflowClient:
    return airflow.client
