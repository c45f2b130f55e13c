"""What models cost: a table with its date and source in prices.json, and the arithmetic.

Money is counted in millionths of a dollar (micros): a price in dollars per million tokens times tokens is exactly that.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from taxiway.ports import Usage

__all__ = ["Price", "known_prices", "price_of"]

_DATED = re.compile(r"-20\d{6}$")


@dataclass(frozen=True)
class Price:
    """USD per million tokens. A prompt of more than `above_tokens` tokens costs `above` instead, for all of its call."""

    input: float
    output: float
    cache_write: float
    cache_read: float
    above_tokens: int = 0
    above: Price | None = None

    def micros(self, usage: Usage) -> int:
        """What a call with this usage costs, in millionths of a dollar, rounded up."""
        if self.above is not None and usage.prompt_tokens > self.above_tokens:
            return self.above.micros(usage)
        return math.ceil(
            usage.input_tokens * self.input
            + usage.output_tokens * self.output
            + usage.cache_write_tokens * self.cache_write
            + usage.cache_read_tokens * self.cache_read
        )

    def most_micros(self, prompt_tokens: int, output_tokens: int) -> int:
        """The most that a call of this size can cost: nothing is in the cache yet, and all of it is written there."""
        dearest = max(self.input, self.cache_write)
        here = math.ceil(prompt_tokens * dearest + output_tokens * self.output)
        return max(here, self.above.most_micros(prompt_tokens, output_tokens)) if self.above and prompt_tokens > self.above_tokens else here


@cache
def known_prices() -> Mapping[str, Price]:
    """Every model of the table, by the id of its provider's own API."""
    data = json.loads(files("taxiway").joinpath("prices.json").read_text(encoding="utf-8"))
    return {name: _price(row) for name, row in data["models"].items()}


def price_of(model: str) -> Price | None:
    """A model's price, with or without a date at the end of its id; None for one that the table does not know.

    Names of other platforms (Bedrock, Vertex) are not in it: they have prices of their own.
    """
    prices = known_prices()
    return prices.get(model) or prices.get(_DATED.sub("", model))


def _price(row: Mapping[str, Any]) -> Price:
    above = row.get("above")
    return Price(
        input=row["input"],
        output=row["output"],
        cache_write=row["cache_write"],
        cache_read=row["cache_read"],
        above_tokens=above["prompt_tokens"] if above else 0,
        above=_price({k: v for k, v in above.items() if k != "prompt_tokens"}) if above else None,
    )
