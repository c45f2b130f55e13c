"""What a run measures and what it leaves: two runs in a real browser, looked at from all sides."""

from __future__ import annotations

import os
import shutil
import socket
import zipfile
from collections.abc import Iterator

import pytest
from apps import APP, GOOD, MANIFEST, Bench, Installed, failing, ports

from taxiway.integrations import bubblewrap
from taxiway.integrations.browsers import find_browsers
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.integrations.servers import LocalServers
from taxiway.records import Result

MIXED = """
import pytest
from playwright.sync_api import Page, expect

def test_good(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("heading")).to_have_text("Hello")

def test_bad(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("heading")).to_have_text("Goodbye", timeout=500)

def test_noisy(page: Page) -> None:
    page.goto("/other")
    page.wait_for_load_state("networkidle")

def test_without_a_page() -> None:
    pass

@pytest.mark.only_browser("firefox")
def test_elsewhere(page: Page) -> None:
    raise AssertionError

def test_hangs(page: Page) -> None:
    page.goto("/")
    page.wait_for_timeout(1e9)

def test_after_it(page: Page) -> None:
    page.goto("/")
"""
PROBE = """
import socket
for name, address in {"host": ("127.0.0.1", %d), "outside": ("192.0.2.1", 80)}.items():
    try:
        socket.create_connection(address, timeout=5)
        print(name, "reached", flush=True)
    except OSError as error:
        print(name, "not reached", flush=True)
"""


@pytest.fixture(scope="module")
def listener() -> Iterator[int]:
    """A port of this machine's loopback that something listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def mixed(one_bench: Bench, listener: int) -> Result:
    app = APP.replace('print("listening"', PROBE.replace("\n", "\n    ") % listener + '\n    print("listening"').replace(
        '"127.0.0.1", int', '"0.0.0.0", int'
    )
    video = "on-failure" if shutil.which("ffmpeg") else "never"
    files = {".taxiway.yaml": MANIFEST, "app.py": app, "e2e/test_page.py": MIXED}
    return one_bench.run(files, pages=["/", "/other"], timeout="30s", video=video)


def test_tests_are_counted_by_how_they_ended(mixed: Result) -> None:
    counted = {name.removeprefix("e2e."): value for name, value in mixed.metrics.items() if name.startswith("e2e.")}
    noise = {name: counted.pop(name) for name in ("console_errors", "failed_requests")}
    assert counted == {"total": 6, "passed": 4, "failed": 2, "flaky": 0, "skipped": 1, "xfailed": 0, "deselected": 0, "browsed": 3}
    assert noise["console_errors"] >= 2
    assert noise["failed_requests"] == 1
    assert failing(mixed) == {"e2e.failed": "2"}
    assert mixed.summary.startswith("4 browser tests passed, 2 failed, 1 skipped")


def test_each_test_says_what_became_of_it(mixed: Result, one_bench: Bench) -> None:
    report = one_bench.report()
    tests = {t["test"].partition("::")[2].partition("[")[0]: t for t in report["tests"]}
    assert "Goodbye" in tests["test_bad"]["error"]
    assert tests["test_hangs"]["error"] == "TooLong: took longer than 30 s"
    assert tests["test_after_it"]["outcome"] == "passed"
    assert "a bad thing" in tests["test_noisy"]["pages_said"]
    assert (tests["test_good"]["loaded"], tests["test_without_a_page"]["loaded"]) == (True, False)
    assert report["version"].partition(".")[0].isdigit()


def test_pages_are_held_against_axe(mixed: Result, one_bench: Bench) -> None:
    pages = {p["path"]: {v["id"]: v["impact"] for v in p["violations"]} for p in one_bench.report()["pages"]}
    assert pages["/"] == {}
    assert pages["/other"] == {"document-title": "serious", "html-has-lang": "serious", "image-alt": "critical", "label": "critical"}
    assert (mixed.metrics["a11y.serious"], mixed.metrics["a11y.critical"]) == (4, 2)


def test_failures_leave_a_trace_and_a_picture(mixed: Result, one_bench: Bench) -> None:
    for test in ("bad", "hangs"):
        (folder,) = (one_bench.reports / "tests").glob(f"*test-{test}-*")
        with zipfile.ZipFile(folder / "trace.zip") as trace:
            assert trace.testzip() is None
            assert any(name.endswith(".trace") for name in trace.namelist())
        assert next(folder.glob("*.png")).read_bytes().startswith(b"\x89PNG")
    assert not [name for name in one_bench.left() if "test-good" in name]
    assert {"junit.xml", "tests.log", "app.log", "e2e.json", "summary.md"} <= one_bench.left()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg: apt-get install ffmpeg")
def test_failures_are_filmed_on_request(mixed: Result, one_bench: Bench) -> None:
    (video,) = (one_bench.reports / "tests").glob("*test-bad-*/*.webm")
    assert video.read_bytes().startswith(b"\x1aE\xdf\xa3")  # EBML, which WebM is
    assert not list(one_bench.reports.glob("tests/*test-good-*/*.webm"))


@pytest.mark.skipif(bubblewrap.available() is not None, reason=str(bubblewrap.available()))
def test_the_app_reaches_nothing(mixed: Result, one_bench: Bench) -> None:
    log = (one_bench.reports / "app.log").read_text()
    assert "host not reached" in log
    assert "outside not reached" in log


SPOILED = APP.replace('"/healthz": "ok",', '"/healthz": "ok", "/spoil": "<title>spoilt</title>",').replace(
    "page = PAGES.get(self.path)", "page = PAGES.get(self.path)\n        if self.path == '/spoil': PAGES['/'] = '<h1>Spoilt</h1>'"
)
ORDER = """
from playwright.sync_api import Page, expect

