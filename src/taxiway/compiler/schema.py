"""One JSON Schema of the files that users write (pipelines, templates, policies), from the models and the installed agents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from taxiway.agents.base import Agent
from taxiway.spec.extends import TemplateFileSpec
from taxiway.spec.models import PARAM_NAME, STAGE_ID, PipelineSpec, PolicySpec
from taxiway.spec.thinking import REPAIR
from taxiway.spec.values import DURATION, GATE

__all__ = ["pipeline_schema", "schema_text"]

_TEMPLATE = {"$ref": "#/$defs/Template"}
_GATE = {"if": {"type": "string"}, "then": {"$ref": "#/$defs/GateText"}, "else": {"$ref": "#/$defs/GateForm"}}
_NEEDED = ("required", "if", "else")
"""Which of its inputs an agent's stage must give, also where that depends on another input."""
_TEXTS: dict[tuple[str, str], dict[str, Any]] = {
    ("DefaultsSpec", "timeout"): {"pattern": DURATION},
    ("LimitsSpec", "duration"): {"pattern": DURATION},
    ("StageSpec", "timeout"): {"pattern": DURATION},
    ("RetriesSpec", "first"): {"pattern": DURATION},
    ("RetriesSpec", "most"): {"pattern": DURATION},
}


def schema_text(agents: Mapping[str, Agent]) -> str:
    """The schema as a file's content, the same for the same agents."""
    return json.dumps(pipeline_schema(agents), indent=2, ensure_ascii=False) + "\n"


def pipeline_schema(agents: Mapping[str, Agent]) -> dict[str, Any]:
    """JSON Schema, draft 2020-12. It knows every field, each agent's `with` and its metrics; what depends on the
    graph, the policy or a template's names only `taxiway check` knows."""
    schema = PipelineSpec.model_json_schema(by_alias=True)
    templates = TemplateFileSpec.model_json_schema(by_alias=True)
    policy = PolicySpec.model_json_schema(by_alias=True)
    defs = policy.pop("$defs") | templates.pop("$defs") | schema.pop("$defs")
    for (model, field), words in _TEXTS.items():
        _text(defs[model]["properties"][field]).update(words)
    defs["Template"] = {"type": "string", "pattern": r"\{\{", "description": "A text with {{ expressions }}, rendered when the stage runs"}
    defs["GateText"] = {"type": "string", "pattern": GATE, "description": "metric op number, as in coverage.line >= 80"}
    defs["GateForm"]["oneOf"] = [{"required": [name]} for name in ("at_least", "at_most", "above", "below", "equals")]
    for name in ("at_least", "at_most", "above", "below", "equals"):
        defs["GateForm"]["properties"][name] |= {"type": "number"}
        defs["GateForm"]["properties"][name].pop("anyOf")
    defs["ScheduleSpec"]["oneOf"] = [{"required": ["cron"]}, {"required": ["assets"]}]
    _stage(defs, agents)
    _names(schema["properties"])
    _names(templates["properties"])
    _policy(policy, defs, agents)
    defs |= {"Pipeline": schema, "TemplateFile": templates, "PolicyFile": policy}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Taxiway pipeline, templates of stages, or policy",
        "if": {"type": "object", "required": ["templates"]},
        "then": {"$ref": "#/$defs/TemplateFile"},
        "else": {
            # A pipeline may name a policy; a policy file has one and neither of the words that every pipeline has.
            "if": {"type": "object", "required": ["policy"], "not": {"anyOf": [{"required": ["pipeline"]}, {"required": ["stages"]}]}},
            "then": {"$ref": "#/$defs/PolicyFile"},
            "else": {"$ref": "#/$defs/Pipeline"},
        },
        "$defs": {name: _clean(defs[name]) for name in sorted(defs)},
    }


def _names(properties: dict[str, Any]) -> None:
    for field, pattern in (("params", PARAM_NAME), ("stages", STAGE_ID), ("templates", STAGE_ID)):
        if field not in properties:
            continue
        properties[field]["propertyNames"] = {"pattern": pattern, **({"not": {"const": "outcome"}} if field == "stages" else {})}
        for models in properties[field].pop("patternProperties", {}).values():
            properties[field]["additionalProperties"] = models


def _stage(defs: dict[str, Any], agents: Mapping[str, Agent]) -> None:
    for name in ("StageSpec", "TemplateSpec"):
        _fields(defs[name], defs, agents)
    defs["StageSpec"].pop("required")
    # What a template brings is not known here.
    defs["StageSpec"]["anyOf"] = [{"required": ["agent"]}, {"required": ["extends"]}]
    defs["StageSpec"]["allOf"] += [_needed(agents[name]) for name in sorted(agents)]


