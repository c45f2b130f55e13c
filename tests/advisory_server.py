"""A real HTTP server on loopback that speaks as much of the OSV API and of PyPI's JSON API as an audit asks for."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, bytes, dict[str, str]]


def answer(data: Any, status: int = 200) -> Answer:
    return status, json.dumps(data).encode(), {}


@dataclass
class AdvisoryServer:
    """`found` is advisory ids by name, `records` advisories by id, `published` what the index knows. `faults` replace answers:
    by the beginning of a path, a function from (path, body) to an answer, or to None for the ordinary one."""

    url: str = ""
    found: dict[str, list[str]] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    published: set[tuple[str, str]] = field(default_factory=set)
    faults: dict[str, Callable[[str, Any], Answer | None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def respond(self, path: str, body: Any) -> Answer:
        self.asked.append(path)
        for begin, fault in self.faults.items():
            if path.startswith(begin) and (told := fault(path, body)) is not None:
                return told
        if path == "/v1/querybatch":
            results = [
                {"vulns": [{"id": i} for i in self.found[n]]} if (n := q["package"]["name"]) in self.found else {} for q in body["queries"]
            ]
            return answer({"results": results})
        if path.startswith("/v1/vulns/"):
            record = self.records.get(path.rsplit("/", 1)[-1])
            return answer(record) if record else answer({"code": 5}, 404)
        _, _, name, version, _ = path.split("/")
        known = (name, version) in self.published
        return answer({"info": {"name": name, "version": version}}) if known else answer({"message": "Not Found"}, 404)


@contextmanager
def serving() -> Iterator[AdvisoryServer]:
    """The server, until the block ends."""
    state = AdvisoryServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.reply(state.respond(self.path, None))

        def do_POST(self) -> None:
            self.reply(state.respond(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

        def reply(self, told: Answer) -> None:
            status, content, headers = told
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = "Connection" in headers

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def record(identifier: str, name: str, **more: Any) -> dict[str, Any]:
    """An advisory as OSV publishes them."""
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}]
    return {"id": identifier, "affected": [{"package": {"ecosystem": "PyPI", "name": name}, "ranges": ranges}]} | more


def cvss3(vector: str) -> Mapping[str, Any]:
    return {"severity": [{"type": "CVSS_V3", "score": vector}]}
