"""Runs in the sandbox: starts the servers that the tests need, waits until they answer, runs the tests, ends the servers.

    inside_servers.py SETTINGS ARGV...

Started by path with `-I`, before any code of the project; standard library only. Where a server is not to be had it writes why
beside the settings, and the tests do not start.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

NOT_STARTED = 69
PROBLEM = "servers.txt"

_START_S = 60.0
_END_S = 5.0
_NOBODY = 65534
_REDIS_BYTES = 256 << 20
_LISTED = 128

# Nothing of it outlives the tests, so nothing of it needs to survive a crash; and it shares a small /tmp and /dev/shm with them.
_POSTGRES = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "128MB",
    "min_wal_size": "32MB",
    "dynamic_shared_memory_type": "mmap",
    "jit": "off",
}


class NotStarted(Exception):
    """Why the tests cannot have their servers."""


class Started:
    """A server that answers. `environ` is what the tests get to find it; `end` ends it."""

    def __init__(self, environ: Mapping[str, str], end: Callable[[], object]) -> None:
        self.environ, self.end = environ, end


# --- programs of this machine, started beside the tests ---------------------------------------------


class Program:
    """A server's process, with a private folder, its output in `log`."""

    def __init__(self, name: str, programs: Path, folder: Path, log: Path) -> None:
        self.name, self._programs, self.folder, self._log = name, programs, folder, log
        self._user: dict[str, Any] = {}
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:  # where nothing isolates; Postgres does not run as root
            self._user = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
            os.chown(folder, _NOBODY, _NOBODY)
            folder.parent.chmod(0o711)
        self._process: subprocess.Popen[bytes] | None = None

    def write(self, name: str, text: str) -> Path:
        """A file of its own in its folder."""
        place = self.folder / name
        place.write_text(text)
        place.chmod(0o600)
        if self._user:
            os.chown(place, _NOBODY, _NOBODY)
        return place

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        """One of its programs; what it says goes into the log."""
        environ = {n: os.environ[n] for n in ("PATH", "LANG") if n in os.environ} | {"HOME": str(self.folder), "TMPDIR": str(self.folder)}
        command = [str(self._programs / argv[0]), *argv[1:]]
        with self._log.open("ab") as log:
            try:
                return subprocess.Popen(
                    command,
                    cwd=self.folder,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    **self._user,
                )
            except OSError as error:
                raise NotStarted(f"{self.name}: {command[0]} cannot be started: {error}") from error

    def serve(self, *argv: str, answers: Callable[[], bool]) -> None:
        """Start its server and wait until it answers."""
        process = self._process = self.start(*argv)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise NotStarted(f"{self.name} ended with exit code {process.returncode} before it answered: {self.said()}")
            with contextlib.suppress(OSError):
                if answers():
                    return
            time.sleep(0.02)
        raise NotStarted(f"{self.name} did not answer within {_START_S:.0f} s: {self.said()}")

    def said(self) -> str:
        """The end of what it said."""
        return self._log.read_bytes()[-600:].decode(errors="replace").strip()

    def end(self, number: int = signal.SIGTERM) -> None:
        """Ask it to end, then end it; it says so where it had ended by itself."""
        if self._process is None:
            return
        if (code := self._process.poll()) is not None:
            print(f"{self.name} had ended with exit code {code} before the tests did", file=sys.stderr)  # noqa: T201 - the tests' log
        for each in (number, signal.SIGKILL):
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, each)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)


def _postgres(server: Mapping[str, Any], folder: Path) -> Started:
    program = Program("postgres", Path(server["programs"]), Path(os.environ["TMPDIR"], "taxiway-postgres"), folder / "postgres.log")
    port, password, data = _port(server["port"]), server["password"], str(program.folder / "data")
    access = ["--auth=trust"]
    if password:
        access = ["--auth=scram-sha-256", f"--pwfile={program.write('password', password)}"]
    made = program.start("initdb", "-D", data, "--username=postgres", *access, "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync").wait()
    if made != 0:
        raise NotStarted(f"postgres: initdb ended with exit code {made}: {program.said()}")
    options = [word for name, value in _POSTGRES.items() for word in ("-c", f"{name}={value}")]
    try:
        program.serve("postgres", "-D", data, "-p", str(port), *options, answers=lambda: _postgres_answers(port))
    except NotStarted:
        program.end()
        raise
    url = f"postgresql://postgres{password and ':' + quote(password, safe='')}@127.0.0.1:{port}/postgres"
    # Immediately: what it would write down for its next start nobody reads.
    return Started(_postgres_environ(server["env"], url), lambda: program.end(signal.SIGQUIT))


