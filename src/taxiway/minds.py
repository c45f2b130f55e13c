"""Which model a stage's attempt asks, at whose cost, and what it has cost so far."""

from __future__ import annotations

import logging
from pathlib import Path

from taxiway.agents.masking import Mask
from taxiway.agents.mind import Mind
from taxiway.compiler.plan import NONE, Plan
from taxiway.ports import Cancellation, Lease, Ports
from taxiway.purse import RunPurse, cost_of, priced
from taxiway.records import Cost

__all__ = ["Minds"]


class Minds:
    """The models of one attempt of one stage."""

    def __init__(
        self, plan: Plan, stage: str, *, run: str, attempt: int, ports: Ports, lease: Lease, stop: Cancellation, log: logging.Logger
    ) -> None:
        self._plan, self._stage, self._run, self._attempt = plan, stage, run, attempt
        self._ports, self._lease, self._stop, self._log = ports, lease, stop, log

    def of(self, agent: str, reports: Path) -> tuple[Mind | None, str]:
        """The model of an agent (or `repair`), whose conversations go to `reports`; or None, and what to configure."""
        models = self._plan.policy.models
        choice = models.choice(agent) if models else None
        if models is None or choice is None or choice.model == NONE:
            where = f"policy {self._plan.policy.name}" if self._plan.policy.name else "the pipeline's policy"
            return None, f"{where} names no model for {agent}: add `models: {{model: ...}}` to it"
        opened = (
            self._ports.models.open(choice.model, fallback=choice.fallback, effort=choice.effort, stop=self._stop)
            if self._ports.models
            else None
        )
        if opened is None:
            return None, self._ports.models.missing if self._ports.models else "this installation asks no models"
        purse = RunPurse(
            self._ports.ledger,
            self._lease,
            run=self._run,
            stage=self._stage,
            attempt=self._attempt,
            budget=self._plan.budget,
            models=models,
            may_ask=[name for name in (choice.model, choice.fallback) if name],
            log=self._log,
        )
        mask = Mask(self._ports.secrets)
        about = f"pipeline {self._plan.pipeline}, run {self._run}, stage {self._stage}, attempt {self._attempt}"
        return Mind(opened, purse, mask, reports, choice.max_tokens, self._stop, self._log, about), ""

    def cost(self) -> Cost | None:
        """What the stage has cost over all its tries; None where no model answered."""
        calls = [c for c in self._ports.ledger.spending(self._run) if c.stage == self._stage] if self._plan.policy.models else []
        known = all(priced(c.model, self._plan.policy.models) for c in calls) if self._plan.policy.models else True
        return cost_of(calls, known=known)
