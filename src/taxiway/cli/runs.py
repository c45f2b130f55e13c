"""runs, logs, diff, retry, cancel."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taxiway.cli.complete import pipelines, runs_known, stages
from taxiway.cli.ends import REFUSED, runs_or_refuses
from taxiway.cli.reach import Token, Url, elsewhere
from taxiway.cli.texts import flowing
from taxiway.errors import OperatorError

if TYPE_CHECKING:
    from taxiway.cli.project import Project
    from taxiway.cli.reach import Elsewhere, Records
    from taxiway.integrations.airflow_rest import Run

__all__ = ["RunArgument", "project_of", "register"]

RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A pipeline (its latest run), a run's id or a part of it, or PIPELINE/RUN.", autocompletion=runs_known
    ),
]
StageArgument = Annotated[str, typer.Argument(metavar="STAGE", help="A stage of the run.", autocompletion=stages, show_default=False)]

_HEAD = ("pipeline", "run", "state", "started", "seconds")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (runs, logs, diff, retry, cancel):
        app.command(rich_help_panel="Runs", help=flowing(command.__doc__ or ""))(command)


def runs(
    pipeline: Annotated[str, typer.Argument(help="Of this pipeline only.", autocompletion=pipelines, show_default=False)] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, the newest first.")] = 20,
    url: Url = "",
    token: Token = "",
) -> None:
    """List runs, the newest first: pipeline, id, state, when it started, how long it took.

    [bold]Examples[/bold]

      taxiway runs
      taxiway runs web_service --limit 5
      TAXIWAY_AIRFLOW_TOKEN=... taxiway runs --url https://airflow.example.com
    """
    from taxiway.cli.reach import records  # noqa: PLC0415 - what a command needs is loaded when it runs

    where = elsewhere(url, token)
    with records(where, project_of(where)) as known:
        found = known.runs(pipeline, limit=limit) if pipeline else _of_pipelines(known, limit)
    if not found:
        typer.echo(f"no run{f' of {pipeline}' if pipeline else ''} yet: taxiway run {pipeline or 'PIPELINE'}")
        return
    rows = [_HEAD, *(_row(run) for run in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _of_pipelines(known: Records, limit: int) -> list[Run]:
    """The newest runs of pipelines; those of maintenance DAGs come by the hour."""
    ask = limit
    while True:
        listed = known.runs(limit=ask)
        found = [run for run in listed if not run.dag.startswith("taxiway_")]
        if len(found) >= limit or len(listed) < ask:
            return found[:limit]
        ask *= 4


def _row(run: Run) -> tuple[str, ...]:
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started)) if run.started else "-"
    took = f"{(run.ended or time.time()) - run.started:.0f}" if run.started else "-"
    return run.dag, run.id, run.state, started, took


def logs(
    *,
    run: RunArgument,
    stage: StageArgument = "",
    attempt: Annotated[int | None, typer.Option("--try", min=1, metavar="N", help="This try, instead of the last.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    url: Url = "",
    token: Token = "",
) -> None:
    """Show what the stages of a run said, or one of them. Airflow need not run for it.

    [bold]Examples[/bold]

      taxiway logs web_service
      taxiway logs web_service validate --try 1
      taxiway logs 6f0d6d --follow
    """
    from rich.console import Console  # noqa: PLC0415

    from taxiway.cli.logs import LogView, chosen_tasks  # noqa: PLC0415
    from taxiway.cli.reach import find_run, records  # noqa: PLC0415

    where = elsewhere(url, token)
    project = project_of(where)
    with records(where, project) as known:
        found = find_run(run, known)
        view = LogView(Console(highlight=False), known, found)
        tasks = chosen_tasks(known, found, stage)
        typer.echo(f"run {found.id} of {found.dag}: {found.state}", err=True)
        if follow and not found.over:
            try:
                why = view.follow(lambda: chosen_tasks(known, found, stage), attempt or 0, lambda: _silence(where, project))
            except KeyboardInterrupt:
                return
            typer.echo(why or f"run {view.run.id} of {view.run.dag}: {view.run.state}", err=True)
        elif not view.show(tasks, attempt or 0):
            raise OperatorError(_nothing(found, stage, attempt or 0), hint="`taxiway runs` says how the run is; a skipped stage has no log")


def _nothing(run: Run, stage: str, attempt: int) -> str:
    return f"there is no log of {f'try {attempt} of ' * bool(attempt)}{stage or 'any stage'} in run {run.id} of {run.dag}"


def _silence(where: Elsewhere | None, project: Project | None) -> str:
    """Why a run that has not ended says no more, "" while it may."""
    from taxiway.integrations.airflow_state import read_state  # noqa: PLC0415

    if where or project is None:
        return ""
    state = read_state(project.home)
    return "" if state and state.running else "Airflow does not run: the run goes on when `taxiway up` starts it"


def diff(
    run: RunArgument,
    stage: StageArgument = "",
    stat: Annotated[bool, typer.Option("--stat", help="Only how much changed in which file.")] = False,
    url: Url = "",
    token: Token = "",
) -> None:
    """Show what a run changed, or what one of its stages committed. Airflow need not run for it.

    It reads the repositories of this machine's Taxiway home. What is not there it fetches from the repository that the run worked on, if
    that can be reached from here without credentials of Airflow's, or says where the commits are.

    [bold]Examples[/bold]

      taxiway diff web_service --stat
      taxiway diff web_service scaffold | git apply
    """
    from rich.console import Console  # noqa: PLC0415

    from taxiway.cli.changes import diff_of, show_diff  # noqa: PLC0415
    from taxiway.cli.reach import find_run, records  # noqa: PLC0415

    where = elsewhere(url, token)
    project = project_of(where)
    with records(where, project) as known:
        found = find_run(run, known)
        content = diff_of(known, found, stage, project, os.environ, stat=stat)
    if content:
        show_diff(Console(highlight=False), content)
    else:
        typer.echo(f"{f'stage {stage} of ' * bool(stage)}run {found.id} of {found.dag} changed nothing", err=True)


def retry(
    context: typer.Context,
    *,
    run: RunArgument,
    stage: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="STAGE",
            help="Begin here, not with what failed.",
            autocompletion=stages,
            show_default=False,
        ),
    ] = "",
    keep_airflow: Annotated[bool, typer.Option("--keep-airflow", help="Leave Airflow running afterwards, until `taxiway down`.")] = False,
    url: Url = "",
    token: Token = "",
) -> None:
    """Run a stage of an ended run again, and all that follows it, and watch it to its end.

    Without --from the stages that failed begin. Each starts from the commit that it started from before, with its full
    count of tries, by the file as it was when the run began. Ends like `taxiway run`: with 0 if the run then succeeded,
    1 if it failed, 2 if nothing was started, 130 if it was interrupted.

    [bold]Examples[/bold]

      taxiway retry web_service
      taxiway retry web_service/6f0d6d --from validate
    """
    from rich.console import Console  # noqa: PLC0415

    from taxiway.cli import rerun  # noqa: PLC0415
    from taxiway.cli.interrupts import Interrupts  # noqa: PLC0415

    with runs_or_refuses(context):
        where = elsewhere(url, token)
        project = project_of(where)
        with Interrupts() as interrupts:
            code = rerun.retry(run, stage, where, project, keep=keep_airflow, console=Console(), interrupts=interrupts)
    raise typer.Exit(code)


def cancel(run: RunArgument, url: Url = "", token: Token = "") -> None:
    """Stop a run: what works is stopped, what waits is skipped, and the run has failed.

    Waits until nothing of it works any more, and says what is left. What was pushed stays; what was deployed
    is taken back later where the pipeline has a recovery for it (`taxiway reconcile`). Ends with 1 where
    the run had ended already, or some of it still works after half a minute.

    [bold]Example[/bold]

      taxiway cancel web_service
    """
    from rich.console import Console  # noqa: PLC0415

    from taxiway.cli import rerun  # noqa: PLC0415
    from taxiway.cli.interrupts import Interrupts  # noqa: PLC0415

    where = elsewhere(url, token)
    with Interrupts() as interrupts:
        code = rerun.cancel(run, where, project_of(where), console=Console(), interrupts=interrupts)
    if code:
        raise typer.Exit(REFUSED)


def project_of(where: Elsewhere | None) -> Project | None:
    """The project of this folder; elsewhere it may be missing."""
    from taxiway.cli.project import find_project  # noqa: PLC0415

    try:
        return find_project(Path.cwd(), os.environ)
    except OperatorError:
        if where:
            return None
        raise
