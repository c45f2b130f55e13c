"""A project that knows nothing of Taxiway goes through the stages, taken from this machine's package index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from taxiway.integrations.indexes import uv_binary, uv_environment

BENCH = Path(__file__).parents[2] / "bench"
PROJECT = "itsdangerous==2.2.0"


@pytest.fixture
def index(tmp_path: Path) -> None:
    argv = [uv_binary(), "pip", "install", "--dry-run", "--no-deps", "--quiet", "--target", str(tmp_path / "none"), PROJECT]
    asked = subprocess.run(argv, env=uv_environment(os.environ), capture_output=True, text=True, timeout=60, check=False)
    if asked.returncode != 0:
        pytest.skip("no package index that has source distributions: set pip's or uv's index")


def test_a_source_distribution_is_validated(tmp_path: Path, index: None) -> None:
    page = tmp_path / "page.md"
    argv = [sys.executable, str(BENCH / "real_repositories.py"), "--output", str(page), PROJECT]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=400, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    row = next(line for line in page.read_text().splitlines() if line.startswith(f"| {PROJECT}"))
    assert row.startswith(f"| {PROJECT} | 297 | 0 | 0 | ")
