"""Removes what ended runs left and nobody needs any more, oldest first, and says how much that was."""

from __future__ import annotations

import fcntl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from taxiway.errors import Cancelled, TaxiwayError
from taxiway.home import Home
from taxiway.integrations.git_url import slug
from taxiway.integrations.ledger import SqliteLedger
from taxiway.integrations.local.client import Client
from taxiway.integrations.local.state import State, read_state
from taxiway.maintenance.files import leftovers, size_of, vanish
from taxiway.maintenance.reconcile import Runs
from taxiway.ports import Cancellation, RunRecord

__all__ = ["Collected", "Keep", "Versions", "as_json", "collect"]

_DAY_S = 86_400.0
_FRESH_S = 3_600.0
_LISTED = 200


@dataclass(frozen=True)
class Keep:
    """What stays whatever its state: everything that was used in the last `days`, and the last `runs` runs of each pipeline."""

    days: float = 30.0
    runs: int = 20


class Versions(Protocol):
    """The store of versions of one bundle."""

    def pipelines(self) -> set[str]:
        """The ids of all pipelines that it serves."""

    def collect(self, keep: set[str], before: float, *, dry_run: bool) -> Sequence[tuple[str, int]]:
        """Remove (or only name) the versions that were replaced before then and are not to be kept: names and bytes."""


@dataclass
class Collected:
    """What was removed, or would be: kind -> count and bytes, a line each, and what could not be removed."""

    count: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unsettled: int = 0


def collect(
    home: Home,
    ledger: SqliteLedger,
    runs: Runs,
    *,
    keep: Keep,
    versions: Sequence[Versions] = (),
    drop_branches: Callable[[RunRecord], bool] | None = None,
    stop: Cancellation,
    say: Callable[[str], None],
    dry_run: bool = False,
) -> Collected:
    """Remove what is older than `keep` and needed by no run that lives, no service and nobody who uses it now.

    `drop_branches` removes a run's branch and refs from a repository that is not under the home, and says whether there
    were any. A run that is not settled yet stays whole. With `dry_run` nothing is changed.
    """
    return _Collection(home, ledger, runs, keep, stop, say, dry_run=dry_run).everything(versions, drop_branches)


