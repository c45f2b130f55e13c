"""What `taxiway status` says."""

from __future__ import annotations

import time
from collections.abc import Iterator

from taxiway.cli.project import Project
from taxiway.errors import TaxiwayError
from taxiway.integrations.airflow_rest import AirflowClient, Credentials
from taxiway.integrations.airflow_settings import USER, secrets_of
from taxiway.integrations.airflow_state import State, is_changing, read_state

__all__ = ["status_elsewhere", "status_lines"]


def status_lines(project: Project) -> Iterator[str]:
    """One fact a line."""
    yield f"home       {project.home.path}"
    yield f"pipelines  {project.pipelines}"
    state = read_state(project.home)
    yield from _airflow(project, state)
    yield from _services(project)


def status_elsewhere(client: AirflowClient) -> Iterator[str]:
    """The same of an Airflow that somebody else runs: what it tells by REST; raises TaxiwayError where it tells nothing."""
    yield f"airflow    {client.url}"
    yield from _in_progress(client)


def _airflow(project: Project, state: State | None) -> Iterator[str]:
    left = {name: process for name, process in state.components.items() if process.members()} if state else {}
    if is_changing(project.home):
        yield f"airflow    being started or stopped: {', '.join(left) or 'no process yet'}"
        return
    if state is None or not left:
        yield "airflow    not running (`taxiway up` starts it)"
        return
    if not state.running:
        yield f"airflow    broken: {', '.join(state.dead)} ended (`taxiway down` ends the rest, the next start does too)"
        return
    yield f"airflow    {state.url} since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(state.started))}"
    yield "processes  " + ", ".join(f"{name} {process.pid}" for name, process in state.components.items())
    yield from _runs(project, state)


def _runs(project: Project, state: State) -> Iterator[str]:
    try:
        with AirflowClient(state.url, Credentials("", USER, secrets_of(project.home).password)) as client:
            yield from _in_progress(client)
    except TaxiwayError as error:
        yield f"runs       unknown: {error.problem}"


def _in_progress(client: AirflowClient) -> Iterator[str]:
    runs = client.runs(states=["running", "queued"])
    if not runs:
        yield "runs       none in progress"
    for run in runs:
        took = f" for {time.time() - run.started:.0f} s" if run.started else ""
        yield f"run        {run.dag} {run.id}: {run.state}{took}"


def _services(project: Project) -> Iterator[str]:
    folder = project.home.services
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".") if folder.is_dir() else []
    yield f"services   {', '.join(names) or 'none'}" + (" (`taxiway services list` says how they are)" if names else "")
