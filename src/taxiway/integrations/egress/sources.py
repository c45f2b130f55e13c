"""Where this machine's packages come from: indexes and pages of links, each with the credentials that its settings give."""

from __future__ import annotations

import hashlib
import netrc
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from taxiway.integrations.indexes import ask_uv, uv_environment

__all__ = ["Login", "Origin", "Source", "Sources", "origin_of", "read_sources", "shown", "split_login"]

Login = tuple[str, str]
Origin = tuple[str, str, int]

_PORTS = {"http": 80, "https": 443}
_YES = ("1", "true", "yes", "on", "y", "t")


@dataclass(frozen=True)
class Source:
    """An index or a registry, or a page or folder of links (`flat`). `url` is http(s) or file, without credentials, which are a `login`
    or a `bearer` token."""

    url: str
    flat: bool = False
    login: Login | None = field(default=None, repr=False)
    bearer: str = field(default="", repr=False)

    @property
    def key(self) -> str:
        """A name for it inside the sandbox. What uv caches by address belongs to this source alone."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]

    @property
    def path(self) -> str:
        """Where the proxy serves it."""
        return f"/{'links' if self.flat else 'simple'}/{self.key}/"

    @property
    def origin(self) -> Origin | None:
        """Scheme, host and port; None for a folder."""
        return origin_of(self.url)

    @property
    def folder(self) -> Path | None:
        """The folder of this machine that it is."""
        return Path(unquote(urlsplit(self.url).path)) if self.url.startswith("file:") else None


@dataclass(frozen=True)
class Sources:
    """All of them: indexes in uv's own order, the default one last. `settings` are the machine's, as uv's variables."""

    indexes: tuple[Source, ...]
    links: tuple[Source, ...]
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)

    def uv_environment(self, base: str, timeout_s: float) -> dict[str, str]:
        """What uv inside the sandbox is told, where `base` is the proxy: addresses of the proxy, and no secret."""
        *extra, default = [base + s.path for s in self.indexes] or [""]
        told = {
            "UV_DEFAULT_INDEX": default,
            "UV_INDEX": " ".join(extra),
            "UV_FIND_LINKS": ",".join(base + s.path for s in self.links),
            "UV_NO_INDEX": "" if self.indexes else "1",
            "UV_INDEX_STRATEGY": self.settings.get("UV_INDEX_STRATEGY", ""),
            "UV_HTTP_RETRIES": self.settings.get("UV_HTTP_RETRIES", ""),
            "UV_HTTP_TIMEOUT": str(int(timeout_s) + 5),  # the proxy is the one to give up, for it can say on whom
            "UV_NO_CONFIG": "1",
            "UV_PYTHON_DOWNLOADS": "never",
        }
        return {name: value for name, value in told.items() if value}

    def named(self, words: str, base: str) -> str:
        """`words` of uv with the addresses of the sources in place of the proxy's."""
        for source in (*self.indexes, *self.links):
            words = words.replace(base + source.path, shown(source.url).rstrip("/") + ("" if source.flat else "/"))
        return words


def read_sources(environ: Mapping[str, str]) -> Sources:
    """The machine's settings for pip and uv (variables, then files); raise OperatorError where uv does not take them."""
    settings = uv_environment(environ)
    files = [*_uv_settings(environ)]
    for name in ("index-strategy", "no-index"):
        found = [v for f in files for v in (f.get(name), f.get("pip", {}).get(name)) if v is not None]
        if found:
            settings.setdefault("UV_" + name.upper().replace("-", "_"), str(found[0]).lower())
    said = ask_uv(environ)
    logins = dict(_named_logins(settings, files))
    indexes = [_source(u, environ, logins) for option in ("--extra-index-url", "--index-url") for u in said.get(option, ())]
    links = [replace(_source(u, environ, logins), flat=True) for u in said.get("--find-links", ())]
    if _is(settings, "UV_NO_INDEX"):
        indexes = []
    if _is(settings, "UV_OFFLINE"):
        indexes, links = ([s for s in found if s.folder is not None] for found in (indexes, links))
    return Sources(_once(indexes), _once(links), settings)


def origin_of(url: str) -> Origin | None:
    """Scheme, host and port of an http or https address; None for others, and for what is no address."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.scheme in _PORTS and parts.hostname else None


def split_login(url: str) -> tuple[str, Login | None]:
    """The address without its credentials and fragment, and the credentials."""
    parts = urlsplit(url)
    rest = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
    login = (unquote(parts.username or ""), unquote(parts.password or ""))
    return rest, login if any(login) else None


def shown(url: str) -> str:
    """An address for people: without credentials, and without a query, which may hold some."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _source(address: str, environ: Mapping[str, str], logins: Mapping[str, Login]) -> Source:
    if "://" not in address and not address.startswith("file:"):
        return Source(Path(address).expanduser().absolute().as_uri())
    url, login = split_login(address)
    return Source(url, login=login or logins.get(url.rstrip("/")) or _from_netrc(url, environ))


def _once(sources: list[Source]) -> tuple[Source, ...]:
    return tuple({s.url: s for s in reversed(sources)}.values())[::-1]


def _is(settings: Mapping[str, str], name: str) -> bool:
    return settings.get(name, "").lower() in _YES


def _from_netrc(url: str, environ: Mapping[str, str]) -> Login | None:
    place = environ.get("NETRC") or str(Path(environ.get("HOME") or "/nonexistent", ".netrc"))
    try:
        found = netrc.netrc(place).authenticators(urlsplit(url).hostname or "")
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return None
    return (found[0], found[2] or "") if found else None


def _named_logins(settings: Mapping[str, str], files: list[dict[str, Any]]) -> Iterator[tuple[str, Login]]:
    """Of indexes with a name, whose credentials stand in UV_INDEX_<NAME>_USERNAME and _PASSWORD."""
    named = [part.split("=", 1) for n in ("UV_INDEX", "UV_DEFAULT_INDEX") for part in settings.get(n, "").split() if "=" in part]
    named += [[str(i.get("name", "")), str(i.get("url", ""))] for f in files for i in f.get("index", ()) if isinstance(i, dict)]
    for name, url in named:
        prefix = "UV_INDEX_" + "".join(c if c.isalnum() else "_" for c in name.upper())
        login = (settings.get(f"{prefix}_USERNAME", ""), settings.get(f"{prefix}_PASSWORD", ""))
        if any(login):
            yield split_login(url)[0].rstrip("/"), login


def _uv_settings(environ: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The configuration files of uv, the user's first; what is wrong with one is uv's to say."""
    user = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or "/nonexistent", ".config"))
    for place in (user / "uv/uv.toml", Path("/etc/uv/uv.toml")):
        try:
            yield tomllib.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
