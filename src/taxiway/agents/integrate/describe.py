"""What a pull request says: text from stages stands in code spans, where a forge reads neither mentions nor commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from taxiway.agents.integrate.task import Task
from taxiway.ports import SOURCE_TRAILER, Merge
from taxiway.records import Result, Verdict

__all__ = ["body", "message", "status"]

_LONGEST = 300
_DECIDED = 20


def body(task: Task, tried: Merge, verdicts: tuple[Verdict, ...]) -> str:
    """Markdown: what the run did, its gates, what models cost so far, what was decided, and the trailers."""
    stage = task.stage
    parts = [
        f"Run {_code(stage.run)} of pipeline {_code(stage.pipeline)} offers commit {stage.commit} for {_code(task.into)}.",
        _measured(task, tried, verdicts),
        _table("Stages", ("stage", "result"), ((n, r.summary or r.outcome) for n, r in stage.results.items())),
        _table("Gates", ("stage", "gate", "wanted", "measured", "verdict"), _gates(stage.results)),
        _table("Models", ("stage", "asked"), ((n, str(r.cost)) for n, r in stage.results.items() if r.cost)),
        _decided(task, tried),
        f"```\n{_trailers(task)}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def message(task: Task, tried: Merge) -> str:
    """What stands below the title of the commit that the forge makes: a second attempt finds its work by the trailers."""
    return "\n\n".join(filter(None, [tried.told, _trailers(task)]))


def status(task: Task, tried: Merge, verdicts: tuple[Verdict, ...]) -> str:
    """One line for the commit status."""
    stages = ", ".join(dict.fromkeys(v.stage for v in verdicts))
    return f"{stages} passed on the merge with {task.into} at {tried.base[:7]}" if stages else "no gate is required"


def _measured(task: Task, tried: Merge, verdicts: tuple[Verdict, ...]) -> str:
    stages = ", ".join(_code(name) for name in dict.fromkeys(v.stage for v in verdicts))
    what = f"the gates of {stages} passed" if stages else "no gate is required"
    return f"On the merge with {_code(task.into)} at {tried.base} ({tried.commit}) {what}."


def _gates(results: Mapping[str, Result]) -> Iterator[tuple[str, ...]]:
    for name, result in results.items():
        for reading in result.gates:
            measured = "not measured" if reading.measured is None else f"{reading.measured:g}"
            yield name, reading.metric, reading.wanted, measured, "passed" if reading.passed else "failed"


def _table(heading: str, columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(_code(text) for text in row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"### {heading}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *lines])


def _decided(task: Task, tried: Merge) -> str:
    shown, rest = tried.decided[:_DECIDED], len(tried.decided) - _DECIDED
    if task.conflicts == "ask_model":
        rows = ((h.path, str(h.line), h.reason) for h in shown)
        table = _table("Conflicts decided by a model", ("file", "line", "confidence and reason"), rows)
    else:
        table = _table(f"Conflicts decided for {task.conflicts}", ("file", "line"), ((h.path, str(h.line)) for h in shown))
    return f"{table}\n\nand {rest} more, in the stage's decided.md" if rest > 0 else table


def _trailers(task: Task) -> str:
    found = {**task.stage.trailers, SOURCE_TRAILER: task.stage.commit, **task.costs()}
    return "\n".join(f"{name}: {value}" for name, value in found.items())


def _code(text: str) -> str:
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST]
    return f"`{plain.replace('`', chr(39)).replace('|', chr(92) + '|')}`" if plain else ""
