"""A run as it goes: what each stage does, read from Airflow, shown as a table that fills or as lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from taxiway.errors import TransientError
from taxiway.integrations.airflow_rest import AirflowClient, Run, Task
from taxiway.records import Result

__all__ = ["LEAF", "Lines", "LiveTable", "Stage", "View", "follow", "look", "stage_table"]

LEAF = "outcome"
"""The generated last task, which is no stage."""

_BELOW = " " * 11
"""Below what a line says after its time."""
_EVERY_S = 0.5
_LOST_S = 60.0
_OVER = {"success", "failed", "skipped", "upstream_failed", "removed"}
_COLOURS = {
    "success": "green",
    "failed": "red",
    "cancelled": "yellow",
    "upstream_failed": "red",
    "running": "cyan",
    "up_for_retry": "yellow",
    "skipped": "dim",
}
_WORDS = {"": "waiting", "up_for_retry": "waiting to try again", "upstream_failed": "not run", "none": "waiting"}


@dataclass(frozen=True)
class Stage:
    """A stage of a run as of now."""

    id: str
    task: Task | None = None
    result: Result | None = None

    @property
    def state(self) -> str:
        """Airflow's word for its task; `failed` where the run went on after its failure, `cancelled` where it was stopped."""
        if self.task is None:
            return ""
        told = (self.task.state, self.result.outcome if self.result else "")
        return told[1] if told in (("success", "failed"), ("failed", "cancelled")) else told[0]

    @property
    def word(self) -> str:
        """The state, for people."""
        return _WORDS.get(self.state, self.state)

    @property
    def tries(self) -> int:
        """Tries so far."""
        return self.task.tries if self.task else 0

    def seconds(self, now: float) -> str:
        """Of the last try; "" where nothing was done."""
        if self.task is None or not self.task.started or self.task.state in ("skipped", "upstream_failed", "removed"):
            return ""
        return f"{self.task.seconds(now):.1f}"


class View(Protocol):
    """Where a run is shown."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def show(self, run: Run, stages: Sequence[Stage]) -> None:
        """What there is now."""

    def say(self, text: str) -> None:
        """A line that stays."""


def look(client: AirflowClient, run: Run, order: Sequence[str], before: Sequence[Stage] = ()) -> list[Stage]:
    """All stages as of now; Results are read once, when a stage, or a try of it, is over."""
    known = {s.id: s for s in before}
    tasks = {t.id: t for t in client.tasks(run.dag, run.id) if t.id != LEAF}
    names = [*order, *sorted((t for t in tasks if t not in order), key=lambda t: (tasks[t].started or float("inf"), t))]
    return [_stage(client, run, name, tasks.get(name), known.get(name)) for name in names]


def _stage(client: AirflowClient, run: Run, name: str, task: Task | None, known: Stage | None) -> Stage:
    # A try that failed leaves why until the next one begins.
    if task is None or task.state not in {*_OVER, "up_for_retry"}:
        return Stage(name, task)
    if known and known.task == task and known.result:
        return known
    return Stage(name, task, client.result(run.dag, run.id, name, map_index=task.map_index))


@dataclass
class _Patience:
    """How long an Airflow that does not answer is waited for."""

    check: Callable[[], None]
    since: float = 0.0

    def lost(self) -> bool:
        """Count a failure; whether it lasts too long. Raises what `check` says of the server."""
        self.check()
        self.since = self.since or time.monotonic()
        return time.monotonic() - self.since > _LOST_S


def follow(
    client: AirflowClient, run: Run, order: Sequence[str], view: View, *, check: Callable[[], None], each: Callable[[Run], None]
) -> tuple[Run, list[Stage]]:
    """Show the run until it ended. `check` raises if the server ended; `each` is called with every look, and may cancel."""
    stages: list[Stage] = [Stage(name) for name in order]
    patience = _Patience(check)
    while True:
        try:
            run = client.run(run.dag, run.id)
            # Tasks are read after the run: at the end they are all in their last state.
            stages = look(client, run, order, stages)
            patience = replace(patience, since=0.0)
        except TransientError:
            if patience.lost():
                raise
        view.show(run, stages)
        if run.over:
            return run, stages
        each(run)
        time.sleep(_EVERY_S)


@dataclass
class Lines:
    """A line for every change of a stage: for logs and pipes."""

    console: Console
    _shown: dict[str, tuple[str, int]] = field(default_factory=dict)
    _repairs: dict[str, int] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(f"{time.monotonic() - self._began:7.1f}  {text}", markup=False, highlight=False, soft_wrap=True)

    def show(self, run: Run, stages: Sequence[Stage]) -> None:
        """What changed."""
        del run
        for stage in stages:
            now = (stage.state, stage.tries)
            if stage.state in ("", "scheduled", "queued") or self._shown.get(stage.id) == now:
                continue
            self._shown[stage.id] = now
            repairs = stage.result.repairs if stage.result else ()
            for number, text in list(enumerate(repairs, 1))[self._repairs.get(stage.id, 0) :]:
                self.say(f"{stage.id}: repair {number} was commit {_flat(text)}")
            self._repairs[stage.id] = max(len(repairs), self._repairs.get(stage.id, 0))
            self.say(self._line(stage))

    def _line(self, stage: Stage) -> str:
        text = f"{stage.id}: {stage.word}"
        if stage.tries > 1:
            text += f", try {stage.tries}"
        if stage.state in ("success", "failed") and (took := stage.seconds(time.time())):
            text += f" in {took} s"
        if stage.result and stage.result.summary:
            text += f": {_told(stage.result.summary, _BELOW, _flat)}"
        return text


class LiveTable:
    """A table that fills: for terminals."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """A line above the table."""
        self._console.print(text, markup=False, highlight=False)

    def show(self, run: Run, stages: Sequence[Stage]) -> None:
        """Draw it anew."""
        self._live.update(stage_table(stages, title=f"{run.dag} {run.state}"))


def stage_table(stages: Sequence[Stage], title: str = "") -> Table:
    """Stages, states, tries, seconds."""
    table = Table(title=escape(title) or None, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("tries", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("summary", overflow="fold")
    now = time.time()
    for stage in stages:
        style = _COLOURS.get(stage.state, "")
        state = f"[{style}]{escape(stage.word)}[/]" if style else escape(stage.word)
        summary = _told(stage.result.summary, "", _short) if stage.result else ""
        table.add_row(escape(stage.id), state, str(stage.tries or ""), stage.seconds(now), escape(summary))
    return table


def _told(summary: str, indent: str, line: Callable[[str], str]) -> str:
    """Each part as `line` makes one of it: what was done or went wrong, and of an error its hint below."""
    problem, _, hint = summary.partition("\n  hint: ")
    return f"{line(problem)}\n{indent}hint: {line(hint)}" if hint else line(problem)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _short(text: str) -> str:
    line = _flat(text)
    return line if len(line) <= 160 else f"{line[:159]}…"  # noqa: PLR2004 - two lines of a terminal
