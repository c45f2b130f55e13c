"""The lines that one attempt logs, kept beside its reports: whoever explains a failure cannot see where Airflow keeps them."""

from __future__ import annotations

import logging
from collections import deque

__all__ = ["AttemptLog"]

_HALF = 100_000
"""Characters kept of the beginning, and as many of the end."""


class AttemptLog(logging.Handler):
    """Keeps the first and the last lines; what is left out in between is said."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._first, self._last = list[str](), deque[str]()
        self._room, self._length, self._lost = _HALF, 0, 0

    def logger(self, log: logging.Logger) -> logging.Logger:
        """A logger whose lines are kept here and go on to `log`; those of other attempts that use `log` are not."""
        own = logging.Logger(log.name)  # noqa: LOG001 - a registered one would stay, and be shared
        own.parent = log
        own.addHandler(self)
        return own

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        line = self.format(record)[:_HALF]
        if not self._last and len(line) <= self._room:
            self._first.append(line)
            self._room -= len(line)
            return
        self._last.append(line)
        self._length += len(line)
        while self._length > _HALF:
            self._length -= len(self._last.popleft())
            self._lost += 1

    def text(self) -> str:
        """All that was kept."""
        gap = [f"... {self._lost} lines are left out here"] if self._lost else []
        return "".join(f"{line}\n" for line in (*self._first, *gap, *self._last))