def test_a_spoils(page: Page) -> None:
    page.goto("/spoil")

def test_b_greets(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("heading")).to_have_text("Hello", timeout=1000)

def test_c_never(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("heading")).to_have_text("Nobody", timeout=500)
"""


def test_what_passes_only_when_tried_again_is_flaky(bench: Bench) -> None:
    result = bench.run({".taxiway.yaml": MANIFEST, "app.py": SPOILED, "e2e/test_page.py": ORDER}, retries=1, pages=[], trace="never")
    counted = {name: result.metrics[f"e2e.{name}"] for name in ("total", "passed", "flaky", "failed", "browsed")}
    assert counted == {"total": 3, "passed": 1, "flaky": 1, "failed": 1, "browsed": 2}
    rounds = {t["test"].partition("::")[2]: (t["outcome"], t["rounds"]) for t in bench.report()["tests"]}
    assert rounds["test_b_greets[chromium]"] == ("flaky", ["failed", "passed"])
    assert rounds["test_c_never[chromium]"] == ("failed", ["failed", "failed"])
    assert result.unmeasured == dict.fromkeys(
        ("a11y.critical", "a11y.serious", "a11y.moderate", "a11y.minor"), "no page is listed in `pages`"
    )
    assert {"junit.xml", "retry-1/junit.xml"} <= bench.left()
    assert not [name for name in bench.left() if name.endswith("trace.zip")]


@pytest.mark.parametrize("browser", ["chromium", "firefox", "webkit"])
def test_each_browser_of_this_machine_runs_the_tests(bench: Bench, browser: str) -> None:
    if browser not in find_browsers(os.environ):
        pytest.skip(f"no {browser}: playwright install {browser}")
    result = bench.run(GOOD, browser=browser)
    assert failing(result) == {}
    assert (result.metrics["e2e.passed"], result.metrics["a11y.serious"]) == (1, 0)
    assert bench.report()["tests"][0]["test"].endswith(f"[{browser}]")


def test_it_runs_without_isolation_where_the_code_is_trusted(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> None:
    plain = Bench(ports(installed, ProcessSandbox(trusted=True, isolate="never")), tmp_path_factory.mktemp("plain"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        manifest = MANIFEST + f"port: {taken.getsockname()[1]}\n"
        strict = '[tool.pytest]\naddopts = ["--strict-config", "-k", "nothing"]\nfilterwarnings = ["error"]\n'
        files = {**GOOD, ".taxiway.yaml": manifest, "pyproject.toml": strict}
        result = plain.run(files, pages=[], trace="never", screenshot="always")
    assert failing(result) == {}
    assert [name for name in plain.left() if name.endswith(".png")]
    assert os.environ.get("PLAYWRIGHT_BROWSERS_PATH") is None


CACHED = """
import http.server, os, socket, sys
from urllib.parse import urlsplit

def ask(words):
    url = urlsplit(os.environ["REDIS_URL"])
    with socket.create_connection((url.hostname, url.port)) as cache:
        cache.sendall((words + "\\r\\n").encode())
        return cache.recv(100).decode()

class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        found = ask("INCR visits") if self.path == "/" else "ok"
        self.wfile.write(f"<html><head><link rel='icon' href='data:,'></head><h1>{found}</h1></html>".encode())

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
"""
VISITED = """
from playwright.sync_api import Page, expect

def test_counts(page: Page) -> None:
    for number in (1, 2):
        page.goto("/")
        expect(page.get_by_role("heading")).to_have_text(f":{number}")
"""


@pytest.mark.skipif(not LocalServers(os.environ).find("redis"), reason="no Redis: apt-get install redis-server")
def test_the_app_has_the_servers_of_the_tests(bench: Bench) -> None:
    files = {".taxiway.yaml": MANIFEST + "test: {services: [redis]}\n", "app.py": CACHED, "e2e/test_page.py": VISITED}
    with_servers = bench.with_ports(servers=LocalServers(os.environ))
    result = with_servers.run(files, pages=[])
    assert result.metrics.get("e2e.passed") == 1, (result.unmeasured, with_servers.report())
    assert "Ready to accept connections" in (bench.reports / "redis.log").read_text()


def test_an_app_is_started_as_if_it_were_installed(bench: Bench) -> None:
    files = {
        "pyproject.toml": '[project]\nname = "tiny-app"\nversion = "1.4"\n',
        ".taxiway.yaml": 'name: tiny\ninstall: {}\nstart: [python, -m, tiny, "{port}"]\n',
        "src/tiny/__init__.py": "from importlib.metadata import version\nVERSION = version('tiny-app')\n",
        "src/tiny/__main__.py": APP.replace("import http", "from tiny import VERSION\nimport http", 1).replace(
            "self.wfile.write((page", 'page = page and page.replace("Hello", VERSION)\n        self.wfile.write((page'
        ),
        "e2e/test_page.py": GOOD["e2e/test_page.py"].replace("Hello", "1.4"),
    }
    result = bench.run(files, pages=[])
    assert (result.metrics["e2e.passed"], result.metrics["e2e.failed"]) == (1, 0)
