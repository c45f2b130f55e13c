"""new, agents: to begin with, and to look up while writing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taxiway.cli.complete import agents as agent_names
from taxiway.cli.complete import examples
from taxiway.cli.ends import USAGE
from taxiway.cli.texts import flowing
from taxiway.errors import InputError, OperatorError

if TYPE_CHECKING:
    from taxiway.cli.new import Draft
    from taxiway.compiler import Plan

__all__ = ["register"]


class Format(StrEnum):
    """How agents are shown."""

    text = "text"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (new, agents):
        app.command(rich_help_panel="Pipelines", help=flowing(command.__doc__ or ""))(command)


# --- new ------------------------------------------------------------------------------------------


def new(
    name: Annotated[str, typer.Argument(help="Id of the pipeline; without it the example's.", show_default=False)] = "",
    example: Annotated[
        str, typer.Option("--from", metavar="EXAMPLE", help="The example to begin with.", autocompletion=examples, show_default=False)
    ] = "",
    answers: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An answer: description, owner, or the default of a param.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write it, instead of pipelines/NAME.yaml; missing folders are made."),
    ] = None,
) -> None:
    """Make a pipeline from an example: asks on a terminal, and takes the example's answers without one.

    It is written to `pipelines/`, which is made where there is none, with the policy that it stands on. Nothing that is there
    is overwritten.

    [bold]Examples[/bold]

      taxiway new
      taxiway new shop --from web_service --set owner=ada
    """
    from taxiway.cli.new import Draft, write  # noqa: PLC0415 - what a command needs is loaded when it runs

    asks = sys.stdin.isatty() and sys.stdout.isatty()
    try:
        draft = Draft(_chosen(example, asks=asks))
        _answer(draft, name, answers or [], asks=asks)
        place = output or _folder() / f"{draft.pipeline}.yaml"
        if not place.name.lower().endswith((".yaml", ".yml")):
            raise InputError(f"{place} would not be taken for a pipeline", hint="let its name end in .yaml")
        _refuse_taken(draft, place.parent)
        files, plan = write(draft, place)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USAGE) from error
    for path in files:
        typer.echo(f"wrote {_near(path)}")
    typer.echo(f"next: taxiway plan {_near(place)}, then {_to_run(plan, place)}")


def _to_run(plan: Plan, place: Path) -> str:
    from taxiway.cli.params import needed, to_give  # noqa: PLC0415

    command = " ".join(filter(None, [f"taxiway run {plan.pipeline}", to_give(needed(plan.params))]))
    folder = _folder()
    return (
        command
        if place.parent.resolve() == folder.resolve()
        else f"move it, with its policies/, to {_near(folder)}/, which Airflow reads, and {command}"
    )


def _chosen(example: str, *, asks: bool) -> Path:
    from taxiway.cli.examples import shipped  # noqa: PLC0415

    known = shipped()
    if not example and asks and len(known) > 1:
        for name, path in known.items():
            typer.echo(f"  {name:<16} {_description(path)}")
        example = typer.prompt("From which example", default=_first(known))
    name = example or _first(known)
    if name not in known:
        raise InputError(f"there is no example {name!r}", hint=f"there is {', '.join(known)}")
    return known[name]


def _first(known: dict[str, Path]) -> str:
    return "web_service" if "web_service" in known else next(iter(known))


def _description(path: Path) -> str:
    import yaml  # noqa: PLC0415

    return str(yaml.safe_load(path.read_text(encoding="utf-8")).get("description") or "")


def _answer(draft: Draft, name: str, given: list[str], *, asks: bool) -> None:
    from taxiway.cli.new import as_answer  # noqa: PLC0415

    if asks and not name:
        _until_good("Id of the pipeline", draft.pipeline, draft.name)
    elif name:
        draft.name(name)
    answered = set()
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text}: no value", hint="write --set owner=ada")
        draft.answer(draft.question(key), value)
        answered.add(key)
    for question in list(draft.questions()) if asks else []:
        if question.name not in answered:
            _until_good(question.about, as_answer(question.default), lambda text, q=question: draft.answer(q, text))


def _until_good(words: str, default: str, take: Any) -> None:
    while True:
        text = typer.prompt(words, default=default, show_default=bool(default))
        try:
            take(text)
        except InputError as error:
            typer.echo(f"  {error}")
        else:
            return


def _folder() -> Path:
    """The project's `pipelines/`, or one in this folder."""
    from taxiway.cli.project import find_project  # noqa: PLC0415

    try:
        return find_project(Path.cwd(), os.environ).pipelines
    except OperatorError:
        return Path.cwd() / "pipelines"


def _refuse_taken(draft: Draft, folder: Path) -> None:
    from taxiway.cli.project import pipeline_files  # noqa: PLC0415

    for path, declared in pipeline_files(folder):
        if declared == draft.pipeline:
            raise InputError(f"there is a pipeline {declared} already, in {_near(path)}", hint="give another name: taxiway new NAME")


def _near(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


# --- agents ---------------------------------------------------------------------------------------


def agents(
    name: Annotated[
        str, typer.Argument(help="This agent, with all that it declares.", autocompletion=agent_names, show_default=False)
    ] = "",
    how: Annotated[Format, typer.Option("--format", help="text or json.")] = Format.text,
) -> None:
    """List the installed agents, or show one: its inputs, metrics, default gates, and an example stage.

    [bold]Examples[/bold]

      taxiway agents
      taxiway agents validate
      taxiway agents --format json
    """
    from taxiway.agents import registry  # noqa: PLC0415
    from taxiway.cli.declared import agent_record  # noqa: PLC0415

    known = registry()
    if name and name not in known:
        typer.echo(f"error: there is no agent {name!r}\n  hint: there is {', '.join(known)}", err=True)
        raise typer.Exit(USAGE)
    found = [agent_record(agent, known) for agent in known.values() if name in ("", agent.name)]
    if how is Format.json:
        typer.echo(json.dumps(found[0] if name else found, indent=2))
    elif name:
        typer.echo("\n".join(_lines(found[0])))
    else:
        width = max(len(record["name"]) for record in found)
        typer.echo("\n".join(f"{record['name']:<{width}}  {record['summary']}" for record in found))


def _lines(record: dict[str, Any]) -> Iterator[str]:
    yield f"{record['name']}: {record['summary']}"
    yield f"touches  {record['touches']}"
    if record["asks"]:
        yield f"model    {record['asks']}"
    if record["after"]:
        yield f"needs    {' or '.join(record['after'])} before it"
    if record["outputs"]:
        yield f"outputs  {', '.join(record['outputs'])}"
    yield from _part("inputs (with)", [_input(field) for field in record["inputs"]] or [["it takes none"]])
    yield from _part("metrics", [[m["name"], m["unit"], m["description"]] for m in record["metrics"]] or [["it measures nothing"]])
    yield from _part("default gates", [[gate] for gate in record["gates"]])
    yield from ("", "example", *(f"  {line}" for line in record["example"].splitlines()))


def _input(field: dict[str, Any]) -> list[str]:
    default = "required" if field["required"] else f"default {json.dumps(field['default'], ensure_ascii=False)}"
    return [field["name"], default, field["takes"].replace("`", ""), field["description"]]


def _part(title: str, rows: list[list[str]]) -> Iterator[str]:
    if not rows:
        return
    yield from ("", title)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    yield from ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
