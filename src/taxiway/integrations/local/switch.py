"""The switch: an HTTP/1.1 reverse proxy that holds a service's port and hands each request to the release that is live."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from taxiway.integrations.local.instance import Instance, Unreachable

__all__ = ["Switch"]

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_MAY_BE_ASKED_TWICE = frozenset({"GET", "HEAD"})
_FORWARDED = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded")


class Switch:
    """Serves the port. `live` is asked once per request: who got a request answers it, whatever is switched meanwhile."""

    def __init__(self, live: Callable[[], Instance | None]) -> None:
        self._live = live
        self._server: asyncio.Server | None = None
        self._web: web.Server | None = None

    async def start(self, port: int) -> int:
        """Listen on 127.0.0.1; the port. OSError where it is taken."""
        self._web = web.Server(self._serve, handler_cancellation=True, auto_decompress=False, access_log=None, keepalive_timeout=75.0)
        self._server = await asyncio.get_running_loop().create_server(self._web, "127.0.0.1", port, backlog=1024)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Listen no more and end what is open."""
        if self._server is not None and self._web is not None:
            self._server.close()
            self._web.pre_shutdown()
            await self._web.shutdown(timeout=2.0)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        target = _target(request)
        if target is None:
            return _plain(400, "Taxiway's switch takes requests for paths.\n")
        instance = self._live()
        if instance is None or instance.exit_code is not None:
            return _plain(503, "No release runs now; try again soon.\n", retry_after=True)
        instance.enter()
        try:
            return await (_websocket if _is_websocket(request) else _forward)(request, instance, target)
        except (Unreachable, aiohttp.ClientError, ConnectionError, ValueError) as error:
            return _failed(instance, error)
        finally:
            instance.leave()


def _failed(instance: Instance, error: Exception) -> web.Response:
    if not isinstance(error, Unreachable):
        return _plain(502, f"The release gave no HTTP answer ({type(error).__name__}).\n")
    if instance.was_healthy:
        return _plain(502, f"The release takes no connection: {error}.\n")
    return _plain(503, "The release is starting; try again soon.\n", retry_after=True)


