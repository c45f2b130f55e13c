"""The log of a run's stages as lines for people: what was said when, without Airflow's own housekeeping."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from taxiway.cli.reach import Records
from taxiway.cli.watching import LEAF
from taxiway.errors import InputError
from taxiway.integrations.airflow_rest import Run, Task

__all__ = ["LogView", "chosen_tasks", "lines_of", "visible"]

_EVERY_S = 1.0
_STYLES = {"error": "red", "critical": "red", "warning": "yellow"}
_LOUD = ("warning", "error", "critical")
_KNOWN = {"timestamp", "event", "level", "logger", "error_detail", "chan", "filename", "lineno", "loc", "ti", "ti_id"}
_KNOWN |= {"dag_id", "run_id", "task_id", "map_index", "try_number"}
_UNSEEN = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069]"
)


def visible(text: str) -> str:
    """Without what moves a terminal's cursor, colours it or hides text: logs hold what projects print."""
    return _UNSEEN.sub("", text)


def chosen_tasks(known: Records, run: Run, stage: str) -> list[Task]:
    """The tasks of a stage, all where none is named, in the order in which they began; raise InputError for an unknown one."""
    tasks = sorted(known.tasks(run.dag, run.id), key=lambda t: (t.started or float("inf"), t.id == LEAF, t.id, t.map_index))
    found = [t for t in tasks if not stage or t.id == stage or t.id.startswith(f"{stage}.")]
    if stage and not found:
        names = ", ".join(dict.fromkeys(t.id for t in tasks)) or "none"
        raise InputError(f"run {run.id} of {run.dag} has no stage {stage!r}", hint=f"it has {names}")
    return found


def lines_of(events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Level and text of each line, of one event maybe several. What Airflow folds into groups in its UI is its own housekeeping."""
    folded = False
    for event in events:
        said, level = str(event.get("event", "")), str(event.get("level", "")).lower()
        if said.startswith(("::group::", "::endgroup::")) and event.get("logger", "task") == "task":
            folded = said.startswith("::group::")
        elif not folded or level in _LOUD:
            yield from ((level, line) for line in _lines(event, said))


def _lines(event: Mapping[str, Any], said: str) -> Iterator[str]:
    more = "".join(f" {key}={value}" for key, value in event.items() if key not in _KNOWN)
    moment = _clock(event.get("timestamp"))
    for number, line in enumerate([said + more, *map(_error, event.get("error_detail") or ())]):
        first, *rest = visible(line).split("\n")
        yield f"{' ' * len(moment) if number else moment}  {first}".rstrip()
        yield from (f"{' ' * len(moment)}  {line}".rstrip() for line in rest)


def _error(detail: Mapping[str, Any]) -> str:
    kind, value = str(detail.get("exc_type")), str(detail.get("exc_value"))
    # Airflow's exceptions only carry ours to it.
    return value if kind.startswith("Airflow") and value else f"{kind}: {value}"


def _clock(moment: object) -> str:
    try:
        return datetime.fromisoformat(str(moment)).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return " " * 8


@dataclass
class LogView:
    """Prints the logs of one run, and remembers how far."""

    console: Console
    known: Records
    run: Run
    _seen: dict[tuple[str, int, int], int] = field(default_factory=dict)
    _last: tuple[str, int, int] | None = None

    def show(self, tasks: Sequence[Task], attempt: int) -> int:
        """Print what is new of each task's try `attempt` (0: the last); how many lines that were."""
        printed = 0
        for task in tasks:
            number = attempt or task.tries
            printed += self._show(task, number) if number else 0
        return printed

    def follow(self, choose: Callable[[], Sequence[Task]], attempt: int, ended: Callable[[], str]) -> str:
        """Print until the run is over, or until `ended` says why no more will come; what it said."""
        while True:
            # Asked before the logs are read: what was written by then is printed.
            self.run = self.known.run(self.run.dag, self.run.id)
            why = "" if self.run.over else ended()
            self.show(choose(), attempt)
            if self.run.over or why:
                return why
            time.sleep(_EVERY_S)

    def _show(self, task: Task, number: int) -> int:
        key = (task.id, task.map_index, number)
        events = self.known.log(self.run.dag, self.run.id, task.id, number, map_index=task.map_index)
        lines = list(lines_of(events))
        lines, self._seen[key] = lines[self._seen.get(key, 0) :], len(lines)
        if lines and key != self._last:
            cell = f"[{task.map_index}]" if task.map_index >= 0 else ""
            tries = f", try {number} of {task.tries}" if task.tries > 1 else ""
            self.console.print(Text(f"--- {task.id}{cell}: {task.state or 'waiting'}{tries}", style="bold"), soft_wrap=True)
            self._last = key
        for level, line in lines:
            self.console.print(Text(line, style=_STYLES.get(level, "")), soft_wrap=True)
        return len(lines)
