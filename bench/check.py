"""What `taxiway check` costs for N pipelines of seven stages, against PyYAML's C loader on the same files.

.venv/bin/python bench/check.py [--quick] [--rounds N]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import specs
from measuring import Section, against, asked, done, ratios, spread

LOADER = """
import pathlib, sys, yaml
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.yaml")):
    yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
"""
WITHIN = """
import pathlib, sys, time, yaml
from taxiway.agents import registry
from taxiway.compiler import compile_content
paths, agents = sorted(pathlib.Path(sys.argv[1]).glob("*.yaml")), registry()
compile_content(paths[0].read_bytes(), "warm.yaml", agents, {})
began = time.process_time()
for path in paths:
    yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
middle = time.process_time()
for path in paths:
    compile_content(path.read_bytes(), str(path), agents, {})
print(middle - began, time.process_time() - middle)
"""


def cpu(argv: list[str]) -> tuple[float, str]:
    """CPU seconds of a process and its children, and what it printed."""
    before = os.times()
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    after = os.times()
    if ended.returncode:
        raise SystemExit(f"{' '.join(argv)}: {ended.stdout[-500:]}{ended.stderr[-500:]}")
    return after.children_user + after.children_system - before.children_user - before.children_system, ended.stdout


def main() -> None:
    """Measure and print."""
    given = asked(__doc__ or "", rounds=5)
    count = 5 if given.quick else 1000
    command = str(Path(sys.executable).with_name("taxiway"))
    loaders, checks, inner_loads, inner_checks, waits = [], [], [], [], []
    with tempfile.TemporaryDirectory(prefix="taxiway-bench-") as name:
        folder = Path(name, "pipelines")
        specs.specs(folder, count)
        for _ in range(given.rounds):
            loaders.append(cpu([sys.executable, "-c", LOADER, str(folder)])[0])
            began = time.monotonic()
            checks.append(cpu([command, "check", str(folder)])[0])
            waits.append(time.monotonic() - began)
            load, check = map(float, cpu([sys.executable, "-c", WITHIN, str(folder)])[1].split())
            inner_loads.append(load)
            inner_checks.append(check)
    section = Section("Checking pipelines")
    section.say(
        f"{count} pipelines of seven stages; {given.rounds} repetitions; CPU time. The floor is PyYAML's C loader (`CSafeLoader`) on the "
        "same files, which knows no positions, no types and no graph. Whole commands count the start of Python and all imports."
    )
    rows = [
        ["command", spread(loaders), spread(checks), *_judged(checks, loaders)],
        ["within one process", spread(inner_loads), spread(inner_checks), *_judged(inner_checks, inner_loads)],
    ]
    section.table(["", "floor", "check", "check / floor", "goal"], rows)
    section.say(f"A person waits {spread(waits)} for the command.")
    done(section, given)


def _judged(ours: list[float], floor: list[float]) -> tuple[str, str]:
    found = ratios(ours, floor)
    return spread(found, ""), against(3, found)


if __name__ == "__main__":
    main()
