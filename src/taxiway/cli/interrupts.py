"""Ctrl-C and its like: raised where stopping at once is right, counted where something must be settled first."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

__all__ = ["Interrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """A context manager. Inside, each of the signals raises KeyboardInterrupt, or is `counted`.

    Somebody at a terminal who presses Ctrl-C may mean it or not: that counts one. Every other signal counts two.
    """

    def __init__(self) -> None:
        self.count = 0
        self._counting = False
        self._before: dict[int, Any] = {}
        self._tell: Callable[[int], None] = lambda _: None

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Raise nothing in here; `count` tells."""
        before, self._counting = self._counting, True
        try:
            yield
        finally:
            self._counting = before

    def _heard(self, number: int, _: FrameType | None) -> None:
        self.count += 1 if number == signal.SIGINT and sys.stdin and sys.stdin.isatty() else 2
        if not self._counting:
            raise KeyboardInterrupt
