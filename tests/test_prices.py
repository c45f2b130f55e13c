from __future__ import annotations

import json
from datetime import date
from importlib.resources import files

import pytest

from taxiway.ports import Usage
from taxiway.prices import known_prices, price_of


def test_the_table_says_when_and_where_from():
    data = json.loads(files("taxiway").joinpath("prices.json").read_text())
    assert date.fromisoformat(data["read"])
    assert data["source"].startswith("https://")
    for price in known_prices().values():
        assert price.cache_read < price.input < price.cache_write < price.output


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("claude-opus-5-5", True),
        ("claude-haiku-4-5-20251001", True),
        ("claude-opus-9", False),
        ("eu.anthropic.claude-opus-4-5-20251101-v1:0", False),
        ("llama3", False),
        ("", False),
    ],
)
def test_which_models_have_a_price(model, known):
    assert (price_of(model) is not None) is known


@pytest.mark.parametrize(
    ("model", "usage", "micros"),
    [
        ("claude-sonnet-5-5", Usage(1_000_000, 0, 0, 0), 2_000_000),
        ("claude-sonnet-5-5", Usage(0, 1_000_000, 0, 0), 10_000_000),
        ("claude-sonnet-5-5", Usage(0, 0, 1_000_000, 0), 100_000),
        ("claude-sonnet-5-5", Usage(0, 0, 0, 1_000_000), 2_500_000),
        ("claude-opus-5-5", Usage(10, 1, 3, 2), 71),
        ("claude-haiku-5-5", Usage(100_000, 0, 0, 0), 10_000),
        ("claude-haiku-5-5", Usage(100_001, 0, 0, 0), 50_001),
        ("claude-haiku-5-5", Usage(1, 1000, 100_000, 0), 7_501),
        ("claude-haiku-5-5", Usage(), 0),
    ],
)
def test_what_a_call_costs(model, usage, micros):
    price = price_of(model)
    assert price.micros(usage) == micros
    assert price.most_micros(usage.prompt_tokens, usage.output_tokens) >= micros
