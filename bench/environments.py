"""How long a stage waits for its project's environment: the first one installs it, each later one finds it.

    .venv/bin/python bench/environments.py [ROUNDS]

The project is the shipped template `python-service`; each look is a process of its own, as a stage is. The first is measured with an
empty uv cache and needs the package index. The design wants the later ones under 2 s.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from taxiway.agents.scaffold import ScaffoldInput, fill, place

STAGE = """
import sys, time
from pathlib import Path
from taxiway.home import Home
from taxiway.integrations.environments import UvEnvironments
from taxiway.stop import Stop
began = time.monotonic()
found = UvEnvironments(Home(Path(sys.argv[1])), trusted=True).project(Path(sys.argv[2]), Stop())
print(f"{time.monotonic() - began:.3f} {found.cached}")
"""


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        home, checkout = Path(name, "home"), Path(name, "checkout")
        checkout.mkdir()
        place(fill(ScaffoldInput(name="greeter")), checkout)
        first, *later = [look(home, checkout) for _ in range(rounds + 1)]
        print(f"first: {first[0]:.2f} s ({first[1]:.2f} s with the process)")
        own, whole = zip(*later, strict=True)
        print(f"later: median {statistics.median(own):.3f} s, most {max(own):.3f} s (with the process {statistics.median(whole):.2f} s)")
        subprocess.run(["chmod", "-R", "u+w", str(home)], check=True)


def look(home: Path, checkout: Path) -> tuple[float, float]:
    """Seconds until a new process has the environment: its own time, and with the start of the interpreter."""
    began = time.monotonic()
    argv = [sys.executable, "-c", STAGE, str(home), str(checkout)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    whole = time.monotonic() - began
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.split()[0]), whole


if __name__ == "__main__":
    main()
