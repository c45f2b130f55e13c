"""The records that cross between stages: plain frozen data, small enough for XCom."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

__all__ = ["COMMIT", "Commit", "Cost", "Model", "Outcome", "Output", "Reading", "Result", "Verdict", "total_cost"]

COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
"""A full git object id, SHA-1 or SHA-256."""

Commit = Annotated[str, StringConstraints(pattern=rf"^(?:{COMMIT.pattern})?$")]
"""A full commit id, or empty where no code exists yet."""

Outcome = Literal["success", "failed", "skipped", "cancelled"]
Output = str | int | float | bool


class Model(BaseModel):
    """Closed and frozen: an unknown key is an error, a wrong type is not converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Reading(Model):
    """One gate held against one measurement.

    `wanted` reads like `>= 80`; `measured` is None where nothing was measured, and then `passed` is
    False whatever the threshold; `note` says why it was not measured, or who waived the gate.
    """

    metric: str
    wanted: str
    measured: float | None
    passed: bool
    blocking: bool = True
    source: Literal["default", "policy", "spec"] = "spec"
    note: str = ""


class Verdict(Model):
    """The blocking gates of `stage` for one commit; `gates` identifies the set of gates."""

    stage: str
    commit: Commit
    gates: str
    passed: bool


class Cost(Model):
    """What models did for a stage, over all of its tries: calls that were answered, tokens, US dollars at list price (None where
    a model's price is not known), and the models by id. `replayed` are those of the calls that a recording answered: they cost nothing."""

    calls: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    usd: float | None
    models: tuple[str, ...]
    replayed: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            calls=self.calls + other.calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            usd=None if self.usd is None or other.usd is None else round(self.usd + other.usd, 6),
            models=tuple(dict.fromkeys((*self.models, *other.models))),
            replayed=self.replayed + other.replayed,
        )

    def trailers(self) -> dict[str, str]:
        """The same as trailers of a commit."""
        tokens = f"in={self.input_tokens} cached={self.cached_tokens} out={self.output_tokens} calls={self.calls}"
        money = {} if self.usd is None else {"Taxiway-Cost": f"{self.usd:.6f} USD"}
        return {"Taxiway-Model": ", ".join(self.models), "Taxiway-Tokens": tokens, **money}

    def __str__(self) -> str:
        tokens = f"{self.input_tokens + self.cached_tokens} tokens read ({self.cached_tokens} cached), {self.output_tokens} written"
        money = "" if self.usd is None else f", {self.usd:.4f} USD"
        calls = f"{self.calls} call{'s' * (self.calls != 1)}{f' ({self.replayed} replayed)' * bool(self.replayed)}"
        return f"{calls} of {', '.join(self.models)}: {tokens}{money}"


class Result(Model):
    """What a stage hands on.

    An agent fills `metrics` (measured values only, in the units its metrics declare), `unmeasured`
    (metric -> why), `outputs` (small values for later stages, such as `url`), `artifacts` (name -> URI)
    and `summary` (one line; what follows it goes into the commit's message alone); an agent that makes its own commit also
    fills `commit` and `verdicts`.
    The rest belongs to `stage.run`: `repairs` are those that changed the code for this stage, a line each with the commit.
    """

    outcome: Outcome = "success"
    commit: Commit = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    unmeasured: dict[str, str] = Field(default_factory=dict)
    gates: tuple[Reading, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    artifacts: dict[str, str] = Field(default_factory=dict)
    outputs: dict[str, Output] = Field(default_factory=dict)
    summary: str = ""
    cost: Cost | None = None
    repairs: tuple[str, ...] = ()


def total_cost(results: Iterable[Result]) -> Cost | None:
    """What models did for all of the stages; None where none did anything."""
    costs = [r.cost for r in results if r.cost is not None]
    return functools.reduce(operator.add, costs) if costs else None
