"""`--param name=value`: text from a command line, read as the type that the pipeline declares."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from taxiway.errors import InputError
from taxiway.spec.params import faults

__all__ = ["read_params"]

_TYPES: dict[str, type | tuple[type, ...]] = {
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


def read_params(given: Sequence[str], declared: Mapping[str, Mapping[str, Any]], *, all_needed: bool = True) -> dict[str, Any]:
    """The params of a run; raise InputError for one that is unknown, given twice, missing, of another type, or that its schema refuses.

    `declared` are JSON Schemas by name. A string is taken as written; everything else is read as YAML.
    """
    params: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--param {text}: no value", hint="write --param name=value")
        if name not in declared:
            raise InputError(f"--param {name}: the pipeline declares no such param", hint=_nearest(name, declared))
        if name in params:
            raise InputError(f"--param {name}: given twice", hint="leave one of them out")
        params[name] = _value(name, value, declared[name])
    missing = [name for name, schema in declared.items() if name not in params and "default" not in schema]
    if missing and all_needed:
        words = " ".join(f"--param {name}=VALUE" for name in missing)
        raise InputError(f"params without a value: {', '.join(missing)}", hint=f"write {words}")
    for name, value in params.items():
        # As Airflow will check it, before an Airflow is started for it.
        if wrong := faults(declared[name], value):
            raise InputError(f"--param {name}: {'; '.join(wrong)}", hint=_wanted(declared[name]))
    return params


def _wanted(schema: Mapping[str, Any]) -> str:
    words = {"pattern": "it matches {}", "minLength": "at least {} characters", "maxLength": "at most {} characters", "format": "format {}"}
    words |= {"minimum": "at least {}", "maximum": "at most {}", "exclusiveMinimum": "more than {}", "exclusiveMaximum": "less than {}"}
    return (
        ", ".join(text.format(schema[name]) for name, text in words.items() if name in schema) or "compare it with the pipeline's `params`"
    )


def _value(name: str, text: str, schema: Mapping[str, Any]) -> Any:
    wanted = schema.get("type", "string" if not schema.get("enum") else ())
    types = [wanted] if isinstance(wanted, str) else list(wanted)
    if "string" in types and not ("null" in types and text in ("", "null")):
        value: Any = text
    else:
        value = _yaml(name, text)
        if types and not any(_is(value, kind) for kind in types):
            raise InputError(f"--param {name}={text}: this is no {' or '.join(types)}", hint=_example(types[0], name))
    if (choices := schema.get("enum")) and value not in choices:
        raise InputError(f"--param {name}={text}: not among the choices", hint=f"choose from {', '.join(map(str, choices))}")
    return value


def _yaml(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"--param {name}: cannot be read as YAML", hint="quote it for the shell, as --param 'list=[1, 2]'") from error


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES.get(kind, ()))


def _example(kind: str, name: str) -> str:
    examples = {"integer": "3", "number": "0.5", "boolean": "true", "array": "[a, b]", "object": "{a: 1}"}
    return f"write it like --param '{name}={examples.get(kind, 'null')}'"


def _nearest(name: str, declared: Mapping[str, Any]) -> str:
    if close := difflib.get_close_matches(name, declared, 1):
        return f"did you mean {close[0]}?"
    return f"it declares {', '.join(declared)}" if declared else "it declares none"
