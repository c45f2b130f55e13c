"""The ledger's SQLite file: its tables, its transactions, and who holds a lease."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from taxiway.errors import LeaseLost, OperatorError, TransientError

__all__ = ["FIRST", "Store", "lost"]

_VERSION = 3
_BUSY_S = 15.0
# leases: `holder` is "" when the lease is free; the fence stays and grows with every holder.
# runs: every run that a stage of began; `run_id` is "" where Airflow deleted the run and another took its id.
# attempts: the newest attempt of each holder, so that an older one is refused even after others have held the key.
FIRST = """
CREATE TABLE leases (key TEXT PRIMARY KEY, holder TEXT NOT NULL, attempt INTEGER NOT NULL, fence INTEGER NOT NULL, expires REAL NOT NULL);
CREATE TABLE attempts (key TEXT NOT NULL, holder TEXT NOT NULL, attempt INTEGER NOT NULL, PRIMARY KEY (key, holder));
CREATE TABLE changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, stage TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL,
    before TEXT NOT NULL, after TEXT NOT NULL, state TEXT NOT NULL, intended REAL NOT NULL, settled REAL);
CREATE INDEX changes_of_run ON changes (run, id);
"""
# From version 1 to 2; a new file takes both.
_RUNS = """
CREATE TABLE runs (
    run TEXT PRIMARY KEY, pipeline TEXT NOT NULL, run_id TEXT NOT NULL, born REAL NOT NULL, url TEXT NOT NULL, connection TEXT NOT NULL,
    version TEXT NOT NULL, recovers TEXT NOT NULL, entered REAL NOT NULL, closed REAL NOT NULL)
"""
# From version 2 to 3: every call of a model.
_SPENDING = """
CREATE TABLE spending (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, stage TEXT NOT NULL, attempt INTEGER NOT NULL, model TEXT NOT NULL,
    most_tokens INTEGER NOT NULL, most_micros INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL,
    micros INTEGER NOT NULL, state TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX spending_of_run ON spending (run, id);
"""


def lost(key: str) -> LeaseLost:
    """The error of who holds a lease no more."""
    return LeaseLost(f"the lease on {key} is lost: somebody took over", hint="see the newer attempt's log")


class Store:
    """The file: one connection a call, so that threads and forks share nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, key: str, holder: str, attempt: int, ttl_s: float) -> tuple[int, str]:
        """The new fence, and ""; or 0 and who holds the key."""
        if not holder:
            raise ValueError("a lease needs a holder")
        with self.transaction() as db:
            newest = db.execute("SELECT attempt FROM attempts WHERE key = ? AND holder = ?", (key, holder)).fetchone()
            if newest is not None and newest["attempt"] > attempt:
                raise LeaseLost(
                    f"attempt {newest['attempt']} of {holder} has replaced attempt {attempt}", hint="see the newer attempt's log"
                )
            now = time.time()
            row = db.execute("SELECT holder, attempt, fence, expires FROM leases WHERE key = ?", (key,)).fetchone()
            if row is not None and row["holder"] and row["expires"] > now and not (row["holder"] == holder and row["attempt"] < attempt):
                return 0, f"attempt {row['attempt']} of {row['holder']}"
            # A ledger may be lost, and what it guards remembers its fences: a new one begins above them.
            fence = 1 + (row["fence"] if row is not None else int(now * 1000))
            db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)", (key, holder, attempt, fence, now + ttl_s))
            db.execute("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?)", (key, holder, attempt))
            return fence, ""

    def renew(self, key: str, fence: int, ttl_s: float) -> bool:
        """Whether the lease with this fence is still held; if so it lives for `ttl_s` from now."""
        with self.transaction() as db:
            held = db.execute(
                "UPDATE leases SET expires = ? WHERE key = ? AND fence = ? AND holder != ''", (time.time() + ttl_s, key, fence)
            )
            return held.rowcount == 1

    def release(self, key: str, fence: int) -> None:
        """Free the key, unless somebody took over."""
        with self.transaction() as db:
            db.execute("UPDATE leases SET holder = '', expires = 0 WHERE key = ? AND fence = ?", (key, fence))

    @contextlib.contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[sqlite3.Connection]:
        """A connection inside a transaction: committed at the end, rolled back on an error."""
        try:
            with contextlib.closing(self._connect()) as db:
                db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                try:
                    yield db
                except BaseException:
                    if db.in_transaction:  # a full disk rolls back by itself
                        db.execute("ROLLBACK")
                    raise
                db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise self._problem(error) from error

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = FULL")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version < _VERSION:
                _create(db)
            elif version > _VERSION:
                raise OperatorError(
                    f"{self._path} has schema {version}; this Taxiway knows {_VERSION}", hint="run the Taxiway that wrote it"
                )
        except BaseException:
            db.close()
            raise
        return db

    def _problem(self, error: Exception) -> OperatorError | TransientError:
        text = f"the ledger {self._path} cannot be used: {error}"
        if isinstance(error, sqlite3.OperationalError) and ("locked" in str(error) or "busy" in str(error)):
            return TransientError(text, hint="many processes write at once; the next try may succeed")
        if isinstance(error, sqlite3.DatabaseError) and ("malformed" in str(error) or "not a database" in str(error)):
            return OperatorError(text, hint="move the file away when nothing runs; recoveries of earlier runs are lost with it")
        return OperatorError(text, hint="make room, or let this user write to the Taxiway home")


def _create(db: sqlite3.Connection) -> None:
    # Switching to WAL needs the file alone and does not wait by itself, and several processes may come first at once.
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.05)
    db.execute("BEGIN IMMEDIATE")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        for statement in FIRST.split(";\n"):
            db.execute(statement)
    if version < 2:  # noqa: PLR2004 - the versions that the tables above name
        db.execute(_RUNS)
    if version < _VERSION:
        for statement in _SPENDING.split(";\n"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {_VERSION}")
    db.execute("COMMIT")
