"""A proxy in a thread of its own, from when a sandbox hands its listening socket out until the install is over."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from taxiway.integrations.egress.proxy import IndexProxy
from taxiway.integrations.egress.sources import Sources

__all__ = ["egress"]

_JOIN_S = 5.0


@contextmanager
def egress(sources: Sources) -> Iterator[tuple[IndexProxy, socket.socket]]:
    """The proxy, and the socket over which a `door.py` hands it the one to listen on. Raise OperatorError where the machine's
    settings cannot be used."""
    proxy = IndexProxy(sources)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        serving = _Serving(proxy, ours)
        serving.start()
        try:
            yield proxy, theirs
        finally:
            serving.end()


class _Serving(threading.Thread):
    """The thread that a proxy serves in, from the moment that its listening socket comes over `channel`."""

    def __init__(self, proxy: IndexProxy, channel: socket.socket) -> None:
        super().__init__(name="egress", daemon=True)
        self._proxy = proxy
        self._channel = channel
        self._over = threading.Event()
        self._end: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def run(self) -> None:
        handles: list[int] = []
        with suppress(OSError):  # the sandbox ended before it listened
            _, handles, _, _ = socket.recv_fds(self._channel, 64, 1)
        if handles:
            with socket.socket(fileno=handles[0]) as listener:
                asyncio.run(self._serve(listener))

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
