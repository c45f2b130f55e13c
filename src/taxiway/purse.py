"""What a run may still spend on models: a call is written down at its dearest before it is made, and at its price afterwards."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from taxiway.compiler.plan import Budget, PlannedModels
from taxiway.errors import BudgetExceeded, InputError, ModelUnavailable
from taxiway.ports import Lease, Ledger, Reply, Spending, SpendingState, Usage
from taxiway.prices import Price, price_of
from taxiway.records import Cost

__all__ = ["Line", "RunPurse", "as_table", "cost_of", "lines", "priced", "table"]

_MICRO = 1_000_000
_FAILURES = 3
"""Unanswered calls in a row, over the whole run, after which the provider is left alone for a while."""
_PAUSE_S = 60.0


class RunPurse:
    """Implements the loop's `Purse` for one attempt of one stage, over the ledger that all of the run's stages share.

    `may_ask` are the models that a call may reach (the chosen one and its fallback): it is reserved at the dearest of them.
    """

    def __init__(
        self,
        ledger: Ledger,
        lease: Lease,
        *,
        run: str,
        stage: str,
        attempt: int,
        budget: Budget,
        models: PlannedModels,
        may_ask: Iterable[str],
        log: logging.Logger,
    ) -> None:
        self._ledger, self._lease, self._run, self._stage, self._attempt = ledger, lease, run, stage, attempt
        self._budget, self._log = budget, log
        self._prices = {name: priced(name, models) for name in dict.fromkeys(may_ask)}
        self._models = models
        self._open: dict[str, Spending] = {}
        if budget.usd is not None and (unknown := [name for name, price in self._prices.items() if price is None]):
            raise InputError(
                f"no price is known for {', '.join(unknown)}, so that no budget in dollars holds",
                hint="add it to `models: prices:` of the policy, or give the budget in tokens alone",
            )

    def reserve(self, model: str, *, prompt_tokens: int, output_tokens: int) -> str:
        """Set aside the most that a call can cost. Raises BudgetExceeded, with what was spent, where it does not fit, and
        ModelUnavailable while the provider is left alone."""
        most = max((p.most_micros(prompt_tokens, output_tokens) for p in self._prices.values() if p), default=0)
        call = Spending(self._run, self._stage, self._attempt, model, prompt_tokens + output_tokens, most)
        made = self._ledger.reserve(call, lambda before: self._admit(call, before), self._lease)
        self._open[str(made.id)] = made
        return str(made.id)

    def settle(self, reservation: str, reply: Reply | None, *, failed: bool = False) -> None:
        """Write down what the call took; without a reply nothing, as `failed` where the provider did not answer."""
        call = self._open.pop(reservation)
        if reply is None:
            self._ledger.settle_call(replace(call, state="failed" if failed else "returned"))
            return
        price = self._prices.get(reply.model) or priced(reply.model, self._models) or self._prices.get(call.model)
        micros = price.micros(reply.usage) if price and not reply.replayed else 0
        state: SpendingState = "replayed" if reply.replayed else "settled"
        self._ledger.settle_call(replace(call, model=reply.model or call.model, usage=reply.usage, micros=micros, state=state))

    def _admit(self, call: Spending, before: Sequence[Spending]) -> None:
        _refuse_after_failures(before)
        tokens, micros = _counted(before)
        for spent, most, bound, unit in (
            (tokens, call.most_tokens, self._budget.tokens, "tokens"),
            (micros, call.most_micros, None if self._budget.usd is None else round(self._budget.usd * _MICRO), "USD"),
        ):
            if bound is None:
                continue
            if spent + most > bound:
                raise _too_dear(before, _shown(spent, unit) if spent else "", _shown(most, unit), _shown(bound, unit))
            if spent < bound * self._budget.warn_at <= spent + most:
                self._log.warning("%s of the run's budget of %s are spent or set aside", _shown(spent + most, unit), _shown(bound, unit))


def _too_dear(before: Sequence[Spending], spent: str, most: str, bound: str) -> BudgetExceeded:
    """What is raised for a call of `most`; `spent` is "" where nothing is."""
    ledger = f"\n{table(before)}" if before else ""
    if spent:
        hint = "raise `budget:` in the pipeline (or the policy), or give the stage less to do"
        return BudgetExceeded(f"the run's budget of {bound} is spent: {spent} so far, and the next call may take {most}{ledger}", hint=hint)
    hint = "raise `budget:` in the pipeline (or the policy), or lower `max_tokens` below `models:` of the policy"
    return BudgetExceeded(f"the run's budget of {bound} is less than one call: nothing is spent, and it may take {most}{ledger}", hint=hint)


def _refuse_after_failures(before: Sequence[Spending]) -> None:
    ended = [c for c in before if c.answered or c.state == "failed"]
    last = sorted(ended, key=lambda c: c.at)[-_FAILURES:]
    until = last[-1].at + _PAUSE_S if last else 0.0
    if len(last) == _FAILURES and all(c.state == "failed" for c in last) and time.time() < until:
        raise ModelUnavailable(
            f"the models' provider failed {_FAILURES} times in a row, so nobody of this run asks for {until - time.time():.0f} s",
            hint="see the provider's status; a later try asks again",
        )


def _counted(calls: Iterable[Spending]) -> tuple[int, int]:
    """Tokens and millionths of a dollar: of open calls the most that they may take."""
    tokens = micros = 0
    for call in calls:
        if call.state == "reserved":
            tokens, micros = tokens + call.most_tokens, micros + call.most_micros
        elif call.answered:
            tokens, micros = tokens + call.usage.tokens, micros + call.micros
    return tokens, micros


def _shown(amount: int, unit: str) -> str:
    return f"{amount / _MICRO:.4f} USD" if unit == "USD" else f"{amount} {unit}"


def priced(model: str, models: PlannedModels) -> Price | None:
    """A model's price by the policy, else by the table; None where neither knows it."""
    own = models.prices.get(model)
    return Price(*own) if own else price_of(model)