class _Collection:
    def __init__(  # noqa: PLR0917
        self, home: Home, ledger: SqliteLedger, runs: Runs, keep: Keep, stop: Cancellation, say: Callable[[str], None], *, dry_run: bool
    ) -> None:
        self.home, self.ledger, self.runs, self.keep, self.stop, self.say, self.dry_run = home, ledger, runs, keep, stop, say, dry_run
        self.before = time.time() - keep.days * _DAY_S
        self.found = Collected()
        self.services = _services(home)

    def everything(self, versions: Sequence[Versions], drop_branches: Callable[[RunRecord], bool] | None) -> Collected:
        known = self.ledger.runs()
        old = self._old(known)
        rest = [run for run in known if run not in old]
        for run in old:
            self._run(run, rest, drop_branches)
        self._strays({run.run for run in known})
        self._checkouts()
        self._services()
        self._environments()
        self._files("plan", self.home.plans)
        self._files("log", self.home.airflow / "logs", pattern="dag_id=taxiway_*/run_id=*")
        served = {name for store in versions for name in store.pipelines()}
        for store in versions if self._all_known(served | {run.pipeline for run in rest}) else ():
            for name, size in store.collect({run.version for run in rest}, self.before, dry_run=self.dry_run):
                self._count("version", name, size)
        for folder in (self.home.environments, self.home.services, self.home.checkouts, *_subfolders(self.home)):
            if not self.dry_run:
                leftovers(folder)
        return self.found

    # --- runs -----------------------------------------------------------------------------------

    def _old(self, known: Sequence[RunRecord]) -> list[RunRecord]:
        """Settled runs beyond the last of their pipeline that have not been worked on since."""
        seen: Counter[str] = Counter()
        old = []
        for run in reversed(known):
            seen[run.pipeline] += 1
            if seen[run.pipeline] <= self.keep.runs or run.entered >= self.before:
                continue
            if not run.closed:
                self.found.unsettled += 1
            elif not run.run_id or self.runs.state(run.pipeline, run.run_id) != "live":
                old.append(run)
        return old[::-1]

    def _run(self, run: RunRecord, rest: Sequence[RunRecord], drop_branches: Callable[[RunRecord], bool] | None) -> None:
        self.stop.check()
        own = _own_repository(self.home, run)
        with self._problems(f"run {run.pipeline} {run.run_id}"):
            if drop_branches and not _is_inside(self.home, run) and (self.dry_run or drop_branches(run)):
                self._count("branch", f"{run.url} taxiway/{slug(run.pipeline)}/{slug(run.run)}", 0)
            self._remove("artifacts", self.home.artifacts / run.pipeline / run.run)
            if own and not self._needed(own, run, rest):
                self._remove("repository", own)
            if run.run_id:
                self._remove("log", self.home.airflow / "logs" / f"dag_id={run.pipeline}" / f"run_id={run.run_id}")
            if not self.dry_run:
                self.ledger.forget(run)

    def _needed(self, repository: Path, run: RunRecord, rest: Sequence[RunRecord]) -> bool:
        """Whether another run works on it, or a service can be brought back to what was made in it."""
        released = {r.id for state in self.services.values() for r in state.releases}
        deployed = {str(c.after.get("release")) for c in self.ledger.changes(run.run) if c.kind == "deploy"}
        return any(_path(other.url) == repository for other in rest) or bool(released & deployed)

    def _strays(self, known: set[str]) -> None:
        """What runs left that the ledger does not know (any more)."""
        folders = {"artifacts": self.home.artifacts.glob("[!.]*/*"), "repository": self.home.repositories.glob("[!.]*/*.git")}
        names = known | {slug(name) for name in known}
        for kind, places in folders.items():
            for place in sorted(places):
                if place.name.removesuffix(".git") not in names and place.parent.name != "mirrors" and place.name[0] != ".":
                    self._remove(kind, place, older_than=self.before)

    def _all_known(self, pipelines: set[str]) -> bool:
        """Whether no run waits that never began: which version it needs is known to Airflow alone."""
        waiting = [name for name in sorted(pipelines) if self.runs.waiting(name)]
        if waiting:
            self.say(f"runs of {', '.join(waiting)} wait to begin: versions of pipelines stay")
        return not waiting

    # --- what runs share ------------------------------------------------------------------------

    def _checkouts(self) -> None:
        held = [key.removeprefix("attempt:").replace("/", "-") + "-" for key in self.ledger.held() if key.startswith("attempt:")]
        for place in sorted(self.home.checkouts.glob("[!.]*")):
            if not any(place.name.startswith(prefix) for prefix in held):
                self._remove("checkout", place, older_than=time.time() - _FRESH_S)

    def _services(self) -> None:
        """Services that were taken away as a whole; those that only rest keep everything."""
        for folder, state in self.services.items():
            if not state.live and state.since < self.before and Client(self.home, folder.name).status() is None:
                with _alone(folder / "daemon.lock") as alone:
                    if alone:
                        self._remove("service", folder)

    def _environments(self) -> None:
        needed = {r.environment_key for state in _services(self.home).values() for r in state.releases}
        for place in sorted(self.home.environments.glob("[!.]*")):
            if place.suffix or place.name in needed:
                continue
            # Whoever uses it holds its mark, and touched it when that began.
            mark = place.with_name(f"{place.name}.used")
            touched = mark if mark.exists() else place
            with _alone(mark) as alone:
                if alone:
                    self._remove("environment", place, older_than=self.before, touched=touched)

    def _files(self, kind: str, folder: Path, pattern: str = "*") -> None:
        for place in sorted(folder.glob(pattern)):
            self._remove(kind, place, older_than=self.before)

    # --- how ------------------------------------------------------------------------------------

    def _remove(self, kind: str, place: Path, *, older_than: float = 0.0, touched: Path | None = None) -> None:
        self.stop.check()
        with self._problems(str(place)), suppress(FileNotFoundError):
            if older_than and _last_change(touched or place) >= older_than:
                return
            size = size_of(place)
            if not self.dry_run:
                vanish(place)
            self._count(kind, str(place.relative_to(self.home.path)), size)

    def _count(self, kind: str, name: str, size: int) -> None:
        self.found.count[kind] += 1
        self.found.bytes[kind] += size
        self.found.lines.append(f"{kind} {name}: {size} bytes")
        self.say(f"{'would remove' if self.dry_run else 'removed'} {self.found.lines[-1]}")

    @contextmanager
    def _problems(self, what: str) -> Iterator[None]:
        """One thing that cannot be removed does not keep the others."""
        try:
            yield
        except Cancelled:
            raise
        except OSError as error:
            self.found.problems.append(f"{what}: {error}")
        except TaxiwayError as error:
            self.found.problems.append(f"{what}: {error.problem}")


def as_json(found: Collected) -> Mapping[str, Any]:
    """For XCom and people: totals by kind, and the first lines."""
    return {
        "bytes": sum(found.bytes.values()),
        "removed": {kind: {"count": n, "bytes": found.bytes[kind]} for kind, n in sorted(found.count.items())},
        "lines": found.lines[:_LISTED],
        "problems": found.problems[:_LISTED],
        "unsettled_runs": found.unsettled,
    }


def _services(home: Home) -> dict[Path, State]:
    """Folder -> state. Raises OperatorError for one that cannot be read: what it needs is not known then."""
    folders = sorted(home.services.glob("[!.]*")) if home.services.is_dir() else []
    states = {folder: read_state(folder) for folder in folders}
    return {folder: state for folder, state in states.items() if state is not None}


def _path(url: str) -> Path:
    return Path(url.removeprefix("file://"))


def _is_inside(home: Home, run: RunRecord) -> bool:
    return "://" not in run.url.removeprefix("file://") and _path(run.url).is_relative_to(home.repositories)


def _own_repository(home: Home, run: RunRecord) -> Path | None:
    """The repository that the run got under the home; None where it worked on another one."""
    place = home.repositories / slug(run.pipeline) / f"{slug(run.run)}.git"
    return place if _is_inside(home, run) and _path(run.url) == place else None


def _last_change(place: Path) -> float:
    """Of it or what is right in it."""
    latest = place.stat().st_mtime
    if place.is_dir():
        for child in place.iterdir():
            with suppress(FileNotFoundError):
                latest = max(latest, child.lstat().st_mtime)
    return latest


def _subfolders(home: Home) -> Iterator[Path]:
    for folder in (home.artifacts, home.repositories):
        yield from (place for place in folder.glob("[!.]*") if place.is_dir())


@contextmanager
def _alone(lock: Path) -> Iterator[bool]:
    """Hold a lock if nobody does; whether that worked."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
