"""Talks to the daemon of a service, and starts it where it does not run."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import select
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from taxiway.errors import OperatorError, TransientError
from taxiway.home import Home
from taxiway.integrations.local.state import ERROR_STATUS, LOCKED

__all__ = ["Client", "NotRunning"]

_START_S = 30.0
_CALL_S = 60.0
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "PATH", "PYTHONPATH", "PYTHONUSERBASE", "TMPDIR", "TZ")


class NotRunning(TransientError):
    """No daemon answers for the service."""


@dataclass(frozen=True)
class Client:
    """The daemon of one service of one home."""

    home: Home
    service: str

    @property
    def folder(self) -> Path:
        """Where the service keeps everything."""
        return self.home.services / self.service

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.home.sockets / f"{self.service}.sock"

    def call(self, act: str, **values: Any) -> dict[str, Any]:
        """Ask the daemon; raise NotRunning where none answers, else what it refuses as the error that it is."""
        _own(self.home.sockets)
        connection = _UnixConnection(self.socket)
        try:
            if act == "status":
                connection.request("GET", "/status")
            else:
                connection.request("POST", f"/{act}", json.dumps(values), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise NotRunning(f"no daemon answers for service {self.service}: {error}", hint="taxiway services start") from error
        finally:
            connection.close()
        return self._result(act, answer.status, content)

    def _result(self, act: str, status: int, content: bytes) -> dict[str, Any]:
        for kind, code in ERROR_STATUS.items():
            if status == code:
                said = json.loads(content)
                raise kind(said["problem"], hint=said["hint"])
        if status != http.HTTPStatus.OK:
            raise OperatorError(
                f"the daemon of service {self.service} failed to {act} ({status})", hint=f"see {self.folder / 'daemon.err'}"
            )
        return dict(json.loads(content))

    def status(self) -> dict[str, Any] | None:
        """The daemon's status; None where it does not run."""
        try:
            return self.call("status")
        except NotRunning:
            return None

    def start(self) -> None:
        """See that the daemon runs."""
        until = time.monotonic() + _START_S
        while self.status() is None:
            if time.monotonic() > until:
                raise OperatorError(
                    f"the daemon of service {self.service} does not answer", hint=f"`taxiway services stop {self.service}`, then try again"
                )
            if self._spawn() == LOCKED:
                time.sleep(0.05)

    def _spawn(self) -> str:
        _own(self.home.sockets)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            errors = (self.folder / "daemon.err").open("ab")
        except OSError as error:
            raise OperatorError(
                f"cannot write to {self.folder}: {error.strerror}", hint="free disk space, or mend its permissions"
            ) from error
        read, write = os.pipe()
        environ = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        argv = [sys.executable, "-P", "-m", "taxiway.integrations.local.daemon", str(self.folder), str(self.socket), str(write)]
        with errors, os.fdopen(read, "rb") as answer:
            try:
                subprocess.run(  # it forks and returns at once
                    argv, cwd="/", env=environ, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, pass_fds=[write], check=False
                )
            finally:
                os.close(write)
            word = _read(answer, _START_S).decode()
        if word.startswith("error "):
            raise OperatorError(word.removeprefix("error "))
        if not word:
            raise OperatorError(f"the daemon of service {self.service} did not start", hint=f"see {self.folder / 'daemon.err'}")
        return word

    def stop(self, *, rest: bool) -> bool:
        """End the daemon and all that it runs; with `rest` it stays so. False where it did not run."""
        running = True
        try:
            self.call("stop", rest=rest)
        except NotRunning:
            running = self._holder() is not None
        if not self._wait(20.0 if running else 0.0) and (holder := self._holder()):
            # Its children die with it.
            with contextlib.suppress(psutil.NoSuchProcess):
                holder.kill()
            self._wait(10.0)
        return running

    def _wait(self, seconds: float) -> bool:
        """Whether the daemon gave its lock back in time."""
        until = time.monotonic() + seconds
        while self._locked():
            if time.monotonic() >= until:
                return False
            time.sleep(0.02)
        return True

    def _locked(self) -> bool:
        try:
            with (self.folder / "daemon.lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def _holder(self) -> psutil.Process | None:
        """The process that holds the lock, never another one that got its number later."""
        if not self._locked():
            return None
        try:
            said: Mapping[str, Any] = json.loads((self.folder / "daemon.lock").read_bytes())
            process = psutil.Process(said["pid"])
            return process if abs(process.create_time() - said["started"]) < 0.1 else None  # noqa: PLR2004 - clock ticks
        except (OSError, ValueError, KeyError, psutil.Error):
            return None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_CALL_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _own(folder: Path) -> None:
    """See that the folder of the sockets is this user's alone; raise OperatorError where somebody else made it."""
    for place in (folder.parent, folder):
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        found = place.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise OperatorError(f"{place} is not a private folder of this user", hint=f"remove {place} and try again")


def _read(answer: Any, seconds: float) -> bytes:
    """All that comes until the other side closes, for so long at most."""
    content = b""
    until = time.monotonic() + seconds
    while select.select([answer], [], [], max(0.0, until - time.monotonic()))[0]:
        chunk = os.read(answer.fileno(), 65_536)
        if not chunk:
            break
        content += chunk
    return content
