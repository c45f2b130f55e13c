"""A package index of a test's own: wheels made by hand, served on loopback by a table of paths, and everything recorded."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import ssl
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

NAME = "tinything-1.0-py3-none-any.whl"


def wheel(folder: Path, name: str = "tinything", version: str = "1.0", files: dict[str, str] | None = None) -> Path:
    """A wheel made by hand: nothing is built."""
    place = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    contents = {f"{name}.py": f"VERSION = {version!r}\n", **(files or {})}
    contents |= {
        f"{info}/METADATA": metadata(name, version),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }

    def record(path: str, text: str) -> str:
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        return f"{path},sha256={digest},{len(text.encode())}\n"

    contents[f"{info}/RECORD"] = "".join(record(p, t) for p, t in contents.items()) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(place, "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)
    return place


def metadata(name: str = "tinything", version: str = "1.0") -> str:
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"


@dataclass
class Answer:
    """`body` may be a function that writes to the connection itself."""

    body: bytes | str | Callable[[http.server.BaseHTTPRequestHandler], None] = b""
    kind: str = "application/octet-stream"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    method: str
    path: str
    authorization: str
    headers: dict[str, str]


class IndexServer(http.server.ThreadingHTTPServer):
    """`answers` by path; absolute addresses are paths too, as a forward proxy is asked for them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Answer] = {}
        self.requests: list[Request] = []
        self.login = ""
        self.released = threading.Event()
        self.scheme = "http"

    @property
    def root(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.root}/simple"

    @property
    def private_url(self) -> str:
        return self.url.replace("://", f"://{self.login}@")

    @property
    def paths(self) -> list[str]:
        return [r.path for r in self.requests]

    def html(self, *links: str, project: str = "tinything", head: str = "") -> None:
        """A page with links as they are given."""
        anchors = "".join(f'<a href="{link}">x</a>\n' for link in links)
        self.answers[f"/simple/{project}/"] = Answer(f"<!DOCTYPE html><html><head>{head}</head><body>{anchors}</body></html>", "text/html")

    def json(self, *files: dict[str, object], project: str = "tinything") -> None:
        page = {"meta": {"api-version": "1.1"}, "name": project, "files": list(files)}
        self.answers[f"/simple/{project}/"] = Answer(json.dumps(page), "application/vnd.pypi.simple.v1+json")

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that a client cuts are what some tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: IndexServer

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(Request(self.command, self.path, self.headers.get("Authorization", ""), dict(self.headers)))
        wanted = "Basic " + base64.b64encode(server.login.encode()).decode()
        if server.login and self.headers.get("Authorization") != wanted:
            self.answer(Answer(status=401, headers={"WWW-Authenticate": "Basic"}))
        else:
            self.answer(server.answers.get(self.path) or Answer(b"nothing here", "text/plain", 404))

    do_HEAD = do_POST = do_GET  # noqa: N815 - the names are http.server's

    def answer(self, answer: Answer) -> None:
        if callable(answer.body):
            self.close_connection = True
            answer.body(self)
            return
        body, status, headers = answer.body.encode() if isinstance(answer.body, str) else answer.body, answer.status, answer.headers
        if status == 200 and (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            first, last = int(asked[1]), min(int(asked[2] or len(body)), len(body) - 1)
            headers = headers | {"Content-Range": f"bytes {first}-{last}/{len(body)}"}
            body, status = body[first : last + 1], 206
        self.send_response(status)
        for name, value in {"Content-Type": answer.kind, "Content-Length": str(len(body)), "Accept-Ranges": "bytes", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def index_server(folder: Path, *, tls: ssl.SSLContext | None = None) -> Iterator[IndexServer]:
    """A server whose `/files/` are the wheel of `folder` (made here) and its metadata."""
    made = wheel(folder)
    with IndexServer() as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            server.scheme = "https"
        server.answers[f"/files/{NAME}"] = Answer(made.read_bytes(), headers={"Cache-Control": "max-age=31536000, immutable"})
        server.answers[f"/files/{NAME}.metadata"] = Answer(metadata())
        server.html(f"/files/{NAME}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()
