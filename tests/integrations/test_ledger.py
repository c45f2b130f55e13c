"""Leases and recorded changes, with real processes that are killed, stopped and race."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from taxiway.errors import Cancelled, LeaseLost, OperatorError, TransientError
from taxiway.integrations import ledger_file
from taxiway.integrations.ledger import SqliteLedger
from taxiway.ports import Change, RunRecord
from taxiway.stop import Stop

HOLD = """
import sys, time
from pathlib import Path
from taxiway.errors import LeaseLost
from taxiway.integrations.ledger import SqliteLedger
from taxiway.stop import Stop
path, holder, attempt, ttl = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
with SqliteLedger(path).lease("key", holder=holder, attempt=attempt, stop=Stop(), ttl_s=ttl) as lease:
    print(lease.fence, flush=True)
    sys.stdin.readline()
    try:
        lease.check()
        print("held", flush=True)
    except LeaseLost:
        print("lost", flush=True)
"""

COUNT = """
import sys
from pathlib import Path
from taxiway.integrations.ledger import SqliteLedger
from taxiway.stop import Stop
path, counter, holder = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
for _ in range(5):
    with SqliteLedger(path).lease("count", holder=holder, attempt=1, stop=Stop()) as lease:
        value = int(counter.read_text())
        lease.check()
        counter.write_text(str(value + 1))
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "ledger.db"


@pytest.fixture
def ledger(path):
    return SqliteLedger(path)


@pytest.fixture
def hold(path):
    processes = []

    def hold(holder="other", attempt=1, ttl=30.0):
        command = [sys.executable, "-c", HOLD, str(path), holder, str(attempt), str(ttl)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline().strip().isdigit()
        return process

    yield hold
    for process in processes:
        process.kill()
        process.wait(60)
        process.stdin.close()
        process.stdout.close()


def change(**more):
    given = {"run": "r", "stage": "deploy", "kind": "deploy", "key": "local:web", "before": {"release": "v1"}, "after": {"release": "v2"}}
    return Change(**{**given, **more})


def test_fences_grow_and_a_released_lease_is_free(ledger):
    fences = []
    for holder in ("a", "b", "a"):
        with ledger.lease("k", holder=holder, attempt=1, stop=Stop()) as lease:
            lease.check()
            fences.append(lease.fence)
            assert lease.key == "k"
        with pytest.raises(LeaseLost):
            lease.check()
    assert fences == sorted(set(fences))


def test_a_new_ledger_goes_on_above_the_fences_of_a_lost_one(ledger, path):
    fences = []
    for _ in range(2):
        for attempt in (1, 2, 3):
            with ledger.lease("k", holder="a", attempt=attempt, stop=Stop()) as lease:
                fences.append(lease.fence)
        for file in path.parent.glob("ledger.db*"):
            file.unlink()
    assert fences == sorted(set(fences))


def test_a_newer_attempt_takes_over_at_once_and_an_older_one_is_refused(ledger):
    with ledger.lease("k", holder="h", attempt=1, stop=Stop()) as old:
        with ledger.lease("k", holder="h", attempt=2, stop=Stop()) as new:
            assert new.fence > old.fence
            with pytest.raises(LeaseLost):
                old.check()
            with pytest.raises(LeaseLost, match="attempt 2 of h has replaced attempt 1"):
                ledger.lease("k", holder="h", attempt=1, stop=Stop())
        with ledger.lease("k", holder="other", attempt=1, stop=Stop()):
            pass
        with pytest.raises(LeaseLost):
            ledger.lease("k", holder="h", attempt=1, stop=Stop())


def test_leaving_an_old_lease_does_not_free_the_new_one(ledger):
    with ledger.lease("k", holder="h", attempt=1, stop=Stop()):
        new = ledger.lease("k", holder="h", attempt=2, stop=Stop())
    new.check()


def test_another_holder_waits_until_the_release(ledger, hold):
    holder = hold()
    released = threading.Event()

    def release() -> None:
        released.set()
        holder.stdin.write("go\n")
        holder.stdin.flush()

    threading.Timer(0.4, release).start()
    with ledger.lease("key", holder="me", attempt=1, stop=Stop()):
        assert released.is_set()
    assert holder.wait(60) == 0


def test_a_killed_holder_is_waited_for_until_its_time_is_over(ledger, hold):
    holder = hold(ttl=1.0)
    holder.kill()
    stop = Stop()
    stop.arm(60, None)
    with ledger.lease("key", holder="me", attempt=1, stop=stop, ttl_s=1.0) as lease:
        lease.check()


def test_a_newer_attempt_need_not_wait_for_the_killed_one(ledger, hold):
    hold(holder="me", attempt=1, ttl=600.0).kill()
    stop = Stop()
    stop.arm(60, None)
    with ledger.lease("key", holder="me", attempt=2, stop=stop) as lease:
        lease.check()


def test_a_slow_holder_keeps_its_lease(ledger, hold):
    holder = hold(ttl=3.0)
    stop = Stop()
    stop.arm(4.0, None)
    with pytest.raises(TransientError):
        ledger.lease("key", holder="me", attempt=1, stop=stop, ttl_s=3.0)
    assert holder.communicate("go\n", timeout=60)[0].strip() == "held"


@pytest.mark.parametrize("taken", [True, False])
def test_a_stopped_process_finds_out_when_it_wakes(ledger, hold, taken):
    holder = hold(ttl=0.6)
    os.kill(holder.pid, signal.SIGSTOP)
    if taken:
        with ledger.lease("key", holder="me", attempt=1, stop=Stop()):
            os.kill(holder.pid, signal.SIGCONT)
            assert holder.communicate("go\n", timeout=60)[0].strip() == "lost"
    else:
        time.sleep(1.0)
        os.kill(holder.pid, signal.SIGCONT)
        assert holder.communicate("go\n", timeout=60)[0].strip() == "held"


def test_two_processes_never_hold_at_once(path, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, str(path), str(counter), f"p{i}"]) for i in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert counter.read_text() == "15"


