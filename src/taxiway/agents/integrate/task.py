"""What both ways of integrating share: the merge that is tried, what it leaves in the ledger, and the result."""

from __future__ import annotations

import functools
import json
import operator
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from taxiway.agents.base import StageAttempt
from taxiway.errors import MergeConflict, StageError
from taxiway.ports import Change, ChangeState, Conflict, Lease, Merge, Ports, Strategy
from taxiway.records import Result, Verdict

if TYPE_CHECKING:
    from taxiway.agents.integrate.asking import Asking  # only attempts that ask a model need it

__all__ = ["MOST_ROUNDS", "Conflicts", "Task", "cell"]

MOST_ROUNDS = 5
Conflicts = Literal["fail", "ours", "theirs", "ask_model"]
"""Who decides a hunk that both sides changed."""
_SHOWN = 20
_DONE = {"merge": "merged", "squash": "squashed", "rebase": "rebased", "fast-forward": "fast-forwarded"}


@dataclass(frozen=True)
class Task:
    """One commit to bring into one branch."""

    into: str
    strategy: Strategy
    conflicts: Conflicts
    title: str
    ports: Ports
    stage: StageAttempt
    asking: Asking | None = None

    @property
    def key(self) -> str:
        """The branch of the repository, as the ledger names it."""
        return f"{self.ports.workspace.url}:{self.into}"

    @property
    def holder(self) -> str:
        """Who holds leases."""
        return f"{self.stage.run}/{self.stage.name}"

    def lease(self, key: str) -> Lease:
        """The right to act on a key; wait for it."""
        return self.ports.ledger.lease(key, holder=self.holder, attempt=self.stage.attempt, stop=self.stage.stop)

    def merge(self) -> Merge:
        """Try the merge on the branch's present head; raise StageError where a branch would be made beside the default one."""
        tried = self.ports.workspace.merge(
            self.stage.commit,
            into=self.into,
            strategy=self.strategy,
            message=self.title,
            trailers=self.stage.trailers,
            favor="fail" if self.conflicts == "ask_model" else self.conflicts,
            resolve=self.asking.resolve if self.asking else None,
            costs=self.costs,
        )
        if not tried.base and (default := self.ports.workspace.default_branch()):
            raise StageError(
                f"there is no branch {self.into} in {self.ports.workspace.url}, whose default branch is {default}",
                hint=f"merge into that one, `with: {{into: {default}}}`, or push {self.into} first",
            )
        return tried

    def costs(self) -> dict[str, str]:
        """Trailers that say what models did: for this stage, and for those before where their commits become one."""
        before = [result.cost for result in self.stage.results.values()] if self.strategy == "squash" else []
        found = [cost for cost in (*before, self.stage.cost()) if cost]
        return functools.reduce(operator.add, found).trailers() if found else {}

    def verify(self, tried: Merge) -> tuple[Verdict, ...]:
        """Measure the gates again on what the merge gives, where that is another commit."""
        if tried.commit == self.stage.commit:
            return ()
        self.stage.log.info("verifying %s, which merges %s into %s", tried.commit[:12], self.stage.commit[:12], self.into)
        return self.stage.verify(tried.commit)

    # --- the ledger -----------------------------------------------------------------------------

    def change(self, tried: Merge, **more: Any) -> Change:
        """What the merge does to the branch, to be written down before it happens."""
        return Change(
            run=self.stage.run,
            stage=self.stage.name,
            kind="push",
            key=self.key,
            before={"branch": self.into, "head": tried.base},
            after={"branch": self.into, "head": tried.commit, "on": tried.base, **more},
        )

    def earlier(self) -> list[Change]:
        """What this stage of this run wrote down about this branch, oldest first."""
        return [c for c in self.ports.ledger.changes(self.stage.run) if (c.stage, c.kind, c.key) == (self.stage.name, "push", self.key)]

    def settle_earlier(self, state: ChangeState, lease: Lease, *, commit: str = "") -> None:
        """Close what an attempt wrote down and did not come to settle: the branch itself has told by now whether it landed."""
        for earlier in self.earlier():
            if earlier.state == "intended":
                after = {**earlier.after, "head": commit} if commit else earlier.before
                self.ports.ledger.settle(earlier, state, after, lease)

    # --- what comes of it -----------------------------------------------------------------------

    def result(self, tried: Merge, verdicts: tuple[Verdict, ...], **outputs: str | int) -> Result:
        """The Result of a branch that holds the change; `tried.commit` is what the branch got."""
        files = self._files_changed(tried)
        decided = self._report_decided(tried)
        if tried.up_to_date and decided:
            summary = f"{self.into} stays as it is: all hunks of the change were decided against it{decided}"
        elif tried.up_to_date:
            summary = f"{self.into} already holds the change ({tried.commit[:7]})"
        elif not tried.base:
            summary = f"created {self.into}, which was not there, at {tried.commit[:7]}"
        else:
            number = f"{files} changed file{'' if files == 1 else 's'}"
            summary = f"{_DONE[self.strategy]} {number} into {self.into} ({tried.commit[:7]}){decided}"
        self.stage.log.info("%s", summary)
        return Result(
            commit=tried.commit,
            verdicts=verdicts,
            metrics={"conflicts": float(len(tried.decided)), "files.changed": float(files)},
            outputs={"branch": self.into, "merged": True, **outputs},
            summary=summary,
        )

    def conflict(self, tried: Merge) -> MergeConflict:
        """The error; the reports name every hunk. The branch was not touched."""
        files = sorted({hunk.path for hunk in tried.conflicts})
        self._report("conflicts", "Conflicts", tried, tried.conflicts, "The branch was not touched.")
        if self.asking:
            self.asking.report()
        shown = ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")  # noqa: PLR2004 - one readable line
        undecided = "" if self.conflicts == "fail" else f" that `conflicts: {self.conflicts}` cannot decide"
        hint = f"merge {self.into} into the change by hand, or clear the run from its first stage; see conflicts.md in the reports"
        if self.conflicts == "ask_model" and not self.asking:
            hint += f"; no model was asked: {self.stage.no_mind}"
        return MergeConflict(
            f"{self.stage.commit[:12]} does not merge into {self.into}: conflicts{undecided} in {shown}",
            conflicts=[str(hunk) for hunk in tried.conflicts],
            hint=hint,
        )

    def _report_decided(self, tried: Merge) -> str:
        """Write down what one side won, and return it for the summary."""
        if not tried.decided:
            return ""
        winner = self.into if self.conflicts == "ours" else "the change"
        how = "A model decided each" if self.asking else f"All of them went to {winner}"
        self._report("decided", "Decided conflicts", tried, tried.decided, f"{how} (`conflicts: {self.conflicts}`).")
        if self.asking:
            self.asking.report()
        # A side that wins says why in general; a model says it of each hunk, first how sure it is.
        places = [f"{hunk.path}:{hunk.line}" + (f" ({hunk.reason[:100]})" if self.asking else "") for hunk in tried.decided]
        more = f" and {len(places) - _SHOWN} more in decided.md" if len(places) > _SHOWN else ""
        return f"; decided {'by a model' if self.asking else f'for {self.conflicts}'}: {', '.join(places[:_SHOWN])}{more}"

    def _report(self, name: str, heading: str, tried: Merge, hunks: Sequence[Conflict], note: str) -> None:
        facts = {"commit": self.stage.commit, "into": self.into, "head": tried.base, "strategy": self.strategy, "favor": self.conflicts}
        report = {**facts, "hunks": [asdict(hunk) for hunk in hunks]}
        (self.stage.reports / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
        rows = "".join(f"| {cell(h.path)} | {h.line} | {cell(h.kind)} | {cell(h.reason)} |\n" for h in hunks)
        (self.stage.reports / f"{name}.md").write_text(
            f"# {heading}\n\n{self.strategy} of {self.stage.commit} into {self.into} (at {tried.base}): {len(hunks)} hunks in "
            f"{len({h.path for h in hunks})} files. {note}\n\n| file | line | kind | reason |\n|---|---|---|---|\n{rows}"
        )

    def _files_changed(self, tried: Merge) -> int:
        """From the diff's first line, which holds its totals; what an earlier attempt merged counts the same."""
        base = tried.base
        if tried.up_to_date:
            earlier = [c for c in self.earlier() if c.after.get("head") == tried.commit]
            base = str(earlier[-1].after.get("on", "")) if earlier else tried.commit
        totals = re.match(r"\s*(\d+) files? changed", self.ports.workspace.diff(base, tried.commit))
        return int(totals[1]) if totals else 0


def cell(value: object) -> str:
    """Text that may stand in a cell of a Markdown table."""
    return str(value).replace("|", "\\|")
