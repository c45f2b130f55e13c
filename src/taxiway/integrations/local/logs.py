"""The output of a service: one file, bounded by rotation, each line with its time and release."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

__all__ = ["OutputLog", "follow", "last_lines"]

_BYTES = 5_000_000
_LINE = 8_000
_READ = 1_000_000


class OutputLog:
    """Appends lines; a full file moves to `<name>.1`, the one before that is dropped. A full disk loses lines, never the service."""

    def __init__(self, path: Path, *, limit: int = _BYTES) -> None:
        self.path = path
        self._limit = limit

    def write(self, source: str, text: str) -> None:
        """Append what `source` said."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        lines = "".join(f"{now} {source} | {line[:_LINE]}\n" for line in text.splitlines())
        with contextlib.suppress(OSError):
            self._rotate()
            with self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(lines)

    def _rotate(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_size >= self._limit:
                self.path.replace(self.path.with_suffix(self.path.suffix + ".1"))


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log, reaching into the file before it."""
    lines: list[str] = []
    for place in (path.with_suffix(path.suffix + ".1"), path):
        with contextlib.suppress(FileNotFoundError), place.open("rb") as file:
            file.seek(max(0, place.stat().st_size - _READ))
            lines += file.read().decode(errors="replace").splitlines()
    return lines[-count:] if count else []


def follow(path: Path, ended: Callable[[], bool], *, every_s: float = 0.25) -> Iterator[str]:
    """Lines that come after this call, over rotations, until `ended`."""
    file = path.open("rb") if path.exists() else None
    if file:
        file.seek(0, os.SEEK_END)
    return _lines(path, file, ended, every_s)


def _lines(path: Path, file: BinaryIO | None, ended: Callable[[], bool], every_s: float) -> Iterator[str]:
    rest = b""
    try:
        while True:
            over = ended()
            chunk = file.read(_READ) if file else b""
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
            if chunk:
                continue
            if over:
                return
            if _moved(path, file.fileno() if file else None):
                if file:
                    file.close()
                file = path.open("rb")
                continue
            time.sleep(every_s)
    finally:
        if file:
            file.close()


def _moved(path: Path, fd: int | None) -> bool:
    try:
        now = path.stat()
        return fd is None or os.fstat(fd).st_ino != now.st_ino
    except FileNotFoundError:
        return False
