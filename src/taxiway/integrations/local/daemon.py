"""The process of one service: `python -m taxiway.integrations.local.daemon FOLDER SOCKET READY_FD`.

It leaves the session and the parent that started it, holds the service's lock, port and control socket,
and ends when it is told to or when there is nothing left to serve.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
from aiohttp import web

from taxiway.errors import LeaseLost, OperatorError, ProjectError, TaxiwayError
from taxiway.integrations.local.logs import OutputLog
from taxiway.integrations.local.state import ERROR_STATUS, LOCKED, State, StoredRelease, read_state, write_state
from taxiway.integrations.local.supervisor import Supervisor
from taxiway.integrations.local.switch import Switch

__all__ = ["main"]

_PORTS = range(20_000, 32_000)
"""Below the ports that Linux gives to outgoing connections, so that a service finds its own free after a restart."""


def main(arguments: list[str]) -> None:
    """Become a daemon and serve; says `ready`, `locked` or an error on READY_FD once."""
    folder, control, ready = Path(arguments[0]), Path(arguments[1]), int(arguments[2])
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0o077)
    with os.fdopen(ready, "w") as answer:
        try:
            lock = _lock(folder)
            asyncio.run(_serve(folder, control, lambda: _say(answer, "ready")))
        except BlockingIOError:
            _say(answer, LOCKED)
        except (TaxiwayError, OSError) as error:
            _say(answer, f"error {error}")
            raise
    os.close(lock)


def _say(answer: Any, word: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        answer.write(word)
        answer.close()


def _lock(folder: Path) -> int:
    fd = os.open(folder / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    me = psutil.Process()
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps({"pid": me.pid, "started": me.create_time()}).encode(), 0)
    return fd


async def _serve(folder: Path, control: Path, ready: Callable[[], None]) -> None:
    _raise_file_limit()
    control.unlink(missing_ok=True)  # noqa: ASYNC240 - one system call; the lock says that nobody else listens there
    state = read_state(folder) or State(service=folder.name)
    log = OutputLog(folder / "service.log")
    supervisor = Supervisor(folder, state, log)
    switch = Switch(lambda: supervisor.live)
    port = await _listen(switch, folder, state)
    if port != state.port:
        supervisor.state = state.model_copy(update={"port": port})
        write_state(folder, supervisor.state)
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    await supervisor.open()
    runner = web.AppRunner(_control(supervisor, end), access_log=None, shutdown_timeout=1.0)
    try:
        await runner.setup()
        await web.UnixSite(runner, str(control)).start()
        ready()
        await _until(end, supervisor)
    finally:
        await runner.cleanup()
        await supervisor.close()
        await switch.stop()


async def _until(end: asyncio.Event, supervisor: Supervisor) -> None:
    while not supervisor.unused:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await end.wait()
        if end.is_set():
            return


def _raise_file_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _listen(switch: Switch, folder: Path, state: State) -> int:
    """The service's own port; a new service gets the first free one from a place that its name and home give."""
    if state.port:
        try:
            return await switch.start(state.port)
        except OSError as error:
            raise OperatorError(
                f"port {state.port} of service {state.service} cannot be opened: {error.strerror or error}",
                hint=f"stop the program that holds it (`ss -ltnp 'sport = :{state.port}'` names it) and try again",
            ) from error
    taken = _ports_of_neighbours(folder)
    first = int.from_bytes(hashlib.sha256(os.fsencode(folder)).digest()[:4])
    for step in range(200):
        port = _PORTS[(first + step) % len(_PORTS)]
        if port in taken:
            continue
        try:
            return await switch.start(port)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    raise OperatorError(f"no free port for service {state.service}", hint="stop services that nobody needs: taxiway services list")


def _ports_of_neighbours(folder: Path) -> set[int]:
    ports: set[int] = set()
    for neighbour in folder.parent.iterdir():
        with contextlib.suppress(OperatorError):
            state = read_state(neighbour)
            ports |= {state.port} if state else set()
    return ports


# --- the control socket -------------------------------------------------------------------------

Act = Callable[[dict[str, Any]], Awaitable[Any]]


def _control(supervisor: Supervisor, end: asyncio.Event) -> web.Application:
    async def stop(call: dict[str, Any]) -> None:
        if call["rest"]:
            await supervisor.rest()
        end.set()

    acts: dict[str, Act] = {
        "claim": lambda call: supervisor.claim(call["fence"]),
        "prepare": lambda call: supervisor.prepare(call["fence"], StoredRelease.model_validate_json(json.dumps(call["release"]))),
        "switch": lambda call: supervisor.switch(call["fence"], call["number"], call["drain_s"]),
        "abandon": lambda call: supervisor.abandon(call["fence"], call["number"]),
        "remove": lambda call: supervisor.remove(call["fence"]),
        "begin": lambda _: supervisor.begin(),
        "stop": stop,
    }

    async def status(_: web.Request) -> web.Response:
        return web.json_response(supervisor.status())

    app = web.Application(client_max_size=1_000_000)
    app.router.add_get("/status", status)
    for name, act in acts.items():
        app.router.add_post(f"/{name}", _answering(act, supervisor))
    return app


def _answering(act: Act, supervisor: Supervisor) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        try:
            await act(await request.json())
        except (LeaseLost, ProjectError, OperatorError) as error:
            return web.json_response({"problem": error.problem, "hint": error.hint}, status=ERROR_STATUS[type(error)])
        return web.json_response(supervisor.status())

    return answer


if __name__ == "__main__":
    main(sys.argv[1:])
