"""Fetches what the proxy may fetch, with the machine's certificates, proxies and credentials, and never from where it should not."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urljoin

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from taxiway import __version__
from taxiway.errors import OperatorError
from taxiway.integrations.egress.sources import Login, Source, origin_of

__all__ = ["Place", "Refused", "Upstream"]

_REDIRECTS = 5
_READ_S = 30.0
_CONNECT_S = 10.0
_SIDE_BY_SIDE = 20
_REDIRECT = frozenset({301, 302, 303, 307, 308})
_EMBEDS = tuple(ipaddress.IPv6Network(prefix) for prefix in ("::/96", "64:ff9b::/96", "64:ff9b:1::/48"))


class Refused(Exception):
    """An address that this source may not lead to. No OSError: aiohttp would wrap that."""


@dataclass(frozen=True)
class Place:
    """An address, the source that named it, and the credentials that the source gave with it."""

    source: Source
    url: str
    login: Login | None = field(default=None, repr=False)


class Upstream:
    """The machine's way to its sources. `timeout_s` is how long one may be silent.

    A source may be anywhere. What it links and redirects to must be a public address, or a private one where the source itself is
    at a private one; loopback and link-local addresses are refused, and https never leads to http.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.timeout_s = _seconds(settings.get("UV_HTTP_TIMEOUT"), _READ_S)
        self._connect_s = _seconds(settings.get("UV_HTTP_CONNECT_TIMEOUT"), _CONNECT_S)
        self._proxies = _proxies(settings)
        self._insecure = frozenset(settings.get("UV_INSECURE_HOST", "").split())
        self._tls = _tls(settings)
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    @asynccontextmanager
    async def open(self, method: str, place: Place, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer at the end of all redirects; raise Refused, aiohttp.ClientError or TimeoutError."""
        url = place.url
        for _ in range(_REDIRECTS + 1):
            self._check(place, url)
            async with self._session(place.source).request(
                method,
                _address(url),
                headers={**headers, **_authorization(place, url)},
                allow_redirects=False,
                proxy=self._proxy(url),
                ssl=False if self._is_insecure(url) else self._tls,
            ) as response:
                target = response.headers.get("Location")
                if response.status not in _REDIRECT or not target:
                    yield response
                    return
            url = _target(url, target)
        raise Refused(f"more than {_REDIRECTS} redirects")

    async def close(self) -> None:
        """Drop all connections."""
        for session in self._sessions.values():
            await session.close()

    def _check(self, place: Place, url: str) -> None:
        origin = origin_of(url)
        if origin is None:
            raise Refused("it leads to what is no address of a server")
        if origin[0] == "http" and place.source.url.startswith("https:"):
            raise Refused("it leads from https to http")
        if origin != place.source.origin:
            # Names are looked at when they are resolved. Addresses are not resolved, nor is what a proxy is asked for.
            try:
                literal = ipaddress.ip_address(origin[1])
            except ValueError:
                if _is_no_name(origin[1]):
                    raise Refused("it leads to what is no address of a server") from None
                return
            if not _allowed(str(literal), private=_is_private(place.source)):
                raise Refused(f"it leads to {origin[1]}")

    def _session(self, source: Source) -> aiohttp.ClientSession:
        if source.key not in self._sessions:
            ours = {(o[1], o[2]) for o in (source.origin, *(origin_of(p) for p in self._proxies.values())) if o}
            self._sessions[source.key] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=_Resolver(source, ours), limit=_SIDE_BY_SIDE),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_s, sock_read=self.timeout_s),
                headers={"User-Agent": f"taxiway/{__version__}"},
                trust_env=False,
            )
        return self._sessions[source.key]

    def _proxy(self, url: str) -> str | None:
        scheme, host, port = origin_of(url) or ("", "", 0)
        if urllib.request.proxy_bypass_environment(f"{host}:{port}", dict(self._proxies)):  # type: ignore[attr-defined] # typeshed lacks it
            return None
        return self._proxies.get(scheme) or self._proxies.get("all")

    def _is_insecure(self, url: str) -> bool:
        scheme, host, port = origin_of(url) or ("", "", 0)
        return not self._insecure.isdisjoint({host, f"{host}:{port}", f"{scheme}://{host}", f"{scheme}://{host}:{port}"})


class _Resolver(AbstractResolver):
    """Resolves names, without the addresses that a source must not lead to. What was checked here is what is connected to."""

    def __init__(self, source: Source, ours: set[tuple[str, int]]) -> None:
        self._source = source
        self._ours = ours
        self._names = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        found = await self._names.resolve(host, port, family)
        if (host, port) in self._ours:
            return found
        private = await asyncio.to_thread(_is_private, self._source)
        if not (allowed := [a for a in found if _allowed(a["host"], private=private)]):
            raise Refused(f"it leads to {host}, which is not a public address")
        return allowed

    async def close(self) -> None:
        await self._names.close()


def _address(url: str) -> URL:
    try:
        made = URL(url, encoded=True)
        made.host  # noqa: B018 - whether it can be encoded shows only here
    except ValueError as error:
        raise Refused("it leads to what is no address of a server") from error
    return made


def _is_no_name(host: str) -> bool:
    """Whether a host is this machine's own name, or an IPv4 address as sockets read them too: 127.1, 0x7f.1, 2130706433."""
    last = host.removesuffix(".").rpartition(".")[2]
    return ":" in host or not host.isascii() or last == "localhost" or last.isdigit() or last.startswith("0x")


def _allowed(address: str, *, private: bool) -> bool:
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    ip = _within(ip) if isinstance(ip, ipaddress.IPv6Address) else ip
    if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return False
    return ip.is_global or (private and ip.is_private)


def _within(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that one of IPv6 stands for: mapped, compatible, by 6to4, or behind a NAT64."""
    embedded = ip.ipv4_mapped or ip.sixtofour
    if embedded is None and any(ip in network for network in _EMBEDS):
        embedded = ipaddress.IPv4Address(ip.packed[-4:])
    # The first two of these are :: and ::1.
    return ip if embedded is None or int(ip) <= 1 else embedded


def _is_private(source: Source) -> bool:
    """Whether the source itself is at a private address of the network."""
    if source.origin is None:
        return False
    try:
        found = socket.getaddrinfo(source.origin[1], source.origin[2], type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(_allowed(str(a[4][0]), private=True) and not _allowed(str(a[4][0]), private=False) for a in found)


def _authorization(place: Place, url: str) -> dict[str, str]:
    """Credentials go to the origin that they belong to, whoever redirects where."""
    origin = origin_of(url)
    if place.source.bearer and origin == place.source.origin:
        return {"Authorization": f"Bearer {place.source.bearer}"}
    login = place.login if origin == origin_of(place.url) else None
    login = login or (place.source.login if origin == place.source.origin else None)
    return {"Authorization": "Basic " + b64encode(":".join(login).encode()).decode()} if login else {}


def _target(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise Refused("it redirects to what is no address") from error


def _seconds(text: str | None, otherwise: float) -> float:
    try:
        return max(1.0, float(text)) if text else otherwise
    except ValueError:
        return otherwise


def _proxies(settings: Mapping[str, str]) -> dict[str, str]:
    """By scheme, as `urllib.request.getproxies` has them; small letters win."""
    ordered = sorted(settings.items(), key=lambda item: item[0].islower())
    found = {name.lower().removesuffix("_proxy"): v for name, v in ordered if name.lower().endswith("_proxy") and v}
    for name, address in found.items():
        if name != "no" and origin_of(address if "://" in address else f"http://{address}") is None:
            raise OperatorError(
                "a proxy of this machine speaks no HTTP, and code that is not trusted cannot be installed through it",
                hint="set HTTPS_PROXY to the address of an HTTP proxy",
            )
    return {name: v if name == "no" or "://" in v else f"http://{v}" for name, v in found.items()}


def _tls(settings: Mapping[str, str]) -> ssl.SSLContext:
    file, folder = settings.get("SSL_CERT_FILE") or None, settings.get("SSL_CERT_DIR") or None
    try:
        if file or folder:
            context = ssl.create_default_context(cafile=file, capath=folder)
        else:
            context = httpx.create_ssl_context(trust_env=False)
            context.load_default_certs()
        if client := settings.get("SSL_CLIENT_CERT"):
            context.load_cert_chain(client)
    except OSError as error:
        raise OperatorError(
            f"this machine's certificates cannot be read: {error}", hint="check SSL_CERT_FILE and SSL_CLIENT_CERT"
        ) from error
    return context
