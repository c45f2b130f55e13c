"""The embedded Airflow: SQLite, LocalExecutor, and its components as processes of this machine, on loopback only."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from taxiway.errors import OperatorError
from taxiway.home import Home
from taxiway.integrations import airflow_processes as processes
from taxiway.integrations.airflow_settings import MARK, USER, Settings, configuration, environment, secrets_of, write_private
from taxiway.integrations.airflow_state import State, Users, changing, read_state, stop_server, write_state
from taxiway.integrations.claude import RECORD_VARIABLE, REPLAY_VARIABLE

__all__ = ["AirflowServer", "Running", "health_of"]

# The scheduler's log server would listen on all interfaces; the API server reads the files themselves.
_COMPONENTS = {"api-server": ("api-server",), "scheduler": ("scheduler", "--skip-serve-logs"), "dag-processor": ("dag-processor",)}
_MIGRATION_S = 300.0
_READY_S = 240.0
_REAP_S = 15.0
_TAKEN = "address already in use"


@dataclass(frozen=True)
class Running:
    """Where it answers and how to log in. `reused` says that it ran already."""

    url: str
    username: str
    password: str
    reused: bool
    seconds: float


def _silent(_: str) -> None:
    pass


class AirflowServer:
    """The Airflow of one home, serving one folder of pipelines.

    Several may use it at once, from several processes: the first to come starts it, the last to leave stops it,
    unless it is to be kept. `settings` (section -> option -> value) override what Taxiway sets.
    """

    def __init__(self, home: Home, pipelines: Path, *, settings: Settings | None = None, environ: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.pipelines = pipelines.resolve()
        self._settings: Settings = settings or {}
        self._environ = environment(home, os.environ if environ is None else environ)
        self._users = Users(home)
        self._children: list[subprocess.Popen[bytes]] = []

    @property
    def logs(self) -> Path:
        """The components' own logs."""
        return self.home.airflow / "logs" / "components"

    @contextmanager
    def running(self, *, keep: bool = False, say: Callable[[str], None] = _silent) -> Iterator[Running]:
        """Start it or join it, and leave it at the end, however that comes."""
        try:
            yield self.start(keep=keep, say=say)
        finally:
            self.leave()

    def start(self, *, keep: bool = False, say: Callable[[str], None] = _silent) -> Running:
        """Make it run and count as its user until `leave`; raise OperatorError if a component does not come up."""
        began = time.monotonic()
        with changing(self.home):
            state = read_state(self.home)
            reused = state is not None and self._joins(state)
            if state is None or not reused:
                if stop_server(self.home):
                    say("stopping what an earlier taxiway left")
                state = self._launch(state, say)
            if keep and not state.keep:
                state = replace(state, keep=True)
                write_state(self.home, state)
            self._users.enter()
        return Running(state.url, USER, secrets_of(self.home).password, reused, time.monotonic() - began)

    def leave(self) -> bool:
        """Use it no longer; the last one stops it, unless it is to be kept. Whether it was stopped."""
        stopped = False
        with changing(self.home):
            self._users.leave()
            state = read_state(self.home)
            if state and not state.keep and not self._users.others():
                stopped = stop_server(self.home)
        self._reap()
        return stopped

    def stop(self) -> bool:
        """Stop it, whoever uses it; whether it ran."""
        with changing(self.home):
            self._users.leave()
            ran = stop_server(self.home)
        self._reap()
        return ran

    def check(self) -> None:
        """Raise OperatorError if it ended, or a component of it did."""
        state = read_state(self.home)
        if state is None or not state.components:
            raise OperatorError("Airflow was stopped meanwhile", hint="start again; a run in progress goes on then")
        for name in state.dead:
            raise self._died(name)

    def _joins(self, state: State) -> bool:
        """Whether what runs is what we would start. One that others use and that differs is refused, not replaced."""
        if not state.running or not _answers(state):
            return False
        if state.fingerprint == self._fingerprint(configuration(self.home, self.pipelines, state.port, self._settings)):
            return True
        if self._users.others():
            raise OperatorError(
                f"an Airflow with other settings is in use ({state.url}, pipelines {state.pipelines})",
                hint="end what uses it, or `taxiway down`; another TAXIWAY_HOME gives this project an Airflow of its own",
            )
        return False

    def _fingerprint(self, text: str) -> str:
        installed = f"{version('taxiway')} {version('apache-airflow')} {sys.executable}"
        # Who would record or replay runs must not join one that does not, nor the other way round.
        tapes = [self._environ.get(name, "") for name in (RECORD_VARIABLE, REPLAY_VARIABLE)]
        return hashlib.sha256("\n".join([installed, *filter(None, tapes), text]).encode()).hexdigest()

    def _launch(self, last: State | None, say: Callable[[str], None]) -> State:
        try:
            try:
                return self._bring_up(_free_port(last.port if last else 0), say)
            except OperatorError as error:
                if _TAKEN not in error.problem:
                    raise
                # Somebody took the port between our look and the server's.
                stop_server(self.home)
                return self._bring_up(_free_port(0), say)
        except BaseException:
            stop_server(self.home)
            raise

    def _bring_up(self, port: int, say: Callable[[str], None]) -> State:
        text = configuration(self.home, self.pipelines, port, self._settings)
        write_private(self.home.airflow / "airflow.cfg", text)
        write_private(self.home.airflow / "passwords.json", json.dumps({USER: secrets_of(self.home).password}))
        for folder in (self.logs, self.home.airflow / "dags"):
            folder.mkdir(parents=True, exist_ok=True)
        state = State(port, str(self.pipelines), self._fingerprint(text), time.time())
        self._migrate(state, say)
        for name, command in _COMPONENTS.items():
            state = self._start(state, name, command)
        self._wait_ready(state)
        return state

    def _start(self, state: State, name: str, command: tuple[str, ...]) -> State:
        process, child = processes.start(
            [sys.executable, "-m", "airflow", *command],
            environ=self._environ,
            log=self.logs / f"{name}.log",
            folder=self.home.airflow,
            mark=f"{MARK}={self.home.airflow}",
        )
        self._children.append(child)
        # Written down at once: whoever finds our leftovers must know them all.
        state = replace(state, components={**state.components, name: process})
        write_state(self.home, state)
        return state

    def _migrate(self, state: State, say: Callable[[str], None]) -> None:
        stamp, wanted = self.home.airflow / "migrated", version("apache-airflow")
        if (self.home.airflow / "airflow.db").exists() and stamp.exists() and stamp.read_text() == wanted:
            return
        say("preparing Airflow's database (once)")
        process = self._start(state, "db-migrate", ("db", "migrate")).components["db-migrate"]
        child = self._children[-1]
        try:
            code = child.wait(_MIGRATION_S)
        except subprocess.TimeoutExpired:
            processes.end([process], ask_s=5.0)
            code = -1
        if code != 0:
            raise self._died("db-migrate")
        write_private(stamp, wanted)

    def _wait_ready(self, state: State) -> None:
        until = time.monotonic() + _READY_S
        while not _answers(state):
            for name in state.dead:
                raise self._died(name)
            if time.monotonic() >= until:
                raise OperatorError(f"Airflow was not ready after {_READY_S:.0f} s", hint=f"read the logs in {self.logs}")
            time.sleep(0.1)

    def _died(self, name: str) -> OperatorError:
        path = self.logs / f"{name}.log"
        try:
            lines = path.read_text(errors="replace").splitlines()[-15:]
        except OSError:
            lines = []
        tail = "".join(f"\n    {line}" for line in lines)
        return OperatorError(f"Airflow's {name} ended; its last words:{tail}", hint=f"its whole log: {path}")

    def _reap(self) -> None:
        state = read_state(self.home)
        running = {process.pid for process in state.components.values()} if state else set()
        for child in self._children:
            if child.pid not in running:
                with suppress(subprocess.TimeoutExpired):
                    # A process whose first thread ended looks gone, and cannot be reaped before its other threads end.
                    child.wait(_REAP_S)
        self._children = [child for child in self._children if child.poll() is None]


