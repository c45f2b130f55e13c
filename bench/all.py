"""Runs every bench, one after the other, and writes docs/performance.md.

.venv/bin/python bench/all.py [--quick] [--only NAME ...] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from measuring import Section, machine

HERE = Path(__file__).parent
BENCHES = {
    "compile": 2400,
    "check": 600,
    "worker": 600,
    "imports": 300,
    "thinking": 300,
    "visible": 2400,
    "overhead": 900,
    "warm_run": 1800,
}
"""In the order of the page, with the seconds after which one is ended."""
BUSY = "; **the machine was not idle**: seconds are upper bounds, and ratios of waiting times are less sure."
RATIOS = (
    "Ratios compare what was measured next to each other in the same run, pair by pair. Numbers are medians, with the least and the "
    "most in brackets. CPU time is the processor's time, which other work on the machine disturbs little."
)


def run(name: str, folder: Path, quick: bool) -> Section:
    """One bench's section; what it said last where it failed."""
    place = folder / f"{name}.json"
    argv = [sys.executable, str(HERE / f"{name}.py"), "--json", str(place), *(["--quick"] if quick else [])]
    load, process = os.getloadavg()[0], subprocess.Popen(argv, text=True, stderr=subprocess.PIPE)
    try:
        _, said = process.communicate(timeout=BENCHES[name])
    except subprocess.TimeoutExpired:
        # Not killed: it stops the Airflow that it started.
        process.send_signal(signal.SIGINT)
        process.communicate()
        return Section(name, [f"**Not measured**: it took longer than {BENCHES[name]} s"])
    if process.returncode:
        return Section(name, [f"**Not measured**: {(said.strip().splitlines() or ['no reason given'])[-1]}"])
    section = Section(**json.loads(place.read_text()))
    section.say(f"Load average before it: {load:.1f}" + (BUSY if load > (os.cpu_count() or 1) else "."))
    return section


def page(sections: list[Section], quick: bool) -> str:
    """The page."""
    head = [
        "# Performance",
        f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {machine()}.",
        RATIOS,
        *(["A run with `--quick`: it shows that the benches work, and no number to rely on."] if quick else []),
    ]
    return "\n\n".join([*head, *(section.markdown().strip() for section in sections)]) + "\n"


def main() -> int:
    """1 where a bench was not measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small and once: whether they work, not how fast")
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES))
    parser.add_argument("--output", type=Path, default=HERE.parent / "docs" / "performance.md")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="taxiway-bench-") as folder:
        sections = []
        for name in given.only:
            print(f"# {name}, after {time.monotonic() - began:.0f} s", flush=True)
            sections.append(run(name, Path(folder), given.quick))
    given.output.write_text(page(sections, given.quick))
    print(f"wrote {given.output}")
    return int(any("**Not measured**" in part for section in sections for part in section.parts))


if __name__ == "__main__":
    sys.exit(main())
