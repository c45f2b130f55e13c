"""One running copy of a release: its process, the way to its port, its health, its output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from taxiway.integrations import bubblewrap, processes
from taxiway.integrations.local import relay
from taxiway.integrations.local.logs import OutputLog
from taxiway.integrations.local.state import StoredRelease
from taxiway.ports import Environment

__all__ = ["Instance", "Unreachable"]

_RELAY = Path(relay.__file__)
_RELAY_INSIDE = "/relay.py"
_TAIL = 20
_CHUNK = 65_536
_WATCH_S = 5.0
_CONNECT_S = 10.0
_KEPT_S = 2.0
_GUARD_S = 1.0
_MEMORY = 2 << 30
_PROCESSES = 256


class Unreachable(Exception):
    """The release takes no connection now. No OSError: aiohttp would wrap that."""


class Instance:
    """A process of a release, from `start` to `stop`. `inflight` counts the requests that it has.

    Requests go out over `fresh`, where each has a connection of its own, or over `kept`, which uses connections again:
    one that the release closes in that moment fails, so only what may be asked twice goes there.
    """

    def __init__(self, number: int, release: StoredRelease, project: Path, scratch: Path, log: OutputLog) -> None:
        self.number = number
        self.release = release
        self.inflight = 0
        self.started = time.monotonic()
        self.healthy = False
        self.was_healthy = False
        self.problem = "it was not asked yet"
        self.exit_code: int | None = None
        self.over = ""
        self.exited = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self.fresh = _session(_Connector(self.connect, force_close=True))
        self.kept = _session(_Connector(self.connect, keepalive_timeout=_KEPT_S))
        self._project = project
        self._log = log
        self._scratch = tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True)
        self._port = release.port if release.isolated else _free_port()
        self._numbers = 0
        self._asked: dict[int, asyncio.Future[socket.socket]] = {}
        self._sending = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._channel: socket.socket | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int | None:
        """The process that everything of this instance stands below."""
        return self._process.pid if self._process and self.exit_code is None else None

    async def start(self) -> None:
        """Start the process; that it cannot run shows as its exit."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            argv, environ = self._command(theirs.fileno())
            self._process = await asyncio.create_subprocess_exec(
                *argv,
                env=environ,
                cwd="/" if self.release.isolated else self._project,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._channel = ours
        asyncio.get_running_loop().add_reader(ours, self._receive)
        self._tasks = [asyncio.create_task(step) for step in (self._read_output(), self._wait(), self._watch(), self._guard())]

    def _command(self, channel: int) -> tuple[list[str], dict[str, str]]:
        release = self.release
        # Without an environment of its own a release runs on the interpreter that runs this.
        environment = Environment(Path(release.environment or sys.prefix), release.environment_key, cached=True)
        words = {
            "{project}": bubblewrap.PROJECT if release.isolated else str(self._project),
            "{environment}": str(environment.path),
            "{port}": str(self._port),
        }
        start = [_fill(word, words) for word in release.start]
        env = {"PORT": str(self._port), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        env |= {name: _fill(value, words) for name, value in release.env.items()}
        script = _RELAY_INSIDE if release.isolated else str(_RELAY)
        argv = [str(environment.python), "-I", "-S", script, str(channel), str(self._port), *start]
        if release.isolated:
            layout = bubblewrap.Layout(checkout=self._project, environment=environment, extra=((_RELAY, _RELAY_INSIDE, False),), env=env)
            return bubblewrap.wrap(argv, layout, die_with_parent=True), {}
        path = f"{environment.path / 'bin'}:{os.defpath}"
        return argv, {"PATH": path, "HOME": self._scratch.name, "TMPDIR": self._scratch.name, "LANG": "C.UTF-8", **env}

    async def connect(self) -> socket.socket:
        """A fresh connection to the port that the release listens on; raise Unreachable where it takes none."""
        if self._channel is None or self.exit_code is not None:
            raise Unreachable("it does not run")
        self._numbers += 1
        number = self._numbers
        asked: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self._asked[number] = asked
        try:
            async with asyncio.timeout(_CONNECT_S):
                async with self._sending:
                    await asyncio.get_running_loop().sock_sendall(self._channel, relay.CONNECT.pack(number))
                return await asked
        except BaseException as error:
            # The answer may have come in the same moment as a cancellation.
            if asked.done() and not asked.cancelled() and asked.exception() is None:
                asked.result().close()
            if isinstance(error, TimeoutError):
                raise Unreachable("it accepts no connection") from error
            if isinstance(error, OSError):
                raise Unreachable("it ended") from error
            raise
        finally:
            del self._asked[number]

    def _receive(self) -> None:
        """An answer of the relay: a connection, or why there is none."""
        assert self._channel is not None  # noqa: S101 - for the type checker
        try:
            message, fds, _, _ = socket.recv_fds(self._channel, 64, 8, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            message, fds = b"", []
        if len(message) != relay.ANSWER.size:
            _close_all(fds)
            self._hang_up()
            return
        number, code = relay.ANSWER.unpack(message)
        asked = self._asked.get(number)
        if asked is None or asked.done():
            _close_all(fds)
        elif code or len(fds) != 1:
            _close_all(fds)
            asked.set_exception(Unreachable(os.strerror(code).lower() if code else "the relay sent no connection"))
        else:
            try:
                asked.set_result(_adopt(fds[0]))
            except OSError:
                _close_all(fds)
                asked.set_exception(Unreachable("the relay sent no connection"))

    def _hang_up(self) -> None:
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()
            self._channel = None
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(Unreachable("it ended"))

    async def _read_output(self) -> None:
        assert self._process is not None and self._process.stdout is not None  # noqa: PT018, S101 - for the type checker
        rest = b""
        while chunk := await self._process.stdout.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _CHUNK:
                lines, rest = [*lines, rest], b""
            self._say(lines)
        self._say([rest] if rest else [])

    def _say(self, lines: list[bytes]) -> None:
        texts = [line.decode(errors="replace").rstrip("\r")[:2000] for line in lines]
        self.tail.extend(texts)
        if texts:
            self._log.write(self.release.id, "\n".join(texts))

    async def _wait(self) -> None:
        assert self._process is not None  # noqa: S101 - for the type checker
        self.exit_code = await self._process.wait()
        self.healthy = False
        self._hang_up()
        # What it said last arrives with or right after its end.
        await asyncio.wait(self._tasks[:1], timeout=1.0)
        self._log.write(self.release.id, f"-- ended with {ending(self.exit_code)}")
        self.exited.set()

    async def _guard(self) -> None:
        """End it where it takes more of the machine than a service may."""
        assert self._process is not None  # noqa: S101 - for the type checker
        while self.exit_code is None:
            await asyncio.sleep(_GUARD_S)
            self.over = await asyncio.to_thread(_over_limits, self._process.pid)
            if self.over and self.exit_code is None:
                self._log.write("-", f"release {self.release.id} {self.over}")
                await asyncio.to_thread(processes.kill_tree, self._process.pid, 0.0)
                return

    async def _watch(self) -> None:
        """Ask for the health: often until it is healthy, then now and then."""
        good = 0
        health = self.release.health
        while self.exit_code is None:
            problem = await self.ask()
            good = 0 if problem else good + 1
            self.problem = problem
            self.healthy = self.exit_code is None and (good >= health.needed or (self.healthy and not problem))
            self.was_healthy = self.was_healthy or self.healthy
            await asyncio.sleep(_WATCH_S if self.healthy else health.every_s)

    async def ask(self) -> str:
        """Ask once on the health path: "" for an answer of 2xx, else what is wrong."""
        health = self.release.health
        limit = aiohttp.ClientTimeout(total=health.timeout_s)
        try:
            async with self.fresh.get(f"http://127.0.0.1:{self._port}{health.path}", timeout=limit, allow_redirects=False) as answer:
                async with asyncio.timeout(health.timeout_s):
                    async for _ in answer.content.iter_any():
                        pass
                return "" if 200 <= answer.status < 300 else f"GET {health.path} answered {answer.status}, not 2xx"  # noqa: PLR2004
        except Unreachable as error:
            return f"nothing listens on 127.0.0.1:{self._port} ({error})"
        except TimeoutError:
            return f"GET {health.path} gave no whole answer within {health.timeout_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return f"GET {health.path} gave no HTTP answer ({type(error).__name__}: {str(error)[:200]})"

    def enter(self) -> None:
        """A request begins."""
        self.inflight += 1
        self.idle.clear()

    def leave(self) -> None:
        """A request is over."""
        self.inflight -= 1
        if not self.inflight:
            self.idle.set()

    async def drain(self, seconds: float) -> bool:
        """Wait for the requests that it has; False where some still run after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self.idle.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self, grace_s: float = 10.0) -> None:
        """SIGTERM, and SIGKILL after `grace_s`; returns when nothing of it runs any more."""
        if self._process is not None and self.exit_code is None:
            if self._channel is not None:
                with contextlib.suppress(OSError):
                    self._channel.send(relay.TERMINATE.pack(int(grace_s * 1000)))
            try:
                async with asyncio.timeout(grace_s + 6.0):
                    await self.exited.wait()
            except TimeoutError:
                await asyncio.to_thread(processes.kill_tree, self._process.pid, 0.0)
                await self.exited.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._hang_up()
        await self.fresh.close()
        await self.kept.close()
        await asyncio.to_thread(self._scratch.cleanup)


Open = Callable[[], Awaitable[socket.socket]]


class _Connector(aiohttp.BaseConnector):
    """Connections by `open_`, wherever a request says that it goes."""

    def __init__(self, open_: Open, *, force_close: bool = False, keepalive_timeout: float | None = None) -> None:
        if force_close:
            super().__init__(force_close=True, limit=0)
        else:
            super().__init__(keepalive_timeout=keepalive_timeout, limit=0)
        self._open = open_

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,  # noqa: ARG002
        traces: list[aiohttp.tracing.Trace],  # noqa: ARG002
        timeout: aiohttp.ClientTimeout,  # noqa: ARG002, ASYNC109
    ) -> aiohttp.client_proto.ResponseHandler:
        connection = await self._open()
        try:
            _, protocol = await self._loop.create_connection(self._factory, sock=connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, ValueError):
                raise Unreachable("the relay sent no connection") from error
            raise
        return protocol


def _over_limits(pid: int) -> str:
    """Which limit a process tree exceeds; "" for none."""
    used = processes.usage(processes.tree(pid), _MEMORY)
    if used.memory > _MEMORY:
        return f"used more than {_MEMORY >> 20} MB of memory"
    return f"started more than {_PROCESSES} processes" if used.processes > _PROCESSES else ""


def _session(connector: _Connector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        max_line_size=65_536,
        max_field_size=65_536,
    )


def ending(code: int) -> str:
    """How a process ended, in words."""
    number = code - 128 if code > 128 else -code  # noqa: PLR2004 - a shell's way to tell a signal
    return f"signal {number}" if number > 0 and code != 0 else f"exit code {code}"


def _fill(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _adopt(fd: int) -> socket.socket:
    connection = socket.socket(fileno=fd)
    connection.setblocking(False)
    return connection


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
