"""detect: what a project says about itself, and what Taxiway makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taxiway.errors import ProjectError
from taxiway.manifest import MANIFEST

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: taxiway detect ../my-library --write")(detect)


def detect(
    path: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of the project.")] = Path(),
    write: Annotated[bool, typer.Option("--write", help=f"Write it to {MANIFEST}, unless there is one.")] = False,
) -> None:
    """Show how validate would install and test a project, and why. Reads its files, runs nothing, asks no index."""
    from taxiway.integrations.requirements import read_requirements  # noqa: PLC0415 - no other command reads projects by itself
    from taxiway.project import as_yaml, read_project  # noqa: PLC0415

    project = read_project(path)
    requirements = read_requirements(path, project.manifest.install)
    for reason in project.reasons:
        typer.echo(f"found: {reason}")
    typer.echo(f"would install: {', '.join(line.split(' --hash')[0] for line in requirements.lines) or 'nothing'}")
    text = as_yaml(project.manifest)
    typer.echo(f"as {MANIFEST}:\n\n{text}", nl=False)
    if not write:
        return
    try:
        with (path / MANIFEST).open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ProjectError(f"there is a {MANIFEST} already, and it stays as it is", hint="edit it, or remove it first") from error
    typer.echo(f"\nwrote {path / MANIFEST}")
