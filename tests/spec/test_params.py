"""Values of params, held against JSON Schema itself."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from taxiway.spec.params import faults

VALUES: tuple[Any, ...] = ("", "ab", "abc", "A", "é", 0, 1, -3, 1.0, 2.5, True, False, None, [], ["a"], {})
WORDS: tuple[dict[str, Any], ...] = (
    {},
    {"pattern": "^[a-z]+$"},
    {"pattern": "b"},
    {"minLength": 1},
    {"maxLength": 2},
    {"minLength": 3, "maxLength": 3, "title": "T", "description": "d"},
    {"enum": ["ab", 1, True]},
    {"enum": [0, 1.0, "A"], "examples": ["x"]},
    {"minimum": 1},
    {"maximum": 1, "multipleOf": 1},
    {"default": 7},
)


@pytest.mark.parametrize("kind", ["string", "integer", "number", "boolean", "array", "object", ["string", "null"]])
def test_a_value_fits_where_json_schema_says_so(kind: str | list[str]) -> None:
    for words, value in itertools.product(WORDS, VALUES):
        schema = {"type": kind, **words}
        wanted = sorted(error.message for error in Draft202012Validator(schema).iter_errors(value))
        assert sorted(faults(schema, value)) == wanted, (schema, value)


def test_a_pattern_that_only_other_engines_know_is_airflows_to_judge() -> None:
    assert faults({"type": "string", "pattern": "^(?=a)ab$"}, "x") == []
    assert faults({"type": ["string", "null"], "pattern": "^(?=a)ab$"}, "x") == []
    assert faults({"type": "string", "pattern": "^(?=a)ab$", "maxLength": 2}, "xyz") == ["'xyz' is too long"]