def test_waiting_ends_when_the_run_is_stopped(ledger):
    with ledger.lease("k", holder="a", attempt=1, stop=Stop()):
        stop = Stop()
        threading.Timer(0.2, stop.cancel).start()
        with pytest.raises(Cancelled):
            ledger.lease("k", holder="b", attempt=1, stop=stop)


def test_the_log_names_whom_it_waits_for(path, caplog):
    ledger = SqliteLedger(path, say_every_s=0.1)
    stop = Stop()
    stop.arm(0.8, None)
    caplog.set_level(logging.INFO)
    with ledger.lease("k", holder="a/deploy", attempt=3, stop=Stop()), pytest.raises(TransientError):
        ledger.lease("k", holder="b", attempt=1, stop=stop)
    assert "waiting for k, which is held by attempt 3 of a/deploy" in caplog.text


def test_a_second_intent_keeps_what_was_there_first(ledger):
    with ledger.lease("k", holder="h", attempt=1, stop=Stop()) as lease:
        ledger.intend(change(), lease)
        again = ledger.intend(change(before={"release": "v2"}, after={"release": "v3"}), lease)
        assert again.before == {"release": "v1"}
        done = ledger.settle(again, "done", {"release": "v3", "url": "x"}, lease)
        assert ledger.intend(change(before={"release": "v3"}), lease).before == {"release": "v1"}
        ledger.settle(done, "done", {"release": "v3"}, lease)
    assert ledger.changes("r") == (change(after={"release": "v3"}, state="done"),)
    assert ledger.changes("another") == ()


def test_an_undone_change_is_closed_and_the_next_one_has_its_own_before(ledger):
    with ledger.lease("k", holder="h", attempt=1, stop=Stop()) as lease:
        first = ledger.settle(ledger.intend(change(), lease), "undone", {"release": "v1"}, lease)
        assert ledger.settle(first, "undone", {}, lease) == first
        with pytest.raises(LeaseLost, match="not open any more"):
            ledger.settle(first, "done", {}, lease)
        ledger.intend(change(before={"release": "v9"}), lease)
    assert [(c.state, c.before["release"]) for c in ledger.changes("r")] == [("undone", "v1"), ("intended", "v9")]


