"""What is written down about the embedded Airflow of a home, and the locks around it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from taxiway.errors import OperatorError
from taxiway.home import Home
from taxiway.integrations.airflow_processes import Process, end
from taxiway.integrations.airflow_settings import write_private

__all__ = ["State", "Users", "changing", "is_changing", "read_state", "stop_server", "write_state"]

_FORMAT = 1


@dataclass(frozen=True)
class State:
    """The last start. `keep` says that it stays when nobody uses it; `fingerprint` stands for versions and settings."""

    port: int
    pipelines: str
    fingerprint: str
    started: float
    keep: bool = False
    components: dict[str, Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Of the API and the web UI."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def dead(self) -> list[str]:
        """Components that were started and are gone."""
        return [name for name, process in self.components.items() if not process.alive]

    @property
    def running(self) -> bool:
        """Whether every component is alive."""
        return bool(self.components) and not self.dead


def read_state(home: Home) -> State | None:
    """What was written down last; None where Airflow was never started. Raises OperatorError for an unreadable file."""
    path = _path(home)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != _FORMAT:
            raise ValueError("another Taxiway wrote it")
        data["components"] = {name: Process(**process) for name, process in data["components"].items()}
        return State(**data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        hint = f"look for processes of {home.airflow} with `ps`, end them, then remove the file"
        raise OperatorError(f"cannot read {path}: {error}", hint=hint) from error


def write_state(home: Home, state: State) -> None:
    """Write it down, atomically."""
    write_private(_path(home), json.dumps({"format": _FORMAT, **asdict(state)}, indent=1))


def _path(home: Home) -> Path:
    return home.airflow / "server.json"


@contextmanager
def changing(home: Home, *, wait_s: float = 300.0) -> Iterator[None]:
    """Alone in starting or stopping; raise OperatorError if another one takes longer than `wait_s`."""
    with _open(home.airflow / "starting.lock") as fd:
        until = time.monotonic() + wait_s
        while not _flock(fd, fcntl.LOCK_EX):
            if time.monotonic() >= until:
                hint = "look for another `taxiway run`, `up` or `down` of this project and end it"
                raise OperatorError("another taxiway has been starting or stopping Airflow for too long", hint=hint)
            time.sleep(0.1)
        yield


def is_changing(home: Home) -> bool:
    """Whether somebody is starting or stopping it now."""
    try:
        fd = os.open(home.airflow / "starting.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _flock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


class Users:
    """Who uses the server: each holds a shared lock as long as it lives, however it ends."""

    def __init__(self, home: Home) -> None:
        self._path = home.airflow / "users.lock"
        self._fd = -1

    def enter(self) -> None:
        """Count as a user."""
        if self._fd < 0:
            self._fd = _descriptor(self._path)
            fcntl.flock(self._fd, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Be no user any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def others(self) -> bool:
        """Whether another one uses it."""
        self_entered = self._fd >= 0
        self.leave()
        with _open(self._path) as fd:
            free = _flock(fd, fcntl.LOCK_EX)
        if self_entered:
            self.enter()
        return not free


def stop_server(home: Home) -> bool:
    """End all of it, also what a killed taxiway left; whether there was anything to end. For who holds `changing`."""
    state = read_state(home)
    if state is None or not state.components:
        return False
    running = any(process.members() for process in state.components.values())
    # Tasks that still run report to the API server, so it goes last.
    last = [process for name, process in state.components.items() if name == "api-server"]
    end([process for process in state.components.values() if process not in last], ask_s=8.0)
    end(last, ask_s=5.0)
    write_state(home, replace(state, components={}, keep=False))
    return running


@contextmanager
def _open(path: Path) -> Iterator[int]:
    fd = _descriptor(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _descriptor(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OperatorError(
            f"cannot write {path}: {error.strerror or error}", hint="mend the folder's rights, or set TAXIWAY_HOME"
        ) from error


def _flock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
