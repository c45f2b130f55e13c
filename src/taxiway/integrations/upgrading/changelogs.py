"""Where a package says that its changes are told. What it says is a stranger's word: only a plain web address is taken from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

__all__ = ["from_manifest", "from_metadata", "web_address"]

_LENGTH = 200
_HEADERS = 2000
_PRINTABLE = re.compile(r"https?://[!-~]+")
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*(?::[0-9]{1,5})?", re.IGNORECASE)
_SHORTHAND = re.compile(r"(?:(github|gitlab|bitbucket):)?([A-Za-z0-9][\w.-]*/[\w.-]+)", re.ASCII)
_HOSTS = {"github": "github.com", "gitlab": "gitlab.com", "bitbucket": "bitbucket.org"}
# Labels as PEP 753 normalises them, the closest to what changed first.
_LABELS = (
    ("changelog", "changes", "releasenotes", "whatsnew", "history", "news", "changeslog"),
    ("releases", "release", "githubreleases"),
    ("source", "sourcecode", "repository", "github", "code", "gitlab", "git"),
)


def web_address(text: Any) -> str:
    """An http or https address of one line, of visible ASCII, with a host that has a name, without credentials; "" for all else."""
    if not isinstance(text, str) or len(text) > _LENGTH or not _PRINTABLE.fullmatch(text):
        return ""
    try:
        parts = urlsplit(text)
    except ValueError:
        return ""
    # Quotes, brackets and backslashes are what could end an address where it is shown.
    return text if _HOST.fullmatch(parts.netloc) and not re.search(r"[\"'<>\\`|{}\[\]]", text) else ""


def from_metadata(text: str) -> str:
    """The changelog, releases or source that the core metadata of a Python package name; "" where they name none."""
    return _closest(_project_urls(text))


def from_manifest(manifest: Mapping[str, Any]) -> str:
    """The repository that an npm package names; "" where it names none."""
    found = manifest.get("repository")
    address = found.get("url") if isinstance(found, Mapping) else found
    if not isinstance(address, str) or len(address) > _LENGTH:
        return ""
    if short := _SHORTHAND.fullmatch(address):
        return web_address(f"https://{_HOSTS[short[1] or 'github']}/{short[2].removesuffix('.git')}")
    address = re.sub(r"^(?:git\+)?(?:ssh://(?:git@)?|git://|https?://(?=[^/@]+(?:/|$)))", "https://", address)
    return web_address(re.sub(r"^(?:git\+)", "", address).partition("#")[0].removesuffix(".git"))


def _closest(urls: Iterable[tuple[str, str]]) -> str:
    named: dict[str, str] = {}
    for label, address in urls:
        if good := web_address(address):
            named.setdefault(re.sub(r"[\W_]+", "", label.lower()), good)
    return next((named[label] for labels in _LABELS for label in labels if label in named), "")


def _project_urls(text: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n")[:_HEADERS]:
        if not line.strip():
            return
        name, _, value = line.partition(":")
        if name.strip().lower() == "project-url":
            label, _, address = value.partition(",")
            yield label.strip()[:_LENGTH], address.strip()
