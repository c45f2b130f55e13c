"""Settles what ended runs left in progress: a deploy or push that was only intended, a release that no recovery came to bring back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from taxiway.agents.recover import bring_back
from taxiway.errors import Cancelled, LeaseLost, OperatorError, StageError, StageTimeout, TaxiwayError
from taxiway.ports import Cancellation, Change, Lease, Ledger, RunRecord, Target, Workspace

__all__ = ["Reconciled", "RunLedger", "RunState", "Runs", "World", "as_json", "reconcile"]

HOLDER = "taxiway_reconcile"

RunState = Literal["live", "success", "failed", "gone"]
"""`live` is every state before an end; `gone` means that Airflow does not know the run: it was deleted."""


class Runs(Protocol):
    """What Airflow knows of runs."""

    def state(self, pipeline: str, run_id: str) -> RunState:
        """How a run is."""

    def waiting(self, pipeline: str) -> int:
        """How many runs of it wait for their first task."""

    def unwell(self, pipeline: str, run_id: str, stages: Sequence[str]) -> Sequence[str]:
        """Those of the stages of an ended run that neither succeeded nor skipped themselves: failed, stopped, or never begun."""


class RunLedger(Ledger, Protocol):
    """A ledger that also knows which runs there are."""

    def runs(self, *, unsettled: bool = False) -> Sequence[RunRecord]:
        """Every known run; with `unsettled` only those that were not closed."""

    def close(self, run: RunRecord) -> bool:
        """Write down that nothing is left to settle; False where a stage of it began since `run` was read."""


@dataclass(frozen=True)
class World:
    """All that reconciling can reach. `workspace` gives the repository of a run, None where it is gone; `revive` starts the
    daemons of services that are to run and have none, and names them. `wait_s` is how long one change may wait for who works on it."""

    ledger: RunLedger
    targets: Mapping[str, Target]
    runs: Runs
    workspace: Callable[[RunRecord], Workspace | None]
    revive: Callable[[], Sequence[str]]
    wait_s: float = 45.0


@dataclass
class Reconciled:
    """What was looked at and done, one line each. `waiting` is still at work and looked at again, `failed` needs a person."""

    looked_at: int = 0
    settled: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    revived: list[str] = field(default_factory=list)


def reconcile(world: World, *, stop: Cancellation, say: Callable[[str], None], dry_run: bool = False) -> Reconciled:
    """Settle every ended run that is not settled. Doing it again changes nothing; with `dry_run` nothing is changed at all.

    A run that Airflow calls failed gets back what was live before it, where its pipeline has a recovery for that and a
    covered stage did not end well; what succeeded, or has no recovery, keeps what it made live.
    """
    found = Reconciled()
    for run in world.ledger.runs(unsettled=True):
        stop.check()
        found.looked_at += 1
        _Run(world, run, found, stop, say, dry_run=dry_run).settle()
    if not dry_run:
        try:
            found.revived += world.revive()
        except Cancelled:
            raise
        except TaxiwayError as error:
            found.failed.append(str(error))
    return found


class _Run:
    """One run that is not settled yet."""

    def __init__(
        self, world: World, run: RunRecord, found: Reconciled, stop: Cancellation, say: Callable[[str], None], *, dry_run: bool
    ) -> None:
        self.world, self.run, self.found, self.stop, self.dry_run = world, run, found, stop, dry_run
        self._say = say
        self._name = f"{run.pipeline} {run.run_id or run.run}"

    def settle(self) -> None:
        """Settle its changes and close it; what cannot be settled now stays for the next time."""
        try:
            state = self._state()
            if state == "live":
                return
            done = [self._settled(change, state) for change in self._todo(state)]
        except Cancelled:
            raise
        except TaxiwayError as error:
            self._note(self.found.failed, str(error))
            return
        if all(done) and not self.dry_run:
            self.world.ledger.close(self.run)

    def _state(self) -> RunState:
        # Another run has the id of a deleted one.
        return self.world.runs.state(self.run.pipeline, self.run.run_id) if self.run.run_id else "gone"

    def _todo(self, state: RunState) -> list[Change]:
        """Newest first, as a recovery goes."""
        return [c for c in reversed(self.world.ledger.changes(self.run.run)) if c.state == "intended" or self._undo(c, state)]

    def _undo(self, change: Change, state: RunState) -> bool:
        """Whether what was live before is to be live again."""
        covered = {stage for covers in self.run.recovers.values() if change.stage in covers for stage in covers}
        if change.kind != "deploy" or change.state == "undone" or not covered or state == "success":
            return False
        if state == "gone":
            # Old runs are deleted too: only what never came to its end was not meant to stay.
            return change.state == "intended"
        return bool(self.world.runs.unwell(self.run.pipeline, self.run.run_id, sorted(covered)))

    def _settled(self, change: Change, state: RunState) -> bool:
        """Whether there is nothing left to do about it."""
        undo = self._undo(change, state)
        if self.dry_run:
            what = "would be brought back to what was live before" if undo else "would be settled as it is now"
            self._note(self.found.settled, f"{change.kind} {change.key} {what}")
            return False
        try:
            with self._leases(change) as lease:
                if lease is None:
                    return False
                act = self._settle_push if change.kind == "push" else self._bring_back if undo else self._settle_deploy
                line = act(change, lease)
        except (LeaseLost, StageTimeout) as error:
            self._note(self.found.waiting, f"{change.kind} {change.key}: {error.problem}")
            return False
        except StageError as error:
            # Another try would end the same: said once, and left to a person.
            self._note(self.found.failed, f"{change.kind} {change.key}: {error}")
            return True
        self._note(self.found.settled, line)
        return True

    @contextmanager
    def _leases(self, change: Change) -> Iterator[Lease | None]:
        """The lease to act under; None where the run lives again or somebody settled it meanwhile.

        The stage's own lease is waited for first: a try that still lives is not raced, and none begins meanwhile.
        """
        within = _Within(self.stop, self.world.wait_s, f"stage {change.stage} still works on it")
        with ExitStack() as stack:
            lease: Lease | None = None
            for key in (f"attempt:{change.run}/{change.stage}", f"{change.kind}:{change.key}"):
                lease = stack.enter_context(self.world.ledger.lease(key, holder=HOLDER, attempt=1, stop=within))
            still = self._state() != "live" and change in self.world.ledger.changes(change.run)
            yield lease if still else None

    def _target(self, change: Change) -> tuple[Target, str]:
        name, _, service = change.key.partition(":")
        target = self.world.targets.get(name)
        if target is None:
            raise OperatorError(f"target {name!r} is not set up here", hint="run taxiway_reconcile where the target is")
        return target, service

    def _bring_back(self, change: Change, lease: Lease) -> str:
        target, service = self._target(change)
        return bring_back(change, target, service, self.world.ledger, lease, self.stop, self._say)

    def _settle_deploy(self, change: Change, lease: Lease) -> str:
        target, service = self._target(change)
        now = target.status(service)
        live = now.live.id if now and now.live else ""
        if live == change.after["release"]:
            self.world.ledger.settle(change, "done", change.after, lease)
            return f"{service} runs release {live} of this run, and keeps it"
        line = f"release {change.after['release']} of {service} is not live (live: {live or 'none'}): nothing to undo"
        self.world.ledger.settle(change, "undone", {**change.after, "undone": line}, lease)
        return line

    def _settle_push(self, change: Change, lease: Lease) -> str:
        workspace = self.world.workspace(self.run)
        head, branch = str(change.after["head"]), str(change.after["branch"])
        landed = workspace is not None and (workspace.contains(head, branch) or self._merged_elsewhere(workspace, change))
        self.world.ledger.settle(change, "done" if landed else "undone", change.after, lease)
        return f"the push of {head[:12]} to {branch} {'landed' if landed else 'did not land'}"

    def _merged_elsewhere(self, workspace: Workspace, change: Change) -> bool:
        """Whether a forge merged it, by a commit of its own that says where it is from, or leaves nothing more to merge."""
        source, branch = str(change.after.get("source", "")), str(change.after["branch"])
        trailers = {"Taxiway-Run": self.run.run.partition("@")[0]}  # a deleted run was put aside under another name
        return bool(source) and workspace.merge(source, into=branch, strategy="squash", message="", trailers=trailers).up_to_date

    def _note(self, into: list[str], line: str) -> None:
        into.append(f"{self._name}: {line}")
        self._say(into[-1])


class _Within:
    """A Cancellation that also ends after some seconds, with the reason for the wait."""

    def __init__(self, inner: Cancellation, seconds: float, why: str) -> None:
        self._inner, self._ends, self._why = inner, time.monotonic() + seconds, why

    @property
    def requested(self) -> bool:
        """Whether somebody stopped the task."""
        return self._inner.requested

    def check(self) -> None:
        """Raise StageTimeout when the seconds are over."""
        self._inner.check()
        if time.monotonic() >= self._ends:
            raise StageTimeout(self._why, hint="it is looked at again next time")

    def remaining_s(self) -> float:
        """Seconds left."""
        return max(0.0, min(self._inner.remaining_s(), self._ends - time.monotonic()))

    def wait(self, seconds: float) -> None:
        """Sleep, then check."""
        self._inner.wait(min(seconds, self.remaining_s()))
        self.check()


def as_json(found: Reconciled) -> dict[str, Any]:
    """For XCom and people: counts, and at most 50 lines of each kind."""
    return {
        "looked_at": found.looked_at,
        **{name: getattr(found, name)[:50] for name in ("settled", "waiting", "failed", "revived")},
    }
