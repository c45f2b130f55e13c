"""What a newcomer waits for: clone, `make run` and, with --tests, `make test`, cold and warm, with wall time and peak memory.

    .venv/bin/python bench/fresh_clone.py [--tests] [--most SECONDS]

Cold is a fresh clone of what is committed here, with an empty uv cache and an empty home; warm is the same command once more. Memory is
the largest sum of PSS over the tree that the command started, looked at each second: shared pages count once, the disk's cache
not at all. Each command is ended after --most seconds. Needs the package index of the machine; services are stopped again.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from taxiway.integrations.processes import kill_tree, tree, usage

ROOT = Path(__file__).resolve().parents[1]
PR_SET_CHILD_SUBREAPER = 36
DROPPED = ("TAXIWAY_HOME", "VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS")


@dataclass(frozen=True)
class Row:
    """One command: how it ended, seconds, and the peak of its tree in MiB."""

    name: str
    ended: str
    seconds: float
    peak_mb: float


def main() -> int:
    """Measure and print; 1 where a command failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", action="store_true", help="measure `make test` too; it takes long")
    parser.add_argument("--most", type=float, default=1800, help="seconds that one command may take")
    options = parser.parse_args()
    # What a command leaves behind (a service's daemon) becomes a child of this process: counted, and found at the end.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    rows = []
    with tempfile.TemporaryDirectory(prefix="taxiway-fresh-", ignore_cleanup_errors=True) as folder:
        for target in ("run", "test") if options.tests else ("run",):
            rows += measure(target, Path(folder, target), options.most)
    print(f"\n{'command':<16}{'ended':<12}{'seconds':>9}{'peak MiB':>10}")
    for row in rows:
        print(f"{row.name:<16}{row.ended:<12}{row.seconds:>9.1f}{row.peak_mb:>10.0f}")
    return int(any(row.ended != "exit 0" for row in rows))


def measure(target: str, folder: Path, most_s: float) -> list[Row]:
    """A clone of its own for `make TARGET`: the clone, cold, warm."""
    folder.mkdir()
    clone = folder / "clone"
    environ = {name: value for name, value in os.environ.items() if name not in DROPPED} | {"UV_CACHE_DIR": str(folder / "uv-cache")}
    rows = [watched("clone", ["git", "clone", "--quiet", str(ROOT), str(clone)], folder, environ, most_s)]
    try:
        for kind in ("cold", "warm"):
            rows.append(watched(f"{target} {kind}", ["make", target], clone, environ, most_s))
            if rows[-1].ended != "exit 0":  # what it left would be measured too
                break
    finally:
        subprocess.run([clone / ".venv/bin/taxiway", "services", "stop"], cwd=clone, env=environ, check=False)
        for child in [p for p in tree(os.getpid()) if p.parent == os.getpid()]:
            kill_tree(child.pid, 5.0)
    return rows


def watched(name: str, argv: list[str], folder: Path, environ: Mapping[str, str], most_s: float) -> Row:
    """Run it to its end, looking at its tree."""
    print(f"{name}: {' '.join(argv)}", flush=True)
    log = folder / f"{name.replace(' ', '-')}.log"
    began = time.monotonic()
    peak, ended = 0, ""
    with log.open("wb") as out:
        process = subprocess.Popen(argv, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        while not ended:
            peak = max(peak, usage([p for p in tree(os.getpid()) if p.pid != os.getpid()], 0).memory)
            try:
                ended = f"exit {process.wait(1.0)}"
            except subprocess.TimeoutExpired:
                if time.monotonic() - began > most_s:
                    kill_tree(process.pid, 5.0)
                    process.wait()
                    ended = "too long"
    if ended != "exit 0":
        print(*log.read_text(errors="replace").splitlines()[-20:], sep="\n")
    row = Row(name, ended, time.monotonic() - began, peak / 2**20)
    print(f"  {row.ended} after {row.seconds:.1f} s, peak {row.peak_mb:.0f} MiB", flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
