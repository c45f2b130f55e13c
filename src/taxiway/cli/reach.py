"""Where runs are: on this project's own Airflow, or on one elsewhere (--url)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from taxiway.errors import InputError, OperatorError

if TYPE_CHECKING:
    from taxiway.cli.project import Project
    from taxiway.integrations.airflow_rest import AirflowClient, Credentials, Run, Task
    from taxiway.records import Result

__all__ = ["Elsewhere", "Records", "Token", "Url", "connected", "elsewhere", "find_run", "records"]

Url = Annotated[
    str, typer.Option("--url", help="Address of an Airflow elsewhere.", envvar="TAXIWAY_AIRFLOW_URL", show_default=False, metavar="URL")
]
Token = Annotated[
    str,
    typer.Option(
        "--token",
        help="A token for --url; in the variable nobody sees it in the list of processes.",
        envvar="TAXIWAY_AIRFLOW_TOKEN",
        show_default=False,
        metavar="TOKEN",
    ),
]
_LISTED = 5
_READ = 100
_LEAST = 4


@dataclass(frozen=True)
class Elsewhere:
    """An Airflow that somebody else runs."""

    url: str
    credentials: Credentials


class Records(Protocol):
    """Runs that can be looked at: an Airflow's, over REST, or those in a home, as files."""

    def runs(self, dag: str = "~", *, states: Sequence[str] = (), containing: str = "", limit: int = 0) -> list[Run]:
        """Newest first."""

    def run(self, dag: str, run: str) -> Run:
        """As of now."""

    def tasks(self, dag: str, run: str) -> list[Task]:
        """Of one run."""

    def result(self, dag: str, run: str, task: str, *, map_index: int = -1) -> Result | None:
        """What a stage handed on."""

    def source_of(self, dag: str, run: str) -> str:
        """The module of a DAG in the version that a run began with; "" where that is not known any more."""

    def log(self, dag: str, run: str, task: str, attempt: int, *, map_index: int = -1) -> list[dict[str, Any]]:
        """The events of one try."""


def elsewhere(url: str, token: str, environ: Mapping[str, str] = os.environ) -> Elsewhere | None:
    """Where --url leads; None without it."""
    from taxiway.integrations.airflow_rest import Credentials  # noqa: PLC0415 - what a command needs is loaded when it runs

    if not url:
        if token and token != environ.get("TAXIWAY_AIRFLOW_TOKEN"):
            raise typer.BadParameter("a token is for an Airflow elsewhere: give --url too", param_hint="--token")
        return None
    return Elsewhere(url, Credentials(token, *(environ.get(f"TAXIWAY_AIRFLOW_{name}", "") for name in ("USERNAME", "PASSWORD"))))


@contextmanager
def connected(where: Elsewhere) -> Iterator[AirflowClient]:
    """A client of the Airflow there, once it is known to be one."""
    from taxiway.integrations.airflow_rest import AirflowClient  # noqa: PLC0415

    with AirflowClient(where.url, where.credentials) as client:
        client.recognise()
        yield client


@contextmanager
def records(where: Elsewhere | None, project: Project | None) -> Iterator[Records]:
    """The runs there, or those of the project, whether its Airflow runs or not."""
    from taxiway.integrations.airflow_archive import Archive  # noqa: PLC0415

    if where:
        with connected(where) as client:
            yield client
    elif project:
        yield Archive(project.home)
    else:
        raise OperatorError("there is no project here", hint="change to its folder, or give --url")


def find_run(name: str, known: Records) -> Run:
    """A run by `PIPELINE` (its latest), by its id or a part of it that no other run has, or by `PIPELINE/RUN`; raise InputError."""
    dag, slash, part = name.partition("/") if "/" in name else ("~", "", name)
    if not part or not dag:
        raise InputError(f"{name!r} names no run", hint=_HINT)
    if not slash and (latest := _of(known, part, "", 1)):
        return latest[0]
    found = _of(known, dag, part, _READ)
    exact = [run for run in found if run.id == part]
    # A few letters may stand anywhere; where an id begins, one is enough.
    close = exact or [run for run in found if run.id.startswith(part) or len(part) >= _LEAST]
    if len(close) == 1:
        return close[0]
    if not close:
        raise InputError(f"no run {name!r}", hint=_HINT)
    listed = "".join(f"\n    {run.dag}/{run.id}  {run.state}" for run in close[:_LISTED])
    more = f"\n    and {len(close) - _LISTED} more" if len(close) > _LISTED else ""
    raise InputError(f"{name!r} fits {len(close)} runs:{listed}{more}", hint="give more of the id, or PIPELINE/RUN")


_HINT = "give PIPELINE, RUN or PIPELINE/RUN; `taxiway runs` lists them"


def _of(known: Records, dag: str, containing: str, limit: int) -> list[Run]:
    from taxiway.integrations.airflow_rest import NotThere  # noqa: PLC0415

    try:
        return known.runs(dag, containing=containing, limit=limit)
    except NotThere:  # no such DAG
        return []
