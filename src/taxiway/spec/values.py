"""The small texts of a spec: durations, crons, timezones, gates."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from taxiway.records import Model
from taxiway.spec.words import did_you_mean, show

__all__ = [
    "CRON_PRESETS",
    "DURATION",
    "GATE",
    "Cron",
    "Day",
    "Duration",
    "GateForm",
    "Op",
    "Threshold",
    "Timezone",
    "accepts",
    "between",
    "contradict",
    "implies",
    "read_gate",
    "refuse",
    "seconds",
]

DURATION = r"^[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h|d)$"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

CRON_PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
}
"""Airflow's own, as five fields."""

Op = Literal[">=", ">", "<=", "<", "==", "!="]

GATE = r"^\s*[a-z][a-z0-9_]*(\.[a-z0-9_]+)*\s*(>=|<=|==|!=|>|<)\s*-?[0-9]{1,15}(\.[0-9]{1,9})?\s*$"
_GATE = re.compile(r"\s*([a-z0-9_.]+)\s*(>=|<=|==|!=|>|<)\s*(\S+)\s*")


def refuse(rule: str, problem: str, hint: str) -> PydanticCustomError:
    """What a validator raises: pydantic carries it to the report with the value's place."""
    return PydanticCustomError("spec", "{problem}", {"rule": rule, "problem": problem, "hint": hint})


@lru_cache(4096)
def seconds(text: str) -> float:
    """What a duration such as `500ms`, `30s`, `5m`, `2h`, `1d` means, in seconds; ValueError if it is none."""
    if not re.fullmatch(DURATION, text):
        raise ValueError(f"{text!r} is no duration")
    number = text.rstrip("msdh")
    return round(float(number) * _UNITS[text[len(number) :]], 3)


def between(least: str, most: str) -> AfterValidator:
    """A validator of durations between two others."""

    def check(text: str) -> str:
        if not re.fullmatch(DURATION, text):
            raise refuse("bad-duration", f"{show(text)} is not a duration", "write a number and its unit: 500ms, 30s, 5m, 2h, 1d")
        if not seconds(least) <= seconds(text) <= seconds(most):
            raise refuse("out-of-range", f"{text} is out of range", f"from {least} to {most}")
        return text

    return AfterValidator(check)


Duration = str
"""A duration as text; use `Annotated[Duration, between(least, most)]`."""


