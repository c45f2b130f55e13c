"""Texts without what is different in every run of the same thing: places, moments, durations, addresses, ids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["steady"]

# In this order: a path may hold an id, a moment a duration.
_CHANGING = (
    (re.compile(r"(?<![\w./-])(?:/[\w.@+=~-]+)+(/[\w.@+=~-]+)"), r"...\1"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"), "<moment>"),
    (re.compile(r"\b\d{8}T\d{6}\w*"), "<moment>"),
    (re.compile(r"\b\d\d:\d\d:\d\d(?:[.,]\d+)?\b"), "<moment>"),
    (re.compile(r"\b\d+(?:\.\d+)? ?(?:ms|us|µs|s|sec|secs|seconds?)\b"), "<duration>"),
    (re.compile(r"\b0x[0-9a-fA-F]{6,}\b"), "<address>"),
    (re.compile(r"\b[0-9a-f]{12,64}\b"), "<id>"),
    (re.compile(r"\b(127\.0\.0\.1|localhost):\d+"), r"\1:<port>"),
)


def steady(value: Any) -> Any:
    """JSON-like data with every text of it steady: of a path its last part, of a moment, duration, address in memory, hash or local
    port that it is one."""
    if isinstance(value, str):
        for pattern, instead in _CHANGING:
            value = pattern.sub(instead, value)
        return value
    if isinstance(value, Mapping):
        return {key: steady(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [steady(item) for item in value]
    return value
