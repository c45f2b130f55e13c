"""What models and agents declare, in words: what a field takes, its default, an example stage that passes the check."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from taxiway.agents import Agent

__all__ = ["agent_record", "default_of", "example_pipeline", "example_stage", "takes"]

_BOUNDS = {"minimum": "from {}", "maximum": "to {}", "exclusiveMinimum": "above {}", "maxLength": "at most {} characters"}
_SHOWN = 3


# --- fields ---------------------------------------------------------------------------------------


def takes(schema: Mapping[str, Any], name_of: Callable[[str], str], info: FieldInfo | None = None) -> str:
    """What a JSON Schema takes; `name_of` says how another model of it is called."""
    variants = [v for v in schema.get("anyOf", schema.get("oneOf", [])) if v.get("type") != "null"]
    if len(variants) == 1:
        return takes(variants[0], name_of, info)
    if variants:
        return " or ".join(dict.fromkeys(takes(v, name_of) for v in variants))
    if "$ref" in schema:
        return name_of(schema["$ref"].rsplit("/", 1)[-1])
    if limits := _duration(info.annotation, info.metadata) if info else None:
        return f"a duration, {limits[0]} to {limits[1]}"
    if words := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return ", ".join(f"`{word}`" for word in words)
    return _plain(schema, name_of)


def _plain(schema: Mapping[str, Any], name_of: Callable[[str], str]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return ", ".join(_plain({"type": each}, name_of) for each in kind)
    if kind == "array":
        return f"a list of {takes(schema['items'], name_of)}" if schema.get("items") else "a list"
    if kind == "object":
        inner = schema.get("additionalProperties") or next(iter(schema.get("patternProperties", {}).values()), None)
        return f"a mapping of names to {takes(inner, name_of)}" if isinstance(inner, dict) else "a mapping"
    names = {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "`true` or `false`", None: "any value"}
    bounds = [text.format(schema[word]) for word, text in _BOUNDS.items() if word in schema]
    if "pattern" in schema:
        bounds.append(f"matching `{schema['pattern']}`")
    return " ".join([names[kind], *bounds])


def _duration(annotation: Any, metadata: list[Any]) -> tuple[str, str] | None:
    """The bounds that `between` holds, wherever in the annotation it stands."""
    for item in metadata:
        held = inspect.getclosurevars(item.func).nonlocals if hasattr(item, "func") else {}
        if {"least", "most"} <= held.keys():
            return held["least"], held["most"]
    for inner in get_args(annotation):
        if found := _duration(inner, list(getattr(inner, "__metadata__", ()))):
            return found
    return None


def default_of(info: FieldInfo) -> str:
    """The default as the YAML writes it, in backquotes; `required` or "" where there is none to show."""
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value!r}`".replace("'", '"') if value in ("", [], {}) or isinstance(value, list) else f"`{value}`"


# --- agents ---------------------------------------------------------------------------------------


def agent_record(agent: Agent, agents: Mapping[str, Agent]) -> dict[str, Any]:
    """Everything that an agent declares, as JSON."""
    schema = agent.inputs.model_json_schema(by_alias=True)
    inputs = []
    for name, info in agent.inputs.model_fields.items():
        word = info.alias or name
        text = takes(schema["properties"][word], lambda _: "a mapping", info)
        default = {} if info.is_required() else {"default": schema["properties"][word].get("default", _written(info))}
        inputs.append({"name": word, "takes": text, "required": info.is_required(), "description": info.description or "", **default})
    return {
        "name": agent.name,
        "summary": agent.summary,
        "effect": agent.effect,
        "touches": agent.touches,
        "asks": agent.asks,
        "after": list(agent.after),
        "inputs": inputs,
        "metrics": [{"name": name, "unit": metric.unit, "description": metric.description} for name, metric in agent.metrics.items()],
        "gates": list(agent.default_gates()),
        "outputs": list(agent.outputs),
        "example": example_stage(agent, agents),
    }


def _written(info: FieldInfo) -> Any:
    value = info.get_default(call_default_factory=True)
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def example_stage(agent: Agent, agents: Mapping[str, Agent]) -> str:
    """A stage of the agent, as it stands below `stages:`."""
    return _yaml({_stage_name(agent): _stage(agent, agents)})


def example_pipeline(agent: Agent, agents: Mapping[str, Agent]) -> str:
    """The smallest pipeline with that stage: those that it needs stand before it."""
    chain = [agent]
    while (before := _before(chain[0])) and before[0] in agents:
        chain.insert(0, agents[before[0]])
    return _yaml({"pipeline": "example", "stages": {_stage_name(each): _stage(each, agents) for each in chain}})


def _before(agent: Agent) -> tuple[str, ...]:
    # What explains a failure has no agent of its own that it must follow: any stage does.
    return agent.after or (("validate",) if agent.effect == "explains" else ())


def _stage_name(agent: Agent) -> str:
    return agent.name.replace("-", "_")


def _stage(agent: Agent, agents: Mapping[str, Agent]) -> dict[str, Any]:
    stage: dict[str, Any] = {"agent": agent.name}
    if given := _inputs(agent):
        stage["with"] = given
    if gates := [*agent.default_gates(), *(f"{name} {metric.example}" for name, metric in agent.metrics.items() if metric.example)]:
        stage["gates"] = [gates[0]]
    elif agent.metrics:
        # Nobody says which way is better: measured and shown, it stops nothing.
        stage["gates"] = [{"metric": next(iter(agent.metrics)), "at_least": 1, "blocking": False}]
    if agent.after_failure:
        stage["recovers"] = [_stage_name(agents[name]) for name in _before(agent) if name in agents]
    return stage


def _inputs(agent: Agent) -> dict[str, Any]:
    """What must be given, then what has an example or a default that says something."""
    schema = agent.inputs.model_json_schema(by_alias=True)
    needed, told = {}, {}
    for name, info in agent.inputs.model_fields.items():
        word = info.alias or name
        field = schema["properties"][word]
        if info.is_required():
            needed[word] = _value(field, schema)
        elif (value := (field.get("examples") or [field.get("default", _written(info))])[0]) not in (None, "", [], {}):
            told[word] = value
    return needed | dict(list(told.items())[: max(0, _SHOWN - len(needed))])


def _value(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
    """Some value that the field takes."""
    if "$ref" in field:
        field = schema["$defs"][field["$ref"].rsplit("/", 1)[-1]]
    for word in ("examples", "enum"):
        if field.get(word):
            return field[word][0]
    for inner in field.get("anyOf", ()):
        return _value(inner, schema)
    items = [_value(field["items"], schema)] if field.get("minItems") and field.get("items") else []
    least = field.get("minimum", field.get("exclusiveMinimum", 0) + 1)
    values = {"integer": least, "number": least, "boolean": True, "array": items, "object": {}}
    return field.get("const", values.get(field.get("type", ""), "example"))


class _Flow(yaml.SafeDumper):
    """Short mappings and lists on one line, as people write them."""


def _yaml(data: Mapping[str, Any]) -> str:
    return yaml.dump(data, Dumper=_Flow, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
