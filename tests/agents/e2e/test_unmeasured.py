"""Where an app, a browser or a project gives nothing to believe there is no number, and the reason stands in its place."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import psutil
import pytest
from apps import APP, GOOD, MANIFEST, TEST, Bench, failing

from taxiway.errors import Cancelled
from taxiway.ports import Browser

DYING = APP.replace(
    "page = PAGES.get(self.path)",
    "page = PAGES.get(self.path)\n        if self.path == '/other': print('giving up', flush=True); import os; os._exit(3)",
)
VISITS = TEST.replace('page.goto("/")', 'page.goto("/")\n    try:\n        page.goto("/other")\n    except Exception:\n        return')

# what is wrong -> files over a good project, and what is said about it
PROJECTS = {
    "no start": ({".taxiway.yaml": "name: tiny\n"}, "does not say how the app starts"),
    "no tests": ({".taxiway.yaml": MANIFEST + "e2e: {paths: [browser]}\n"}, "there is no browser test: no browser"),
    "no program": ({".taxiway.yaml": MANIFEST.replace("python,", "ghost,")}, "the app cannot be started: [Errno 2]"),
    "ends at once": (
        {"app.py": "raise SystemExit('no settings')"},
        "ended with exit code 1 before it was healthy; the end of its output: no settings",
    ),
    "dies midway": ({"app.py": DYING, "e2e/test_page.py": VISITS}, "ended with exit code 3 while it was tested"),
    "an empty file": ({"e2e/test_page.py": "import playwright"}, "no test ran"),
    "a conftest that ends the run": (
        {"e2e/conftest.py": "import os\ndef pytest_collection_finish(): os._exit(0)"},
        "the test run stopped before its end",
    ),
    "a conftest that runs the tests itself": (
        {"e2e/conftest.py": "def pytest_runtest_protocol(item): return True"},
        "hooks pytest_runtest_protocol",
    ),
    "a conftest that replaces what watches it": (
        {
            "e2e/conftest.py": "def pytest_configure(config):\n    for p in config.pluginmanager.get_plugins():\n"
            "        if hasattr(p, 'pytest_runtest_makereport') and type(p).__name__ == 'Hooks':\n"
            "            for c in p.pytest_runtest_makereport.__func__.__closure__:\n"
            "                if hasattr(c.cell_contents, '_outcome'):\n"
            "                    type(c.cell_contents)._outcome = lambda *a: 'passed'\n"
        },
        "of what watches the tests was replaced",
    ),
    "a conftest that makes code by Taxiway's name": (
        {"e2e/conftest.py": "import pytest\nexec(compile('def f(self): pass', '<taxiway>', 'exec'))\npytest.Function.runtest = f"},
        "does not run as it was committed",
    ),
    "a conftest that writes its own JUnit": (
        {
            "e2e/conftest.py": "import pathlib\ndef pytest_unconfigure():\n    pathlib.Path('/reports/junit.xml').write_text("
            '\'<testsuite name="x" tests="1" failures="0" errors="0"><testcase name="a"/></testsuite>\')'
        },
        "disagree",
    ),
}


@pytest.mark.parametrize("name", PROJECTS)
def test_a_project_that_gives_nothing_to_believe(bench: Bench, name: str) -> None:
    files, why = PROJECTS[name]
    result = bench.run({**GOOD, **files}, pages=[], trace="never", screenshot="never")
    assert why in result.unmeasured["e2e.total"]
    assert not [m for m in result.metrics if m.startswith("e2e.")]
    assert set(failing(result)) == {"e2e.total", "e2e.browsed", "e2e.failed", "e2e.deselected"}


def test_what_a_conftest_drops_and_what_loads_no_page_is_counted(bench: Bench) -> None:
    drop = "def pytest_collection_modifyitems(items): del items[0]"
    tests = "def test_dropped(page): page.goto('/')\ndef test_nothing(): pass\nif 0:\n    def test_never(): pass\n"
    result = bench.run({**GOOD, "e2e/conftest.py": drop, "e2e/test_page.py": tests}, pages=["/ghost"], trace="never")
    assert failing(result) == {"e2e.browsed": "0", "e2e.deselected": "2"}
    assert result.metrics["e2e.passed"] == 1
    assert result.unmeasured["a11y.serious"] == "/ghost: answered 404"


def test_an_app_that_is_never_healthy(bench: Bench) -> None:
    result = bench.run({**GOOD, ".taxiway.yaml": MANIFEST.replace("/healthz", "/ghost")}, timeout_s=12)
    assert re.search(r"was not healthy within \d s: /ghost on port 8000: it answered 404", result.unmeasured["e2e.total"])
    assert '"GET /ghost HTTP/1.1" 404' in result.unmeasured["e2e.total"]
    assert "was not healthy" in result.unmeasured["a11y.serious"]


def test_browsers_that_are_not_there_or_do_not_start(bench: Bench, tmp_path: Path) -> None:
    broken = Browser("chromium", Path("/bin/false"), films=True)
    cases = (
        ({}, {}, "this machine has no chromium: install it (`apt-get install chromium`)"),
        ({}, {"browser": "firefox"}, "this machine has no firefox: `playwright install firefox` gets it"),
        ({"chromium": Browser("chromium", Path("/bin/false"))}, {"video": "always"}, "this machine has no ffmpeg"),
        ({"chromium": broken}, {}, "chromium does not start"),
    )
    for number, (browsers, inputs, why) in enumerate(cases):
        place = tmp_path / str(number)
        place.mkdir()
        result = Bench(bench.ports, place).with_ports(browsers=browsers).run(GOOD, **inputs)
        assert result.metrics == {}
        assert why in result.unmeasured["e2e.total"]
        assert why in result.unmeasured["a11y.serious"]


def test_a_cancelled_run_leaves_no_process(bench: Bench) -> None:
    hanging = TEST.replace('page.goto("/")', 'page.goto("/")\n    print("here")\n    page.wait_for_timeout(1e9)')
    mine = psutil.Process()
    before = {p.pid for p in mine.children(recursive=True)}

    def cancel_when_browsing() -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until and not any("chrom" in _name(p) for p in mine.children(recursive=True)):
            time.sleep(0.1)
        bench.stop.cancel()

    canceller = threading.Thread(target=cancel_when_browsing)
    canceller.start()
    with pytest.raises(Cancelled):
        bench.run({**GOOD, "e2e/test_page.py": hanging})
    canceller.join()
    assert not [p for p in mine.children(recursive=True) if p.pid not in before and p.status() != psutil.STATUS_ZOMBIE]


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""
