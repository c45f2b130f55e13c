"""`--param name=value`: text from a command line, read as the type that the pipeline declares."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from taxiway.errors import InputError
from taxiway.spec.params import faults

__all__ = ["needed", "read_params", "to_give"]

_TYPES: dict[str, type | tuple[type, ...]] = {
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


def read_params(
    given: Sequence[str], declared: Mapping[str, Mapping[str, Any]], *, all_needed: bool = True, option: str = "--param"
) -> dict[str, Any]:
    """The params of a run; raise InputError for one that is unknown, given twice, missing, of another type, or that its schema refuses.

    `declared` are JSON Schemas by name. A string is taken as written; everything else is read as YAML. `option` is what they were
    given with.
    """
    params: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"{option} {text}: no value", hint=f"write {option} name=value")
        if name not in declared:
            raise InputError(f"{option} {name}: the pipeline declares no such param", hint=_nearest(name, declared))
        if name in params:
            raise InputError(f"{option} {name}: given twice", hint="leave one of them out")
        params[name] = _value(name, value, declared[name], option)
    missing = [name for name in needed(declared) if name not in params]
    if missing and all_needed:
        raise InputError(f"params without a value: {', '.join(missing)}", hint=f"write {to_give(missing)}")
    for name, value in params.items():
        # As Airflow will check it, before an Airflow is started for it.
        if wrong := faults(declared[name], value):
            # The hint says the pattern.
            own = f" does not match {declared[name].get('pattern')!r}"
            told = (text.replace(own, " does not match its pattern") for text in wrong)
            raise InputError(f"{option} {name}: {'; '.join(told)}", hint=_wanted(declared[name]))
    return params


def needed(declared: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The params that every run has to give."""
    return [name for name, schema in declared.items() if "default" not in schema]


def to_give(names: Iterable[str]) -> str:
    """How to give them on a command line."""
    return " ".join(f"--param {name}=VALUE" for name in names)


def _wanted(schema: Mapping[str, Any]) -> str:
    words = {"pattern": "it matches {}", "minLength": "at least {} characters", "maxLength": "at most {} characters", "format": "format {}"}
    words |= {"minimum": "at least {}", "maximum": "at most {}", "exclusiveMinimum": "more than {}", "exclusiveMaximum": "less than {}"}
    told = [text.format(schema[name]) for name, text in words.items() if name in schema]
    if "pattern" in schema and schema.get("default"):
        told.append(f"such as {schema['default']}")
    return ", ".join(told) or "compare it with the pipeline's `params`"


def _value(name: str, text: str, schema: Mapping[str, Any], option: str) -> Any:
    wanted = schema.get("type", "string" if not schema.get("enum") else ())
    types = [wanted] if isinstance(wanted, str) else list(wanted)
    if "string" in types and not ("null" in types and text in ("", "null")):
        value: Any = text
    else:
        value = _yaml(name, text, option)
        if types and not any(_is(value, kind) for kind in types):
            raise InputError(f"{option} {name}={text}: this is no {' or '.join(types)}", hint=_example(types[0], name, option))
    if (choices := schema.get("enum")) and value not in choices:
        raise InputError(f"{option} {name}={text}: not among the choices", hint=f"choose from {', '.join(map(str, choices))}")
    return value


def _yaml(name: str, text: str, option: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{option} {name}: cannot be read as YAML", hint=f"quote it for the shell, as {option} 'list=[1, 2]'") from error


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES.get(kind, ()))


def _example(kind: str, name: str, option: str) -> str:
    examples = {"integer": "3", "number": "0.5", "boolean": "true", "array": "[a, b]", "object": "{a: 1}"}
    return f"write it like {option} '{name}={examples.get(kind, 'null')}'"


def _nearest(name: str, declared: Mapping[str, Any]) -> str:
    if close := difflib.get_close_matches(name, declared, 1):
        return f"did you mean {close[0]}?"
    return f"it declares {', '.join(declared)}" if declared else "it declares none"
