"""What a run leaves on the screen when it ended: stages, gates, commit, URL, reports, and why it failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from taxiway.cli.watching import Stage, stage_table
from taxiway.integrations.airflow_rest import AirflowClient, Run
from taxiway.records import Reading, total_cost

__all__ = ["print_summary"]


def print_summary(
    console: Console,
    client: AirflowClient,
    run: Run,
    stages: Sequence[Stage],
    *,
    log_of: Callable[[Stage], str],
    here: bool = False,
    budget: str = "",
) -> None:
    """Print it; `log_of` says where the log of a stage's last try is, `here` that services run on this machine, `budget` what the
    run's models might cost."""
    console.print()
    console.print(stage_table(stages))
    gates = [(s.id, gate) for s in stages if s.result for gate in s.result.gates]
    if gates:
        console.print()
        console.print(_gate_table(gates))
    console.print()
    for line in [*_failures(client, run, stages, log_of), *_facts(run, stages, here=here, budget=budget)]:
        # Addresses and paths must not be broken into lines, nor read as markup.
        console.print(line, soft_wrap=True, highlight=False)


def _gate_table(gates: Iterable[tuple[str, Reading]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("gate", "metric", "wanted", "measured", "verdict"):
        table.add_column(name, justify="right" if name == "measured" else "left", overflow="fold")
    for stage, gate in gates:
        measured = "not measured" if gate.measured is None else f"{gate.measured:g}"
        table.add_row(escape(stage), escape(gate.metric), escape(gate.wanted), measured, _verdict(gate))
    return table


def _verdict(gate: Reading) -> str:
    note = f" ({escape(gate.note)})" if gate.note else ""
    if gate.passed:
        return f"[green]passed[/]{note}"
    return f"[red]failed[/]{note}" if gate.blocking else f"[yellow]failed, does not block[/]{note}"


def _failures(client: AirflowClient, run: Run, stages: Sequence[Stage], log_of: Callable[[Stage], str]) -> Iterable[str]:
    for stage in stages:
        if stage.state == "failed":
            yield f"[red]{escape(stage.id)} failed[/]: {escape(_reason(client, run, stage))}"
            yield f"  log: {escape(log_of(stage))}"


def _reason(client: AirflowClient, run: Run, stage: Stage) -> str:
    if stage.result and stage.result.summary:
        return stage.result.summary
    if stage.task is None:
        return "it left no reason"
    events = client.log(run.dag, run.id, stage.id, stage.task.tries, map_index=stage.task.map_index)
    for event in reversed(events):
        if details := event.get("error_detail"):
            return str(details[-1].get("exc_value") or details[-1].get("exc_type"))
    errors = [str(e["event"]) for e in events if str(e.get("level", "")).lower() in ("error", "critical")]
    return errors[-1] if errors else stage.task.note or "it left no reason: its process was killed, or lost its server"


def _facts(run: Run, stages: Sequence[Stage], *, here: bool, budget: str) -> Iterable[str]:
    results = [s.result for s in stages if s.result]
    took = f" in {run.ended - run.started:.1f} s" if run.ended and run.started else ""
    colour = "green" if run.state == "success" else "red"
    yield f"run       {escape(run.dag)} {escape(run.id)}: [{colour}]{escape(run.state)}[/]{took}"
    if commit := next((r.commit for r in reversed(results) if r.commit), ""):
        yield f"commit    {commit}"
    if cost := total_cost(results):
        yield f"models    {escape(str(cost))}{f' of {budget}' * bool(budget)}; `taxiway cost {escape(run.dag)}` says by stage"
    for who, made in ((s.id, s.result.repairs) for s in stages if s.result and s.result.repairs):
        yield f"repairs   {escape(who)}: {len(made)}"
        yield from (f"          {escape(line)}" for line in made)
    # After a failed run another release lives there, or none.
    deployed = next((r.outputs for r in reversed(results) if r.outputs.get("url")), {})
    if run.state == "success" and deployed:
        yield f"service   {escape(str(deployed['url']))}"
        if here and (name := deployed.get("service")):
            yield f"          it stays until `taxiway services stop {escape(str(name))}`"
    reports = [(s.id, name, uri) for s in stages if s.result for name, uri in sorted(s.result.artifacts.items())]
    for number, (stage, name, uri) in enumerate(reports):
        yield f"{'' if number else 'reports':<10}{escape(f'{stage}/{name}')}  {escape(_place(uri))}"


def _place(uri: str) -> str:
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme == "file" else uri
