"""A process's output, kept within a limit: how it began and how it ended, with a note of what lies between."""

from __future__ import annotations

__all__ = ["Bounded"]


class Bounded:
    """Takes any number of bytes and keeps at most `limit` of them: the first half and the last half."""

    def __init__(self, limit: int) -> None:
        self._head_limit = max(limit, 0) // 2
        self._tail_limit = max(limit, 0) - self._head_limit
        self._head = bytearray()
        self._tail = bytearray()
        self._cut = 0

    @property
    def truncated(self) -> bool:
        """Whether `text` leaves something out."""
        return self._cut + max(0, len(self._tail) - self._tail_limit) > 0

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        room = self._head_limit - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        # Trimming at twice the limit moves every byte once on average, whatever the size of the pieces.
        if len(self._tail) > 2 * self._tail_limit + 65536:
            self._trim()

    def text(self) -> str:
        """All of it, or head and tail with the number of bytes between; what is not UTF-8 becomes U+FFFD."""
        self._trim()
        head, tail = self._head, self._tail
        if not self._cut:
            return (head + tail).decode(errors="replace")
        note = f"\n[... {self._cut} bytes cut ...]\n"
        return head.decode(errors="replace") + note + tail.decode(errors="replace")

    def _trim(self) -> None:
        if (extra := len(self._tail) - self._tail_limit) > 0:
            del self._tail[:extra]
            self._cut += extra
