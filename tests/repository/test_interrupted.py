"""A pytest that is interrupted leaves nothing that it started: neither a process nor a service, which outlives its starter on purpose."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

TESTS = Path(__file__).parents[1]
STARTS = """
import os, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, {local!r})
from conftest_local import Local
from taxiway.home import Home

def test_it(tmp_path):
    # As Airflow is: in a session of its own, which no Ctrl-C reaches.
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"], start_new_session=True)
    local = Local(Home(tmp_path / "home"), tmp_path, isolate=False)
    local.deploy("one")
    said = local.client().status()
    daemon = local.client()._holder().pid
    part = Path({told!r} + ".part")
    part.write_text(f"{{child.pid}} {{said['pid']}} {{daemon}}")
    part.rename({told!r})
    time.sleep(900)
"""
# Who runs these tests in the background ignores Ctrl-C, and so would whatever they start.
HEARS = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"


def wait_for(true, what):
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def living(births):
    found = []
    for pid, birth in births.items():
        try:
            process = psutil.Process(pid)
            if process.create_time() == birth and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.parametrize(
    ("number", "workers", "to"),
    [
        (signal.SIGINT, "0", "group"),  # Ctrl-C
        (signal.SIGTERM, "0", "one"),
        (signal.SIGKILL, "0", "one"),
        (signal.SIGINT, "1", "group"),
        (signal.SIGTERM, "1", "one"),
    ],
)
def test_nothing_is_left_behind(tmp_path, number, workers, to):
    place, told = tmp_path / "tests", tmp_path / "told"
    place.mkdir()
    for name in ("conftest.py", "left_behind.py"):
        shutil.copy(TESTS / name, place)
    (place / "test_it.py").write_text(STARTS.format(local=str(TESTS / "integrations" / "local"), told=str(told)))
    argv = [sys.executable, "-c", HEARS, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", workers]
    argv += ["--rootdir", str(place), "--basetemp", str(tmp_path / "base"), str(place)]
    births = {}
    with (tmp_path / "said").open("wb") as said:
        run = subprocess.Popen(argv, cwd=place, stdout=said, stderr=said, start_new_session=True)
    try:
        wait_for(lambda: told.exists() or run.poll() is not None, "it never began")
        assert told.exists(), (tmp_path / "said").read_text()
        births = {int(pid): psutil.Process(int(pid)).create_time() for pid in told.read_text().split()}
        assert len(living(births)) == 3
        (os.killpg if to == "group" else os.kill)(run.pid, number)
        wait_for(lambda: run.poll() is not None, "pytest never ended")
        wait_for(lambda: not living(births), "something is left")
    finally:
        run.kill()
        run.wait()
        for process in living(births):
            process.kill()