def health_of(url: str, *, timeout_s: float = 5.0) -> dict[str, Any]:
    """What the API server says of the components; {} where it does not answer."""
    try:
        # Settings for proxies do not concern this machine's loopback, nor do certificates (0.2 s to read).
        with httpx.Client(timeout=timeout_s, trust_env=False, verify=url.startswith("https:")) as client:
            answer = client.get(f"{url}/api/v2/monitor/health")
            data = answer.json() if answer.status_code == httpx.codes.OK else {}
            return data if isinstance(data, dict) else {}
    except (httpx.HTTPError, ValueError):
        return {}


def _answers(state: State) -> bool:
    """Whether the API answers, and scheduler and dag-processor have been heard since they were started."""
    if not state.running:
        return False
    health = health_of(state.url)
    return all(
        (part := health.get(name) or {}).get("status") == "healthy" and _after(part.get(f"latest_{name}_heartbeat"), state.started)
        for name in ("scheduler", "dag_processor")
    )


def _after(moment: object, start: float) -> bool:
    # A dead component counts as healthy for half a minute; its last heartbeat is older than our start.
    try:
        return datetime.fromisoformat(str(moment)).timestamp() >= start
    except ValueError:
        return False


def _free_port(wanted: int) -> int:
    """`wanted` if it is free, so that bookmarks stay; else any."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise OperatorError("no free port on 127.0.0.1", hint="end what holds them (`ss -ltnp`)")
