"""An npm registry of a test's own: tarballs made by hand, served on loopback beside what an index server answers."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

from index_server import Answer, IndexServer


def tarball(manifest: Mapping[str, Any], files: Mapping[str, str] | None = None) -> bytes:
    """A package as `npm pack` makes it."""
    contents = {"package.json": json.dumps(manifest), "index.js": f"exports.version = {json.dumps(manifest['version'])}\n"}
    place = io.BytesIO()
    # The same bytes at any time: a version that is published again is the same version.
    with gzip.GzipFile(fileobj=place, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for path, text in {**contents, **(files or {})}.items():
            entry = tarfile.TarInfo(f"package/{path}")
            entry.size = len(text.encode())
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
    return place.getvalue()


def publish(
    server: IndexServer,
    name: str,
    *versions: str | Mapping[str, Any],
    at: str = "/npm",
    files: Mapping[str, str] | None = None,
    times: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Serve a package in these versions, the last one as `latest`, each a version or a manifest without the name; its document."""
    document: dict[str, Any] = {"name": name, "dist-tags": {}, "versions": {}, "time": dict(times or {})}
    for given in versions:
        manifest = {"name": name, **({"version": given} if isinstance(given, str) else given)}
        version, content = manifest["version"], tarball(manifest, files)
        path = f"{at}/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
        digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
        dist = {"tarball": server.root + path, "integrity": f"sha512-{digest}", "shasum": hashlib.sha1(content).hexdigest()}
        told = manifest | {"dist": dist} | ({"hasInstallScript": True} if "postinstall" in manifest.get("scripts", {}) else {})
        document["versions"][version] = told
        document["dist-tags"]["latest"] = version
        server.answers[path] = Answer(content)
        server.answers[f"{at}/{name.replace('/', '%2F')}/{version}"] = Answer(json.dumps(told), "application/json")
    for written in (name, name.replace("/", "%2F"), name.replace("/", "%2f")):
        server.answers[f"{at}/{written}"] = Answer(json.dumps(document), "application/json")
    return document
