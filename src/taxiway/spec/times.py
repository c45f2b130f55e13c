"""Times of a stage that are written down and cannot all be kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from taxiway.agents.base import Agent, AgentInput, WithinTimeout
from taxiway.spec.source import Node, Report
from taxiway.spec.values import DURATION, seconds
from taxiway.spec.words import show

__all__ = ["check_times"]


def check_times(given: Mapping[str, Any], agent: Agent, stage: Node, report: Report, *, timeout: str, duration: str) -> None:
    """Report work whose length is written down and is not shorter than the stage's timeout or `limits.duration`."""
    for word, length in _lengths(given, agent):
        for limit, text in (("the stage's timeout", timeout), ("`limits.duration`", duration)):
            if seconds(length) >= seconds(text):
                at = stage.find(["with", word]) if word in given else stage
                hint = f"raise {limit}, or write a shorter `{word}`"
                report.add(at, f"{show(word)} {length} does not fit into {limit} of {text}", rule="out-of-time", hint=hint)
                break


def _lengths(given: Mapping[str, Any], agent: Agent) -> Iterator[tuple[str, str]]:
    """The fields that say how long the stage works, and their values where they are known before a run."""
    for word, default in _timed(agent.inputs):
        value = str(given.get(word, default))
        # What is a template, or no duration at all, is judged elsewhere.
        if re.fullmatch(DURATION, value):
            yield word, value


@cache
def _timed(inputs: type[AgentInput]) -> tuple[tuple[str, Any], ...]:
    """The fields that say how long a stage works, as a spec writes them, and their defaults."""
    timed = {n: f for n, f in inputs.model_fields.items() if any(isinstance(found, WithinTimeout) for found in f.metadata)}
    return tuple((field.alias or name, field.get_default(call_default_factory=True)) for name, field in timed.items())