def _postgres_environ(variable: str, url: str) -> dict[str, str]:
    """The URL, and the same in libpq's own variables."""
    parts = urlsplit(url)
    words = {"HOST": parts.hostname, "PORT": parts.port, "USER": parts.username, "PASSWORD": parts.password, "DATABASE": parts.path[1:]}
    return {variable: url} | {f"PG{name}": unquote(str(value)) for name, value in words.items() if value}


def _postgres_answers(port: int) -> bool:
    """Whether it lets sessions begin: to a start of one it answers with a question of its own, before that with an error."""
    words = b"user\0postgres\0database\0postgres\0\0"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(struct.pack("!ii", 8 + len(words), 3 << 16) + words)
        return connection.recv(1) == b"R"


def _redis(server: Mapping[str, Any], folder: Path) -> Started:
    program = Program("redis", Path(server["programs"]), Path(os.environ["TMPDIR"], "taxiway-redis"), folder / "redis.log")
    port, password = _port(server["port"]), server["password"]
    settings = {
        "port": port,
        "bind": "127.0.0.1",
        "dir": program.folder,
        "save": '""',
        "appendonly": "no",
        "daemonize": "no",
        "maxmemory": _REDIS_BYTES,
        **({"requirepass": password} if password else {}),
    }
    file = program.write("redis.conf", "".join(f"{name} {value}\n" for name, value in settings.items()))
    try:
        program.serve("redis-server", str(file), answers=lambda: _redis_answers(port))
    except NotStarted:
        program.end()
        raise
    return Started({server["env"]: f"redis://{password and ':' + quote(password, safe='') + '@'}127.0.0.1:{port}/0"}, program.end)


def _redis_answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(7).startswith((b"+PONG", b"-NOAUTH"))


def _port(wanted: int) -> int:
    """The port that is wanted, or for 0 one that is free."""
    with socket.create_server(("127.0.0.1", wanted)) as server:
        return int(server.getsockname()[1])


# --- servers elsewhere, reached by a unix socket ------------------------------------------------------


def _elsewhere(server: Mapping[str, Any]) -> Started:
    listener = socket.create_server(("127.0.0.1", server["port"]), backlog=_LISTED)
    threading.Thread(target=_accept, args=(listener, server["socket"]), daemon=True).start()
    url = server["url"].replace("{port}", str(listener.getsockname()[1]))
    environ = {server["env"]: url}
    return Started(_postgres_environ(server["env"], url) if server["name"] == "postgres" else environ, listener.close)


def _accept(listener: socket.socket, place: str) -> None:
    with contextlib.suppress(OSError):  # closed at the end
        while True:
            near, _ = listener.accept()
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(place)
            except OSError:
                near.close()
                continue
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pass_on, args=(source, sink), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


# --- the run --------------------------------------------------------------------------------------


def _start(server: Mapping[str, Any], folder: Path) -> Started:
    if server["socket"]:
        return _elsewhere(server)
    return {"postgres": _postgres, "redis": _redis}[server["name"]](server, folder)


def main(place: str, argv: list[str]) -> int:
    """The exit code of the tests, 128 + n for signal n; NOT_STARTED, with the reason in a file, where they have no servers."""
    folder = Path(place).parent
    settings = json.loads(Path(place).read_text())
    signal.signal(signal.SIGTERM, lambda *_: None)  # the tests get it too, and this process waits for them
    try:
        with contextlib.ExitStack() as ends:
            environ = dict(os.environ)
            for server in settings:
                started = _start(server, folder)
                ends.callback(started.end)
                environ |= started.environ
            code = subprocess.run(argv, env=environ, check=False).returncode
    except (NotStarted, OSError) as error:
        (folder / PROBLEM).write_text(str(error))
        return NOT_STARTED
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
