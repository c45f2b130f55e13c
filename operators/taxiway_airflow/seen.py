"""Reads files again only when they may have changed."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

from taxiway.errors import OperatorError

__all__ = ["Seen", "read_plain"]

_RACY_NS = 2_000_000_000


class Seen:
    """Digests of files, known by inode, size and times as git's index knows them."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], str]] = {}

    def digest(self, path: Path) -> str:
        """SHA-256 of the content. Raises OSError where it cannot be read, OperatorError where it is no plain file."""
        status = path.stat()
        signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._known.get(path)
        if known and known[0] == signature:
            return known[1]
        digest = hashlib.sha256(read_plain(path)).hexdigest()
        # A file changed just now may change again without its clock moving on: not yet to be trusted.
        if max(status.st_mtime_ns, status.st_ctime_ns) < time.time_ns() - _RACY_NS:
            self._known[path] = (signature, digest)
        else:
            self._known.pop(path, None)
        return digest

    def keep(self, paths: set[Path]) -> None:
        """Forget all others."""
        for path in self._known.keys() - paths:
            del self._known[path]


def read_plain(path: Path, limit: int = 64 << 20) -> bytes:
    """At most `limit` bytes of a file. Raises OSError where it cannot be read, OperatorError where it is no plain file."""
    # O_NONBLOCK: a named pipe must not hold us up before fstat can refuse it.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OperatorError(f"{path} is no plain file", hint="move it out of the folder of pipelines")
        return file.read(limit)
