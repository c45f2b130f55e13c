"""services list, start, stop, logs, url."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taxiway.cli.complete import services as known_services
from taxiway.errors import OperatorError
from taxiway.home import Home, find_home

if TYPE_CHECKING:
    from taxiway.integrations.local.client import Client
    from taxiway.integrations.local.state import State

__all__ = ["register"]

Name = Annotated[
    str, typer.Argument(help="Name of the service; without it all of them.", show_default=False, autocompletion=known_services)
]
OneName = Annotated[
    str,
    typer.Argument(help="Name of the service; may be left out where there is one.", show_default=False, autocompletion=known_services),
]

_MOST = 10_000
_COLUMNS = ("service", "url", "release", "state", "since", "restarts")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    services = typer.Typer(help="What runs on target local.", no_args_is_help=True, rich_markup_mode="rich")
    services.command("list")(show)
    services.command("start")(start)
    services.command("stop")(stop)
    services.command("logs")(logs)
    services.command("url")(url)
    app.add_typer(services, name="services")


def show() -> None:
    """Show every service: its URL, live release, state, since when, restarts.

    Example: taxiway services list
    """
    rows = [_row(client, state) for client, state in _known()]
    if not rows:
        typer.echo("no service was deployed yet; a pipeline with a deploy stage makes one: taxiway run PIPELINE")
        return
    widths = [max(len(row[i]) for row in [_COLUMNS, *rows]) for i in range(len(_COLUMNS))]
    for row in [_COLUMNS, *rows]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def start(name: Name = "") -> None:
    """Start services that were stopped, or whose machine was.

    Examples: taxiway services start, taxiway services start greeter
    """
    for client, state in _chosen(name):
        if not state.live:
            if name:
                raise OperatorError(f"service {name} has no release to start", hint="run a pipeline that deploys it")
            continue
        client.start()
        client.call("begin")
        typer.echo(f"{client.service} started: {_url(state)}")


def stop(name: Name = "") -> None:
    """Stop services; what they need to start again stays.

    Examples: taxiway services stop, taxiway services stop greeter
    """
    for client, _ in _chosen(name):
        ran = client.stop(rest=True)
        typer.echo(f"{client.service} stopped" if ran else f"{client.service} did not run")


def logs(
    name: OneName = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=_MOST, help="Lines to begin with.")] = 100,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also the lines about health checks that were answered well.")] = False,
) -> None:
    """Show what a service said, and what happened to it.

    Examples: taxiway services logs greeter, taxiway services logs greeter --follow
    """
    from taxiway.integrations.local.logs import follow as following  # noqa: PLC0415 - only where it is used
    from taxiway.integrations.local.logs import last_lines  # noqa: PLC0415

    client, state = _one(name)
    path = client.folder / "service.log"
    hidden = None if everything else _health_line(state)
    coming = following(path, lambda: False) if follow else None
    kept = [line for line in last_lines(path, _MOST if hidden else lines) if not (hidden and hidden.search(line))]
    for line in kept[max(0, len(kept) - lines) :]:
        typer.echo(line)
    try:
        for line in coming or ():
            if not (hidden and hidden.search(line)):
                typer.echo(line)
    except KeyboardInterrupt:
        return


def url(name: OneName = "") -> None:
    """Print a service's URL and nothing else.

    Example: curl "$(taxiway services url greeter)"
    """
    client, state = _one(name)
    if client.status() is None:
        # Whoever asks for it wants to ask it.
        hint = f"`taxiway services start {client.service}`"
        raise OperatorError(f"service {client.service} does not run; it would be at {_url(state)}", hint=hint)
    typer.echo(_url(state))


def _health_line(state: State) -> re.Pattern[str] | None:
    """An access log's line, in the form that most servers share, about a health check that was answered with 2xx."""
    paths = {re.escape(release.health.path) for release in state.releases if release.health.path}
    return re.compile(rf'"GET (?:{"|".join(paths)}) HTTP/[\d.]+" 2\d\d\b') if paths else None


def _home() -> Home:
    return find_home(Path.cwd(), os.environ)


def _known() -> Iterator[tuple[Client, State]]:
    """Every service that has a release or had one, by name."""
    from taxiway.integrations.local.client import Client  # noqa: PLC0415 - only where it is used
    from taxiway.integrations.local.state import read_state  # noqa: PLC0415

    home = _home()
    folders = sorted(home.services.iterdir()) if home.services.is_dir() else []
    for folder in folders:
        state = read_state(folder)
        if state is not None and (state.live or state.previous):
            yield Client(home, folder.name), state


def _chosen(name: str) -> list[tuple[Client, State]]:
    known = list(_known())
    if not name:
        if not known:
            typer.echo("there is no service")
        return known
    found = [(client, state) for client, state in known if client.service == name]
    if not found:
        names = ", ".join(client.service for client, _ in known)
        raise OperatorError(f"there is no service {name!r}", hint=f"there are: {names}" if names else "nothing was deployed yet")
    return found


def _one(name: str) -> tuple[Client, State]:
    found = _chosen(name) if name else list(_known())
    if len(found) != 1:
        names = ", ".join(client.service for client, _ in found)
        raise OperatorError("which service?" if found else "there is no service", hint=f"name one of: {names}" if names else "")
    return found[0]


def _row(client: Client, state: State) -> tuple[str, ...]:
    said = client.status()
    since = datetime.fromtimestamp(state.since, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if state.since else "-"
    restarts = str(said["restarts"]) if said else "-"
    return (client.service, _url(state), state.live or "-", _word(state, said), since, restarts)


def _word(state: State, said: dict[str, Any] | None) -> str:
    if said is not None:
        return str(said["state"])
    return "stopped" if state.stopped else "down"


def _url(state: State) -> str:
    return f"http://127.0.0.1:{state.port}"
