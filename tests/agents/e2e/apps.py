"""Small real apps with browser tests, and the means to run the agent on them: a real sandbox, real tools, a real Chromium."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from taxiway.agents.base import StageAttempt
from taxiway.agents.e2e import AGENT, E2eInput
from taxiway.integrations.browsers import find_browsers
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.ports import Cancellation, Environment, Ports, Sandbox
from taxiway.records import Result
from taxiway.stop import Stop

MANIFEST = 'name: tiny\nstart: [python, app.py, "{port}"]\nhealth: /healthz\n'
APP = '''
import http.server, sys

PAGES = {
    "/": """<!doctype html><html lang="en"><head><title>Tiny</title><link rel="icon" href="data:,"></head>
        <body><main><h1>Hello</h1><a href="/other">Other</a></main></body></html>""",
    "/other": """<!doctype html><html><head><title></title></head><body><main><h1>Other</h1><img src="/picture"><input>
        <script>console.error("a bad thing"); fetch("http://127.0.0.1:9/")</script></main></body></html>""",
    "/healthz": "ok",
}

class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        page = PAGES.get(self.path)
        self.send_response(200 if page else 404)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write((page or "nothing").encode())

if __name__ == "__main__":
    print("listening", flush=True)
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
'''
TEST = """
from playwright.sync_api import Page, expect

def test_it_greets(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("heading")).to_have_text("Hello")
"""
GOOD = {".taxiway.yaml": MANIFEST, "app.py": APP, "e2e/test_page.py": TEST}


def write(root: Path, files: Mapping[str, str]) -> Path:
    """A checkout of these files."""
    for path, text in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root


@dataclass(frozen=True)
class Installed:
    """The pinned browser tools; the apps need nothing but an interpreter."""

    environment: Environment
    pinned: Environment

    def project(self, checkout: Path, stop: Cancellation) -> Environment:
        return self.environment

    def browser_tools(self, stop: Cancellation) -> Environment:
        return self.pinned


@dataclass(frozen=True)
class Bench:
    """Runs the agent on folders. `reports` is where the last run left its reports."""

    ports: Ports
    scratch: Path
    stop: Stop = field(default_factory=Stop)

    @property
    def reports(self) -> Path:
        return self.scratch / "reports"

    def run(self, files: Mapping[str, str], *, timeout_s: float = 200, **inputs: Any) -> Result:
        """The Result for a project of these files."""
        checkout = self.scratch / "checkout"
        for place in (checkout, self.reports):
            place.mkdir()
        write(checkout, files)
        self.stop.arm(timeout_s, None)
        stage = StageAttempt(
            pipeline="p",
            run="r",
            name="e2e",
            attempt=1,
            commit="2" * 40,
            checkout=checkout,
            reports=self.reports,
            results={},
            stop=self.stop,
            log=logging.getLogger("taxiway.test"),
            verify=_never,
        )
        result = AGENT.run(E2eInput(**inputs), self.ports, stage)
        assert set(result.metrics) | set(result.unmeasured) == set(AGENT.metrics)
        return result

    def with_ports(self, **changes: Any) -> Bench:
        return replace(self, ports=replace(self.ports, **changes))

    def report(self) -> Any:
        return json.loads((self.reports / "e2e.json").read_text())

    def left(self) -> set[str]:
        """Reports by their path."""
        return {p.relative_to(self.reports).as_posix() for p in self.reports.rglob("*") if p.is_file()}


def _never(commit: str) -> NoReturn:
    raise AssertionError(commit)


def ports(installed: Installed, sandbox: Sandbox | None = None) -> Ports:
    """What an attempt can reach, with this machine's browsers."""
    nothing: Any = None
    return Ports(
        sandbox=sandbox or ProcessSandbox(trusted=True),
        environments=installed,
        workspace=nothing,
        artifacts=nothing,
        ledger=nothing,
        targets={},
        trusted=True,
        browsers=find_browsers(os.environ),
    )


def failing(result: Result) -> dict[str, str]:
    """The default gates that do not pass: what was measured, or why nothing was."""
    wanted = [g.split() for g in AGENT.gates]
    found = {}
    for metric, operator, value in wanted:
        measured = result.metrics.get(metric)
        if measured is None:
            found[metric] = result.unmeasured[metric]
        elif not {">=": measured >= float(value), "==": measured == float(value)}[operator]:
            found[metric] = f"{measured:g}"
    return found
