"""The proxy of npm registries: answers with what they have of a package, with tarballs that such an answer named, and with 403."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from aiohttp import web

from taxiway.integrations.egress.packuments import read_packument, same_integrity, write_packument
from taxiway.integrations.egress.sources import Source, split_login
from taxiway.integrations.egress.upstream import Place, Refused
from taxiway.integrations.egress.wire import Wire, plain

__all__ = ["Offer", "RegistryProxy"]

_TEXT_BYTES = 2 << 20
_NAME = r"(?:@[A-Za-z0-9_.~-]+%2[fF])?[A-Za-z0-9_.~-]+"
_ASKED = re.compile(rf"/npm/(?P<key>[0-9a-f]{{16}})/(?:(?P<tarball>-/[0-9a-f]{{32}}/[A-Za-z0-9_.~%@+-]+\.tgz)|(?P<name>{_NAME}))", re.ASCII)
_SHORT = "application/vnd.npm.install-v1+json"


@dataclass(frozen=True)
class Offer:
    """What npm may see: versions by `allowed` (name, version). `locked` are the versions that the project has, by name, with their
    integrity: a registry that has none of them, or one with other content, has another package of that name."""

    allowed: Callable[[str, str], bool]
    locked: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class RegistryProxy:
    """Answers for one command of npm. `seen` holds the versions of each package that was asked for, those too that were not offered;
    `tarballs` the addresses of tarballs at their registry, by their path here."""

    def __init__(self, sources: Sequence[Source], settings: Mapping[str, str], base: str, offer: Offer) -> None:
        self.seen: dict[str, Mapping[str, Mapping[str, Any]]] = {}
        self.tarballs: dict[str, str] = {}
        self._sources = {s.key: s for s in sources}
        self._base = base
        self._offer = offer
        self._wire = Wire(settings)
        self._linked: dict[str, Place] = {}

    @property
    def notes(self) -> Mapping[str, str]:
        """What could not be fetched and why, by address, without credentials."""
        return self._wire.notes

    @property
    def timeout_s(self) -> float:
        """How long a registry may be silent."""
        return self._wire.timeout_s

    async def serve(self, listener: socket.socket, ended: asyncio.Event) -> None:
        """Answer connections to `listener` until `ended`."""
        await self._wire.serve(self._answer, listener, ended)

    async def manifest(self, source: Source, name: str, version: str) -> Mapping[str, Any]:
        """The whole manifest of one version; empty where the registry has none."""
        place = Place(source, f"{_address(source, name)}/{quote(version)}")
        page = await self._wire.page(place, "application/json", limit=_TEXT_BYTES)
        try:
            found = json.loads(page.body or b"{}")
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = _ASKED.fullmatch(request.raw_path)
        source = self._sources.get(asked["key"]) if asked else None
        if asked is None or source is None or request.method not in ("GET", "HEAD"):
            return plain(403)
        if asked["tarball"]:
            place = self._linked.get(request.raw_path)
            return plain(403) if place is None else await self._wire.noted(place.url, self._wire.file(request, place))
        name = unquote(asked["name"])
        accept = _SHORT + "; q=1.0, application/json; q=0.8" if _SHORT in request.headers.get("Accept", "") else "application/json"
        return await self._wire.noted(_address(source, name), self._packument(source, name, accept))

    async def _packument(self, source: Source, name: str, accept: str) -> web.StreamResponse:
        url = _address(source, name)
        page = await self._wire.page(Place(source, url), accept)
        if page.status != web.HTTPOk.status_code:
            self._wire.note(url, page.status)
            return plain(page.status)
        versions = await asyncio.to_thread(read_packument, page.body)
        self._check(name, versions)
        self.seen[name] = versions
        body = write_packument(name, versions, lambda v: self._offer.allowed(name, v), lambda _, address: self._link(source, address))
        # Not to be kept: what it links is known to this proxy alone.
        return web.Response(body=body, headers={"Content-Type": "application/json", "Cache-Control": "no-store"})

    def _check(self, name: str, versions: Mapping[str, Mapping[str, Any]]) -> None:
        locked = self._offer.locked.get(name, {})
        if locked and not locked.keys() & versions.keys():
            raise Refused(f"it has none of the locked versions of {name}")
        for version, integrity in locked.items():
            if same_integrity(integrity, versions.get(version, {}).get("dist", {}).get("integrity")) is False:
                raise Refused(f"its {name} {version} is another one than the lock's")

    def _link(self, source: Source, tarball: str) -> str:
        address, login = split_login(tarball)
        file = re.sub(r"[^A-Za-z0-9_.-]", "_", address.rpartition("/")[2].partition("?")[0]).removesuffix(".tgz")[:100]
        path = f"/npm/{source.key}/-/{hashlib.sha256(f'{source.key} {address}'.encode()).hexdigest()[:32]}/{file}.tgz"
        self._linked[path] = Place(source, address, login)
        self.tarballs[self._base + path] = address
        return self._base + path


def _address(source: Source, name: str) -> str:
    return f"{source.url.rstrip('/')}/{quote(name, safe='@')}"
