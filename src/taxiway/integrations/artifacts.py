"""Artifacts as files below one folder."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from taxiway.errors import OperatorError, ProjectError

__all__ = ["DirectoryArtifacts"]

_LONGEST_PART = 200
_LONGEST_KEY = 1000
_MOST_BYTES = 1_000_000_000


class DirectoryArtifacts:
    """Implements `ports.ArtifactStore`: `file:` URIs below `root`, each file written whole or not at all."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def put(self, key: str, content: bytes | Path) -> str:
        """Store a file and return its URI; raise ProjectError for a key or a file that cannot be kept."""
        target = self._root / _check_key(key)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.parent.resolve().is_relative_to(self._root):
                raise OperatorError(f"{target.parent} leads out of the artifact store", hint="remove the symbolic link")
            self._write(target, content)
        except OSError as error:
            raise OperatorError(
                f"artifact {key} cannot be stored: {error}", hint=f"make room in {self._root}, or let this user write"
            ) from error
        return target.as_uri()

    def _write(self, target: Path, content: bytes | Path) -> None:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".new-", delete=False) as file:
            fresh = Path(file.name)
            try:
                if isinstance(content, Path):
                    _copy(content, file.file)
                else:
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o644)
                fresh.replace(target)
            except BaseException:
                fresh.unlink(missing_ok=True)
                raise

    def get(self, uri: str) -> bytes:
        """The content; raise OperatorError where it is gone or not in this store."""
        path = self._path(uri)
        try:
            return path.read_bytes()
        except OSError as error:
            raise OperatorError(
                f"artifact {uri} cannot be read: {error.strerror}", hint="it was removed, or another machine holds it"
            ) from error

    def _path(self, uri: str) -> Path:
        parts = urlsplit(uri)
        path = Path(unquote(parts.path))
        if (
            parts.scheme != "file"
            or parts.netloc not in ("", "localhost")
            or "\0" in str(path)
            or not path.resolve().is_relative_to(self._root)
        ):
            raise OperatorError(f"{uri[:200]!r} is not in the artifact store {self._root}", hint="another store wrote it")
        return path.resolve()


def _check_key(key: str) -> str:
    parts = key.split("/")
    bad = (
        len(key) > _LONGEST_KEY
        or not key.isprintable()
        or "\\" in key
        or any(part in ("", ".", "..") or part.startswith(".new-") or len(os.fsencode(part)) > _LONGEST_PART for part in parts)
    )
    if bad:
        raise ProjectError(f"{key[:200]!r} cannot be the key of an artifact", hint="use a relative path of plain names")
    return key


def _copy(source: Path, into: IO[bytes]) -> None:
    """Copy a regular file: a link or a device that a project left among its reports would show other files of this machine."""
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ProjectError(
            f"{source} cannot be kept as an artifact: {error.strerror}", hint="reports are regular files, no links"
        ) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ProjectError(f"{source} is no regular file", hint="reports are regular files, no links")
        if found.st_size > _MOST_BYTES:
            raise ProjectError(f"{source} has {found.st_size} bytes, more than {_MOST_BYTES}", hint="write smaller reports")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            shutil.copyfileobj(file, into, 1 << 20)
    finally:
        os.close(descriptor)