def _fields(stage: dict[str, Any], defs: dict[str, Any], agents: Mapping[str, Agent]) -> None:
    stage["properties"]["agent"] = {
        "description": "Which agent does the work",
        "oneOf": [{"const": name, "description": agents[name].summary} for name in sorted(agents)],
    }
    stage["properties"]["gates"]["items"] = _GATE
    stage["allOf"] = [_agent(defs, agents[name]) for name in sorted(agents)]


def _agent(defs: dict[str, Any], agent: Agent) -> dict[str, Any]:
    inputs = agent.inputs.model_json_schema(by_alias=True)
    # Definitions of two agents may share a name; each gets the agent's in front.
    for name, value in inputs.pop("$defs", {}).items():
        defs[f"{agent.name}.{name}"] = _rename(value, agent.name)
    inputs = _rename(inputs, agent.name)
    inputs["properties"] = {name: _or_template(value) for name, value in inputs.get("properties", {}).items()}
    defs[f"with.{agent.name}"] = inputs
    rules: dict[str, Any] = {"properties": {"with": {"$ref": f"#/$defs/with.{agent.name}"}}}
    for needed in _NEEDED:
        inputs.pop(needed, None)
    if agent.effect != "measures":
        rules["properties"]["matrix"] = False
    if agent.after_failure:
        rules["properties"]["recovers"] = {"minItems": 1}
        rules["properties"]["needs"] = False
    else:
        rules["properties"]["recovers"] = {"maxItems": 0}
    rules["properties"]["gates"] = {"items": _metric(agent)} if agent.metrics else {"maxItems": 0}
    return {"if": {"properties": {"agent": {"const": agent.name}}, "required": ["agent"]}, "then": rules}


def _metric(agent: Agent) -> dict[str, Any]:
    """A gate as a mapping names a metric of the agent."""
    return {"if": {"type": "object"}, "then": {"properties": {"metric": {"enum": sorted(agent.metrics)}}}}


def _policy(policy: dict[str, Any], defs: dict[str, Any], agents: Mapping[str, Agent]) -> None:
    measuring = {name: agents[name] for name in sorted(agents) if agents[name].metrics}
    gates, waiver = policy["properties"]["gates"], defs["WaiverSpec"]
    gates["properties"] = {
        name: {"type": "array", "description": agent.summary, "items": {"allOf": [_GATE, _metric(agent)]}}
        for name, agent in measuring.items()
    }
    gates["additionalProperties"] = False
    asking = [name for name in sorted(agents) if agents[name].asks]
    defs["ModelsSpec"]["properties"]["agents"]["propertyNames"] = {"enum": [*asking, REPAIR]}
    waiver["properties"]["agent"] |= {"enum": [*measuring]}
    waiver["allOf"] = [
        {"if": {"properties": {"agent": {"const": name}}}, "then": {"properties": {"metric": {"enum": sorted(agent.metrics)}}}}
        for name, agent in measuring.items()
    ]


def _needed(agent: Agent) -> dict[str, Any]:
    """What a stage of the agent says, unless a template may: inputs without a default, where no axis can give them."""
    inputs = agent.inputs.model_json_schema(by_alias=True)
    needed = {word: inputs[word] for word in _NEEDED if word in inputs}
    rules: dict[str, Any] = {"required": ["recovers"]} if agent.after_failure else {}
    if needed:
        rules |= {"if": {"required": ["matrix"]}, "else": {"required": ["with"], "properties": {"with": needed}}}
    alone = {"properties": {"agent": {"const": agent.name}}, "required": ["agent"], "not": {"required": ["extends"]}}
    return {"if": alone, "then": rules}


def _rename(value: Any, prefix: str) -> Any:
    if isinstance(value, dict):
        return {k: v.replace("#/$defs/", f"#/$defs/{prefix}.") if k == "$ref" else _rename(v, prefix) for k, v in value.items()}
    return [_rename(v, prefix) for v in value] if isinstance(value, list) else value


def _or_template(value: dict[str, Any]) -> dict[str, Any]:
    outer: dict[str, Any] = {k: value[k] for k in ("description", "default") if k in value}
    inner = {k: v for k, v in value.items() if k not in outer and k != "title"}
    if "items" in inner:
        inner["items"] = {"anyOf": [inner["items"], _TEMPLATE]}
    return {**outer, "anyOf": [inner, _TEMPLATE]}


def _text(value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next((v for v in value.get("anyOf", ()) if v.get("type") == "string"), value)
    return found


def _clean(value: Any) -> Any:
    """Without pydantic's titles, which repeat the names, and without null where a field is left out instead."""
    if isinstance(value, list):
        return [_clean(v) for v in value]
    if not isinstance(value, dict):
        return value
    kept = {k: _clean(v) for k, v in value.items() if not (k == "title" and isinstance(v, str))}
    return {k: v for k, v in kept.items() if not (k == "default" and v is None)}
