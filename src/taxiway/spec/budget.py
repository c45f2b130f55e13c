"""What models may cost, settled: the pipeline's word, below the policy's, and what is held against them while checking."""

from __future__ import annotations

from collections.abc import Iterable

from taxiway.prices import price_of
from taxiway.spec.models import BudgetSpec, ModelsSpec, PipelineSpec, Policy
from taxiway.spec.source import Node, Report, show

__all__ = ["DEFAULT_USD", "NONE", "check_budget", "settled_budget"]

DEFAULT_USD = 5.0
"""US dollars of a run where neither the pipeline nor its policy names a budget: nobody means to spend without a bound."""
_WARN_AT = 0.8
NONE = "none"


def settled_budget(own: BudgetSpec | None, policy: BudgetSpec | None) -> tuple[float | None, int | None, float]:
    """USD, tokens (None where they bound nothing) and the part to warn at."""
    given = [b for b in (own, policy) if b is not None]
    usd = next((b.usd for b in given if b.usd is not None), None)
    tokens = next((b.tokens for b in given if b.tokens is not None), None)
    if usd is None and tokens is None:
        usd = DEFAULT_USD
    return usd, tokens, next((b.warn_at for b in given if b.warn_at is not None), _WARN_AT)


def check_budget(spec: PipelineSpec, policy: Policy | None, root: Node, report: Report) -> None:
    """Report a budget above the policy's, and dollars for models whose price nobody knows."""
    floor = policy.spec.budget if policy else None
    for word in ("usd", "tokens"):
        most, asked = getattr(floor, word, None), getattr(spec.budget, word, None)
        if most is not None and asked is not None and asked > most and policy:
            hint = "lower it, or ask the policy's owner"
            problem = f"{asked:g} is more than policy {show(policy.name)} allows: {most:g}"
            report.add(root.find(["budget", word]), problem, rule="loosens-policy", hint=hint)
    usd, _, _ = settled_budget(spec.budget, floor)
    if usd is None or policy is None or policy.spec.models is None or not spec.stages:
        return
    if unknown := sorted(unpriced(policy.spec.models)):
        at = root.find(["budget"]) if spec.budget else root.find(["policy"] if spec.policy else ["pipeline"])
        problem = f"no price is known for {', '.join(show(name) for name in unknown)}, so that no budget in dollars holds"
        hint = "add it to `models: prices:` of the policy, or give the budget in tokens alone"
        report.add(at, problem, rule="unknown-price", hint=hint)


def unpriced(models: ModelsSpec) -> set[str]:
    """The models that may be asked and have no price."""
    return {name for name in _asked(models) if name != NONE and name not in models.prices and price_of(name) is None}


def _asked(models: ModelsSpec) -> Iterable[str]:
    yield models.model
    yield from (name for name in (models.fallback, *(w for a in models.agents.values() for w in (a.model, a.fallback))) if name)
