"""What a shell offers after TAB: read from files of this machine, never from the network, and silent where that fails."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from taxiway.cli.project import Project

__all__ = ["agents", "examples", "pipelines", "runs_known", "services", "stages"]

_RUNS = 50


def pipelines(incomplete: str) -> list[str]:
    """Ids of the project's pipelines."""
    from taxiway.cli.project import known_pipelines  # noqa: PLC0415 - every command loads this module
    from taxiway.errors import TaxiwayError  # noqa: PLC0415

    project = _project()
    try:
        return [name for name in known_pipelines(project) if name.startswith(incomplete)] if project else []
    except TaxiwayError:
        return []


def runs_known(incomplete: str) -> list[str]:
    """Pipelines that were run, then their runs, newest first."""
    from taxiway.errors import TaxiwayError  # noqa: PLC0415
    from taxiway.integrations.airflow_archive import Archive  # noqa: PLC0415

    project = _project()
    try:
        found = Archive(project.home).runs(limit=_RUNS) if project else []
    except TaxiwayError:
        return []
    names = [*dict.fromkeys(run.dag for run in found), *(f"{run.dag}/{run.id}" for run in found), *(run.id for run in found)]
    return [name for name in names if name.startswith(incomplete)]


def stages(context: typer.Context, incomplete: str) -> list[str]:
    """Stages of the run that was named before."""
    from taxiway.cli.logs import chosen_tasks  # noqa: PLC0415
    from taxiway.cli.reach import find_run  # noqa: PLC0415
    from taxiway.errors import TaxiwayError  # noqa: PLC0415
    from taxiway.integrations.airflow_archive import Archive  # noqa: PLC0415

    # After `--from` nothing is parsed: an option without its value leaves the words before it as they stand.
    project, run = _project(), context.params.get("run") or next(iter(context.args), "")
    if project is None or not run:
        return []
    try:
        known = Archive(project.home)
        found = chosen_tasks(known, find_run(run, known), "")
    except TaxiwayError:
        return []
    return [name for name in dict.fromkeys(task.id for task in found) if name.startswith(incomplete)]


def services(incomplete: str) -> list[str]:
    """Services that were deployed here."""
    project = _project()
    if project is None:
        return []
    folder = project.home.services
    try:
        return sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name.startswith(incomplete) and p.name[0] != ".")
    except OSError:
        return []


def agents(incomplete: str) -> list[str]:
    """Installed agents."""
    from taxiway.agents import registry  # noqa: PLC0415

    return [name for name in registry() if name.startswith(incomplete)]


def examples(incomplete: str) -> list[str]:
    """Pipelines that Taxiway ships."""
    from taxiway.cli.examples import shipped  # noqa: PLC0415

    return [name for name in shipped() if name.startswith(incomplete)]


def _project() -> Project | None:
    from taxiway.cli.project import find_project  # noqa: PLC0415
    from taxiway.errors import TaxiwayError  # noqa: PLC0415

    try:
        return find_project(Path.cwd(), os.environ)
    except (TaxiwayError, OSError):
        return None
