"""What outlives an attempt: artifacts, and the ledger by which acts happen once and budgets hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from taxiway.ports.models import Usage
from taxiway.ports.running import Cancellation

__all__ = ["ArtifactStore", "Change", "ChangeState", "Lease", "Ledger", "RunRecord", "Spending", "SpendingState"]


class ArtifactStore(Protocol):
    """Immutable files by URI."""

    def put(self, key: str, content: bytes | Path) -> str:
        """Store a file under a relative key, atomically, and return its URI; the same key again must hold the same run's attempt."""

    def get(self, uri: str) -> bytes:
        """The content; raise OperatorError where it is gone."""


class Lease(Protocol):
    """The right to act on one key, with a fence that grows with every new holder."""

    @property
    def key(self) -> str:
        """What it is the right to act on."""

    @property
    def fence(self) -> int:
        """Grows with every new holder of the key."""

    def check(self) -> None:
        """Raise LeaseLost if another holder took over. Called right before every step that changes the world."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


ChangeState = Literal["intended", "done", "undone"]


@dataclass(frozen=True)
class Change:
    """What a run changes in the world, written before it acts: `before` is what to bring back."""

    run: str
    stage: str
    kind: Literal["deploy", "push"]
    key: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    state: ChangeState = "intended"


@dataclass(frozen=True)
class RunRecord:
    """What the ledger knows of a run, so that it can be asked for, settled and cleaned up after it ended.

    `run` is its short name, `run_id` Airflow's; `born` (seconds since the epoch) tells it from a deleted one of the same id.
    `version` is the bundle's that it runs with; `recovers` holds what each recovery covers. `entered` is when a
    stage of it last began, `closed` when nothing was left to settle (0: not yet).
    """

    run: str
    pipeline: str
    run_id: str
    born: float
    url: str = ""
    connection: str = ""
    version: str = ""
    recovers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    entered: float = 0.0
    closed: float = 0.0


SpendingState = Literal["reserved", "settled", "replayed", "failed", "returned"]


@dataclass(frozen=True)
class Spending:
    """One call of a model, written down before it is made. Money is in millionths of a US dollar.

    A `reserved` call counts with `most_tokens` and `most_micros` while its attempt lives; a `settled` one with what it took, a
    `replayed` one (answered from a recording) with its tokens alone;
    a `failed` one, which the provider did not answer, and a `returned` one count nothing.
    """

    run: str
    stage: str
    attempt: int
    model: str
    most_tokens: int
    most_micros: int
    usage: Usage = field(default_factory=Usage)
    micros: int = 0
    state: SpendingState = "reserved"
    at: float = 0.0
    id: int = 0

    @property
    def answered(self) -> bool:
        """Whether there is an answer, given now or recorded."""
        return self.state in ("settled", "replayed")


class Ledger(Protocol):
    """What the machines of one installation agree on: leases, recorded changes, what models cost, and which runs there are."""

    def enter(self, run: RunRecord) -> None:
        """Write down that a stage of the run begins, before it takes its lease. What a deleted run of the same id left is put
        aside: it stays to be settled, and neither counts as this run's nor refuses its tries."""

    def lease(self, key: str, *, holder: str, attempt: int, stop: Cancellation, ttl_s: float = 30.0) -> Lease:
        """Hold `key`. A newer attempt of the same holder takes over at once; another holder waits until it is
        released or its holder has not renewed it for `ttl_s`. An older attempt gets LeaseLost."""

    def intend(self, change: Change, lease: Lease) -> Change:
        """Write down what is about to change. Where this run already recorded a change of the same stage, kind and key,
        that one's `before` stays: a second attempt must not take the first one's work for what was live."""

    def settle(self, change: Change, state: ChangeState, after: Mapping[str, Any], lease: Lease) -> Change:
        """Write down how it ended."""

    def changes(self, run: str) -> Sequence[Change]:
        """Everything that a run recorded, oldest first."""

    def reserve(self, call: Spending, admit: Callable[[Sequence[Spending]], None], lease: Lease) -> Spending:
        """Write a call down before it is made, unless `admit` raises, which is shown all calls of the run that count so far:
        nobody else reserves in between. Reservations of attempts that live no more are returned first."""

    def settle_call(self, call: Spending) -> None:
        """Write down how a reserved call ended, even where a newer attempt took over meanwhile: what was spent was spent."""

    def spending(self, run: str) -> Sequence[Spending]:
        """Every call of a run, oldest first."""
