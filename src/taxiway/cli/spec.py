"""check, plan, schema."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from taxiway.agents import registry
from taxiway.cli.complete import pipelines
from taxiway.cli.ends import USAGE
from taxiway.cli.filled import defaults_of, fill, filled
from taxiway.compiler import check as checking
from taxiway.compiler import compile_file
from taxiway.compiler.schema import schema_text
from taxiway.compiler.show import as_mermaid
from taxiway.compiler.show import as_text as plan_text
from taxiway.errors import InputError, OperatorError
from taxiway.render import decide
from taxiway.spec import formats

__all__ = ["register"]


class CheckFormat(StrEnum):
    """How problems are written."""

    text = "text"
    json = "json"
    sarif = "sarif"


class PlanFormat(StrEnum):
    """How a plan is written."""

    text = "text"
    json = "json"
    mermaid = "mermaid"


Paths = Annotated[list[Path], typer.Argument(help="Pipeline files, policy files, or folders of them.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    panel = "Pipelines"
    app.command(epilog="Example: taxiway check pipelines/", rich_help_panel=panel)(check)
    app.command(epilog="Example: taxiway plan web_service --param name=hello", rich_help_panel=panel)(plan)
    app.command(epilog="Example: taxiway schema --output schemas/pipeline.schema.json", rich_help_panel=panel)(schema)


def check(paths: Paths, how: Annotated[CheckFormat, typer.Option("--format", help="text, json or sarif.")] = CheckFormat.text) -> None:
    """Check pipelines and policies; every problem with its line. Ends with 1 where there is one, 2 where nothing could be checked."""
    checked = None if any(not path.exists() for path in paths) else checking.check(paths, registry(), _today())
    if checked is None or not checked.files:
        typer.echo(f"error: {_nothing_in(paths)}", err=True)
        raise typer.Exit(USAGE)
    write = {CheckFormat.text: formats.as_text, CheckFormat.json: formats.as_json, CheckFormat.sarif: formats.as_sarif}
    typer.echo(write[how](checked))
    if checked.problems:
        raise typer.Exit(1)


def _nothing_in(paths: list[Path]) -> InputError:
    """Why there is nothing to check, and where there is something."""
    from taxiway.cli.project import find_pipeline, find_project  # noqa: PLC0415

    missing = next((path for path in paths if not path.exists()), None)
    problem = f"no file or folder {missing}" if missing else f"no YAML files in {', '.join(map(str, paths))}"
    hint = "`taxiway new` makes a pipeline"
    with suppress(OperatorError):
        project = find_project(Path.cwd(), os.environ)
        place = project.pipelines
        with suppress(InputError):
            place = find_pipeline(missing.stem, project) if missing and missing.stem else place
        near = place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place
        hint = f"`taxiway check {near}` checks {'that pipeline' if place != project.pipelines else 'the pipelines of this project'}"
    return InputError(problem, hint=hint)


def plan(
    pipeline: Annotated[
        str, typer.Argument(metavar="PIPELINE", help="Id of a pipeline, or the path of its file.", autocompletion=pipelines)
    ],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A param of the run, as `run` takes it.")
    ] = None,
    how: Annotated[PlanFormat, typer.Option("--format", help="text, json or mermaid.")] = PlanFormat.text,
) -> None:
    """Show what a run would do: order, settings, edges, gates and what each stage will touch."""
    from taxiway.cli.models import lines, unrepaired, way_to  # noqa: PLC0415
    from taxiway.cli.params import read_params  # noqa: PLC0415
    from taxiway.cli.repositories import check_repository  # noqa: PLC0415

    try:
        path = _pipeline_file(pipeline)
        known = registry()
        found = compile_file(path, known)
        # A param that was not given has its default, or no value yet.
        values = defaults_of(found) | read_params(param or [], found.params, all_needed=False)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USAGE) from error
    if how is PlanFormat.text:
        shown = filled(found, values)
        shown = replace(shown, stages=tuple(replace(s, when=_decided(s.when, values)) for s in shown.stages))
        way = way_to(found.policy.models.connection if found.policy.models else "", os.environ)
        typer.echo(plan_text(shown, values, lines(shown, known, way), unrepaired(shown, known, way)))
        try:
            check_repository(found, values, known)
        except InputError as error:
            typer.echo(f"\nwarning: {error}", err=True)
        return
    found = replace(found, stages=tuple(replace(s, touches=str(fill(s.touches, values))) for s in found.stages))
    typer.echo(as_mermaid(found) if how is PlanFormat.mermaid else json.dumps(json.loads(found.to_json()), indent=2))


def _pipeline_file(name: str) -> Path:
    """A file by its path, wherever it lies, or a pipeline of the project by its id."""
    from taxiway.cli.project import find_pipeline, find_project, is_policy, is_spec  # noqa: PLC0415

    path = Path(name)
    if path.is_dir():
        raise InputError(f"{name} is a folder", hint=f"name a pipeline in it; `taxiway check {name}` checks all of them")
    if not path.exists() and (is_spec(name) or os.sep in name):
        raise InputError(f"no file {name}", hint="give the path of a pipeline's file, or the id of a pipeline")
    if not path.exists():
        return find_pipeline(name, find_project(Path.cwd(), os.environ))
    if is_policy(path):
        raise InputError(f"{name} is a policy: it has no plan of its own", hint=f"`taxiway check {name}` checks it; plan a pipeline on it")
    return path


def schema(
    compare: Annotated[
        Path | None, typer.Option("--check", exists=True, dir_okay=False, help="End with 1 unless this file is up to date.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it here instead of to the terminal.")] = None,
) -> None:
    """Print the JSON Schema of pipeline files, from the installed agents, for editors."""
    text = schema_text(registry())
    if compare is not None:
        if compare.read_bytes() != text.encode():
            typer.echo(f"{compare} is stale; write it with: taxiway schema --output {compare}", err=True)
            raise typer.Exit(1)
        typer.echo(f"{compare} is up to date")
    elif output is not None:
        output.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {output}")
    else:
        typer.echo(text, nl=False)


def _today() -> date:
    return datetime.now(UTC).date()


def _decided(when: str, values: dict[str, Any]) -> str:
    try:
        return f"{when} ({'it runs' if decide(when, {'params': values}) else 'it is skipped'} with these params)" if when else ""
    except InputError:
        return when
