"""Data into models, with every problem at its place; what is broken is left out, so that the rest can be checked."""

from __future__ import annotations

import math
from typing import Any, TypeGuard, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from taxiway.agents.base import Later
from taxiway.spec.places import ELSEWHERE, ENTRIES, LATER
from taxiway.spec.source import Node, Report
from taxiway.spec.words import did_you_mean, number, show

__all__ = ["explain", "fields_of", "validate"]

M = TypeVar("M", bound=BaseModel)

_RANGES = {
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
    "string_too_short": "",
    "string_too_long": "",
}
_DURATIONS = ("timeout", "duration", "first", "most", "for", "every")
_KINDS = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
}


def fields_of(model: type[BaseModel]) -> list[str]:
    """The keys that users may write."""
    return [field.alias or name for name, field in model.model_fields.items()]


def validate(model: type[M], node: Node, report: Report, *, kind: str = "", needed: dict[str, Any] | None = None) -> M:
    """The node as a model. Fields with problems are reported and take their defaults; `needed` are those of fields that have none."""
    data = node.plain()
    readable = isinstance(data, dict)
    if not isinstance(data, dict):
        report.add(node, f"this is not a mapping of keys to values but {_is(data)}", rule="wrong-type", hint=_keys(model))
        data = {}
    for first in (readable, False):
        try:
            return model.model_validate(data)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                if first:
                    explain(detail, node, report, model=model, kind=kind)
                data = {**data}
                if detail["loc"]:
                    data.pop(str(detail["loc"][0]), None)
            data = {**(needed or {}), **data}
    return model.model_construct(**(needed or {}))


def explain(detail: ErrorDetails, node: Node, report: Report, *, model: type[BaseModel] | None = None, kind: str = "") -> None:
    """Report one of pydantic's errors at the place in the file that it is about."""
    loc, what, context = detail["loc"], detail["type"], detail.get("ctx", {})
    name = str(loc[-1]) if loc else ""
    at = node.find(loc)
    if what == "extra_forbidden":
        _unknown(name, node.find(loc, key=True), report, _model_at(model, loc[:-1]), kind if len(loc) == 1 else str(loc[0]))
    elif what == "missing" and at.partial:
        pass  # what holds it could not be read, and that was said
    elif what == "missing":
        report.add(at, f"{show(name)} is missing", rule="missing-key", hint=f"add `{name}:` here")
    elif what == "spec":
        report.add(at, context["problem"], rule=context["rule"], hint=context["hint"])
    elif what in _KINDS:
        holder = str(loc[-2]) if len(loc) > 1 else ""
        hint = ENTRIES.get(holder, "") if what.startswith("model_") else ""
        problem = f"{_label(loc)}must be {_KINDS[what]}, not {_is(detail['input'])}"
        report.add(at, problem, rule="wrong-type", hint=hint or _hint_of_type(what, at, name))
    elif what in _RANGES:
        _out_of_range(detail, at, report)
    elif what == "string_pattern_mismatch":
        _pattern(loc, node, report, str(context.get("pattern")), detail["input"])
    elif what == "literal_error" and detail["input"] in _later(_model_at(model, loc[:-1]), name):
        hint = f"this version of Taxiway knows {str(context['expected']).replace(chr(39), '')}"
        report.add(at, f"{_label(loc)}{_is(detail['input'])} is not supported yet", rule="not-supported", hint=hint)
    elif what in ("literal_error", "enum"):
        words = [w.strip("' ") for w in str(context["expected"]).replace(" or ", ", ").split(", ")]
        hint = did_you_mean(str(detail["input"]), words, otherwise=f"one of {', '.join(words)}")
        report.add(at, f"{_label(loc)}cannot be {_is(detail['input'])}", rule="bad-value", hint=hint)
    else:
        report.add(at, f"{_label(loc)}is wrong: {detail['msg']}", rule="bad-value", hint="see docs/reference.md")


