"""`taxiway run`: one run of one pipeline, watched from the first stage to the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console

from taxiway.agents import registry
from taxiway.cli.browsers import missing_browsers
from taxiway.cli.ends import INTERRUPTED
from taxiway.cli.interrupts import Interrupts
from taxiway.cli.models import Asks
from taxiway.cli.params import read_params
from taxiway.cli.project import Project, find_pipeline, is_spec
from taxiway.cli.reach import Elsewhere, connected
from taxiway.cli.repositories import check_repository
from taxiway.cli.summary import print_summary
from taxiway.cli.tapes import refuse_running
from taxiway.cli.watching import LEAF, Lines, LiveTable, Stage, View, follow, look
from taxiway.compiler import compile_file
from taxiway.compiler.plan import Plan
from taxiway.compiler.show import budget_text
from taxiway.errors import OperatorError
from taxiway.integrations.airflow_archive import log_file
from taxiway.integrations.airflow_rest import AirflowClient, Credentials, Run
from taxiway.integrations.airflow_server import AirflowServer
from taxiway.integrations.airflow_state import read_state
from taxiway.integrations.browsers import find_browsers

__all__ = ["Place", "run_elsewhere", "run_here", "serving", "settle", "stages_of", "watched"]

_HEARD_S = 12.0
"""A task hears of its end at its next heartbeat (5 s), and has 4 s to end."""


@dataclass
class _Watch:
    """What the user wants of a run that goes on: nothing, or its end."""

    client: AirflowClient
    interrupts: Interrupts
    view: View
    asked: bool = False
    cancelled: bool = False

    def __call__(self, run: Run) -> None:
        """Look after every look at the run."""
        if self.interrupts.count >= 2 and not self.cancelled:  # noqa: PLR2004 - asked, and meant
            self.view.say("stopping the run; what it does now is settled first (once more: leave it at once)")
            self.client.cancel(run.dag, run.id)
            self.cancelled = True
            self.interrupts.count = 2
        elif self.cancelled and self.interrupts.count > 2:  # noqa: PLR2004
            raise KeyboardInterrupt
        elif self.interrupts.count == 1 and not self.asked:
            self.view.say("stop the run? press Ctrl-C again; it goes on meanwhile")
            self.asked = True


def run_here(
    name: str,
    params: Sequence[str],
    project: Project,
    *,
    keep: bool,
    console: Console,
    interrupts: Interrupts,
    tapes: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Run it on the embedded Airflow, which is started if it does not run, with `tapes` in its environment; the exit code."""
    refuse_running(tapes, project)
    file = find_pipeline(name, project)
    plan = _compiled(file)
    conf = read_params(params, plan.params)
    check_repository(plan, conf, registry())
    state = read_state(project.home)
    asks = Asks(plan, conf, registry(), {**os.environ, **tapes}, sure=not (state and state.running))
    for warning in (*missing_browsers(plan, conf, find_browsers(os.environ)), *asks.missing()):
        _warn(console, warning)
    with serving(project, keep=keep, console=console, interrupts=interrupts, tapes=tapes) as place:
        place.client.wait_for_dag(plan.pipeline, digest=plan.digest, file=file.name)
        for warning in asks.unconnected(place.client):
            _warn(console, warning)
        order, budget = [s.id for s in plan.stages], budget_text(plan.budget)
        return _run(place, plan.pipeline, order, conf, console=console, interrupts=interrupts, budget=budget)


def _warn(console: Console, text: str) -> None:
    console.print(f"warning: {text}", soft_wrap=True, highlight=False, markup=False)


def run_elsewhere(
    name: str, params: Sequence[str], where: Elsewhere, project: Project | None, *, console: Console, interrupts: Interrupts
) -> int:
    """Run it on another Airflow, which reads its own pipelines; the exit code."""
    dag = name
    if project and ("/" in name or is_spec(name)):
        dag = _compiled(find_pipeline(name, project)).pipeline
    with connected(where) as client:
        client.wait_for_dag(dag, timeout_s=10)
        conf = read_params(params, client.params(dag))
        return _run(Place(client), dag, stages_of(client, dag), conf, console=console, interrupts=interrupts)


def stages_of(client: AirflowClient, dag: str) -> list[str]:
    """The ids of a pipeline's stages, in their order."""
    return [task for task in client.order(dag) if task != LEAF]


def _compiled(file: Path) -> Plan:
    return compile_file(file, registry())


