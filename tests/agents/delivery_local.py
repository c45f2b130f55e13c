"""A run's ports with a real ledger and a real target, for the agents that deliver."""

from __future__ import annotations

import logging
import shutil
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from taxiway.agents.base import StageAttempt
from taxiway.home import Home
from taxiway.integrations.ledger import SqliteLedger
from taxiway.integrations.local import LocalTarget
from taxiway.integrations.local.client import Client
from taxiway.ports import Environment, Ports
from taxiway.stop import Stop

APP = """
import http.server, sys
import greeting
class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path != "/bad" else 500)
        self.end_headers()
        self.wfile.write(greeting.TEXT.encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
"""
MANIFEST = 'name: greeter\nstart: [python, app.py, "{port}"]\nhealth: /healthz\n'


class OwnEnvironment:
    """Implements `ports.Environments` with the interpreter that runs this: the project needs nothing."""

    def project(self, checkout, stop):
        return Environment(Path(sys.prefix), "own", cached=True)

    def tools(self, stop):
        return self.project(None, stop)


class Delivery:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        self.ledger = SqliteLedger(self.home.ledger)
        self.target = LocalTarget(self.home, trusted=True, isolate=False)
        self.ports = Ports(
            sandbox=None,
            environments=OwnEnvironment(),
            workspace=None,
            artifacts=None,
            ledger=self.ledger,
            targets={"local": self.target},
            trusted=True,
        )
        self.results = {}
        self._made = 0

    def checkout(self, text="hello", app=APP, manifest=MANIFEST) -> Path:
        self._made += 1
        place = self.folder / f"checkout-{self._made}"
        (place / "src").mkdir(parents=True)
        (place / "app.py").write_text(app)
        (place / "src" / "greeting.py").write_text(f"TEXT = {text!r}")
        if manifest is not None:
            (place / ".taxiway.yaml").write_text(manifest)
        return place

    def attempt(self, name, *, commit="a" * 40, checkout=None, run="run-1", attempt=1, covers=(), results=None, stop=None) -> StageAttempt:
        self._made += 1
        reports = self.folder / f"reports-{self._made}"
        reports.mkdir()
        return StageAttempt(
            pipeline="p",
            run=run,
            name=name,
            attempt=attempt,
            commit=commit,
            checkout=checkout or self.folder,
            reports=reports,
            results=results or {},
            stop=stop or Stop(),
            log=logging.getLogger("test"),
            verify=lambda _: (),
            covers=covers,
        )

    def states(self, run="run-1"):
        return [(c.stage, c.before["release"], c.state) for c in self.ledger.changes(run) if c.kind == "deploy"]

    def close(self) -> None:
        if self.home.services.is_dir():
            for place in self.home.services.iterdir():
                Client(self.home, place.name).stop(rest=True)
        shutil.rmtree(self.home.sockets, ignore_errors=True)


@contextmanager
def serving(answer):
    """A server on loopback whose every GET is `answer(handler)`; its URL."""

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