def _out_of_range(detail: ErrorDetails, at: Node, report: Report) -> None:
    value, bounds, label = detail["input"], detail.get("ctx", {}), _label(detail["loc"])
    if detail["type"] == "string_too_short":
        least = int(bounds["min_length"])
        problem = f"is shorter than {least} characters: {_is(value)}" if value else "is empty"
        report.add(at, f"{label}{problem}", rule="out-of-range", hint="write more" if value else "write something, or remove the key")
        return
    if detail["type"] == "string_too_long":
        problem = f"is longer than {number(int(bounds['max_length']))} characters: {_is(value)}"
        report.add(at, f"{label}{problem}", rule="out-of-range", hint="shorten it")
        return
    wanted = _RANGES[detail["type"]].format(**{word: number(bound) if _is_number(bound) else bound for word, bound in bounds.items()})
    empty = detail["type"] == "too_short" and not value
    problem = "has no entries" if empty else f"is out of range: {_is(value)}"
    report.add(at, f"{label}{problem}", rule="out-of-range", hint=wanted.replace(" 1 entries", " 1 entry"))


def _pattern(loc: tuple[int | str, ...], node: Node, report: Report, pattern: str, value: object) -> None:
    at = node.find(loc)
    if loc and loc[-1] == "[key]":
        at = node.find(loc[:-1], key=True)
        report.add(at, f"{show(str(value))} is not a name", rule="bad-id", hint=f"names match {pattern}")
    elif loc in {("pipeline",), ("policy",)}:
        report.add(at, f"{show(str(value))} is not a name", rule="bad-id", hint=f"lower case letters, digits and _, as {pattern} says")
    else:
        report.add(at, f"{_label(loc)}cannot be {_is(value)}", rule="bad-value", hint=f"it matches {pattern}")


def _unknown(name: str, at: Node, report: Report, model: type[BaseModel] | None, kind: str) -> None:
    kind = "stage" if kind == "templates" else kind
    if name in LATER.get(kind, ()):
        report.add(
            at, f"{show(name)} is not supported yet", rule="not-supported", hint="remove it; this version of Taxiway does not act on it"
        )
        return
    known = fields_of(model) if model else []
    hint = ELSEWHERE.get(kind, {}).get(name) or did_you_mean(name, known)
    report.add(at, f"unknown key {show(name)}", rule="unknown-key", hint=hint)


def _model_at(model: type[BaseModel] | None, loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model that the location leads to, through optional, list, dict and union types."""
    for part in loc:
        if model is None:
            return None
        found = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        if found is not None:
            model = _inner(found.annotation) or model
    return model


def _later(model: type[BaseModel] | None, name: str) -> tuple[str, ...]:
    """The values that a field is to take one day."""
    field = next((f for n, f in model.model_fields.items() if name in (n, f.alias)), None) if model else None
    return tuple(value for found in (field.metadata if field else ()) if isinstance(found, Later) for value in found.values)


def _inner(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for arg in getattr(annotation, "__args__", ()) if (m := _inner(arg))), None)


def _label(loc: tuple[int | str, ...]) -> str:
    names = [str(p) for p in loc if not (isinstance(p, str) and p.startswith(("<", "[")))]
    if not names:
        return "this "
    if names[-1].isdigit() and len(names) > 1:
        return f"entry {int(names[-1]) + 1} of {show(names[-2])} "
    return f"{show(names[-1])} "


def _is(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    return show(value) if isinstance(value, str) else number(value) if _is_number(value) else str(value)[:60]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _hint_of_type(what: str, at: Node, name: str) -> str:
    if at.value is None:
        return "write a value after the colon, or remove the key"
    if what == "string_type" and name in _DURATIONS and isinstance(at.value, int | float):
        return f"write its unit: {at.value}s or {at.value}m"
    return {
        "string_type": "quote it to make it text",
        "bool_type": "write true or false, without quotes",
        "list_type": "write [a, b], or one `- entry` a line",
        "int_type": "write digits, without quotes",
        "float_type": "write digits, without quotes",
    }.get(what, "write `key: value` lines below it, indented")


def _keys(model: type[BaseModel]) -> str:
    return "keys here: " + ", ".join(fields_of(model))
