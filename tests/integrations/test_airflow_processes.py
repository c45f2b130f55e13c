from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

import psutil
import pytest

from taxiway.errors import OperatorError
from taxiway.integrations.airflow_processes import Process, end, listening, start

# Starts a child in its session and one that leaves it, says their pids, and waits.
LEADER = """
import signal, subprocess, sys, time
wait = [sys.executable, "-c", "import time; time.sleep(60)"]
{setup}
stays = subprocess.Popen(wait)
leaves = subprocess.Popen(wait, start_new_session=True)
print(stays.pid, leaves.pid, flush=True)
time.sleep(60)
"""
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


@pytest.fixture
def leader(tmp_path):
    """Starts a leader: the process, the pid of its child, the pid of the one that left."""
    started = []

    def begin(setup=""):
        log = tmp_path / f"{len(started)}.log"
        code = [sys.executable, "-c", LEADER.format(setup=setup)]
        process, child = start(code, environ={**os.environ, "MARK": "here"}, log=log, folder=tmp_path, mark="MARK=here")
        pids = words(log)
        started.append((child, pids))
        return process, *pids

    yield begin
    for child, pids in started:
        for pid in (child.pid, *pids):
            kill(pid)
        child.wait(60)


def words(log):
    until = time.monotonic() + 60
    while len(found := log.read_text().split()) < 2:
        assert time.monotonic() < until
        time.sleep(0.02)
    return [int(w) for w in found]


def kill(pid):
    with contextlib.suppress(psutil.Error):
        psutil.Process(pid).kill()


def gone(pid):
    # A killed process may be seen for a moment after it has left its session.
    until = time.monotonic() + 60
    while runs(pid):
        assert time.monotonic() < until
        time.sleep(0.02)


def runs(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("setup", ["", STUBBORN], ids=["obedient", "stubborn"])
def test_ends_the_session_and_nothing_else(leader, setup):
    process, stays, leaves = leader(setup)
    assert process.alive
    assert {m.pid for m in process.members()} == {process.pid, stays}
    end([process], ask_s=0.2)
    assert not process.alive
    assert process.members() == []
    gone(stays)
    assert runs(leaves)


def test_knows_what_is_left_after_the_leader_was_killed(leader):
    process, stays, _ = leader()
    os.kill(process.pid, 9)
    until = time.monotonic() + 60
    while process.alive and time.monotonic() < until:
        time.sleep(0.02)
    assert not process.alive
    assert [m.pid for m in process.members()] == [stays]
    assert Process(process.pid, process.birth, "MARK=elsewhere").members() == [], "a stranger's session"
    end([process], ask_s=1)
    gone(stays)


def test_a_pid_that_was_given_away_is_not_touched(leader):
    process, stays, _ = leader()
    before = Process(process.pid, "another boot:1", "MARK=here")
    assert not before.alive
    assert before.members() == []
    end([before], ask_s=0.1)
    assert runs(process.pid)
    assert runs(stays)


def test_keeps_the_last_log(leader, tmp_path):
    for text in ("first", "second"):
        _, child = start([sys.executable, "-c", f"print('{text}')"], environ={}, log=tmp_path / "x.log", folder=tmp_path, mark="")
        child.wait(60)
    assert (tmp_path / "x.log").read_text() == "second\n"
    assert (tmp_path / "x.old.log").read_text() == "first\n"


def test_says_what_cannot_be_started(tmp_path):
    with pytest.raises(OperatorError, match="cannot start /no/such"):
        start(["/no/such"], environ={}, log=tmp_path / "x.log", folder=tmp_path, mark="")


def test_sees_what_listens(tmp_path):
    code = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], 0, flush=True); time.sleep(60)"
    process, child = start([sys.executable, "-c", code], environ={}, log=tmp_path / "x.log", folder=tmp_path, mark="")
    port = words(tmp_path / "x.log")[0]
    assert listening(process) == {("127.0.0.1", port)}
    end([process], ask_s=60)
    child.wait(60)
    assert child.returncode == -15


def test_a_zombie_is_dead(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    until = time.monotonic() + 60
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.02)
    assert not Process(child.pid, "").alive or child.poll() is not None
    child.wait(60)
