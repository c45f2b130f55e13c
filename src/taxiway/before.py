"""What the stages before one hand it: a commit, a reason to do nothing, and the verdicts that it needs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taxiway import gates as gate
from taxiway.compiler.plan import Plan, PlannedStage
from taxiway.errors import OperatorError, TaxiwayError, VerdictMissing
from taxiway.ports import Workspace
from taxiway.records import Result, Verdict
from taxiway.render import decide

__all__ = ["Before"]


@dataclass(frozen=True)
class Before:
    """The finished stages of a run, as one stage sees them."""

    plan: Plan
    stage: PlannedStage
    results: Mapping[str, Result]
    log: logging.Logger

    def commit(self, workspace: Workspace) -> str:
        """The one commit that the stages before hand on; the repository's where there is none."""
        if self.stage.effect == "explains":
            return self._failed_on(workspace)
        found = {c for need in self.stage.needs for c in self._handed_on(need)}
        if self.stage.effect == "undoes":
            return max(found, default="")
        if len(found) > 1:
            raise OperatorError(
                f"the stages before hand on different commits: {', '.join(sorted(found))}", hint="clear the run from its first stage"
            )
        return found.pop() if found else workspace.start()

    def _failed_on(self, workspace: Workspace) -> str:
        """What the first of the covered stages that failed was given; "" where there is no code to be had."""
        results = self.results
        failed = [n for n in self.stage.needs if n not in results or results[n].outcome in ("failed", "cancelled")]
        # One that left a result is known to have worked.
        first = min(failed or self.stage.needs, key=lambda n: n not in results)
        try:
            return max(self._handed_on(first), default="") or workspace.start()
        except TaxiwayError as error:  # it may be why the stage failed
            self.log.warning("explained without the code: %s", error.problem)
            return ""

    def _handed_on(self, name: str) -> set[str]:
        """A stage's commit; that of the stages before it where it left no result (a person marked it by hand)."""
        result = self.results.get(name)
        if result is not None and result.commit:
            return {result.commit}
        return {c for need in self.plan.stage(name).needs for c in self._handed_on(need)}

    def reason_to_skip(self, scope: Mapping[str, Any]) -> str:
        """Why the stage has nothing to do, "" where it has; `scope` is what its `when` knows."""
        for name in self.stage.uses:
            result = self.results.get(name)
            if result is not None and result.outcome == "skipped":
                return f"it uses results of {name}, which was skipped"
        if self.stage.when and not decide(self.stage.when, scope):
            return f"when: {self.stage.when} is false"
        return ""

    def require_verdicts(self, commit: str) -> None:
        """Refuse a commit that lacks a verdict which the plan requires."""
        for name in self.stage.requires:
            result = self.results.get(name)
            if result is not None and result.outcome == "skipped":
                if name in self.stage.mandatory:
                    raise VerdictMissing(
                        f"{name} was skipped, and policy {self.plan.policy.name} requires its gates",
                        hint=f"let {name} run, or drop its `when`",
                    )
            elif not self._has_verdict(name, commit):
                raise VerdictMissing(
                    f"commit {commit[:12]} has no passed verdict of {name}",
                    hint=f"see why {name}'s gates did not pass, mend it, and clear from {name}",
                )

    def _has_verdict(self, name: str, commit: str) -> bool:
        stage = self.plan.stage(name)
        gates = gate.fingerprint(stage.gates)
        wanted = [Verdict(stage=n, commit=commit, gates=gates, passed=True) for n in (stage.id, stage.group) if n]
        return any(verdict in r.verdicts for r in self.results.values() for verdict in wanted)
