"""What a plan needs of this Airflow: pools that are there, an executor with queues where a stage names one.

Airflow lets a task of an unknown pool wait for ever, with a line in the scheduler's log, and an executor without queues
runs everything anywhere. Both are said here, where the file is read, instead of in no run at all.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from taxiway.compiler.plan import Plan, PlannedStage
from taxiway.errors import Position, Problem, SpecError

__all__ = ["AirflowPools", "Fit", "Pools", "Unfit"]

log = logging.getLogger(__name__)

_DEFAULT_POOL = "default_pool"
_WITHOUT_QUEUES = ("LocalExecutor", "SequentialExecutor", "KubernetesExecutor")


class Pools(Protocol):
    """The pools of an Airflow."""

    def names(self) -> frozenset[str] | None:
        """Those that are there; None where nobody can say."""

    def make(self, name: str, slots: int) -> None:
        """Make one. One that was made meanwhile stays as it is."""


class AirflowPools:
    """Asked in Airflow's database, which the dag-processor has at hand and a task has not."""

    def names(self) -> frozenset[str] | None:
        """See Pools."""
        from airflow.models.pool import Pool  # noqa: PLC0415 - only where a pipeline names a pool
        from airflow.utils.session import create_session  # noqa: PLC0415

        try:
            with create_session() as session:
                return frozenset(str(pool.pool) for pool in Pool.get_pools(session=session))
        except Exception:  # no database here, or one that is busy: nobody is refused for that
            log.warning("Airflow's pools cannot be read, so that pipelines are not held against them.", exc_info=True)
            return None

    def make(self, name: str, slots: int) -> None:
        """See Pools."""
        from airflow.models.pool import Pool  # noqa: PLC0415
        from airflow.utils.session import create_session  # noqa: PLC0415

        with create_session() as session:
            if Pool.get_pool(name, session=session) is None:
                log.info("making pool %s with %d slots, as the policy says", name, slots)
                Pool.create_or_update_pool(name, slots, "Made by Taxiway, from a policy.", include_deferred=False, session=session)


class Unfit(SpecError):
    """A plan is good, and this Airflow cannot run it."""


class Fit:
    """Holds plans against this Airflow. Its pools are asked for at most once a look, and only where a plan names one."""

    def __init__(self, pools: Pools, executor: str) -> None:
        self._pools, self._executor = pools, executor
        self._known: frozenset[str] | None = None
        self._asked = False

    def look_again(self) -> None:
        """What is known may have changed."""
        self._asked = False

    def stands(self, held: frozenset[str] | None) -> bool:
        """Whether a plan that `hold` held against these pools would be held the same way now."""
        return held is None or held == self._names()

    def hold(self, plan: Plan, spec: str, path: str) -> frozenset[str] | None:
        """The pools that the plan was held against, None where it names none. Those that its policy speaks of are made
        first; raises Unfit with what this Airflow lacks, at its place in the file."""
        wanted = {s.pool: s for s in reversed(plan.stages) if s.pool and s.pool != _DEFAULT_POOL}
        known = self._names() if wanted else None
        if known is not None:
            self._known = known = self._made(known, wanted, plan.policy.pools)
        place = _Place(path, spec.splitlines())
        problems = [_missing_pool(name, stage, place) for name, stage in wanted.items() if known is not None and name not in known]
        first = self._executor.split(",", maxsplit=1)[0].strip().rsplit(".", 1)[-1].rsplit(":", 1)[-1]
        if first in _WITHOUT_QUEUES:
            problems += [_no_queue(stage, first, place) for stage in plan.stages if stage.queue][:1]
        if problems:
            raise Unfit(problems)
        return known

    def _made(self, known: frozenset[str], wanted: Iterable[str], slots: Mapping[str, int]) -> frozenset[str]:
        missing = [name for name in wanted if name not in known and name in slots]
        for name in missing:
            self._pools.make(name, slots[name])
        return known.union(missing)

    def _names(self) -> frozenset[str] | None:
        if not self._asked:
            self._known, self._asked = self._pools.names(), True
        return self._known


@dataclass(frozen=True)
class _Place:
    """A file's lines, to find where it says something."""

    path: str
    lines: Sequence[str]

    def problem(self, stage: PlannedStage, pattern: str, text: str, hint: str) -> Problem:
        """At the pattern from the stage's line on, or anywhere (in `defaults`), or at the stage where a template says it."""
        for number in [*range(stage.line, len(self.lines) + 1), *range(1, stage.line)]:
            if found := re.search(pattern, self.lines[number - 1]):
                return Problem(Position(self.path, number, found.start() + 1), text, hint, self.lines[number - 1], "unfit")
        line = self.lines[stage.line - 1] if stage.line <= len(self.lines) else ""
        return Problem(Position(self.path, stage.line, 1), text, hint, line, "unfit")


def _missing_pool(pool: str, stage: PlannedStage, place: _Place) -> Problem:
    text = f"this Airflow has no pool {pool!r}: stage {(stage.group or stage.id)!r} would wait for ever"
    hint = f"make it (`airflow pools set {pool} 2 ''`, or Admin > Pools), or let a policy do it: `pools: {{{pool}: 2}}`"
    return place.problem(stage, rf"\bpool[ \t]*:[ \t]*[\"']?{re.escape(pool)}\b", text, hint)


def _no_queue(stage: PlannedStage, executor: str, place: _Place) -> Problem:
    text = f"queue {stage.queue!r} does nothing: the {executor} of this Airflow has no queues"
    return place.problem(stage, r"\bqueue[ \t]*:", text, "remove it, or use an executor with queues (Celery, Edge)")
