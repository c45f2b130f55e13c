"""Pages of a package index: read as hostile input (HTML of PEP 503, JSON of PEP 691), and written anew."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape, unescape
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

__all__ = ["ACCEPT", "JSON", "BadPage", "Link", "read_page", "write_json", "write_page"]

JSON = "application/vnd.pypi.simple.v1+json"
ACCEPT = f"{JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,250}\.(?:whl|zip|tar\.gz|tar\.bz2|tar\.xz|tgz)", re.ASCII)
_HASH = re.compile(r"(?:sha256|sha384|sha512|md5)=[0-9a-fA-F]{32,128}", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z", re.ASCII)
_TAG = re.compile(r"<(a|base)(?=[\s/])", re.IGNORECASE)
_ATTRIBUTES = re.compile(r"""(?:[^"'>]++|"[^"]*+"|'[^']*+')*+""")
_ATTRIBUTE = re.compile(r"""([^\s"'>/=]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?""")
_TAG_LENGTH = 8000
_HASHES = ("sha256", "sha512", "sha384", "md5")


class BadPage(ValueError):
    """What an index answered is no page of an index."""


@dataclass(frozen=True)
class Link:
    """One file of a page. `digest` is `sha256=...` or "", `metadata` the same or `true` where PEP 658 offers it; `size` in
    bytes and `uploaded` are known from JSON alone."""

    name: str
    url: str
    digest: str = ""
    requires_python: str = ""
    yanked: str | None = None
    metadata: str = ""
    size: int | None = None
    uploaded: str = ""

    @property
    def is_wheel(self) -> bool:
        """Whether both its name and its address are those of a wheel."""
        return self.name.endswith(".whl") and unquote(urlsplit(self.url).path).endswith(".whl")


def read_page(body: bytes, kind: str, url: str) -> list[Link]:
    """The files that a page of content type `kind` at `url` links, with absolute addresses; what is no package is left out. Raise
    BadPage for what is no page."""
    text = body.decode("utf-8", errors="replace")
    found = _read_json(text, url) if kind.split(";", maxsplit=1)[0].strip().endswith("json") else _read_html(text, url)
    try:
        return [link for link in found if _NAME.fullmatch(link.name)]
    except ValueError as error:  # a character reference of thousands of digits, say
        raise BadPage(str(error)) from error


def write_page(links: Iterable[Link], where: Callable[[Link], str]) -> bytes:
    """An HTML page whose links lead to `where` says; everything in it is escaped."""
    lines = ["<!DOCTYPE html>", "<html><body>"]
    for link in links:
        attributes = {
            "href": where(link) + (f"#{link.digest}" if link.digest else ""),
            "data-requires-python": link.requires_python or None,
            "data-yanked": link.yanked,
            "data-core-metadata": link.metadata or None,
        }
        written = " ".join(f'{n}="{escape(v)}"' for n, v in attributes.items() if v is not None)
        lines.append(f"<a {written}>{escape(link.name)}</a>")
    return "\n".join([*lines, "</body></html>"]).encode()


def write_json(links: Iterable[Link], where: Callable[[Link], str]) -> bytes:
    """The same as JSON, with what HTML cannot say: sizes, and when a file was uploaded."""
    files = []
    for link in links:
        algorithm, _, digest = link.digest.partition("=")
        kind, _, of_metadata = link.metadata.partition("=")
        file = {
            "filename": link.name,
            "url": where(link),
            "hashes": {algorithm: digest} if digest else {},
            "requires-python": link.requires_python or None,
            "yanked": link.yanked or (link.yanked is not None),
            "core-metadata": {kind: of_metadata} if of_metadata else bool(kind),
            "size": link.size,
            "upload-time": link.uploaded or None,
        }
        files.append({name: value for name, value in file.items() if value is not None})
    return json.dumps({"meta": {"api-version": "1.1"}, "files": files}).encode()


def _read_json(text: str, url: str) -> Iterator[Link]:
    try:
        page = json.loads(text)
        files = page["files"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise BadPage("its JSON has no files") from error
    if not isinstance(files, list):
        raise BadPage("its JSON has no files")
    for file in files:
        if isinstance(file, dict) and isinstance(file.get("filename"), str) and isinstance(file.get("url"), str):
            if (address := _joined(url, file["url"])) is None:
                continue
            metadata = file.get("core-metadata", file.get("dist-info-metadata"))
            yield Link(
                name=file["filename"],
                url=address,
                digest=_digest(file.get("hashes")),
                requires_python=_text(file.get("requires-python")),
                yanked=_text(file["yanked"]) if file.get("yanked") else None,
                metadata=_digest(metadata) or ("true" if metadata else ""),
                size=size if type(size := file.get("size")) is int and 0 <= size < 1 << 53 else None,
                uploaded=moment if _MOMENT.fullmatch(moment := _text(file.get("upload-time"))) else "",
            )


def _digest(hashes: Any) -> str:
    found: Mapping[str, Any] = hashes if isinstance(hashes, dict) else {}
    return next((d for name in _HASHES if name in found and _HASH.fullmatch(d := f"{name}={found[name]}")), "")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _read_html(text: str, url: str) -> Iterator[Link]:
    base = url
    for tag, attributes in _tags("".join(_uncommented(text))):
        if tag == "base":
            base = _joined(url, attributes.get("href", "")) or url
            continue
        if not attributes.get("href") or (joined := _joined(base, attributes["href"])) is None:
            continue
        address, fragment = urldefrag(joined)
        metadata = attributes.get("data-core-metadata", attributes.get("data-dist-info-metadata", "false"))
        yield Link(
            name=unquote(urlsplit(address).path.rpartition("/")[2]),
            url=address,
            digest=fragment if _HASH.fullmatch(fragment) else "",
            requires_python=attributes.get("data-requires-python", ""),
            yanked=attributes.get("data-yanked"),
            metadata=metadata if _HASH.fullmatch(metadata) else "" if metadata == "false" else "true",
        )


def _uncommented(text: str) -> Iterator[str]:
    first, *rest = text.split("<!--")
    yield first
    yield from (part.partition("-->")[2] for part in rest)


def _tags(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Links and bases with their attributes. Each character is looked at once, whatever they are: html.parser takes hours for a
    megabyte of `<a `. What is no HTML after some place is not read from there on."""
    place = 0
    while (tag := _TAG.search(text, place)) is not None:
        inside = _ATTRIBUTES.match(text, tag.end())
        if inside is None or not text.startswith(">", inside.end()):
            return
        place = inside.end() + 1
        if len(inside[0]) <= _TAG_LENGTH:
            found = reversed([(m[1].lower(), unescape(m[2] or m[3] or m[4] or "")) for m in _ATTRIBUTE.finditer(inside[0])])
            yield tag[1].lower(), dict(found)


def _joined(base: str, address: str) -> str | None:
    """None for what is no address, which Python says in its own way."""
    try:
        joined = urljoin(base, address.strip())
        urlsplit(joined)
    except ValueError:
        return None
    return joined
