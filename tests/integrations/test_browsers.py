from __future__ import annotations

from pathlib import Path

import pytest

from taxiway.agents import registry
from taxiway.cli.browsers import missing_browsers
from taxiway.compiler import compile_file
from taxiway.errors import OperatorError
from taxiway.integrations.browsers import find_browsers
from taxiway.ports import Browser

WEB_SERVICE = Path(__file__).parents[2] / "pipelines" / "web_service.yaml"


def program(place: Path) -> Path:
    place.parent.mkdir(parents=True)
    place.write_text("#!/bin/sh\n")
    place.chmod(0o755)
    return place


def test_what_the_system_and_playwright_offer(tmp_path):
    chrome = program(tmp_path / "bin" / "google-chrome")
    for revision in ("900", "1500"):
        program(tmp_path / ".cache" / "ms-playwright" / f"firefox-{revision}" / "firefox" / "firefox")
    program(tmp_path / "elsewhere" / "webkit-7" / "pw_run.sh")
    found = find_browsers({"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)})
    assert set(found) == {"chromium", "firefox"}
    assert (found["chromium"].executable, found["chromium"].folders, found["chromium"].films) == (chrome, (tmp_path / "bin",), False)
    assert found["firefox"].folders == (tmp_path / ".cache" / "ms-playwright" / "firefox-1500",)
    assert set(find_browsers({"PATH": "/nowhere", "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path / "elsewhere")})) == {"webkit"}
    assert find_browsers({"PATH": "/nowhere"}) == {}


def test_a_run_that_needs_a_browser_is_refused_before_it_starts_where_there_is_none():
    plan = compile_file(WEB_SERVICE, registry())
    with pytest.raises(OperatorError) as refused:
        missing_browsers(plan, {}, {})
    assert refused.value.problem == "stage e2e.chromium tests in chromium, which this machine does not have"
    assert refused.value.hint == "get it: sudo apt-get install chromium; or leave the stage out: --param e2e=false"
    assert missing_browsers(plan, {"e2e": False}, {}) == ()


def test_a_cell_whose_browser_is_missing_is_a_warning_where_another_one_can_run(tmp_path):
    text = "pipeline: p\nstages:\n  s: {agent: scaffold, with: {name: aa}}\n"
    text += (
        "  e: {agent: e2e, matrix: {browser: [chromium, firefox]}}\n  t: {agent: e2e, with: {browser: webkit}, continue_on_failure: true}\n"
    )
    (tmp_path / "p.yaml").write_text(text)
    plan = compile_file(tmp_path / "p.yaml", registry())
    here = {"chromium": Browser("chromium", tmp_path, (), False)}
    firefox, webkit = missing_browsers(plan, {}, here)
    assert firefox.startswith(
        "stage e.firefox tests in firefox, which this machine does not have: it will not be measured; a gate that blocks"
    )
    assert webkit == (
        "stage t tests in webkit, which this machine does not have: it will not be measured (get it: playwright install webkit)"
    )
    with pytest.raises(OperatorError, match=r"stage e\.chromium tests in chromium"):
        missing_browsers(plan, {}, {})


def test_a_stage_that_writes_browser_tests_wants_its_browser_too(tmp_path):
    (tmp_path / "p.yaml").write_text(
        "pipeline: p\nstages:\n  w: {agent: write_e2e, with: {requirements: The page greets people., browser: firefox}}\n"
    )
    with pytest.raises(OperatorError, match="stage w tests in firefox"):
        missing_browsers(compile_file(tmp_path / "p.yaml", registry()), {}, {})
