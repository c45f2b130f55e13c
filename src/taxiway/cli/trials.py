"""test: pipelines against what is expected of them, without Airflow and without keys."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taxiway.cli.texts import flowing
from taxiway.errors import InputError, Problem, SpecError

if TYPE_CHECKING:
    from taxiway.testing.cases import Case
    from taxiway.testing.trial import Tried

__all__ = ["register"]


class Format(StrEnum):
    """How what came of them is written."""

    text = "text"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="test", rich_help_panel="Pipelines", help=flowing(run_tests.__doc__ or ""))(run_tests)


def run_tests(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Files of test cases.", exists=True, dir_okay=False)],
    only: Annotated[
        str, typer.Option("--only", "-k", metavar="TEXT", help="Only cases with this in their names.", show_default=False)
    ] = "",
    how: Annotated[Format, typer.Option("--format", help="text or json.")] = Format.text,
) -> None:
    """Run the test cases of pipelines: their stages for real, with models that say what the case says. Needs no Airflow and no key.

    A line for each case, and below it what is not as expected. Ends with 1 where a case failed or a file is wrong.

    [bold]Examples[/bold]

      taxiway test tests/feature.yaml
      taxiway test tests/*.yaml --only repair --format json
    """
    from taxiway.agents import registry  # noqa: PLC0415 - what a command needs is loaded when it runs
    from taxiway.home import find_home  # noqa: PLC0415
    from taxiway.testing.cases import load_cases  # noqa: PLC0415
    from taxiway.testing.trial import try_case  # noqa: PLC0415

    # What stages log is for people who look into one; without a handler Python prints its warnings.
    logging.getLogger("taxiway").addHandler(logging.NullHandler())
    agents = registry()
    cases: list[Case] = []
    problems: list[Problem] = []
    for path in files:
        try:
            cases += load_cases(path, agents)
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    chosen = [case for case in cases if only in case.name]
    if not chosen:
        raise InputError(f"no case has {only!r} in its name", hint=f"there is {', '.join(case.name for case in cases)}")
    environments = find_home(Path.cwd(), os.environ)
    done = []
    for case in chosen:
        done.append(try_case(case, agents, environments=environments))
        if how is Format.text:
            typer.echo(_told(done[-1]))
    failed = sum(bool(tried.problems) for tried in done)
    if how is Format.json:
        typer.echo(json.dumps([_data(tried) for tried in done], indent=2))
    else:
        typer.echo(f"{len(done) - failed} passed, {failed} failed")
    if failed:
        raise typer.Exit(1)


def _told(tried: Tried) -> str:
    spent = f"; {tried.cost}" if tried.cost else ""
    head = f"{'FAILED' if tried.problems else 'passed'}  {tried.file}: {tried.case} ({tried.seconds:.1f} s{spent})"
    return "\n".join([head, *("        " + problem.replace("\n", "\n          ") for problem in tried.problems)])


def _data(tried: Tried) -> dict[str, object]:
    cost = tried.cost.model_dump(mode="json") if tried.cost else None
    return {**asdict(tried), "passed": not tried.problems, "cost": cost, "seconds": round(tried.seconds, 2)}
