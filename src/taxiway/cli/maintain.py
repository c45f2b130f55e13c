"""gc, reconcile: the maintenance DAGs by hand."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from taxiway.cli.ends import REFUSED
from taxiway.cli.reach import Token, Url, elsewhere
from taxiway.cli.texts import flowing

__all__ = ["register", "shown"]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]

_WAIT_S = 7_200.0
_MEGABYTE = 1_000_000


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (gc, reconcile):
        app.command(rich_help_panel="Airflow", help=flowing(command.__doc__ or ""))(command)


def gc(
    *,
    dry_run: DryRun = False,
    older_than_days: Annotated[float, typer.Option(min=1, max=36_500, help="Keep what was used in so many days.")] = 30,
    keep_runs: Annotated[int, typer.Option(min=0, help="Keep the last runs of each pipeline, whatever their age.")] = 20,
    remote_branches: Annotated[
        bool, typer.Option("--remote-branches", help="Also delete old runs' branches and refs in repositories given by URL.")
    ] = False,
    url: Url = "",
    token: Token = "",
) -> None:
    """Remove what old runs left and nobody needs: reports, repositories, environments, checkouts, versions of pipelines.

    Runs the DAG taxiway_gc and shows what it removed. Ends with 1 where something could not be removed.

    [bold]Examples[/bold]

      taxiway gc --dry-run
      taxiway gc --older-than-days 7 --keep-runs 5
    """
    conf = {"dry_run": dry_run, "older_than_days": older_than_days, "keep_runs": keep_runs, "remote_branches": remote_branches}
    _maintain("taxiway_gc", conf, url, token)


def reconcile(*, dry_run: DryRun = False, url: Url = "", token: Token = "") -> None:
    """Settle what ended runs left in progress, and start services again that should run.

    Runs the DAG taxiway_reconcile and shows what it did. Ends with 1 where something needs a person.

    [bold]Example[/bold]

      taxiway reconcile
    """
    _maintain("taxiway_reconcile", {"dry_run": dry_run}, url, token)


def shown(report: Mapping[str, Any]) -> Iterable[str]:
    """A report as lines."""
    for kind in ("lines", "settled", "waiting", "revived", "problems", "failed"):
        label = {"lines": "", "settled": "", "revived": "started again: "}.get(kind, f"{kind}: ")
        yield from (f"{label}{line}" for line in report.get(kind, ()))
    for kind, what in report.get("removed", {}).items():
        yield f"{kind}: {what['count']}, {what['bytes'] / _MEGABYTE:.1f} MB"
    if "bytes" in report:
        yield f"in all {report['bytes'] / _MEGABYTE:.1f} MB"
    if report.get("unsettled_runs"):
        yield f"{report['unsettled_runs']} old runs stay until `taxiway reconcile` has settled them"
    if "looked_at" in report:
        yield f"{report['looked_at']} runs were looked at"


def _maintain(dag: str, conf: Mapping[str, Any], url: str, token: str) -> None:
    from rich.console import Console  # noqa: PLC0415 - what a command needs is loaded when it runs

    from taxiway.cli.interrupts import Interrupts  # noqa: PLC0415
    from taxiway.cli.project import find_project  # noqa: PLC0415
    from taxiway.cli.reach import connected  # noqa: PLC0415
    from taxiway.cli.running import serving  # noqa: PLC0415

    console = Console(stderr=True)
    if where := elsewhere(url, token):
        with connected(where) as client:
            state, report = _done(client, dag, conf)
    else:
        project = find_project(Path.cwd(), os.environ)
        with Interrupts() as interrupts, serving(project, keep=False, console=console, interrupts=interrupts) as place:
            state, report = _done(place.client, dag, conf)
    if conf["dry_run"]:
        typer.echo("nothing was changed; this would be done:")
    for line in shown(report):
        typer.echo(line)
    if state != "success":
        typer.echo(f"{dag} ended {state}; its log says more", err=True)
        raise typer.Exit(REFUSED)


def _done(client: Any, dag: str, conf: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    client.wait_for_dag(dag)
    run = client.trigger(dag, conf)
    ended = client.wait(dag, run.id, timeout_s=_WAIT_S)
    return ended.state, client.xcom(dag, run.id, dag.removeprefix("taxiway_")) or {}
