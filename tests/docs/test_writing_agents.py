"""The worked example of docs/writing-agents.md: built, installed beside Taxiway, found by its entry point, and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "taxiway-links"
PIPELINE = "pipeline: docs_check\nstages:\n  links:\n    agent: links\n    gates: [links.total >= 1]\n"


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process for which the package is installed."""
    folder = tmp_path_factory.mktemp("links")
    # A copy: building leaves files behind.
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    install = [
        "uv",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "--target",
        folder / "installed",
    ]
    subprocess.run([sys.executable, "-m", *install, folder / "source"], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": str(folder / "installed"), "COLUMNS": "200"}


def taxiway(environ: dict[str, str], *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "taxiway.cli", *words], env=environ, capture_output=True, text=True, timeout=120, check=False
    )


def test_pipelines_may_use_it(environ: dict[str, str], tmp_path: Path) -> None:
    pipeline = tmp_path / "docs_check.yaml"
    pipeline.write_text(PIPELINE)
    checked = taxiway(environ, "check", pipeline)
    assert (checked.returncode, checked.stderr) == (0, "")
    pipeline.write_text(PIPELINE.replace("links.total", "links.totl"))
    checked = taxiway(environ, "check", pipeline)
    assert checked.returncode == 1
    assert "links.total" in checked.stdout + checked.stderr, "it knows the metrics, and offers the right one"


def test_its_own_tests_pass_against_what_is_installed(environ: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "--rootdir", EXAMPLE, EXAMPLE / "tests"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b9 passed", done.stdout)


def test_code_shown_is_the_code() -> None:
    page = (ROOT / "docs" / "writing-agents.md").read_text()
    shown = re.findall(r"^```\w+ file=(\S+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert shown
    assert [name for name, text in shown if text not in (ROOT / name).read_text()] == []