@dataclass(frozen=True)
class Place:
    """An Airflow to run on; `server` where it is the project's own, `stays` where it is still there after the run."""

    client: AirflowClient
    server: AirflowServer | None = None
    stays: bool = True

    def check(self) -> None:
        """Raise OperatorError if it ended."""
        if self.server:
            self.server.check()

    def log_of(self, run: Run, stage: Stage) -> str:
        """Where to read what a stage's last try said."""
        if self.server is None or stage.task is None:
            return self.client.page(run)
        return str(log_file(self.server.home, run.dag, run.id, stage.id, stage.task.tries, map_index=stage.task.map_index))


@contextmanager
def serving(
    project: Project, *, keep: bool, console: Console, interrupts: Interrupts, tapes: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Place]:
    """The project's own Airflow, started where it does not run, and stopped afterwards if nobody else uses it."""
    server = AirflowServer(project.home, project.pipelines, environ={**os.environ, **tapes})

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    url = ""
    try:
        say("starting Airflow ...")
        running = server.start(keep=keep, say=say)
        url = running.url
        say(f"Airflow is {'running already' if running.reused else f'ready after {running.seconds:.0f} s'}: {url}")
        with AirflowClient(url, Credentials("", running.username, running.password)) as client:
            yield Place(client, server, stays=keep or running.reused)
    finally:
        # Nothing may stop the stopping; it is bounded by itself.
        with interrupts.counted():
            stopped = server.leave()
        if stopped:
            say("Airflow is stopped; `taxiway up` starts it with its web UI")
        elif url:
            say(f"Airflow goes on at {url}; `taxiway down` stops it")


def _run(
    place: Place, dag: str, order: Sequence[str], conf: Mapping[str, Any], *, console: Console, interrupts: Interrupts, budget: str = ""
) -> int:
    for pool, task in place.client.missing_pools(dag).items():
        hint = f"make it: `airflow pools set {pool} 2 ''`, or Admin > Pools"
        raise OperatorError(f"this Airflow has no pool {pool}: {task} would wait for ever", hint=hint)
    with interrupts.counted():
        run = place.client.trigger(dag, conf)
        return watched(place, run, order, console=console, interrupts=interrupts, budget=budget)


def watched(place: Place, run: Run, order: Sequence[str], *, console: Console, interrupts: Interrupts, budget: str = "") -> int:
    """Show the run to its end, with what it left, and of which `budget`; the exit code."""
    client = place.client
    view: View = LiveTable(console) if console.is_terminal else Lines(console)
    with interrupts.counted(), view:
        view.say(f"run {run.id} of {run.dag}{f': {client.page(run)}' if place.stays else ''}")
        watch = _Watch(client, interrupts, view)
        run, stages = follow(client, run, order, view, check=place.check, each=watch)
        if watch.cancelled:
            settle(client, run, view.say, interrupts)
            stages = look(client, run, order)  # what was stopped says so only when it has ended
    here = place.server is not None
    print_summary(console, client, run, stages, log_of=lambda stage: place.log_of(run, stage), here=here, budget=budget)
    if watch.cancelled:
        return INTERRUPTED
    return 0 if run.state == "success" else 1


def _unheard(client: AirflowClient, run: Run) -> bool:
    """Whether a task that was stopped with the run has not left its result yet."""
    stopped = client.run(run.dag, run.id).ended - 1
    tasks = [t for t in client.tasks(run.dag, run.id) if t.id != LEAF and t.state == "failed" and t.ended >= stopped]
    return any(client.result(run.dag, run.id, t.id, map_index=t.map_index) is None for t in tasks)


def settle(client: AirflowClient, run: Run, say: Callable[[str], None], interrupts: Interrupts) -> bool:
    """Wait for the tasks of a cancelled run, which counts as failed at once; whether they have ended."""
    ended = True
    until = time.monotonic() + 30
    before = interrupts.count
    while any(t.state in ("running", "restarting") for t in client.tasks(run.dag, run.id)):
        if time.monotonic() >= until or interrupts.count != before:
            say("its tasks have not ended yet")
            ended = False
            break
        time.sleep(0.3)
    # Airflow calls what it stops failed at once; its process says how it ended when it has heard of it.
    until = min(until, time.monotonic() + _HEARD_S)
    while ended and interrupts.count == before and time.monotonic() < until and _unheard(client, run):
        time.sleep(0.3)
    # A scheduler that was just looking at the run sees a last task that was skipped, and may call that a success.
    if client.run(run.dag, run.id).state != "failed":
        client.mark_failed(run.dag, run.id)
    return ended
