"""`make run` once more: the shipped pipeline from Airflow's start to its end, with everything installed and cached.

    .venv/bin/python bench/warm_run.py [--quick] [--rounds N]

Needs a package index for the first run, which is not counted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from measuring import Section, asked, done, spread

ROOT = Path(__file__).parents[1]
LONGEST_S = 900.0


def memory(home: str) -> int:
    """Bytes (PSS: shared pages count once) of every process that belongs to a Taxiway home."""
    total = 0
    for process in psutil.process_iter():
        try:
            if process.environ().get("TAXIWAY_HOME") == home:
                rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                total += next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
        except (psutil.Error, OSError, StopIteration):
            continue
    return total


def run(folder: Path, environ: dict[str, str], arguments: list[str]) -> tuple[float, int]:
    """Seconds of one run, and the most memory that it had; ends this program where the run fails."""
    began, most = time.monotonic(), 0
    log = folder / "run.log"
    with log.open("w") as output:
        argv = [sys.executable, "-m", "taxiway.cli", "run", "web_service", *arguments]
        process = subprocess.Popen(argv, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        while process.poll() is None:
            most = max(most, memory(environ["TAXIWAY_HOME"]))
            time.sleep(1.0)
            if time.monotonic() - began > LONGEST_S:
                process.terminate()
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    return time.monotonic() - began, most


def main() -> None:
    """Measure and print."""
    given = asked(__doc__ or "", rounds=3)
    arguments = ["--param", "e2e=false"] if given.quick else []
    with tempfile.TemporaryDirectory(prefix="taxiway-bench-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "pipelines", folder / "pipelines")
        environ = {**os.environ, "TAXIWAY_HOME": str(folder / "home")}
        try:
            cold = run(folder, environ, arguments)[0]
            runs = [run(folder, environ, arguments) for _ in range(given.rounds)]
        finally:
            for words in (["down"], ["services", "stop", "greeter"]):
                subprocess.run([sys.executable, "-m", "taxiway.cli", *words], cwd=folder, env=environ, capture_output=True, check=False)
    section = Section("`make run`, warm")
    section.say(
        "The pipeline `web_service` from the command to its end: Airflow started and stopped, a project scaffolded, checked by seven "
        f"checks, tested in a browser, merged, deployed, and watched for 10 s; {given.rounds} repetitions. Memory is the most that all "
        "processes of the home had together (PSS, looked at every second), the deployed service included."
    )
    seconds, most = [a for a, _ in runs], [b / 2**20 for _, b in runs]
    section.table(["first run", "warm run", "memory"], [[f"{cold:.0f} s", spread(seconds, digits=1), spread(most, "MiB", digits=0)]])
    done(section, given)


if __name__ == "__main__":
    main()