async def _forward(request: web.BaseRequest, instance: Instance, target: URL) -> web.StreamResponse:
    headers = _request_headers(request)
    if request.method in _MAY_BE_ASKED_TWICE and not request.body_exists:
        with contextlib.suppress(aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            return await _pass_on(request, await instance.kept.request(request.method, target, headers=headers, allow_redirects=False))
    body = _body(request) if request.body_exists else None
    return await _pass_on(request, await instance.fresh.request(request.method, target, headers=headers, data=body, allow_redirects=False))


async def _pass_on(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """The answer, piece by piece as it comes. Nothing that goes wrong from here on is raised: the client has its beginning."""
    async with answer:
        response = _Response(status=answer.status, reason=answer.reason or "", headers=_end_to_end(answer.headers))
        try:
            writer = await response.prepare(request)
            ready = answer.content.read_nowait()
            if writer is not None and not ready and not answer.content.at_eof():
                writer.send_headers()
            if request.method != "HEAD":
                if ready:
                    await response.write(ready)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            await response.write_eof()
        except (aiohttp.ClientError, ConnectionError, RuntimeError):
            # The client must see that the answer is not whole: a clean end would say that it is.
            if request.transport is not None:
                request.transport.abort()
        return response


class _Response(web.StreamResponse):
    """An answer as the release gave it: aiohttp's own Content-Type and Server are not added.

    Its headers wait for the first piece of the body where that is there already: one packet instead of two.
    """

    _send_headers_immediately = False

    async def _prepare_headers(self) -> None:
        names = {name for name in ("Content-Type", "Server") if name not in self.headers}
        await super()._prepare_headers()
        for name in names:
            self.headers.popall(name, None)


async def _body(request: web.BaseRequest) -> AsyncIterator[bytes]:
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= aiohttp.HttpVersion11:
        assert request.transport is not None  # noqa: S101 - for the type checker
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    async for chunk in request.content.iter_any():
        yield chunk


def _target(request: web.BaseRequest) -> URL | None:
    """Where the request goes, its path untouched; None for a proxy's or a server's own target, or one with a fragment."""
    raw = request.raw_path
    if not raw.startswith("/") or "#" in raw or request.method == "CONNECT":
        return None
    path, mark, query = raw.partition("?")
    url = URL.build(scheme="http", host="127.0.0.1", port=80, path=path, query_string=query, encoded=True)
    # An empty query's question mark would be lost.
    return url if url.raw_path_qs == raw or (mark and not query) else None


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    named = {name.strip().lower() for value in headers.getall("Connection", []) for name in value.split(",")}
    return CIMultiDict((name, value) for name, value in headers.items() if (low := name.lower()) not in _HOP_BY_HOP and low not in named)


def _request_headers(request: web.BaseRequest) -> CIMultiDict[str]:
    headers = _end_to_end(request.headers)
    # The switch is the first that a client meets: what a client says about itself here is not to be believed.
    for name in _FORWARDED:
        headers.popall(name, None)
    headers["X-Forwarded-For"] = request.remote or "unknown"
    headers["X-Forwarded-Proto"] = "http"
    if host := request.headers.get("Host"):
        headers["X-Forwarded-Host"] = host
    headers.add("Via", "1.1 taxiway")
    return headers


def _plain(status: int, text: str, *, retry_after: bool = False) -> web.Response:
    headers = {"Retry-After": "1"} if retry_after else {}
    return web.Response(status=status, text=text, headers={**headers, "Cache-Control": "no-store"})


# --- web sockets --------------------------------------------------------------------------------


def _is_websocket(request: web.BaseRequest) -> bool:
    return request.method == "GET" and request.headers.get("Upgrade", "").lower() == "websocket"


async def _websocket(request: web.BaseRequest, instance: Instance, target: URL) -> web.StreamResponse:
    headers = _request_headers(request)
    for name in [name for name in headers if name.lower().startswith("sec-websocket-")]:
        headers.popall(name, None)
    offered = [word.strip() for value in request.headers.getall("Sec-WebSocket-Protocol", []) for word in value.split(",")]
    try:
        there = await instance.fresh.ws_connect(target, headers=headers, protocols=offered, autoping=False, autoclose=False, max_msg_size=0)
    except aiohttp.WSServerHandshakeError as error:
        return _plain(error.status if error.status >= 400 else 502, "The release did not take the web socket.\n")  # noqa: PLR2004
    async with there:
        here = web.WebSocketResponse(
            protocols=[there.protocol] if there.protocol else [], autoping=False, autoclose=False, compress=False, max_msg_size=0
        )
        await here.prepare(request)
        ways = [asyncio.create_task(_copy(here, there)), asyncio.create_task(_copy(there, here))]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        code = next((way.result() for way in done if not way.exception()), aiohttp.WSCloseCode.GOING_AWAY)
        for side in (there, here):
            with contextlib.suppress(ConnectionError, RuntimeError):
                await side.close(code=code)
        return here


WebSocket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _copy(source: WebSocket, sink: WebSocket) -> int:
    """Messages one way until the source closes; the code that it closed with."""
    kinds = aiohttp.WSMsgType
    while True:
        message = await source.receive()
        if message.type is kinds.TEXT:
            await sink.send_str(message.data)
        elif message.type is kinds.BINARY:
            await sink.send_bytes(message.data)
        elif message.type is kinds.PING:
            await sink.ping(message.data)
        elif message.type is kinds.PONG:
            await sink.pong(message.data)
        elif message.type is kinds.CLOSE:
            return int(message.data or aiohttp.WSCloseCode.OK)
        else:
            return aiohttp.WSCloseCode.GOING_AWAY
