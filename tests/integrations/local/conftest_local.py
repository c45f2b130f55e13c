from __future__ import annotations

import shutil
import textwrap
import uuid
from dataclasses import dataclass
from pathlib import Path

from taxiway.home import Home
from taxiway.integrations.local import LocalTarget
from taxiway.integrations.local.client import Client
from taxiway.ports import Health, Release
from taxiway.stop import Stop

APP = """
import http.server, os, sys, threading, time

NAME = sys.argv[1]


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/slow"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for _ in range(int(self.path.partition("=")[2] or 10)):
                self.wfile.write(b"5\\r\\n" + NAME.encode().ljust(5) + b"\\r\\n")
                time.sleep(0.1)
            self.wfile.write(b"0\\r\\n\\r\\n")
            return
        if self.path == "/crash":
            os._exit(7)
        body = NAME.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256


print("listening", flush=True)
Server(("127.0.0.1", int(sys.argv[2])), App).serve_forever()
"""


@dataclass
class FixedLease:
    """The right of one holder, by its fence."""

    fence: int = 1
    key: str = "deploy:local:greeter"

    def check(self) -> None: ...

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None: ...


def release(name: str, *, service: str = "greeter", start=None, **health) -> Release:
    settings = {"within_s": 15.0, "every_s": 0.05, "needed": 2} | health
    return Release(
        id=name,
        service=service,
        commit=name.ljust(40, "0"),
        start=start or ("python", "app.py", name, "{port}"),
        port=8000,
        health=Health(**settings),
    )


def project(folder: Path, app: str = APP) -> Path:
    place = folder / f"project-{uuid.uuid4().hex[:8]}"
    place.mkdir(parents=True)
    (place / "app.py").write_text(textwrap.dedent(app))
    return place


class Local:
    """A home, its target, and short ways to use them."""

    def __init__(self, home: Home, folder: Path, *, isolate: bool) -> None:
        self.home = home
        self.folder = folder
        self.target = LocalTarget(home, trusted=True, isolate=isolate)
        self.said: list[str] = []
        self.fence = 0

    def client(self, service: str = "greeter") -> Client:
        return Client(self.home, service)

    def deploy(self, name: str, *, app: str = APP, strategy="blue-green", drain_s=5.0, fence=None, stop=None, service="greeter", **more):
        self.fence = fence if fence is not None else self.fence + 1
        return self.target.deploy(
            release(name, service=service, **more),
            files=project(self.folder, app),
            environment=None,
            strategy=strategy,
            drain_s=drain_s,
            lease=FixedLease(self.fence),
            stop=stop or Stop(),
            say=self.said.append,
        )

    def restore(self, name: str, *, fence=None, service="greeter"):
        self.fence = fence if fence is not None else self.fence + 1
        return self.target.restore(service, name, lease=FixedLease(self.fence), stop=Stop(), say=self.said.append)

    def log(self, service: str = "greeter") -> str:
        return (self.home.services / service / "service.log").read_text()

    def close(self) -> None:
        if self.home.services.is_dir():
            for folder in self.home.services.iterdir():
                Client(self.home, folder.name).stop(rest=True)
        shutil.rmtree(self.home.sockets, ignore_errors=True)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second where it ends while it is read
        return False
