"""`mode: push`: the branch itself is moved, under the lease on it."""

from __future__ import annotations

from taxiway.agents.integrate.task import MOST_ROUNDS, Task
from taxiway.errors import StageError, TransientError
from taxiway.ports import Lease
from taxiway.records import Result

__all__ = ["push"]


def push(task: Task) -> Result:
    """Merge and push; start over where the branch moved meanwhile."""
    # Held while verifying too: runs that merge into one branch queue up instead of verifying what moves under them.
    with task.lease(f"push:{task.key}") as lease:
        for _ in range(MOST_ROUNDS):
            task.stage.stop.check()
            result = _round(task, lease)
            if result is not None:
                return result
            task.stage.log.info("%s moved meanwhile: starting over", task.into)
    raise TransientError(f"{task.into} moved {MOST_ROUNDS} times while the merge was verified", hint="the next try starts over")


def _round(task: Task, lease: Lease) -> Result | None:
    """One merge on the branch's present head; None if the branch moved before the push."""
    workspace, ledger, stop = task.ports.workspace, task.ports.ledger, task.stage.stop
    tried = task.merge()
    if tried.conflicts:
        task.settle_earlier("undone", lease)
        raise task.conflict(tried)
    verdicts = task.verify(tried)
    if tried.up_to_date:
        task.settle_earlier("done", lease, commit=tried.commit)
        return task.result(tried, verdicts)
    change = task.change(tried)
    stop.check()
    lease.check()
    if workspace.head(task.into) not in (tried.base, tried.commit):
        return None
    ledger.intend(change, lease)
    stop.check()
    try:
        workspace.push(tried.commit, branch=task.into, expected=tried.base, lease=lease)
    except TransientError:
        # The network may have failed after the server took it: only the branch itself tells.
        head = workspace.head(task.into)
        if head == tried.base:
            raise
        if head != tried.commit:
            return None
    except StageError:
        task.settle_earlier("undone", lease)
        raise
    ledger.settle(change, "done", change.after, lease)
    return task.result(tried, verdicts)
