"""A proxy in a thread of its own, from when a sandbox hands its listening socket out until the install is over."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar

from taxiway.integrations.egress.proxy import IndexProxy
from taxiway.integrations.egress.sources import Sources
from taxiway.ports import Cancellation
from taxiway.waiting import attended

__all__ = ["Serving", "egress", "serving"]

_JOIN_S = 2.0  # of the 4 s in which a stopped run has to end
_T = TypeVar("_T")


class _Proxy(Protocol):
    async def serve(self, listener: socket.socket, ended: asyncio.Event) -> None: ...


@contextmanager
def egress(sources: Sources) -> Iterator[tuple[IndexProxy, socket.socket]]:
    """A proxy of these indexes, and the socket over which a `door.py` hands it the one to listen on. Raise OperatorError where the
    machine's settings cannot be used."""
    proxy = IndexProxy(sources)
    with serving(proxy) as (_, door):
        yield proxy, door


@contextmanager
def serving(proxy: _Proxy) -> Iterator[tuple[Serving, socket.socket]]:
    """The thread of any proxy, and the socket for its `door.py`."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = Serving(proxy, ours)
        thread.start()
        try:
            yield thread, theirs
        finally:
            thread.end()


class Serving(threading.Thread):
    """The thread that a proxy serves in, from the moment that its listening socket comes over `channel`."""

    def __init__(self, proxy: _Proxy, channel: socket.socket) -> None:
        super().__init__(name="egress", daemon=True)
        self._proxy = proxy
        self._channel = channel
        self._over = threading.Event()
        self._end: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def run(self) -> None:
        """See `threading.Thread`."""
        handles: list[int] = []
        with suppress(OSError):  # the sandbox ended before it listened
            _, handles, _, _ = socket.recv_fds(self._channel, 64, 1)
        if handles:
            with socket.socket(fileno=handles[0]) as listener:
                asyncio.run(self._serve(listener))

    def ask(self, question: Coroutine[None, None, _T], *, within_s: float, stop: Cancellation) -> _T | None:
        """What `question` answers in the proxy's own loop; None where nothing is served, or not in time. Raises what `stop.check` does."""
        if self._end is None:
            question.close()
            return None
        future = asyncio.run_coroutine_threadsafe(question, self._end[0])
        try:
            return attended(future.result, stop, most_s=within_s)
        except TimeoutError:
            return None
        finally:
            future.cancel()  # which changes nothing where it is done

    def end(self) -> None:
        """Cut all connections and end the thread; a page that is being parsed is not waited for long."""
        self._over.set()
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        if self._end is not None:
            loop, event = self._end
            with suppress(RuntimeError):  # it ended by itself
                loop.call_soon_threadsafe(event.set)
        self.join(_JOIN_S)

    async def _serve(self, listener: socket.socket) -> None:
        event = asyncio.Event()
        self._end = (asyncio.get_running_loop(), event)
        if not self._over.is_set():
            await self._proxy.serve(listener, event)
