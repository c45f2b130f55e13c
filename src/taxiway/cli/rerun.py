"""Runs that are there already: some of it again, or no more of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from taxiway.cli.interrupts import Interrupts
from taxiway.cli.logs import chosen_tasks
from taxiway.cli.project import Project
from taxiway.cli.reach import Elsewhere, Records, connected, find_run, records
from taxiway.cli.running import Place, serving, settle, stages_of, watched
from taxiway.cli.watching import LEAF, look, stage_table
from taxiway.errors import InputError
from taxiway.integrations.airflow_rest import Run

__all__ = ["cancel", "retry"]


def retry(
    name: str, stage: str, where: Elsewhere | None, project: Project | None, *, keep: bool, console: Console, interrupts: Interrupts
) -> int:
    """Run a stage and all that follows it again, in the same run, and watch it; without `stage` what failed. The exit code."""
    with records(where, project) as known:
        run = find_run(name, known)
        tasks = _again(known, run, stage)
    with _acting(where, project, keep=keep, console=console, interrupts=interrupts) as place:
        place.client.wait_for_dag(run.dag)
        place.client.clear(run.dag, run.id, tasks)
        return watched(place, run, stages_of(place.client, run.dag), console=console, interrupts=interrupts)


def _again(known: Records, run: Run, stage: str) -> list[str]:
    if not run.over:
        raise InputError(f"run {run.id} of {run.dag} is {run.state}", hint="wait for its end, or `taxiway cancel` it first")
    tasks = chosen_tasks(known, run, stage)
    if stage:
        return list(dict.fromkeys(t.id for t in tasks))
    failed = list(dict.fromkeys(t.id for t in tasks if t.state == "failed" and t.id != LEAF))
    if not failed:
        names = ", ".join(dict.fromkeys(t.id for t in tasks if t.id != LEAF))
        raise InputError(f"no stage of run {run.id} of {run.dag} failed", hint=f"say from where, with --from: {names}")
    return failed


def cancel(name: str, where: Elsewhere | None, project: Project | None, *, console: Console, interrupts: Interrupts) -> int:
    """Mark a run failed, wait until nothing of it works any more, and say what it left. The exit code."""

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    with records(where, project) as known:
        run = find_run(name, known)
    if run.over:
        raise InputError(f"run {run.id} of {run.dag} ended already: {run.state}", hint="there is nothing to cancel")
    with _acting(where, project, keep=False, console=console, interrupts=interrupts) as place, interrupts.counted():
        client = place.client
        client.cancel(run.dag, run.id)
        say(f"stopping run {run.id} of {run.dag}; what it does now is settled first")
        ended = settle(client, run, say, interrupts)
        run = client.run(run.dag, run.id)
        stages = look(client, run, stages_of(client, run.dag))
        console.print(stage_table(stages))
        took = f" after {time.time() - run.started:.0f} s" if run.started else ""
        say(f"run {run.id} of {run.dag}: {run.state}{took}; {'nothing of it works any more' if ended else 'some of it still works'}")
        say("what its stages pushed stays; what it deployed, taxiway_reconcile takes back where a recovery covers it")
        say(f"to go on: taxiway retry {run.dag}/{run.id} --from STAGE")
    return 0 if ended else 1


@contextmanager
def _acting(where: Elsewhere | None, project: Project | None, *, keep: bool, console: Console, interrupts: Interrupts) -> Iterator[Place]:
    if where:
        with connected(where) as client:
            yield Place(client)
    else:
        assert project is not None  # noqa: S101 - `records` refused that before
        with serving(project, keep=keep, console=console, interrupts=interrupts) as place:
            yield place
