"""`mode: pull_request`: the change is offered at a forge, waits for its checks and reviews, and is merged there once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from taxiway.agents.integrate import describe
from taxiway.agents.integrate.task import MOST_ROUNDS, Task
from taxiway.errors import Cancelled, OperatorError, StageError, TaxiwayError, TransientError
from taxiway.ports import Change, Forge, Lease, Merge, PullRequest, Readiness
from taxiway.records import Result, Verdict

__all__ = ["pull_request"]

Answer = TypeVar("Answer")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _GROWTH = 0.5, 60.0, 1.5
_MOST_FAULTS = 5
"""Questions in a row that a forge may leave unanswered while it is waited for."""
_MOST_REFUSALS = 3
_SHARE = 0.9
"""Of the time that is left; the rest is for measuring again and for the merge itself."""
_MERGING_S = 60.0
_LANDING_S = (0.5, 1.0, 2.0, 4.0)


def pull_request(task: Task, *, wait_s: float | None) -> Result:
    """Offer, wait (None: as long as the stage's time allows), merge; start over where the branch moved meanwhile."""
    if task.ports.forge is None:
        raise OperatorError(
            f"nothing says which forge has the pull requests of {task.ports.workspace.url}",
            hint="give its entry in the policy's `repositories` a `forge: github` or `gitlab` (and its `api:`), or use `mode: push`",
        )
    return _PullRequest(task, task.ports.forge, wait_s).run()


class _PullRequest:
    """One attempt's way with one pull request, which its branch identifies."""

    def __init__(self, task: Task, forge: Forge, wait_s: float | None) -> None:
        self.task, self.stage, self.forge = task, task.stage, forge
        self.workspace, self.ledger = task.ports.workspace, task.ports.ledger
        self.branch = self.workspace.offered(task.into)
        self._given_s = wait_s
        self._wait_s = self._ends = 0.0
        # Once the forge cannot merge or will not, because the target has moved, it is offered what is on top of the target.
        self._on_top = False

    def run(self) -> Result:
        """Every round under the lease on the pull request; the branch itself is held only for the merge, so that others go on."""
        self._asked(lambda: self.forge.check(self.task.strategy))
        with self.task.lease(f"pull:{self.task.ports.workspace.url}:{self.branch}") as lease:
            for _ in range(MOST_ROUNDS):
                self.stage.stop.check()
                result = self._round(lease)
                if result is not None:
                    return result
                self.stage.log.info("%s moved meanwhile: starting over", self.task.into)
        raise TransientError(
            f"{self.task.into} moved {MOST_ROUNDS} times while the pull request was verified", hint="the next try goes on with it"
        )

    def _round(self, lease: Lease) -> Result | None:
        """One merge measured, offered and merged; None where the branch moved before the end."""
        pull = self._asked(lambda: self.forge.find(self.branch, self.task.into))
        if pull and pull.state == "merged":
            if self._is_this(pull):
                return self._merged_before(pull, lease)
            pull = None  # of another commit that this run had before
        tried = self.task.merge()
        if not tried.base:
            raise StageError(f"there is no branch {self.task.into} to merge into", hint="make it, or use `mode: push`")
        if pull and pull.state == "closed" and not tried.up_to_date:
            raise _closed(pull)
        verdicts = self._measure(tried, pull)
        if tried.up_to_date:
            return self._nothing_to_do(tried, verdicts, pull, lease)
        offered = tried.commit if tried.decided or self._on_top else self.stage.commit
        self._act(lease)
        self.workspace.offer(offered, into=self.task.into, measured=tried.commit, lease=lease)
        pull = self._opened(pull, tried, verdicts, lease)
        self._act(lease)
        status = describe.status(self.task, tried, self._own(verdicts))
        self._asked(lambda: self.forge.set_status(offered, passed=True, text=status))
        merged = self._through(pull.number, offered, tried, lease)
        return self._finish(merged, tried, verdicts, lease) if merged else None

    # --- before it is merged --------------------------------------------------------------------

    def _act(self, lease: Lease) -> None:
        """Called right before every step that changes the world."""
        self.stage.stop.check()
        lease.check()

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        """What the forge answers, once it wants to be asked: what it put off it has not done."""
        while True:
            try:
                return ask()
            except TransientError as error:
                self._come_back(error, self.stage.stop.remaining_s() * _SHARE)

    def _come_back(self, error: TransientError, left_s: float) -> None:
        """Wait for as long as the forge asks for; raise the error where it says no time, or one that is longer than there is left."""
        if not 0 < error.after_s < left_s:
            raise error
        self.stage.log.warning("%s: asking again in %.0f s", error.problem, error.after_s)
        self.stage.stop.wait(error.after_s)

    def _is_this(self, pull: PullRequest) -> bool:
        """Whether a merged pull request offered the commit of this stage, as it is or merged by us."""
        return pull.head in {
            self.stage.commit,
            *(c.after.get("offered") for c in self.task.earlier() if c.after.get("source") == self.stage.commit),
        }

    def _measure(self, tried: Merge, pull: PullRequest | None) -> tuple[Verdict, ...]:
        try:
            if tried.conflicts:
                raise self.task.conflict(tried)
            return self.task.verify(tried)
        except StageError as error:
            if pull:
                self._tell(pull, error)
            raise

    def _tell(self, pull: PullRequest, error: StageError) -> None:
        """The open pull request shows that it is not good any more; what made it so matters more than whether that works."""
        try:
            self.forge.set_status(pull.head, passed=False, text=error.problem)
        except Cancelled:
            raise
        except TaxiwayError as fault:
            self.stage.log.warning("the commit status could not be set: %s", fault)

    def _opened(self, pull: PullRequest | None, tried: Merge, verdicts: tuple[Verdict, ...], lease: Lease) -> PullRequest:
        """The open pull request, with a text that speaks of this merge."""
        text = describe.body(self.task, tried, self._own(verdicts))
        self._act(lease)
        if pull is None:
            pull = self._asked(lambda: self.forge.open(self.branch, self.task.into, title=self.task.title, body=text))
            self.stage.log.info("pull request %d: %s", pull.number, pull.url)
        elif tried.commit not in pull.body:  # whatever people wrote into it stays while it speaks of this merge
            number = pull.number
            self._asked(lambda: self.forge.describe(number, title=self.task.title, body=text))
        return pull

    def _own(self, verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
        """The verdicts on what is merged; where that is the stage's commit itself, the stages before gave them."""
        return verdicts or tuple(v for r in self.stage.results.values() for v in r.verdicts if v.commit == self.stage.commit and v.passed)

    # --- waiting --------------------------------------------------------------------------------

    def _wait(self, number: int, offered: str, tried: Merge) -> PullRequest | None:
        """The pull request once it may be merged, or was; None where the branch has moved so that it cannot be."""
        if not self._ends:
            self._wait_s = self.stage.stop.remaining_s() * _SHARE if self._given_s is None else self._given_s
            self._ends = time.monotonic() + self._wait_s
        pause, faults, said = _FIRST_PAUSE_S, 0, ""
        while True:
            self.stage.stop.check()
            try:
                pull = self.forge.read(number)
                lacks = self._lacks(pull, offered, tried)
                faults = 0
            except TransientError as error:
                if error.after_s:
                    self._come_back(error, self._ends - time.monotonic())
                    continue
                faults += 1
                if faults > _MOST_FAULTS or time.monotonic() >= self._ends:
                    raise
                self.stage.log.warning("%s", error.problem)
                self.stage.stop.wait(pause)
            else:
                if lacks is None or pull.state == "merged" or not lacks.waiting:
                    return pull if lacks else None
                words = ", ".join(lacks.waiting)
                if words != said:
                    self.stage.log.info("pull request %d waits for %s", number, words)
                said = words
                self._pause(pause, words, pull)
            pause = min(pause * _GROWTH, _LONGEST_PAUSE_S)

    def _pause(self, seconds: float, words: str, pull: PullRequest) -> None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise StageError(
                f"pull request {pull.number} ({pull.url}) still waits for {words}, after {self._wait_s:.0f} s",
                hint="it stays open: clear this stage when that is there, or raise `wait` and the stage's `timeout`",
            )
        self.stage.stop.wait(min(seconds, left))

    def _lacks(self, pull: PullRequest, offered: str, tried: Merge) -> Readiness | None:
        """What it lacks; None where it needs another merge. Raises StageError for what waiting does not cure."""
        if pull.state == "merged":
            return Readiness()
        where = f"pull request {pull.number} ({pull.url})"
        if pull.state == "closed":
            raise _closed(pull)
        if pull.draft:
            raise StageError(f"{where} is a draft", hint="mark it as ready, and clear this stage: it goes on with it")
        if pull.head != offered:
            if self.workspace.head(self.branch) == offered:
                return Readiness(waiting=(f"{self.forge.name} to see the push",))
            raise StageError(
                f"{where} offers {pull.head[:12]}, and {offered[:12]} was measured",
                hint="somebody added to it: merge it by hand, or take that commit back and clear this stage",
            )
        lacks = self.forge.readiness(pull, self.task.into)
        if lacks.failed or lacks.refused:
            raise StageError(
                f"{where} is not to be merged: {'; '.join((*lacks.failed, *lacks.refused))}",
                hint="it stays open: mend that at the forge and clear this stage, or change the code and clear an earlier one",
            )
        if not (lacks.conflicts or lacks.behind):
            return lacks
        if self._on_top and self.workspace.head(self.task.into) == tried.base:
            return Readiness(waiting=(f"{self.forge.name} to see that it merges",))
        self._on_top = True
        return None

    # --- merging --------------------------------------------------------------------------------

    def _through(self, number: int, offered: str, tried: Merge, lease: Lease) -> PullRequest | None:
        """The merged pull request; None where the branch has moved. What is ready may be refused a moment later, and is waited for."""
        left = _MOST_REFUSALS
        while (pull := self._wait(number, offered, tried)) and pull.state != "merged":
            left -= 1
            try:
                pull = self._merge(pull, offered, tried, lease, last=not left)
            except TransientError as error:
                # Not under the lease on the branch: others may go on meanwhile.
                self._come_back(error, self._ends - time.monotonic())
                left += 1
                continue
            if pull is None or pull.state == "merged":
                break
        return pull

    def _merge(self, pull: PullRequest, offered: str, tried: Merge, lease: Lease, *, last: bool) -> PullRequest | None:
        """The pull request after the forge was asked to merge it; None where the branch has moved. The one step that cannot be undone."""
        with self.task.lease(f"push:{self.task.key}") as branch:
            if self.workspace.head(self.task.into) != tried.base:
                return None
            self._act(lease)
            branch.check()
            self.ledger.intend(self._change(tried, offered, pull), branch)
            self.stage.stop.check()
            try:
                text = describe.message(self.task, tried)
                self.forge.merge(pull.number, head=offered, strategy=self.task.strategy, title=self.task.title, message=text)
            except (StageError, TransientError) as error:
                # The network may have failed after the forge did it: only the pull request itself tells.
                now = self.forge.read(pull.number)
                if now.state == "merged":
                    return now
                if isinstance(error, TransientError):
                    raise
                if last:
                    self.task.settle_earlier("undone", branch)
                    raise
                self.stage.log.info("%s", error.problem)
                self.stage.stop.wait(_FIRST_PAUSE_S)
                return now
            return self._until_merged(pull.number)

    def _change(self, tried: Merge, offered: str, pull: PullRequest) -> Change:
        return self.task.change(tried, source=self.stage.commit, offered=offered, pull_request=pull.number)

    def _until_merged(self, number: int) -> PullRequest:
        """A forge may say yes and merge a little later."""
        ends = time.monotonic() + _MERGING_S
        while (pull := self._asked(lambda: self.forge.read(number))).state != "merged":
            if time.monotonic() >= ends:
                raise TransientError(f"{self.forge.name} took pull request {number} and has not merged it", hint="the next try looks again")
            self.stage.stop.wait(_FIRST_PAUSE_S)
        return pull

    # --- after it is merged ---------------------------------------------------------------------

    def _finish(self, pull: PullRequest, tried: Merge, verdicts: tuple[Verdict, ...], lease: Lease) -> Result:
        """Hold what the forge made against what was measured: the same tree has the same verdicts."""
        self._require_landed(pull)
        offered = pull.head
        change = self.ledger.intend(self._change(tried, offered, pull), lease)
        self.ledger.settle(change, "done", {**change.after, "head": pull.merged}, lease)
        if self.workspace.diff(tried.commit, pull.merged).strip():
            raise StageError(
                f"pull request {pull.number} was merged into {self.task.into} as {pull.merged[:12]}, and its tree is not the one that was "
                f"measured ({tried.commit[:12]}): it stays merged",
                hint=f"something else came in with it: clear this stage to measure what {self.task.into} got, or revert it",
            )
        moved = tuple(v.model_copy(update={"commit": pull.merged}) for v in self._own(verdicts))
        return self.task.result(replace(tried, commit=pull.merged), moved, pull_request=pull.url)

    def _merged_before(self, pull: PullRequest, lease: Lease) -> Result:
        """An earlier attempt merged it, or somebody did: what came of it is measured itself."""
        self._require_landed(pull)
        self.task.settle_earlier("done", lease, commit=pull.merged)
        verdicts = self.stage.verify(pull.merged)
        return self.task.result(Merge(commit=pull.merged, base=pull.merged, up_to_date=True), verdicts, pull_request=pull.url)

    def _nothing_to_do(self, tried: Merge, verdicts: tuple[Verdict, ...], pull: PullRequest | None, lease: Lease) -> Result:
        """The target holds the change without it."""
        self.task.settle_earlier("done", lease, commit=tried.commit)
        if pull and pull.state == "open":
            number = pull.number
            self._act(lease)
            self._asked(lambda: self.forge.comment(number, f"{self.task.into} holds the change already ({tried.commit})."))
            self._asked(lambda: self.forge.close(number))
        return self.task.result(tried, verdicts)

    def _require_landed(self, pull: PullRequest) -> None:
        for pause in _LANDING_S:
            if pull.merged and self.workspace.contains(pull.merged, self.task.into):
                return
            self.stage.stop.wait(pause)  # what the API says may be ahead of what git shows
        raise TransientError(
            f"{self.forge.name} calls pull request {pull.number} merged, and {self.task.into} does not hold {pull.merged[:12] or 'it'}",
            hint="the next try looks again",
        )


def _closed(pull: PullRequest) -> StageError:
    return StageError(
        f"pull request {pull.number} ({pull.url}) was closed",
        hint="reopen it and clear this stage, which goes on with it; or start another run",
    )
