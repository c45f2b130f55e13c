"""From the signal to the last dead process: the whole of it in the time that Airflow leaves before it kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from taxiway.integrations import bubblewrap

BWRAP = pytest.mark.skipif(bubblewrap.available() is not None, reason=str(bubblewrap.available()))

# What on_kill does in a task: the handler sets a flag and returns into the work.
TASK = """
import signal, sys
from pathlib import Path
from taxiway.errors import Cancelled
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.ports import Command
from taxiway.stop import Stop
stop = Stop()
signal.signal(signal.SIGTERM, lambda *_: stop.cancel())
folder, isolate, tree = sys.argv[1:]
command = Command(("sh", "-c", tree), Path(folder), timeout_s=120, processes=300)
try:
    ProcessSandbox(trusted=True, isolate=isolate).run(command, stop)
except Cancelled:
    print("cancelled", flush=True)
"""
# Forty sessions of their own that ignore SIGTERM, keep the pipes open and start something again and again.
TREE = "trap '' TERM; i=0; while [ $i -lt 40 ]; do setsid sh -c 'while :; do sleep {mark}; done' & i=$((i+1)); done; wait"


def living(mark: str) -> list[int]:
    # bubblewrap's own processes and the launcher carry the text too, and have to end as well.
    found = []
    for process in psutil.process_iter():
        try:
            if any(mark in word for word in process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("isolate", [pytest.param("auto", marks=BWRAP), "never"])
def test_a_stubborn_tree_is_dead_within_four_seconds_of_the_signal(tmp_path, isolate):
    mark = f"{os.getpid()}.{time.monotonic_ns() % 10**9}"
    argv = [sys.executable, "-c", TASK, str(tmp_path), isolate, TREE.format(mark=mark)]
    task = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 60
        while len(living(mark)) < 80:
            assert time.monotonic() < end, "the tree never grew"
            time.sleep(0.05)
        began = time.monotonic()
        task.send_signal(signal.SIGTERM)
        said, _ = task.communicate(timeout=60)
        took = time.monotonic() - began
    finally:
        task.kill()
        task.wait()
    assert said == "cancelled\n"
    assert not living(mark)
    assert took < 4, f"{took:.1f} s"
