"""Params: JSON Schema for the values of a run, checked as Airflow will check them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

from pydantic_core import SchemaError, SchemaValidator, core_schema

from taxiway.spec.models import ParamSpec
from taxiway.spec.source import Node, Report
from taxiway.spec.words import show

__all__ = ["check_param", "faults", "settle"]

_TYPES = {
    "string": {"pattern", "minLength", "maxLength", "format"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "boolean": set[str](),
    "array": {"items"},
    "object": set[str](),
}
_ALWAYS = {"type", "default", "title", "description", "enum", "examples"}
_KINDS: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}
_FITTED = _ALWAYS | {"pattern", "minLength", "maxLength"}
"""What `_fits` knows, of params whose values have one of `_KINDS`."""


def check_param(name: str, param: ParamSpec, node: Node, report: Report) -> None:
    """Report what makes a param unusable: a keyword of another type, a bad pattern, a default that its own schema refuses."""
    given = set(node.value) if isinstance(node.value, dict) else set()
    for keyword in sorted((given & set(ParamSpec.model_fields)) - _ALWAYS - _TYPES.get(param.type, set())):
        at = node.find([keyword], key=True)
        report.add(at, f"{show(keyword)} says nothing about type {param.type}", rule="bad-param", hint="remove it, or change the type")
    if name == "repository" and param.type != "string":
        hint = "`repository` is the URL of the run's repository; empty starts a new one"
        report.add(node.find(["type"]), "the param 'repository' must be text", rule="bad-param", hint=hint)
    if param.pattern is not None and not _check_pattern(param.pattern, node.find(["pattern"]), report):
        return
    if param.items is not None and not _check_items(param.items, node.find(["items"]), report):
        return
    schema = param.schema_()
    for low, high in (
        ("minimum", "maximum"),
        ("minLength", "maxLength"),
        ("exclusiveMinimum", "exclusiveMaximum"),
        ("minimum", "exclusiveMaximum"),
        ("exclusiveMinimum", "maximum"),
    ):
        if low in schema and high in schema and (schema[low] > schema[high] or (schema[low] == schema[high] and "exclusive" in low + high)):
            report.add(node.find([high]), f"no value is within {low} and {high}", rule="bad-param", hint="mend one of them")
            return
    for key, value in (
        ("default", param.default),
        *(("examples", e) for e in param.examples or ()),
        *(("enum", e) for e in param.enum or ()),
    ):
        if key != "default" or "default" in given:
            for fault in faults(schema, value):
                report.add(
                    node.find([key]), f"{key} does not fit the param's own schema: {fault}", rule="bad-param", hint="mend one of them"
                )


def _check_pattern(pattern: str, at: Node, report: Report) -> bool:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        report.add(at, f"the pattern is not a regular expression: {error}", rule="bad-pattern", hint="Python's `re` reads it")
        return False
    try:
        _linear(pattern)
    except SchemaError:
        hint = "look-around and back references are not supported; they can make a match take for ever"
        report.add(at, "the pattern needs more than a regular expression", rule="bad-pattern", hint=hint)
        return False
    return True


@lru_cache(256)  # the param's check and its default's, in every pipeline that has it
def _linear(pattern: str) -> SchemaValidator:
    """Matches in time linear in the text, whatever the pattern: checking a file never hangs on its own regular expression."""
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


def _matches(pattern: str, text: str) -> bool:
    """Whether it does, or Airflow has to say: a DAG that Taxiway did not make may have any pattern."""
    try:
        return _linear(pattern).isinstance_python(text)
    except SchemaError:
        return True


def _match(_: Any, pattern: str, value: Any, __: Any) -> Iterator[Exception]:
    from jsonschema.exceptions import ValidationError  # type: ignore[import-untyped]  # noqa: PLC0415

    if isinstance(value, str) and not _matches(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _check_items(items: dict[str, Any], at: Node, report: Report) -> bool:
    known = set(ParamSpec.model_fields) - {"default", "examples", "items"}
    if wrong := sorted(set(items) - known):
        report.add(
            at.find([wrong[0]], key=True), f"unknown key {show(wrong[0])}", rule="unknown-key", hint="known: " + ", ".join(sorted(known))
        )
        return False
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # noqa: PLC0415 - a quarter of a second, only where needed
    from jsonschema.exceptions import SchemaError as NoSchema  # noqa: PLC0415

    try:
        Draft202012Validator.check_schema(items)
    except NoSchema as error:
        report.add(at, f"items is not a JSON Schema: {error.message[:200]}", rule="bad-param", hint="write {type: string}")
        return False
    pattern = items.get("pattern")
    return pattern is None or _check_pattern(pattern, at.find(["pattern"]), report)


def faults(schema: Mapping[str, Any], value: object) -> list[str]:
    """What a param's schema says against a value, one line each."""
    if _fits(schema, value):
        return []
    checker_class, formats = _checker()
    # `examples` and `title` say nothing about values.
    checker = checker_class({k: v for k, v in schema.items() if k not in ("examples", "default")}, format_checker=formats)
    return [error.message[:200] for error in sorted(checker.iter_errors(value), key=lambda e: (list(map(str, e.path)), e.message))]


def _fits(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether a value surely fits, by the words that most params are made of; jsonschema, which takes longer to import than all
    else that is done with a file, judges the others, and says what is wrong."""
    kind = schema.get("type")
    if not isinstance(kind, str) or type(value) not in _KINDS.get(kind, ()) or not schema.keys() <= _FITTED:  # a boolean is no number
        return False
    if "enum" in schema and not any(type(one) is type(value) and one == value for one in schema["enum"]):
        return False
    if not isinstance(value, str):
        return True
    long_enough = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
    return long_enough and ("pattern" not in schema or _matches(schema["pattern"], value))


@cache
def _checker() -> tuple[Any, Any]:
    # A class that takes longer to make than all else that is done with a file.
    from jsonschema import Draft202012Validator, FormatChecker, validators  # noqa: PLC0415

    return validators.extend(Draft202012Validator, {"pattern": _match}), FormatChecker()


def settle(schemas: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The params of a run as they would be with `given`, and what is wrong with them."""
    wrong = [f"unknown param {show(name)}" for name in given if name not in schemas]
    values: dict[str, Any] = {}
    for name, schema in schemas.items():
        if name in given or "default" in schema:
            values[name] = given.get(name, schema.get("default"))
            wrong += [f"param {show(name)}: {fault}" for fault in faults(schema, values[name])]
        else:
            wrong.append(f"param {show(name)} has no default and was not given")
    return values, wrong
