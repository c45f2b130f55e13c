"""Leases and recorded changes in one SQLite file, which all processes of an installation share."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from taxiway.errors import LeaseLost, OperatorError, TransientError
from taxiway.integrations.ledger_file import Store, lost
from taxiway.ports import Cancellation, Change, ChangeState, Lease, RunRecord, Spending, Usage

__all__ = ["SqliteLedger"]

log = logging.getLogger(__name__)

_POLL_S = 0.25


class SqliteLedger:
    """Implements `ports.Ledger` for the machines (usually one) that share a file system with working locks.

    Time is the wall clock: machines that share a ledger need clocks that agree within a fraction of a lease's time to live.
    """

    def __init__(self, path: Path, *, say_every_s: float = 10.0) -> None:
        self._store = Store(path)
        self._say_every_s = say_every_s

    def lease(self, key: str, *, holder: str, attempt: int, stop: Cancellation, ttl_s: float = 30.0) -> Lease:
        """Hold `key`; wait for another holder, saying now and then for whom. Raise LeaseLost for an attempt that a newer one replaced."""
        said = time.monotonic()
        while True:
            stop.check()
            fence, held_by = self._store.take(key, holder, attempt, ttl_s)
            if fence:
                return _Held(self._store, key, fence, ttl_s)
            if time.monotonic() - said >= self._say_every_s:
                log.info("waiting for %s, which is held by %s", key, held_by)
                said = time.monotonic()
            stop.wait(min(_POLL_S, ttl_s / 4))

    def intend(self, change: Change, lease: Lease) -> Change:
        """Write down what is about to change. An undone change is closed: a new one after it has its own `before`."""
        with self._store.transaction() as db:
            _require(db, lease)
            row = _open_change(db, change)
            if row is None:
                db.execute(
                    "INSERT INTO changes (run, stage, kind, key, before, after, state, intended) VALUES (?, ?, ?, ?, ?, ?, 'intended', ?)",
                    (change.run, change.stage, change.kind, change.key, _dump(change.before), _dump(change.after), time.time()),
                )
                return replace(change, state="intended")
            db.execute("UPDATE changes SET after = ?, state = 'intended', settled = NULL WHERE id = ?", (_dump(change.after), row["id"]))
            return replace(change, before=json.loads(row["before"]), state="intended")

    def settle(self, change: Change, state: ChangeState, after: Mapping[str, Any], lease: Lease) -> Change:
        """Write down how it ended; settling an undone change as undone again changes nothing."""
        with self._store.transaction() as db:
            _require(db, lease)
            row = _open_change(db, change)
            if row is not None:
                settled = None if state == "intended" else time.time()
                db.execute("UPDATE changes SET after = ?, state = ?, settled = ? WHERE id = ?", (_dump(after), state, settled, row["id"]))
                return replace(change, before=json.loads(row["before"]), after=dict(after), state=state)
        if state == "undone" and (closed := [c for c in self.changes(change.run) if _same(c, change)]):
            return closed[-1]
        raise LeaseLost(f"the change of {change.key} by {change.stage} is not open any more: it was undone, or never written down")

    # --- runs -----------------------------------------------------------------------------------

    def enter(self, run: RunRecord) -> None:
        """Write down that a stage of the run begins; see `ports.Ledger.enter`. Raise LeaseLost for a run that was deleted since."""
        with self._store.transaction() as db:
            known = db.execute("SELECT born FROM runs WHERE run = ?", (run.run,)).fetchone()
            if known is not None and known["born"] > run.born:
                raise LeaseLost(f"run {run.run_id} of {run.pipeline} was deleted, and there is a newer one of that id")
            if known is not None and known["born"] < run.born:
                _put_aside(db, run.run, f"{run.run}@{known['born']:.6f}")
            db.execute(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
                (
                    run.run,
                    run.pipeline,
                    run.run_id,
                    run.born,
                    run.url,
                    run.connection,
                    run.version,
                    _dump({name: list(covered) for name, covered in run.recovers.items()}),
                    time.time(),
                ),
            )

    def runs(self, *, unsettled: bool = False) -> Sequence[RunRecord]:
        """Every known run, the one that began longest ago first; with `unsettled` only those that `close` has not seen."""
        where = " WHERE closed = 0" if unsettled else ""
        with self._store.transaction(write=False) as db:
            rows = db.execute(f"SELECT * FROM runs{where} ORDER BY born, run").fetchall()  # noqa: S608 - one of two constants
        return tuple(RunRecord(**{**dict(row), "recovers": json.loads(row["recovers"])}) for row in rows)

    def close(self, run: RunRecord) -> bool:
        """Write down that nothing is left to settle; False where a stage of it began since `run` was read."""
        with self._store.transaction() as db:
            done = db.execute("UPDATE runs SET closed = ? WHERE run = ? AND entered = ?", (time.time(), run.run, run.entered))
            return done.rowcount == 1

    def forget(self, run: RunRecord) -> bool:
        """Drop all rows of a closed run; False where a stage of it began since `run` was read."""
        with self._store.transaction() as db:
            done = db.execute("DELETE FROM runs WHERE run = ? AND entered = ? AND closed != 0", (run.run, run.entered))
            if done.rowcount != 1:
                return False
            db.execute("DELETE FROM changes WHERE run = ?", (run.run,))
            db.execute("DELETE FROM spending WHERE run = ?", (run.run,))
            _drop_tries(db, run.run)
            return True

    def held(self) -> Sequence[str]:
        """The keys of all leases that somebody holds now."""
        with self._store.transaction(write=False) as db:
            rows = db.execute("SELECT key FROM leases WHERE holder != '' AND expires > ? ORDER BY key", (time.time(),)).fetchall()
        return tuple(row["key"] for row in rows)

    def changes(self, run: str) -> Sequence[Change]:
        """Everything that a run recorded, oldest first; undone changes too."""
        with self._store.transaction(write=False) as db:
            rows = db.execute("SELECT * FROM changes WHERE run = ? ORDER BY id", (run,)).fetchall()
        return tuple(
            Change(
                run=row["run"],
                stage=row["stage"],
                kind=row["kind"],
                key=row["key"],
                before=json.loads(row["before"]),
                after=json.loads(row["after"]),
                state=row["state"],
            )
            for row in rows
        )

    # --- models ---------------------------------------------------------------------------------

    def reserve(self, call: Spending, admit: Callable[[Sequence[Spending]], None], lease: Lease) -> Spending:
        """See `ports.Ledger.reserve`: one transaction, so that two branches cannot spend the same dollar."""
        with self._store.transaction() as db:
            _require(db, lease)
            _return_dead(db, call.run)
            admit(_calls(db, call.run))
            now = time.time()
            # The statement of one call; the tokens and the cost are known when it was answered.
            made = db.execute(
                "INSERT INTO spending (run, stage, attempt, model, most_tokens, most_micros, input_tokens, output_tokens,"
                " cache_read_tokens, cache_write_tokens, micros, state, at) VALUES (?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, 'reserved', ?)",
                (call.run, call.stage, call.attempt, call.model, call.most_tokens, call.most_micros, now),
            )
            return replace(call, id=int(made.lastrowid or 0), at=now)

    def settle_call(self, call: Spending) -> None:
        """See `ports.Ledger.settle_call`; settling again changes nothing."""
        used = call.usage
        with self._store.transaction() as db:
            db.execute(
                "UPDATE spending SET model = ?, input_tokens = ?, output_tokens = ?, cache_read_tokens = ?, cache_write_tokens = ?,"
                " micros = ?, state = ?, at = ? WHERE id = ? AND state IN ('reserved', 'returned')",
                (
                    call.model,
                    used.input_tokens,
                    used.output_tokens,
                    used.cache_read_tokens,
                    used.cache_write_tokens,
                    call.micros,
                    call.state,
                    time.time(),
                    call.id,
                ),
            )

    def spending(self, run: str) -> Sequence[Spending]:
        """Every call of a run, oldest first."""
        with self._store.transaction(write=False) as db:
            return _calls(db, run)


def _calls(db: sqlite3.Connection, run: str) -> tuple[Spending, ...]:
    rows = db.execute("SELECT * FROM spending WHERE run = ? ORDER BY id", (run,)).fetchall()
    tokens = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    return tuple(
        Spending(usage=Usage(*(row[name] for name in tokens)), **{k: row[k] for k in row.keys() if k not in tokens})  # noqa: SIM118 - a Row
        for row in rows
    )


def _return_dead(db: sqlite3.Connection, run: str) -> None:
    """Give back what attempts reserved that hold their lease no more: they were killed, or a newer one took over."""
    db.execute(
        "UPDATE spending SET state = 'returned' WHERE run = ? AND state = 'reserved' AND NOT EXISTS (SELECT 1 FROM leases"
        " WHERE leases.key = 'attempt:' || spending.run || '/' || spending.stage AND leases.holder != ''"
        " AND leases.attempt = spending.attempt AND leases.expires > ?)",
        (run, time.time()),
    )


def _put_aside(db: sqlite3.Connection, run: str, name: str) -> None:
    """Give a deleted run another name, which no run has, and forget its tries. Fences stay: they only grow."""
    db.execute("UPDATE changes SET run = ? WHERE run = ?", (name, run))
    db.execute("UPDATE spending SET run = ? WHERE run = ?", (name, run))
    db.execute("UPDATE runs SET run = ?, run_id = '' WHERE run = ?", (name, run))
    _drop_tries(db, run)


def _drop_tries(db: sqlite3.Connection, run: str) -> None:
    mine = f"{run}/"
    db.execute("DELETE FROM attempts WHERE substr(holder, 1, ?) = ?", (len(mine), mine))
    own = f"attempt:{mine}"
    db.execute("DELETE FROM attempts WHERE substr(key, 1, ?) = ?", (len(own), own))
    # Leases of the run's own stages: what still holds one is refused at its next act.
    db.execute("DELETE FROM leases WHERE substr(key, 1, ?) = ?", (len(own), own))
    db.execute("UPDATE leases SET holder = '', expires = 0 WHERE substr(holder, 1, ?) = ?", (len(mine), mine))


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True, allow_nan=False)


def _same(one: Change, other: Change) -> bool:
    return (one.run, one.stage, one.kind, one.key) == (other.run, other.stage, other.kind, other.key)


def _open_change(db: sqlite3.Connection, change: Change) -> sqlite3.Row | None:
    """The change of the same run, stage, kind and key that is not undone; there is one at most."""
    row: sqlite3.Row | None = db.execute(
        "SELECT id, before FROM changes WHERE run = ? AND stage = ? AND kind = ? AND key = ? AND state != 'undone'",
        (change.run, change.stage, change.kind, change.key),
    ).fetchone()
    return row


def _require(db: sqlite3.Connection, lease: Lease) -> None:
    """In the same transaction as what follows: nobody can take over in between."""
    row = db.execute("SELECT 1 FROM leases WHERE key = ? AND fence = ? AND holder != ''", (lease.key, lease.fence)).fetchone()
    if row is None:
        raise lost(lease.key)


class _Held:
    """A lease that is renewed in the background while its `with` lasts, however slow its holder is."""

    def __init__(self, store: Store, key: str, fence: int, ttl_s: float) -> None:
        self._store, self._key, self._fence, self._ttl_s = store, key, fence, ttl_s
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def key(self) -> str:
        """What it is the right to act on."""
        return self._key

    @property
    def fence(self) -> int:
        """Grows with every new holder of the key."""
        return self._fence

    def check(self) -> None:
        """Renew it, or raise LeaseLost if it was released or somebody took over."""
        if not self._store.renew(self._key, self._fence, self._ttl_s):
            raise lost(self._key)

    def __enter__(self) -> Self:
        self.check()
        self._thread = threading.Thread(target=self._renew, name=f"lease {self._key}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self._store.release(self._key, self._fence)
        except (OperatorError, TransientError) as problem:
            # It expires by itself; what happened inside the `with` matters more.
            log.warning("the lease on %s could not be released: %s", self._key, problem)

    def _renew(self) -> None:
        while not self._done.wait(self._ttl_s / 3):
            try:
                if not self._store.renew(self._key, self._fence, self._ttl_s):
                    return
            except (OperatorError, TransientError) as problem:
                log.warning("the lease on %s could not be renewed, trying again: %s", self._key, problem)
