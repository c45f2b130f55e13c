"""What is installed in an environment, from its own metadata: names and versions as they are, not as a project says they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

__all__ = ["Installed", "installed", "sole_version"]


@dataclass(frozen=True)
class Installed:
    """One distribution. `version` is "" where its metadata names none that is valid; `origin` is the address or folder
    that it was installed from, "" for an index; `metadata` are the headers of its METADATA."""

    name: str
    version: str
    origin: str
    metadata: Message


def installed(environment: Path) -> list[Installed]:
    """Every distribution below the environment's site-packages, by name; one whose metadata is broken has no version."""
    places = sorted({str(p.resolve()) for p in environment.glob("lib*/python3*/site-packages")})
    return sorted((_read(d) for d in distributions(path=places)), key=lambda i: (i.name, i.version))


def sole_version(packages: list[Installed], name: str) -> str:
    """The version of a distribution that came from an index and is there once; "" for anything else."""
    found = [p for p in packages if p.name == canonicalize_name(name)]
    return found[0].version if len(found) == 1 and not found[0].origin else ""


def _read(distribution: Distribution) -> Installed:
    headers = HeaderParser().parsestr(distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or "")
    # A folder without metadata is a package all the same: its name is the folder's.
    folder = Path(str(getattr(distribution, "_path", ""))).name
    name = str(headers.get("Name") or folder.split("-")[0] or "unknown")
    try:
        version = str(Version(str(headers.get("Version", ""))))
    except InvalidVersion:
        version = ""
    return Installed(canonicalize_name(name), version, _origin(distribution.read_text("direct_url.json")), headers)


def _origin(text: str | None) -> str:
    if text is None:
        return ""
    try:
        return str(json.loads(text)["url"]) or "unknown"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "unknown"