def test_changes_are_told_apart_by_stage_kind_and_key(ledger):
    with ledger.lease("k", holder="h", attempt=1, stop=Stop()) as lease:
        for more in ({}, {"stage": "canary"}, {"kind": "push"}, {"key": "local:api"}):
            ledger.intend(change(**more), lease)
    assert len(ledger.changes("r")) == 4


def test_who_lost_the_lease_writes_nothing(ledger):
    with ledger.lease("k", holder="h", attempt=1, stop=Stop()) as old, ledger.lease("k", holder="h", attempt=2, stop=Stop()) as new:
        with pytest.raises(LeaseLost):
            ledger.intend(change(), old)
        ledger.intend(change(), new)
        with pytest.raises(LeaseLost):
            ledger.settle(change(), "done", {}, old)
    assert [c.state for c in ledger.changes("r")] == ["intended"]


def test_what_json_cannot_hold_is_refused_and_nothing_is_written(ledger):
    with ledger.lease("k", holder="h", attempt=1, stop=Stop()) as lease, pytest.raises(ValueError, match="JSON"):
        ledger.intend(change(before={"x": float("nan")}), lease)
    assert ledger.changes("r") == ()


def test_a_file_that_is_no_ledger(tmp_path):
    (tmp_path / "ledger.db").write_bytes(b"no database, but long enough to look like one" * 100)
    with pytest.raises(OperatorError, match="cannot be used"):
        SqliteLedger(tmp_path / "ledger.db").changes("r")


def test_a_ledger_of_a_newer_version(tmp_path):
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(OperatorError, match="has schema 99"):
        SqliteLedger(tmp_path / "ledger.db").changes("r")


def test_a_home_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OperatorError, match="cannot be used"):
        SqliteLedger(tmp_path / "file" / "ledger.db").changes("r")


def test_many_processes_may_make_the_file_at_once(path):
    code = (
        "import sys; from pathlib import Path; from taxiway.integrations.ledger import SqliteLedger; "
        "SqliteLedger(Path(sys.argv[1])).changes('r')"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4


def test_a_ledger_of_the_first_version_learns_of_runs(tmp_path):
    path = tmp_path / "ledger.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        for statement in ledger_file.FIRST.split(";\n"):
            db.execute(statement)
        db.execute("INSERT INTO changes VALUES (1, 'r', 'deploy', 'deploy', 'local:a', '{}', '{}', 'done', 1.0, 2.0)")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    ledger = SqliteLedger(path)
    assert [c.state for c in ledger.changes("r")] == ["done"]
    run = RunRecord(run="r", pipeline="p", run_id="manual", born=1.0, url="u", connection="c", version="v", recovers={"back": ["deploy"]})
    ledger.enter(run)
    (known,) = ledger.runs()
    assert known == dataclasses.replace(run, entered=known.entered)
    assert ledger.close(known)
    assert ledger.runs(unsettled=True) == ()


def test_a_run_is_forgotten_only_when_it_is_closed(tmp_path):
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.enter(RunRecord(run="r", pipeline="p", run_id="manual", born=1.0))
    (known,) = ledger.runs()
    assert not ledger.forget(known)
    ledger.close(known)
    with ledger.lease("attempt:r/a", holder="r/a", attempt=3, stop=Stop()):
        assert ledger.held() == ("attempt:r/a",)
    assert ledger.held() == ()
    assert ledger.forget(known)
    assert (ledger.runs(), ledger.changes("r")) == ((), ())
    with ledger.lease("attempt:r/a", holder="r/a", attempt=1, stop=Stop()):
        pass


def test_an_attempt_of_a_deleted_run_is_refused(tmp_path):
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.enter(RunRecord(run="r", pipeline="p", run_id="manual", born=1.0))
    with ledger.lease("attempt:r/a", holder="r/a", attempt=1, stop=Stop()) as old:
        ledger.enter(RunRecord(run="r", pipeline="p", run_id="manual", born=2.0))
        with pytest.raises(LeaseLost):
            old.check()
        with pytest.raises(LeaseLost, match="was deleted"):
            ledger.enter(RunRecord(run="r", pipeline="p", run_id="manual", born=1.0))
