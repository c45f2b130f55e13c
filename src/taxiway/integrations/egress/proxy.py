"""The proxy of package indexes: answers with their pages, with files that such a page linked, and with 403."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from aiohttp import web

from taxiway.integrations.egress.pages import ACCEPT, JSON, Link, read_page, write_json, write_page
from taxiway.integrations.egress.sources import Source, Sources, split_login
from taxiway.integrations.egress.upstream import Place
from taxiway.integrations.egress.wire import Wire, plain

__all__ = ["IndexProxy"]

_PAGE_BYTES = 64 << 20
_TEXT_BYTES = 512 << 10
_CHUNK = 256 << 10
_METADATA = ".metadata"
_ASKED = re.compile(
    r"/simple/(?P<index>[0-9a-f]{16})/(?P<project>[a-z0-9]+(?:-[a-z0-9]+)*)/?"
    r"|/links/(?P<links>[0-9a-f]{16})/?"
    r"|(?P<file>/files/[0-9a-f]{32}/[^/]+?)(?P<metadata>\.metadata)?"
)


class IndexProxy:
    """Answers for one command of uv. `notes` says, by address and without credentials, what could not be fetched and why; `pages`
    holds what was shown, by the path of the source and the project."""

    def __init__(self, sources: Sources) -> None:
        self.pages: dict[tuple[str, str], Sequence[Link]] = {}
        self._sources = {s.path: s for s in (*sources.indexes, *sources.links)}
        self._wire = Wire(sources.settings)
        self._linked: dict[str, Place] = {}

    @property
    def notes(self) -> Mapping[str, str]:
        """What could not be fetched and why."""
        return self._wire.notes

    @property
    def timeout_s(self) -> float:
        """How long an index may be silent."""
        return self._wire.timeout_s

    async def serve(self, listener: socket.socket, ended: asyncio.Event) -> None:
        """Answer connections to `listener` until `ended`."""
        await self._wire.serve(self._answer, listener, ended)

    async def metadata(self, source: Source, link: Link) -> str:
        """The core metadata of a wheel of a page, where its index has it (PEP 658, also where no page says so); "" else."""
        address, login = split_login(link.url)
        if not link.is_wheel or not address.startswith(("http:", "https:")):
            return ""
        parts = urlsplit(address)
        place = Place(source, urlunsplit(parts._replace(path=parts.path + _METADATA)), login)
        return (await self._wire.page(place, "*/*", limit=_TEXT_BYTES)).body.decode("utf-8", errors="replace")

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = _ASKED.fullmatch(request.raw_path)
        if asked is None or request.method not in ("GET", "HEAD"):
            return plain(403)
        if asked["file"]:
            return await self._file(request, asked["file"], asked["metadata"] or "")
        source = self._sources.get(f"/simple/{asked['index']}/" if asked["index"] else f"/links/{asked['links']}/")
        if source is None:
            return plain(403)
        url = source.url if source.flat else f"{source.url.rstrip('/')}/{asked['project']}/"
        as_json = JSON in request.headers.get("Accept", "")
        return await self._wire.noted(url, self._page(source, url, asked["project"] or "", as_json=as_json))

    # --- pages ------------------------------------------------------------------------------------

    async def _page(self, source: Source, url: str, project: str, *, as_json: bool) -> web.StreamResponse:
        if source.folder is not None:
            links = await asyncio.to_thread(_local_links, source.folder, source, project)
        else:
            page = await self._wire.page(Place(source, url), ACCEPT)
            if page.status != web.HTTPOk.status_code:
                self._wire.note(url, page.status)
                return plain(page.status)
            links = read_page(page.body, page.kind, url)
        if links is None:
            return plain(404)
        self.pages[source.path, project] = links
        # Not to be kept: what a page links is known to the proxy that fetched it, and this one lives for one install.
        write, kind = (write_json, JSON) if as_json else (write_page, "text/html")
        headers = {"Content-Type": kind, "Cache-Control": "no-store"}
        return web.Response(body=write(links, lambda link: self._link(source, link)), headers=headers)

    def _link(self, source: Source, link: Link) -> str:
        """Where the page of our own leads to; wheels alone can be fetched, as they alone are installed."""
        path, address, login = self.path(source, link), *split_login(link.url)
        schemes = ("http:", "https:") if source.folder is None else ("http:", "https:", "file:")
        if link.is_wheel and address.startswith(schemes):
            self._linked[path] = Place(source, address, login)
        return path

    @staticmethod
    def path(source: Source, link: Link) -> str:
        """Where a file is served. Told apart by address: what uv caches under one stays what it is."""
        address, _ = split_login(link.url)
        return f"/files/{hashlib.sha256(f'{source.key} {address}'.encode()).hexdigest()[:32]}/{quote(link.name)}"

    # --- files ------------------------------------------------------------------------------------

    async def _file(self, request: web.BaseRequest, path: str, suffix: str) -> web.StreamResponse:
        place = self._linked.get(path)
        if place is None:
            return plain(403)
        parts = urlsplit(place.url)
        place = replace(place, url=urlunsplit(parts._replace(path=parts.path + suffix)))
        if parts.scheme == "file":
            return _local_file(Path(unquote(parts.path) + suffix))
        return await self._wire.noted(place.url, self._wire.file(request, place))


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
        return plain(404)
    return web.FileResponse(real, chunk_size=_CHUNK)
