"""Modules on disk: a `current` folder that Airflow watches, and a snapshot for every version that ever was current.

    store/objects/<sha256>.py      every module's content, once
    store/versions/<version>/      one folder a version, hard links to the objects, made by one rename
    store/current/                 copies; only what changed is replaced, so that Airflow parses nothing else
    store/version                  the version of `current`, written last
    store/drafts/                  what is being written; only the holder of the lock has something there

Whatever is killed when, a module or a snapshot is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from taxiway.errors import OperatorError, TransientError
from taxiway_airflow.seen import Seen

__all__ = ["Snapshots"]

_VERSION = re.compile(r"[0-9a-f]{40}")
_LOCK_S = 60.0
_SHARED = 2
"""Links of a module that one version alone has: its own and the object's."""


class Snapshots:
    """The store below `root`. Any number of processes may publish and read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.current = root / "current"
        self._seen = Seen()

    def folder(self, version: str) -> Path:
        """Where a version's snapshot is; ValueError for what is no version. Looks at no disk."""
        if not _VERSION.fullmatch(version):
            raise ValueError(f"{version!r} is no version of a pipeline bundle")
        return self.root / "versions" / version

    def version(self) -> str | None:
        """The version of `current`; None before the first."""
        with contextlib.suppress(FileNotFoundError):
            text = (self.root / "version").read_text(encoding="ascii", errors="replace").strip()
            return text if _VERSION.fullmatch(text) else None
        return None

    def names(self) -> list[str]:
        """The modules in `current`."""
        try:
            return sorted(path.name for path in self.current.iterdir() if path.suffix == ".py")
        except FileNotFoundError:
            return []

    def publish(self, modules: Mapping[str, bytes]) -> str:
        """Make these modules the current ones and return their version. Raises OperatorError where the disk refuses,
        TransientError while another process publishes for longer than a minute; then everything is as it was."""
        digests = {name: _digest(content) for name, content in modules.items()}
        version = _digest("".join(f"{name}\0{digests[name]}\n" for name in sorted(digests)).encode())[:40]
        try:
            if self._stands(version, digests):
                return version
            with self._lock(), self._drafts() as drafts:
                self._snapshot(version, modules, digests, drafts)
                self._replace_current(modules, digests, drafts)
                self._date_replaced(version)
                _write(drafts / "version", version.encode())
                (drafts / "version").replace(self.root / "version")
        except OSError as error:
            raise OperatorError(
                f"cannot write {error.filename or self.root}: {error.strerror or error}",
                hint="free disk space, or give the dag-processor's user the right to write there; the pipelines of before stay",
            ) from error
        return version

    def collect(self, keep: set[str], before: float, *, dry_run: bool) -> list[tuple[str, int]]:
        """Remove the versions that were replaced before then (seconds since the epoch) and are not to be kept; their names and bytes.

        With `dry_run` only name them. Raises OperatorError and TransientError as `publish` does.
        """
        removed: list[tuple[str, int]] = []
        with contextlib.suppress(FileNotFoundError), self._lock(), self._drafts() as drafts:
            keep = {*keep, self.version() or ""}
            for place in sorted((self.root / "versions").iterdir()):
                if place.name not in keep and place.stat().st_mtime < before:
                    removed.append((place.name, sum(f.stat().st_size for f in place.iterdir() if f.stat().st_nlink <= _SHARED)))
                    if not dry_run:
                        place.rename(drafts / place.name)
                        shutil.rmtree(drafts / place.name)
            for module in (self.root / "objects").iterdir() if not dry_run else ():
                if module.stat().st_nlink == 1:  # no version has it; where links do not work it is only made again
                    module.unlink()
        return removed

    def _date_replaced(self, version: str) -> None:
        """A replaced version's time is that of its end: runs that began with it may still be under way."""
        if (last := self.version()) and last != version:
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.folder(last))

    def _stands(self, version: str, digests: Mapping[str, str]) -> bool:
        return self.version() == version and self._current_digests() == digests and self.folder(version).is_dir()

    def _current_digests(self) -> dict[str, str]:
        return {name: self._seen.digest(self.current / name) for name in self.names()}

    def _snapshot(self, version: str, modules: Mapping[str, bytes], digests: Mapping[str, str], drafts: Path) -> None:
        place = self.folder(version)
        if place.is_dir():
            return
        objects = self.root / "objects"
        objects.mkdir(exist_ok=True)
        draft = drafts / version
        draft.mkdir()
        for name, content in modules.items():
            _link(_stored(objects / f"{digests[name]}.py", content, drafts), draft / name)
        place.parent.mkdir(exist_ok=True)
        draft.rename(place)

    def _replace_current(self, modules: Mapping[str, bytes], digests: Mapping[str, str], drafts: Path) -> None:
        self.current.mkdir(exist_ok=True)
        there = self._current_digests()
        changed = [name for name in sorted(modules) if there.get(name) != digests[name]]
        # First everything that needs space, then the renames, which need none: a full disk stops us before we begin.
        for name in changed:
            _write(drafts / name, modules[name])
        for name in changed:
            _age(drafts / name, self.current / name)
            (drafts / name).replace(self.current / name)
        for name in there.keys() - modules.keys():
            (self.current / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a") as file:
            deadline = time.monotonic() + _LOCK_S
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TransientError(
                            f"another process has held {file.name} for {_LOCK_S:.0f} s", hint="see which one with `fuser`, and stop it"
                        ) from None
                    time.sleep(0.05)
            yield

    @contextlib.contextmanager
    def _drafts(self) -> Iterator[Path]:
        drafts = self.root / "drafts"
        # We hold the lock, so what is there was left by a process that was killed.
        shutil.rmtree(drafts, ignore_errors=True)
        drafts.mkdir()
        try:
            yield drafts
        finally:
            shutil.rmtree(drafts, ignore_errors=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)


def _stored(place: Path, content: bytes, drafts: Path) -> Path:
    # Read and compared: after a power cut a file can be there without its bytes.
    if not (place.is_file() and place.read_bytes() == content):
        draft = drafts / f"object-{place.name}"
        _write(draft, content)
        draft.replace(place)
    return place


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links, or one file's links are used up
        shutil.copyfile(source, target)


def _age(draft: Path, place: Path) -> None:
    """Python trusts a .pyc by whole seconds and size, so two versions of a module must not share their second."""
    with contextlib.suppress(FileNotFoundError):
        before, now = int(place.stat().st_mtime), draft.stat()
        if int(now.st_mtime) <= before:
            os.utime(draft, (now.st_atime, before + 1))