def cost_of(calls: Iterable[Spending], *, known: bool = True) -> Cost | None:
    """What was answered, added up; None where nothing was. `known` says that every price is."""
    done = [c for c in calls if c.answered]
    if not done:
        return None
    used = sum((c.usage for c in done), Usage())
    return Cost(
        calls=len(done),
        input_tokens=used.input_tokens + used.cache_write_tokens,
        output_tokens=used.output_tokens,
        cached_tokens=used.cache_read_tokens,
        usd=round(sum(c.micros for c in done) / _MICRO, 6) if known else None,
        models=tuple(dict.fromkeys(c.model for c in done)),
        replayed=sum(c.state == "replayed" for c in done),
    )


@dataclass(frozen=True)
class Line:
    """What one model did for one stage. Tokens are as the provider counts them; `usd` is None where no price is known, `unanswered`
    are calls that the provider did not answer, `open` those whose answer is awaited, `replayed` those of `calls` that were recorded."""

    stage: str
    model: str
    calls: int
    read: int
    cached: int
    written: int
    usd: float | None
    replayed: int = 0
    unanswered: int = 0
    open: int = 0


def lines(calls: Iterable[Spending]) -> tuple[Line, ...]:
    """The ledger of a run, a line for each stage and model, in the order of their first calls."""
    groups: dict[tuple[str, str], list[Spending]] = {}
    for call in calls:
        groups.setdefault((call.stage, call.model), []).append(call)
    return tuple(_line(stage, model, found) for (stage, model), found in groups.items())


def _line(stage: str, model: str, found: Sequence[Spending]) -> Line:
    done = [c for c in found if c.answered]
    used = sum((c.usage for c in done), Usage())
    return Line(
        stage,
        model,
        calls=len(done),
        read=used.input_tokens + used.cache_write_tokens,
        cached=used.cache_read_tokens,
        written=used.output_tokens,
        usd=sum(c.micros for c in done) / _MICRO,
        replayed=sum(c.state == "replayed" for c in done),
        unanswered=sum(c.state == "failed" for c in found),
        open=sum(c.state == "reserved" for c in found),
    )


def table(calls: Iterable[Spending]) -> str:
    """The ledger of a run as text."""
    return as_table(lines(calls))


def as_table(found: Sequence[Line]) -> str:
    """Lines as an aligned table; how many calls were replayed stands in it where any was."""
    replayed = any(line.replayed for line in found)
    rows: list[tuple[str, ...]] = [
        ("stage", "model", "calls", "read", "cached", "written", "USD", "unanswered", "open", *["replayed"] * replayed)
    ]
    for line in found:
        money = "unknown" if line.usd is None else f"{line.usd:.4f}"
        counts = (line.calls, line.read, line.cached, line.written)
        rest = (line.unanswered, line.open, *[line.replayed] * replayed)
        rows.append((line.stage, line.model, *map(str, counts), money, *map(str, rest)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
