"""The proxy: answers with pages of the machine's indexes, with files that such a page linked, and with 403."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import socket
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import aiohttp
from aiohttp import web

from taxiway.integrations.egress.pages import ACCEPT, BadPage, Link, read_page, write_page
from taxiway.integrations.egress.sources import Source, Sources, shown, split_login
from taxiway.integrations.egress.upstream import Place, Refused, Upstream

__all__ = ["IndexProxy"]

_PAGE_BYTES = 64 << 20
_FILE_BYTES = 2 << 30
_ALL_BYTES = 16 << 30
_CHUNK = 256 << 10
_NOTES = 10
_METADATA = ".metadata"
_ASKED = re.compile(
    r"/simple/(?P<index>[0-9a-f]{16})/(?P<project>[a-z0-9]+(?:-[a-z0-9]+)*)/?"
    r"|/links/(?P<links>[0-9a-f]{16})/?"
    r"|(?P<file>/files/[0-9a-f]{32}/[^/]+?)(?P<metadata>\.metadata)?"
)
_TO_INDEX = ("Range", "If-Range", "If-None-Match", "If-Modified-Since")
_TO_UV = ("Content-Length", "Content-Range", "Accept-Ranges", "ETag", "Last-Modified", "Cache-Control")
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


@dataclass(frozen=True)
class _Page:
    status: int
    body: bytes = b""
    kind: str = "text/html"


class IndexProxy:
    """Answers for one install. `notes` says, by address and without credentials, what could not be fetched and why."""

    def __init__(self, sources: Sources) -> None:
        self.notes: dict[str, str] = {}
        self._sources = {s.path: s for s in (*sources.indexes, *sources.links)}
        self._upstream = Upstream(sources.settings)
        self._linked: dict[str, Place] = {}
        self._left = _ALL_BYTES

    @property
    def timeout_s(self) -> float:
        """How long an index may be silent."""
        return self._upstream.timeout_s

    async def serve(self, listener: socket.socket, ended: asyncio.Event) -> None:
        """Answer connections to `listener` until `ended`."""
        server = web.Server(self._answer, handler_cancellation=True, access_log=None)
        listening = await asyncio.get_running_loop().create_server(server, sock=listener)
        try:
            await ended.wait()
        finally:
            listening.close()
            server.pre_shutdown()
            await server.shutdown(timeout=0)
            await self._upstream.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = _ASKED.fullmatch(request.raw_path)
        if asked is None or request.method not in ("GET", "HEAD"):
            return _plain(403)
        if asked["file"]:
            return await self._file(request, asked["file"], asked["metadata"] or "")
        source = self._sources.get(f"/simple/{asked['index']}/" if asked["index"] else f"/links/{asked['links']}/")
        if source is None:
            return _plain(403)
        url = source.url if source.flat else f"{source.url.rstrip('/')}/{asked['project']}/"
        return await self._noted(url, self._page(source, url, asked["project"] or ""))

    # --- pages ------------------------------------------------------------------------------------

    async def _page(self, source: Source, url: str, project: str) -> web.StreamResponse:
        if source.folder is not None:
            links = await asyncio.to_thread(_local_links, source.folder, source, project)
        else:
            page = await self._fetch_page(Place(source, url))
            if page.status != web.HTTPOk.status_code:
                self._note(url, page.status)
                return _plain(page.status)
            links = read_page(page.body, page.kind, url)
        if links is None:
            return _plain(404)
        # Not to be kept: what a page links is known to the proxy that fetched it, and this one lives for one install.
        headers = {"Content-Type": "text/html", "Cache-Control": "no-store"}
        return web.Response(body=write_page(links, lambda link: self._link(source, link)), headers=headers)

    async def _fetch_page(self, place: Place) -> _Page:
        async with self._upstream.open("GET", place, {"Accept": ACCEPT}) as response:
            if response.status != web.HTTPOk.status_code:
                return _Page(response.status)
            body = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK):
                body += chunk
                if len(body) > _PAGE_BYTES:
                    raise Refused(f"its page has over {_PAGE_BYTES} bytes")
            return _Page(response.status, bytes(body), response.headers.get("Content-Type", ""))

    def _link(self, source: Source, link: Link) -> str:
        """Where the page of our own leads to; wheels alone can be fetched, as they alone are installed."""
        address, login = split_login(link.url)
        schemes = ("http:", "https:") if source.folder is None else ("http:", "https:", "file:")
        # Told apart by address: what uv caches under one stays what it is.
        path = f"/files/{hashlib.sha256(f'{source.key} {address}'.encode()).hexdigest()[:32]}/{quote(link.name)}"
        if link.is_wheel and address.startswith(schemes):
            self._linked[path] = Place(source, address, login)
        return path

    # --- files ------------------------------------------------------------------------------------

    async def _file(self, request: web.BaseRequest, path: str, suffix: str) -> web.StreamResponse:
        place = self._linked.get(path)
        if place is None:
            return _plain(403)
        parts = urlsplit(place.url)
        place = replace(place, url=urlunsplit(parts._replace(path=parts.path + suffix)))
        if parts.scheme == "file":
            return _local_file(Path(unquote(parts.path) + suffix))
        return await self._noted(place.url, self._remote_file(request, place))

    async def _remote_file(self, request: web.BaseRequest, place: Place) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in _TO_INDEX if name in request.headers}
        headers["Accept-Encoding"] = "identity"  # ranges and lengths are those of the file
        async with self._upstream.open(request.method, place, headers) as response:
            return await self._stream(request, place, response)

    async def _stream(self, request: web.BaseRequest, place: Place, response: aiohttp.ClientResponse) -> web.StreamResponse:
        if response.status not in _GOOD:
            self._note(place.url, response.status)
            return _plain(response.status)
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
                        raise Refused("more was fetched than an install may fetch")
                    await answer.write(chunk)
            await answer.write_eof()
        except (aiohttp.ClientError, TimeoutError, Refused) as error:
            # Half of it is sent: only the end of the connection says that it is no whole file.
            self._note(place.url, _why(error))
            if request.transport is not None:
                request.transport.abort()
        return answer

    # --- what went wrong --------------------------------------------------------------------------

    async def _noted(self, url: str, answer: Awaitable[web.StreamResponse]) -> web.StreamResponse:
        """The answer; what goes wrong becomes a note and a status."""
        self.notes.pop(shown(url), None)  # uv asks again: what it failed for before is no reason any more
        try:
            return await answer
        except (Refused, BadPage, TimeoutError, aiohttp.ClientError, OSError) as error:
            self._note(url, _why(error))
            return _plain(
                403 if isinstance(error, (Refused, BadPage, aiohttp.InvalidURL)) else 504 if isinstance(error, TimeoutError) else 502
            )

    def _note(self, url: str, why: str | int) -> None:
        if why not in _NOTHING and len(self.notes) < _NOTES:
            self.notes[shown(url)] = f"status code {why}" if isinstance(why, int) else why


def _plain(status: int) -> web.Response:
    return web.Response(status=status, headers={"Cache-Control": "no-store"})


def _told(headers: Mapping[str, str]) -> dict[str, str]:
    return {"Content-Type": "application/octet-stream"} | {name: headers[name] for name in _TO_UV if name in headers}


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


def _local_links(folder: Path, source: Source, project: str) -> list[Link] | None:
    if source.flat:
        return [Link(p.name, p.absolute().as_uri()) for p in sorted(folder.glob("*.whl"))]
    page = folder / project / "index.html"
    if not page.is_file():
        return None
    with page.open("rb") as file:
        body = file.read(_PAGE_BYTES)
    return read_page(body, "text/html", page.parent.absolute().as_uri() + "/")


def _local_file(place: Path) -> web.StreamResponse:
    """A wheel of a local index or folder, and no file that only a link calls one."""
    real = place.resolve()
    if not real.name.endswith((".whl", ".whl" + _METADATA)) or not real.is_file():
        return _plain(404)
    return web.FileResponse(real, chunk_size=_CHUNK)
