"""`taxiway cost`: what the models of a run did and cost."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taxiway.cli.reach import Token, Url, elsewhere
from taxiway.cli.runs import RunArgument, project_of
from taxiway.cli.texts import flowing
from taxiway.compiler.plan import Budget
from taxiway.errors import TaxiwayError
from taxiway.purse import Line, as_table, lines, priced

if TYPE_CHECKING:
    from taxiway.cli.project import Project
    from taxiway.cli.reach import Records
    from taxiway.compiler.plan import Plan
    from taxiway.integrations.airflow_rest import Run

__all__ = ["RunCost", "began_with", "cost_elsewhere", "cost_here", "register", "told"]


_MODULE = re.compile(r"^dag = build_dag\(('.*?'|\".*?\")(?:, closed=True)?\)$", re.MULTILINE)
"""The line of a module that holds its plan, as `taxiway_airflow` writes it."""


class Format(StrEnum):
    """How it is written."""

    text = "text"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Runs", help=flowing(cost.__doc__ or ""))(cost)


def cost(
    run: RunArgument,
    how: Annotated[Format, typer.Option("--format", help="text or json.")] = Format.text,
    url: Url = "",
    token: Token = "",
) -> None:
    """Show what the models of a run did and cost, by stage and model. Airflow need not run for it.

    Tokens are those of the provider's own count, dollars are at list price (or the policy's `prices:`). Calls that were not answered
    cost nothing; an open one counts with the most that it can cost while its stage runs. With --url it is what the stages handed on.

    [bold]Examples[/bold]

      taxiway cost web_service
      taxiway cost web_service/6f0d6d --format json
    """
    from taxiway.cli.reach import find_run, records  # noqa: PLC0415 - what a command needs is loaded when it runs

    where = elsewhere(url, token)
    project = project_of(where)
    with records(where, project) as known:
        found = find_run(run, known)
        spent = cost_elsewhere(found, known) if where or project is None else cost_here(found, project, known)
    typer.echo(json.dumps(spent.as_data(found), indent=2) if how is Format.json else "\n".join(told(spent, found)))


@dataclass(frozen=True)
class RunCost:
    """The calls of a run's models, and the budget that it began with (None where Airflow does not know its plan any more)."""

    lines: tuple[Line, ...]
    budget: Budget | None = None

    @property
    def usd(self) -> float | None:
        """US dollars in all; None where a price is not known."""
        known = [line.usd for line in self.lines if line.usd is not None]
        return round(sum(known), 6) if len(known) == len(self.lines) else None

    @property
    def tokens(self) -> int:
        """Read, from the cache too, and written, in all."""
        return sum(line.read + line.cached + line.written for line in self.lines)

    def as_data(self, run: Run) -> dict[str, Any]:
        """For programs."""
        return {
            "pipeline": run.dag,
            "run": run.id,
            "usd": self.usd,
            "tokens": self.tokens,
            "budget": {"usd": self.budget.usd, "tokens": self.budget.tokens} if self.budget else None,
            "stages": [asdict(line) for line in self.lines],
        }


def cost_here(run: Run, project: Project, known: Records) -> RunCost:
    """By the ledger of the project's home: what is open and what was not answered, too."""
    from taxiway.integrations.ledger import SqliteLedger  # noqa: PLC0415 - what a command needs is loaded when it runs
    from taxiway.stage import run_key  # noqa: PLC0415

    # Asking must not make a home where there is none.
    calls = SqliteLedger(project.home.ledger).spending(run_key(run.dag, run.id)) if project.home.ledger.exists() else ()
    plan = began_with(run, known)
    found = lines(calls)
    if (prices := plan or _plan(run.dag, project)) and (models := prices.policy.models):
        found = tuple(line if line.usd or priced(line.model, models) else replace(line, usd=None) for line in found)
    return RunCost(found, plan.budget if plan else None)


def cost_elsewhere(run: Run, known: Records) -> RunCost:
    """By what the stages handed on: of each its models together, over all its tries."""
    found = []
    for task in known.tasks(run.dag, run.id):
        result = known.result(run.dag, run.id, task.id, map_index=task.map_index)
        if result and (cost := result.cost):
            counts = (cost.calls, cost.input_tokens, cost.cached_tokens, cost.output_tokens)
            found.append(Line(task.id, ", ".join(cost.models), *counts, cost.usd, cost.replayed))
    plan = began_with(run, known)
    return RunCost(tuple(found), plan.budget if plan else None)


def began_with(run: Run, known: Records) -> Plan | None:
    """The plan of a run, from the module that Airflow keeps of it; None where there is none, or another Taxiway wrote it."""
    from taxiway.compiler import Plan  # noqa: PLC0415

    found = _MODULE.search(known.source_of(run.dag, run.id))
    try:
        return Plan.from_json(str(ast.literal_eval(found[1]))) if found else None
    except (ValueError, TypeError, KeyError, SyntaxError):
        return None


def told(cost: RunCost, run: Run) -> Iterator[str]:
    """For people."""
    if not cost.lines:
        yield f"no model was asked in run {run.id} of {run.dag}"
        return
    yield as_table(cost.lines)
    yield ""
    money = "unknown" if cost.usd is None else f"{cost.usd:.4f} USD"
    yield f"in all   {money}, {cost.tokens} tokens"
    if cost.budget:
        yield f"budget   {' and '.join(_left(cost, cost.budget))}"


def _left(cost: RunCost, budget: Budget) -> Sequence[str]:
    found = []
    if budget.usd is not None:
        found.append(f"{budget.usd:g} USD" + (f" ({max(0.0, budget.usd - cost.usd):.4f} left)" if cost.usd is not None else ""))
    if budget.tokens is not None:
        found.append(f"{budget.tokens} tokens ({max(0, budget.tokens - cost.tokens)} left)")
    return found


def _plan(pipeline: str, project: Project) -> Plan | None:
    """The pipeline as its file is now; None where there is none any more, or a broken one."""
    from taxiway.agents import registry  # noqa: PLC0415
    from taxiway.cli.project import find_pipeline  # noqa: PLC0415
    from taxiway.compiler import compile_file  # noqa: PLC0415

    try:
        return compile_file(find_pipeline(pipeline, project), registry())
    except (TaxiwayError, OSError):
        return None
