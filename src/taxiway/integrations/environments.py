"""Python environments: installed once by uv from wheels, shared by content and trust, read-only afterwards.

No code of a package runs while it is installed: wheels have no build hooks, the project itself is never built, and the
interpreter that compiles the bytecode reads no `.pth` file of the new environment.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import stat
import sys
import sysconfig
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from packaging.version import Version

from taxiway import __version__
from taxiway.errors import NotTrusted, OperatorError, ProjectError
from taxiway.home import Home
from taxiway.integrations import bubblewrap
from taxiway.integrations.installing import Installer
from taxiway.integrations.requirements import Requirements, read_requirements
from taxiway.ports import Cancellation, Environment
from taxiway.project import read_project

__all__ = ["UvEnvironments"]

_FORMAT = 2
_MARKER = ".taxiway-complete"


@dataclass(frozen=True)
class UvEnvironments:
    """Environments below `home.environments`. Projects that the policy trusts and those that it does not never share one.

    What is not `trusted` is installed inside a sandbox, with the package index as the only way out; `unisolated` lets it be
    installed like the rest where no sandbox works. `environ` is where the machine's index, certificate and proxy settings come
    from; nothing else of it is used but HOME.
    """

    home: Home
    trusted: bool = False
    unisolated: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def project(self, checkout: Path, stop: Cancellation) -> Environment:
        """The dependencies that the project's manifest or its own files name, installed if they are not; raise ProjectError
        where the files are wrong or cannot be met, TransientError where the index does not answer, NotTrusted where they may not be
        installed here."""
        requirements = read_requirements(checkout, read_project(checkout).manifest.install)
        lacking = bubblewrap.available()
        if requirements.lines and lacking and not (self.trusted or self.unisolated):
            raise NotTrusted(
                f"this code is not trusted and its requirements would be installed without isolation: {lacking}",
                hint="install bubblewrap; the policy may trust code that no model writes",
            )
        return self._provide(requirements, "trusted" if self.trusted else "untrusted", stop)

    def tools(self, stop: Cancellation) -> Environment:
        """Taxiway's own pinned tools (ruff, mypy, pytest, coverage)."""
        return self._pinned("tools", stop)

    def browser_tools(self, stop: Cancellation) -> Environment:
        """Taxiway's own pinned Playwright, its pytest plugin and axe-core: apart, as they are large and few pipelines use them."""
        return self._pinned("tools-e2e", stop)

    def _pinned(self, name: str, stop: Cancellation) -> Environment:
        text = files("taxiway.integrations").joinpath(f"{name}.txt").read_text(encoding="utf-8")
        try:
            return self._provide(Requirements(tuple(text.splitlines()), hashed=True), "tools", stop)
        except ProjectError as error:
            raise OperatorError(
                f"Taxiway's own tools cannot be installed: {error.problem}", hint="the package index must offer them"
            ) from error

    def tool(self, name: str, version: str, stop: Cancellation) -> Environment:
        """One tool in a version of a project's choice, from the index and in an environment of its own; raise ProjectError
        where the index does not offer it."""
        return self._provide(Requirements((f"{name}=={Version(version)}",), hashed=False), "tools", stop)

    def _provide(self, requirements: Requirements, share: str, stop: Cancellation) -> Environment:
        key = _key(requirements, share)
        path = self.home.environments / key
        stop.check()
        try:
            self.home.environments.mkdir(parents=True, exist_ok=True)
            self._hold(self.home.environments / f"{key}.used", stop)
            if _complete(path, key):
                return Environment(path, key, cached=True)
            with _locked(self.home.environments / f"{key}.lock", stop) as lock:
                if _complete(path, key):
                    return Environment(path, key, cached=True)
                _remove(path)
                try:
                    self._installer(share).install(path, requirements, stop, lock)
                    _mark(path / _MARKER, key)
                    _make_read_only(path)
                except BaseException:
                    _remove(path)
                    raise
        except OSError as error:
            raise OperatorError(f"cannot write the environment {path}: {error}", hint="free space there, or set TAXIWAY_HOME") from error
        return Environment(path, key, cached=False)

    def _hold(self, mark: Path, stop: Cancellation) -> None:
        """Keep what is in use from being cleaned up, as long as this object lives; the mark's time says when it was last used."""
        handle = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        weakref.finalize(self, os.close, handle)
        _flock(handle, fcntl.LOCK_SH, stop)
        os.utime(handle)

    def _installer(self, share: str) -> Installer:
        if share != "untrusted":
            return Installer(self.home.path / "cache" / "uv", self.environ, isolated=False)
        # What is fetched for code that is not trusted is never what trusted code gets.
        return Installer(self.home.path / "cache" / "uv-untrusted", self.environ, isolated=bubblewrap.available() is None)


def _key(requirements: Requirements, share: str) -> str:
    """All that the content depends on. The versions of unpinned packages are settled by the first install."""
    parts = [
        _FORMAT,
        requirements.text,
        requirements.constraints_text,
        requirements.hashed,
        sys.version,
        sysconfig.get_platform(),
        platform.libc_ver(),
        sys.base_prefix,
        __version__,
        share,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]  # a short path keeps shebangs short


def _mark(place: Path, key: str) -> None:
    place.unlink(missing_ok=True)  # of a package's making it could be a link out of the environment
    with place.open("x", encoding="ascii") as file:
        file.write(key)


def _complete(path: Path, key: str) -> bool:
    try:
        return (path / _MARKER).read_text(encoding="ascii") == key and os.access(path / "bin" / "python", os.X_OK)
    except (OSError, ValueError):
        return False


@contextmanager
def _locked(place: Path, stop: Cancellation) -> Iterator[int]:
    """Hold the lock of one environment. The installer inherits it: should we be killed, it ends before another one starts."""
    handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _flock(handle, fcntl.LOCK_EX, stop)
        yield handle
    finally:
        os.close(handle)


def _flock(handle: int, kind: int, stop: Cancellation) -> None:
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            stop.wait(0.1)


def _make_read_only(path: Path) -> None:
    for folder, _, names in os.walk(path):
        for place in (*(os.path.join(folder, name) for name in names), folder):  # noqa: PTH118 - tens of thousands of files
            mode = os.lstat(place).st_mode
            if not stat.S_ISLNK(mode):
                os.chmod(place, stat.S_IMODE(mode) & 0o555)  # noqa: PTH101


def _remove(path: Path) -> None:
    """Delete a tree that may be read-only."""

    def allow(act: Callable[[str], object], place: str, _: object) -> None:
        with suppress(OSError):
            Path(place).parent.chmod(0o700)
            if not Path(place).is_symlink():  # chmod would follow it out of the tree
                Path(place).chmod(0o700)
            act(place)

    shutil.rmtree(path, onerror=allow)
    if path.exists():
        raise OSError(f"cannot remove {path}")
