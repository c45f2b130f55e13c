"""Documents of an npm registry: read as hostile input, and written anew with the versions that are offered."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from taxiway.integrations.egress.pages import BadPage
from taxiway.integrations.semver import precedence

__all__ = ["integrities", "read_packument", "same_integrity", "write_packument"]

_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,200}", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9._-]{1,100}", re.ASCII)
_INTEGRITY = re.compile(r"(sha1|sha256|sha384|sha512)-([A-Za-z0-9+/=]{20,200})(?:\?\S*)?", re.ASCII)
# What npm needs to choose versions and what it writes into a lock; scripts, readmes, maintainers and all else stay outside.
_KEPT = (
    *("dependencies", "optionalDependencies", "peerDependencies", "peerDependenciesMeta", "bundleDependencies", "bundledDependencies"),
    *("bin", "engines", "os", "cpu", "libc", "deprecated", "funding", "license", "hasInstallScript", "_hasShrinkwrap"),
)


def read_packument(body: bytes) -> dict[str, dict[str, Any]]:
    """The versions, each with what npm needs of its manifest, and under "" the tags and times; raise BadPage for what is no such document.
    All else is let go at once: documents are kept as long as an update takes, and most of one is readmes, signatures and scripts."""
    try:
        page = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadPage("it answers with what is no JSON") from error
    versions = page.get("versions") if isinstance(page, dict) else None
    if not isinstance(versions, dict):
        raise BadPage("its JSON has no versions")
    good = {v: _kept(m) for v, m in versions.items() if _VERSION.fullmatch(v) and isinstance(m, dict) and _tarball(m)}
    return good | {"": {"tags": page.get("dist-tags"), "times": page.get("time")}}


def write_packument(
    name: str, versions: Mapping[str, Mapping[str, Any]], allowed: Callable[[str], bool], where: Callable[[str, str], str]
) -> bytes:
    """The document with the versions that are `allowed`; their tarballs are `where` (version, address) says. A `latest` that is
    not among them becomes the newest that is."""
    offered = {v: _manifest(name, v, m, where) for v, m in versions.items() if v and allowed(v)}
    tags, times = (found if isinstance(found := versions[""].get(key), dict) else {} for key in ("tags", "times"))
    kept = {tag: v for tag, v in tags.items() if _TAG.fullmatch(tag) and isinstance(v, str) and v in offered}
    released = [v for v in offered if (p := precedence(v)) is not None and p.released] or list(offered)
    if "latest" not in kept and released:
        kept["latest"] = max(released, key=lambda v: precedence(v) or precedence("0.0.0"))  # type: ignore[arg-type, return-value] # a version
    moments = {v: t for v, t in times.items() if isinstance(t, str) and (v in offered or v in ("created", "modified"))}
    return json.dumps({"name": name, "dist-tags": kept, "versions": offered} | ({"time": moments} if moments else {})).encode()


def integrities(text: Any) -> dict[str, frozenset[str]]:
    """Algorithm -> digests of a subresource integrity."""
    found: dict[str, frozenset[str]] = {}
    for word in text.split() if isinstance(text, str) else ():
        if matched := _INTEGRITY.fullmatch(word):
            found[matched[1]] = found.get(matched[1], frozenset()) | {matched[2]}
    return found


def same_integrity(one: Any, other: Any) -> bool | None:
    """Whether both name the same content; None where they have no algorithm in common."""
    left, right = integrities(one), integrities(other)
    shared = left.keys() & right.keys()
    return all(left[a] & right[a] for a in shared) if shared else None


def _tarball(manifest: Mapping[str, Any]) -> str:
    dist = manifest.get("dist")
    address = dist.get("tarball") if isinstance(dist, dict) else None
    try:
        return address if isinstance(address, str) and urlsplit(address).scheme in ("http", "https") else ""
    except ValueError:
        return ""


def _kept(manifest: Mapping[str, Any]) -> dict[str, Any]:
    dist = {key: manifest["dist"][key] for key in ("tarball", "integrity", "shasum") if isinstance(manifest["dist"].get(key), str)}
    return {key: manifest[key] for key in _KEPT if key in manifest} | {"dist": dist}


def _manifest(name: str, version: str, manifest: Mapping[str, Any], where: Callable[[str, str], str]) -> dict[str, Any]:
    dist = manifest["dist"]
    return {"name": name, "version": version, **manifest, "dist": {**dist, "tarball": where(version, dist["tarball"])}}