def _cron(text: str) -> str:
    hint = "five fields: minute hour day month weekday, as in `0 6 * * 1-5`, or one of " + ", ".join(CRON_PRESETS)
    if text.startswith("@"):
        if text not in CRON_PRESETS:
            raise refuse("bad-cron", f"{show(text)} is not a schedule", did_you_mean(text, CRON_PRESETS, otherwise=hint))
        return text
    # Airflow's reader and ours agree on Debian's five fields; on the sixth they do not agree whether it stands first or last.
    if not re.fullmatch(r"[0-9A-Za-z*,/\- ]{9,200}", text) or len(text.split()) != 5:  # noqa: PLR2004
        raise refuse("bad-cron", f"{show(text)} is not a cron expression", hint)
    try:
        next(CronSim(text, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise refuse("bad-cron", f"{show(text)} is not a cron expression: {error}", hint) from error
    except (StopIteration, ValueError, AssertionError) as error:
        raise refuse("bad-cron", f"{show(text)} names no moment that ever comes", hint) from error
    return text


def _timezone(name: str) -> str:
    try:
        if not re.fullmatch(r"[A-Za-z0-9_+\-/]{1,60}", name):
            raise ValueError(name)
        ZoneInfo(name)
    except (ValueError, OSError, LookupError) as error:
        hint = did_you_mean(name, available_timezones(), otherwise="an IANA name such as Europe/Berlin or UTC")
        raise refuse("bad-timezone", f"{show(name)} is not a timezone", hint) from error
    return name


def _day(text: str) -> str:
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            raise ValueError(text)
        date.fromisoformat(text)
    except ValueError as error:
        raise refuse("bad-date", f"{show(text)} is not a date", "write year-month-day, as in 2026-12-31") from error
    return text


Cron = Annotated[str, AfterValidator(_cron)]
Timezone = Annotated[str, AfterValidator(_timezone)]
Day = Annotated[str, AfterValidator(_day), Field(json_schema_extra={"pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"})]


@dataclass(frozen=True)
class Threshold:
    """A gate as its file says it."""

    metric: str
    op: Op
    value: float
    blocking: bool = True

    def __str__(self) -> str:
        return f"{self.metric} {self.op} {self.value:g}"


_FORMS: dict[str, Op] = {"at_least": ">=", "above": ">", "at_most": "<=", "below": "<", "equals": "=="}


class GateForm(Model):
    """A gate as a mapping: a metric, one threshold, and whether it blocks."""

    metric: Annotated[str, StringConstraints(min_length=1, max_length=100)] = Field(description="A metric that the stage's agent measures")
    at_least: float | None = Field(default=None, allow_inf_nan=False, description="Passes at this value or above")
    at_most: float | None = Field(default=None, allow_inf_nan=False, description="Passes at this value or below")
    above: float | None = Field(default=None, allow_inf_nan=False, description="Passes above this value")
    below: float | None = Field(default=None, allow_inf_nan=False, description="Passes below this value")
    equals: float | None = Field(default=None, allow_inf_nan=False, description="Passes at exactly this value")
    blocking: bool = Field(default=True, description="false: a failure is reported and stops nothing")


_GATE_HINT = "write `metric op number`, as in `coverage.line >= 80`, or {metric: coverage.line, at_least: 80}"


def read_gate(gate: str | GateForm | Any) -> Threshold:
    """A gate in either form as a threshold; ValueError (with a hint as second argument) if it is none."""
    if isinstance(gate, GateForm):
        given = [(op, getattr(gate, name)) for name, op in _FORMS.items() if getattr(gate, name) is not None]
        if len(given) != 1:
            raise ValueError("a gate has exactly one threshold", "one of " + ", ".join(_FORMS))
        return Threshold(gate.metric, given[0][0], float(given[0][1]), gate.blocking)
    found = _read_text(gate) if isinstance(gate, str) else None
    if found is None:
        raise ValueError(f"{show(gate)} is not a gate", _GATE_HINT)
    return found


@lru_cache(4096)  # the default gates of an agent are read for each of its stages
def _read_text(gate: str) -> Threshold | None:
    found = _GATE.fullmatch(gate) if re.fullmatch(GATE, gate) else None
    if found is None:
        return None
    op: Any = found.group(2)
    return Threshold(found.group(1), op, float(found.group(3)))


def implies(strict: Threshold, loose: Threshold) -> bool:
    """Whether every value that passes `strict` passes `loose`, on the same metric."""
    if strict.metric != loose.metric:
        return False
    # What agents measure is never negative, so at most 0 and exactly 0 say the same.
    strict, loose = (replace(g, op="==") if (g.op, g.value) == ("<=", 0) else g for g in (strict, loose))
    if strict.op in ("==", "!="):
        return accepts(loose, strict.value) if strict.op == "==" else (loose.op, loose.value) == ("!=", strict.value)
    up, open_ = strict.op in (">=", ">"), strict.op in (">", "<")
    further = strict.value > loose.value if up else strict.value < loose.value
    same = strict.value == loose.value
    if loose.op == "!=":
        return further or (same and open_)
    return loose.op in ((">=", ">") if up else ("<=", "<")) and (further or (same and (open_ or loose.op in (">=", "<="))))


def contradict(one: Threshold, other: Threshold) -> bool:
    """Whether no value passes both, on the same metric."""
    if one.metric != other.metric or (one.op, other.op) == ("!=", "!="):
        return False
    for exact, rest in ((one, other), (other, one)):
        if exact.op == "==":
            return not accepts(rest, exact.value)
    ups = [g for g in (one, other) if g.op in (">=", ">")]
    downs = [g for g in (one, other) if g.op in ("<=", "<")]
    if len(ups) != 1 or len(downs) != 1:
        return False
    up, down = ups[0], downs[0]
    return up.value > down.value or (up.value == down.value and (up.op, down.op) != (">=", "<="))


def accepts(gate: Threshold, value: float) -> bool:
    """Whether a measured value passes."""
    return {
        ">=": value >= gate.value,
        ">": value > gate.value,
        "<=": value <= gate.value,
        "<": value < gate.value,
        "==": value == gate.value,
        "!=": value != gate.value,
    }[gate.op]
