"""What proxies share: fetching by the machine's settings, streaming files within limits, and saying what went wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from taxiway.integrations.egress.pages import BadPage
from taxiway.integrations.egress.sources import shown
from taxiway.integrations.egress.upstream import Place, Refused, Upstream

__all__ = ["Page", "Wire", "plain"]

log = logging.getLogger(__name__)

_PAGE_BYTES = 64 << 20
_FILE_BYTES = 2 << 30
_ALL_BYTES = 16 << 30
_CHUNK = 256 << 10
_TOO_MUCH = "more was fetched than an install may fetch"
# uv has 50 at a time, npm 15 for each registry; each costs this machine a file descriptor and some memory.
_CONNECTIONS = 256
_FULL = "the proxy"
_NOTES = 10
_TO_INDEX = ("Range", "If-Range", "If-None-Match", "If-Modified-Since")
_TO_CLIENT = ("Content-Length", "Content-Range", "Accept-Ranges", "ETag", "Last-Modified", "Cache-Control")
_NOTHING = (404, 410)
_GOOD = (200, 206, 304)
# The first that matches; only the first two have words of our own making.
_WORDS: dict[type[Exception], str] = {
    Refused: "refused: {}",
    BadPage: "refused: {}",
    aiohttp.InvalidURL: "refused: it leads to what is no address of a server",
    TimeoutError: "timed out",
    aiohttp.ClientConnectorCertificateError: "its peer certificate cannot be verified",
    aiohttp.ClientSSLError: "its peer certificate or its TLS cannot be used",
    aiohttp.ClientConnectorDNSError: "dns error: its name is not found",
}


class _TurnedAway(asyncio.Protocol):
    """Closes its connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@dataclass(frozen=True)
class Page:
    """What a source answered: `body` is empty where `status` is not 200."""

    status: int
    body: bytes = b""
    kind: str = "text/html"


class Wire:
    """The way to the sources for the time of one command. `notes` says, by address and without credentials, what could not be
    fetched and why."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.notes: dict[str, str] = {}
        self._upstream = Upstream(settings)
        self._left = _ALL_BYTES

    @property
    def timeout_s(self) -> float:
        """How long a source may be silent."""
        return self._upstream.timeout_s

    async def serve(
        self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], listener: socket.socket, ended: asyncio.Event
    ) -> None:
        """Answer connections to `listener` until `ended`."""
        server = web.Server(answer, handler_cancellation=True, access_log=None)

        def take() -> asyncio.BaseProtocol:
            # Those of one burst are all taken before the first of them counts: a hundred at most, which asyncio accepts at once.
            return server() if len(server.connections) < _CONNECTIONS else self._turned_away()

        listening = await asyncio.get_running_loop().create_server(take, sock=listener)
        try:
            await ended.wait()
        finally:
            listening.close()
            server.pre_shutdown()
            await server.shutdown(timeout=0)
            await self._upstream.close()

    def _turned_away(self) -> asyncio.BaseProtocol:
        if _FULL not in self.notes:
            log.warning("what runs in the sandbox opened over %d connections to its proxy: more are closed at once", _CONNECTIONS)
            self.notes[_FULL] = f"over {_CONNECTIONS} connections at a time, and more were closed"
        return _TurnedAway()

    async def page(self, place: Place, accept: str, *, limit: int = _PAGE_BYTES) -> Page:
        """A whole document; raise Refused over `limit` bytes, else as `Upstream.open` does."""
        async with self._upstream.open("GET", place, {"Accept": accept}) as response:
            if response.status != web.HTTPOk.status_code:
                return Page(response.status)
            body = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK):
                body += chunk
                self._left -= len(chunk)
                if self._left < 0:
                    raise Refused(_TOO_MUCH)
                if len(body) > limit:
                    raise Refused(f"its page has over {limit} bytes")
            return Page(response.status, bytes(body), response.headers.get("Content-Type", ""))

    async def file(self, request: web.BaseRequest, place: Place) -> web.StreamResponse:
        """A file, streamed as it comes."""
        headers = {name: request.headers[name] for name in _TO_INDEX if name in request.headers}
        headers["Accept-Encoding"] = "identity"  # ranges and lengths are those of the file
        async with self._upstream.open(request.method, place, headers) as response:
            return await self._stream(request, place, response)

    async def _stream(self, request: web.BaseRequest, place: Place, response: aiohttp.ClientResponse) -> web.StreamResponse:
        if response.status not in _GOOD:
            self.note(place.url, response.status)
            return plain(response.status)
        if (response.content_length or 0) > _FILE_BYTES or response.headers.get("Content-Encoding", "identity") != "identity":
            raise Refused(f"the file has over {_FILE_BYTES} bytes, or is sent compressed")
        answer = web.StreamResponse(status=response.status, headers=_told(response.headers))
        await answer.prepare(request)
        sent = 0
        try:
            if request.method == "GET":
                async for chunk in response.content.iter_chunked(_CHUNK):
                    sent += len(chunk)
                    self._left -= len(chunk)
                    if sent > _FILE_BYTES or self._left < 0:
                        raise Refused(_TOO_MUCH)
                    await answer.write(chunk)
            await answer.write_eof()
        except (aiohttp.ClientError, TimeoutError, Refused) as error:
            # Half of it is sent: only the end of the connection says that it is no whole file.
            self.note(place.url, _why(error))
            if request.transport is not None:
                request.transport.abort()
        return answer

    async def noted(self, url: str, answer: Awaitable[web.StreamResponse]) -> web.StreamResponse:
        """The answer; what goes wrong becomes a note and a status."""
        self.notes.pop(shown(url), None)  # it is asked again: what it failed for before is no reason any more
        try:
            return await answer
        except (Refused, BadPage, TimeoutError, aiohttp.ClientError, OSError) as error:
            self.note(url, _why(error))
            return plain(
                403 if isinstance(error, (Refused, BadPage, aiohttp.InvalidURL)) else 504 if isinstance(error, TimeoutError) else 502
            )

    def note(self, url: str, why: str | int) -> None:
        """Say why `url` was not to be had."""
        if why not in _NOTHING and len(self.notes) < _NOTES:
            self.notes[shown(url)] = f"status code {why}" if isinstance(why, int) else why


def plain(status: int) -> web.Response:
    """An answer without a body, which nobody keeps."""
    return web.Response(status=status, headers={"Cache-Control": "no-store"})


def _told(headers: Mapping[str, str]) -> dict[str, str]:
    return {"Content-Type": "application/octet-stream"} | {name: headers[name] for name in _TO_CLIENT if name in headers}


def _why(error: Exception) -> str:
    """In words of our own: those of libraries may hold addresses with credentials."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answers with status code {error.status}"
    for kind, words in _WORDS.items():
        if isinstance(error, kind):
            return words.format(error)
    if isinstance(error, OSError) and error.errno:
        return f"error sending request: {os.strerror(error.errno).lower()}"
    return f"connection closed ({type(error).__name__})"
