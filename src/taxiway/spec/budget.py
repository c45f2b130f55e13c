"""What models may cost, settled: the pipeline's word, below the policy's, and what is held against them while checking."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from taxiway.agents.base import Agent
from taxiway.prices import Price, known_prices, price_of
from taxiway.spec.models import BudgetSpec, ModelsSpec, PipelineSpec, Policy, PriceSpec, StageSpec
from taxiway.spec.source import Node, Report
from taxiway.spec.thinking import NONE, REPAIR, chosen
from taxiway.spec.words import number, show

__all__ = ["DEFAULT_USD", "check_budget", "own_price", "settled_budget"]

DEFAULT_USD = 5.0
"""US dollars of a run where neither the pipeline nor its policy names a budget: nobody means to spend without a bound."""
_WARN_AT = 0.8
_NEAR = 0.8
_MICRO = 1_000_000


def settled_budget(own: BudgetSpec | None, policy: BudgetSpec | None) -> tuple[float | None, int | None, float]:
    """USD, tokens (None where they bound nothing) and the part to warn at."""
    given = [b for b in (own, policy) if b is not None]
    usd = next((b.usd for b in given if b.usd is not None), None)
    tokens = next((b.tokens for b in given if b.tokens is not None), None)
    if usd is None and tokens is None:
        usd = DEFAULT_USD
    return usd, tokens, next((b.warn_at for b in given if b.warn_at is not None), _WARN_AT)


def own_price(price: PriceSpec) -> tuple[float, float, float, float]:
    """A price of the policy's own, settled: input, output, cache_write, cache_read."""
    write, read = (price.input if cached is None else cached for cached in (price.cache_write, price.cache_read))
    return price.input, price.output, write, read


def check_budget(
    spec: PipelineSpec,
    policy: Policy | None,
    agents: Mapping[str, Agent | None],
    known: Mapping[str, Agent],
    *,
    root: Node,
    report: Report,
) -> None:
    """Report a budget above the policy's, dollars for models whose price nobody knows, and what is less than one call can take."""
    floor = policy.spec.budget if policy else None
    for word in ("usd", "tokens"):
        most, asked = getattr(floor, word, None), getattr(spec.budget, word, None)
        if most is not None and asked is not None and asked > most and policy:
            hint = "lower it, or ask the policy's owner"
            problem = f"{number(asked)} is more than policy {show(policy.name)} allows: {number(most)}"
            report.add(root.find(["budget", word]), problem, rule="loosens-policy", hint=hint)
    if policy is None or policy.spec.models is None or not spec.stages:
        return
    models, at = policy.spec.models, root.find(["budget"]) if spec.budget else root.find(["policy"] if spec.policy else ["pipeline"])
    usd, tokens, _ = settled_budget(spec.budget, floor)
    if usd is not None:
        for name in sorted(_unpriced(models)):
            problem = f"no price is known for model {show(name)} of policy {show(policy.name)}, so that no budget in dollars holds"
            report.add(at, problem, rule="unknown-price", hint=_near(name, models))
    for who in _asking(spec.stages, agents, known):
        _check_room(who, models, usd, tokens, at=at, report=report)


def _check_room(who: str, models: ModelsSpec, usd: float | None, tokens: int | None, *, at: Node, report: Report) -> None:
    """A call is set aside at the most that it can take before it is made: one that never fits is never made."""
    own = models.agents.get(who)
    most = (own.max_tokens if own else None) or models.max_tokens
    names = [name for name in (chosen(models, who), (own.fallback if own else None) or models.fallback) if name]
    prices = [price for name in names if (price := _price(name, models))]
    dollars = max((price.most_micros(0, most) for price in prices), default=0) / _MICRO
    word, problem = "usd", ""
    if names[0] != NONE and tokens is not None and tokens <= most:
        word, problem = "tokens", f"{number(tokens)} tokens are too few for {who} to ask once: one answer may take {number(most)}"
    elif names[0] != NONE and usd is not None and usd <= dollars:
        problem = f"{number(usd)} USD are too few for {who} to ask once: an answer of {number(most)} tokens may cost {number(dollars)} USD"
    if problem:
        report.add(
            at.find([word]), problem, rule="too-small-budget", hint="raise `budget`, or lower `max_tokens` below `models:` of the policy"
        )


def _asking(stages: Mapping[str, StageSpec], agents: Mapping[str, Agent | None], known: Mapping[str, Agent]) -> list[str]:
    """The agents that may ask a model, those that repair too, and `repair`, each once."""
    found = []
    for name, stage in stages.items():
        agent = agents[name]
        found += [agent.name] if agent and agent.asks and agent.uses_model(stage.with_) else []
        if stage.repair and stage.repair.agent is None:
            found.append(REPAIR)
        elif stage.repair and (mender := known.get(stage.repair.agent or "")):
            found += [mender.name] if mender.asks and mender.uses_model(stage.repair.with_) else []
    return list(dict.fromkeys(found))


def _price(name: str, models: ModelsSpec) -> Price | None:
    return Price(*own_price(models.prices[name])) if name in models.prices else price_of(name)


def _unpriced(models: ModelsSpec) -> set[str]:
    """The models that may be asked and have no price."""
    return {name for name in _named(models) if name != NONE and _price(name, models) is None}


def _named(models: ModelsSpec) -> Iterable[str]:
    yield models.model
    yield from (name for name in (models.fallback, *(w for a in models.agents.values() for w in (a.model, a.fallback))) if name)


def _near(name: str, models: ModelsSpec) -> str:
    otherwise = "add it to `models: prices:` of the policy, or give the budget in tokens alone"
    near = difflib.get_close_matches(name, [*known_prices(), *models.prices], n=1, cutoff=_NEAR)
    return f"did you mean {near[0]!r}? else {otherwise}" if near else otherwise
