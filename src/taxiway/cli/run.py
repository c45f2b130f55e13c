"""run, up, down, status, doctor."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from taxiway.cli.complete import pipelines
from taxiway.cli.ends import runs_or_refuses
from taxiway.cli.interrupts import Interrupts
from taxiway.cli.reach import Token, Url, elsewhere
from taxiway.cli.texts import flowing
from taxiway.errors import OperatorError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Runs", help=flowing(run.__doc__ or ""))(run)
    for command in (up, down, status, doctor):
        app.command(rich_help_panel="Airflow", help=flowing(command.__doc__ or ""))(command)


def run(
    context: typer.Context,
    *,
    pipeline: Annotated[
        str,
        typer.Argument(help="Id of a pipeline, or the path of its file in pipelines/.", metavar="PIPELINE", autocompletion=pipelines),
    ],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="A param as name=value; repeat for more.", metavar="NAME=VALUE")
    ] = None,
    url: Url = "",
    token: Token = "",
    keep_airflow: Annotated[bool, typer.Option("--keep-airflow", help="Leave Airflow running afterwards, until `taxiway down`.")] = False,
    record: Annotated[
        Path | None, typer.Option("--record", metavar="DIR", help="Write every answer of a model into this folder.", show_default=False)
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option("--replay", metavar="DIR", help="Take every answer of a model from there: no key, no cost.", show_default=False),
    ] = None,
) -> None:
    """Run a pipeline on Airflow and watch it to its end.

    Without --url an Airflow of this project is started for it and stopped afterwards; a service that the run
    deployed stays (`taxiway services list`). Ends with 0 if the run succeeded, 1 if it failed, 2 if it could not be
    started, 130 if it was interrupted. Ctrl-C asks first; pressed again it cancels the run.

    [bold]Examples[/bold]

      taxiway run web_service
      taxiway run pipelines/web_service.yaml --param name=shop
      taxiway run web_service --keep-airflow
      taxiway run web_service --record recorded && taxiway run web_service --replay recorded
      TAXIWAY_AIRFLOW_TOKEN=... taxiway run web_service --url https://airflow.example.com

    --url logs in with a token, or with TAXIWAY_AIRFLOW_USERNAME and TAXIWAY_AIRFLOW_PASSWORD.
    """
    from rich.console import Console  # noqa: PLC0415 - what a command needs is loaded when it runs

    from taxiway.cli.project import find_project, is_spec  # noqa: PLC0415
    from taxiway.cli.running import run_elsewhere, run_here  # noqa: PLC0415
    from taxiway.cli.tapes import tape  # noqa: PLC0415

    console = Console()
    with runs_or_refuses(context), Interrupts() as interrupts:
        where = elsewhere(url, token)
        tapes = tape(record, replay, elsewhere=where is not None, keep=keep_airflow)
        if where:
            project = find_project(Path.cwd(), os.environ) if "/" in pipeline or is_spec(pipeline) else None
            code = run_elsewhere(pipeline, param or [], where, project, console=console, interrupts=interrupts)
        else:
            project = find_project(Path.cwd(), os.environ)
            code = run_here(pipeline, param or [], project, keep=keep_airflow, console=console, interrupts=interrupts, tapes=tapes)
    raise typer.Exit(code)


def up(detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave it running in the background.")] = False) -> None:
    """Start this project's Airflow with its web UI, until Ctrl-C.

    [bold]Examples[/bold]

      taxiway up
      taxiway up --detach && taxiway run web_service && taxiway down
    """
    from taxiway.cli.project import find_project  # noqa: PLC0415
    from taxiway.integrations.airflow_server import AirflowServer  # noqa: PLC0415

    project = find_project(Path.cwd(), os.environ)
    server = AirflowServer(project.home, project.pipelines)
    with Interrupts() as interrupts:
        try:
            typer.echo("starting Airflow ...")
            running = server.start(keep=detach, say=typer.echo)
            typer.echo(f"Airflow is {'running already' if running.reused else f'ready after {running.seconds:.0f} s'}")
            typer.echo(
                f"  web UI     {running.url}\n  user       {running.username}\n  password   in {server.home.airflow / 'passwords.json'}"
            )
            typer.echo(f"  pipelines  {project.pipelines}\n  logs       {server.logs}")
            if detach:
                typer.echo("it stays until `taxiway down`")
                return
            typer.echo("Ctrl-C stops it")
            while True:
                server.check()
                time.sleep(1)
        except KeyboardInterrupt:
            typer.echo("\nstopping Airflow ...")
        finally:
            with interrupts.counted():
                server.leave()


def down() -> None:
    """Stop this project's Airflow, whoever started it; also what a killed taxiway left behind.

    Deployed services stay: `taxiway services stop` ends them. A run in progress goes on at the next start.

    [bold]Example[/bold]

      taxiway down
    """
    from taxiway.cli.project import find_project  # noqa: PLC0415
    from taxiway.integrations.airflow_server import AirflowServer  # noqa: PLC0415

    project = find_project(Path.cwd(), os.environ)
    typer.echo("Airflow is stopped" if AirflowServer(project.home, project.pipelines).stop() else "Airflow was not running")


def status(url: Url = "", token: Token = "") -> None:
    """Show what runs: Airflow, its components, runs in progress, services; of an Airflow elsewhere the runs in progress.

    [bold]Examples[/bold]

      taxiway status
      taxiway status --url https://airflow.example.com
    """
    from taxiway.cli.project import find_project  # noqa: PLC0415
    from taxiway.cli.reach import connected  # noqa: PLC0415
    from taxiway.cli.status import status_elsewhere, status_lines  # noqa: PLC0415

    if where := elsewhere(url, token):
        with connected(where) as client:
            for line in status_elsewhere(client):
                typer.echo(line)
        return
    for line in status_lines(find_project(Path.cwd(), os.environ)):
        typer.echo(line)


def doctor() -> None:
    """Check what this machine offers, and say how to get what is missing; ends with 1 if something needed is.

    [bold]Example[/bold]

      taxiway doctor
    """
    from taxiway.cli.doctor import examine  # noqa: PLC0415
    from taxiway.cli.project import find_project  # noqa: PLC0415

    try:
        project = find_project(Path.cwd(), os.environ)
    except OperatorError as error:
        typer.echo(f"missing  project: {error}")
        raise typer.Exit(1) from error
    findings = examine(project, os.environ)
    for finding in findings:
        typer.echo(str(finding))
    if any(f.level == "missing" for f in findings):
        raise typer.Exit(1)
