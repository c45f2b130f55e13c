"""The benches work: the cheap ones run, small and once. No number is judged here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def bench(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BENCH / name), *arguments], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(("name", "rows"), [("check.py", 2), ("worker.py", 1), ("compile.py", 2)])
def test_a_bench_hands_on_a_section(tmp_path: Path, name: str, rows: int) -> None:
    ended = bench(name, "--quick", "--json", str(tmp_path / "section.json"))
    assert ended.returncode == 0, ended.stderr
    section = json.loads((tmp_path / "section.json").read_text())
    table = next(part for part in section["parts"] if part.startswith("| "))
    _, _, *found = table.splitlines()
    assert len(found) == rows
    assert re.search(r"\d\.\d\d \|.*<= [\d.]+: (met|\*\*missed\*\*)", table), table
    assert section["title"] in ended.stdout


def test_what_asking_a_model_takes(tmp_path: Path) -> None:
    ended = bench("thinking.py", "--quick", "--json", str(tmp_path / "section.json"))
    assert ended.returncode == 0, ended.stderr
    *_, row = json.loads((tmp_path / "section.json").read_text())["parts"][1].splitlines()
    assert re.match(r"\| 3 \| \d+ \| \d+% \| \d+ \| 0\.\d\d \|", row), row


def test_the_page_says_what_was_measured_where_and_what_was_not(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    ended = bench("all.py", "--quick", "--only", "check", "--output", str(page))
    assert ended.returncode == 0, ended.stderr
    text = page.read_text()
    assert re.search(r"on \d{4}-\d\d-\d\d: \d+ cores, \d+ GiB, .*Python 3\.\d+", text)
    assert re.search(r"^Load average before it: \d+\.\d", text, re.MULTILINE)
    assert "--quick" in text
    assert "## Checking pipelines" in text


def test_a_goal_that_is_missed_is_said() -> None:
    sys.path.insert(0, str(BENCH))
    try:
        from measuring import against, spread  # noqa: PLC0415 - bench is no package
    finally:
        sys.path.remove(str(BENCH))
    assert against(1.1, [1.0, 1.1, 9.0]) == "<= 1.1: met"
    assert against(1.1, [1.0, 1.2, 1.3]) == "<= 1.1: **missed**"
    assert spread([3.0, 1.0, 2.0]) == "2.00 s (1.00 to 3.00)"
