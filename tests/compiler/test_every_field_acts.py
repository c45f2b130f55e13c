"""Each field of the models changes the plan: what does nothing does not exist."""

import json
from typing import Any

import pytest
import yaml

from taxiway.agents import registry
from taxiway.compiler.planning import plan
from taxiway.spec import load_pipeline, load_policy
from taxiway.spec.extends import TemplateFileSpec, TemplateSpec, load_templates
from taxiway.spec.models import (
    AgentModelSpec,
    AssetSpec,
    BudgetSpec,
    DefaultsSpec,
    LimitsSpec,
    ModelsSpec,
    ParamSpec,
    PipelineSpec,
    PolicySpec,
    PriceSpec,
    RepairSpec,
    RepositorySpec,
    RetriesSpec,
    ScheduleSpec,
    StageSpec,
    WaiverSpec,
)
from taxiway.spec.reading import fields_of
from taxiway.spec.values import GateForm

AGENTS = registry()
MODELS = {
    "pipeline": PipelineSpec,
    "limits": LimitsSpec,
    "budget": BudgetSpec,
    "repair": RepairSpec,
    "models": ModelsSpec,
    "agentmodel": AgentModelSpec,
    "price": PriceSpec,
    "defaults": DefaultsSpec,
    "retries": RetriesSpec,
    "schedule": ScheduleSpec,
    "asset": AssetSpec,
    "param": ParamSpec,
    "stage": StageSpec,
    "gate": GateForm,
    "policy": PolicySpec,
    "repository": RepositorySpec,
    "waiver": WaiverSpec,
    "templates": TemplateFileSpec,
    "template": TemplateSpec,
}
GATE = {"metric": "coverage.line", "at_least": 10}
BASE: dict[str, Any] = {
    "pipeline": "p",
    "params": {
        "s": {"type": "string", "default": "abc"},
        "i": {"type": "integer", "default": 4},
        "a": {"type": "array", "default": ["x"]},
    },
    "schedule": {"cron": "0 1 * * *"},
    "stages": {
        "s": {"agent": "scaffold", "with": {"name": "greeter"}},
        "v": {"agent": "validate", "gates": [GATE]},
        "w": {"agent": "validate"},
        "r1": {"agent": "validate", "needs": ["v", "w"], "repair": {"attempts": 1}},
        "r2": {"agent": "validate", "repair": {"agent": "update_dependencies"}},
        "d": {"agent": "deploy"},
        "c": {"extends": "checked"},
        "r": {"agent": "recover", "recovers": ["d"]},
        "b": {"extends": "back"},
    },
}
TEMPLATES: dict[str, Any] = {
    "templates": {"t": {"timeout": "7m"}, "checked": {"agent": "validate"}, "back": {"agent": "recover", "recovers": ["d"]}}
}
POLICY: dict[str, Any] = {
    "policy": "default",
    "gates": {"validate": ["coverage.branch >= 1", "coverage.line >= 5"]},
    "repositories": [{"url": "https://host/*"}],
    "budget": {"usd": 9, "tokens": 9_000_000},
    "models": {
        "model": "m",
        "fallback": "f",
        "agents": {"repair": {"effort": "low"}},
        "prices": {n: {"input": 1, "output": 2} for n in "mfg"},
    },
    "waivers": [{"agent": "validate", "metric": "tests.failed", "owner": "ann", "expires": "2026-01-01", "reason": "known"}],
}
SECOND_WAIVER = {"agent": "monitor", "metric": "availability", "owner": "x", "expires": "2026-01-01", "reason": "known"}
V, P, W, T = "stages.v", "params", "waivers.0", "^templates.checked"
REPAIR, PRICE = "!models.agents.repair", "!models.prices.m"
# field -> (path into the pipeline, new value); a path that starts with `!` leads into the policy, with `^` into the templates.
CASES: dict[str, tuple[str, Any]] = {
    "pipeline.pipeline": ("pipeline", "q"),
    "pipeline.description": ("description", "other"),
    "pipeline.owner": ("owner", "other"),
    "pipeline.tags": ("tags", ["x"]),
    "pipeline.policy": ("policy", "other"),
    "pipeline.params": ("params.more", {"type": "string", "default": ""}),
    "pipeline.schedule": ("schedule", None),
    "pipeline.limits": ("limits", {"runs": 2}),
    "pipeline.defaults": ("defaults", {"timeout": "6m"}),
    "pipeline.stages": ("stages.x", {"agent": "validate"}),
    "limits.runs": ("limits", {"runs": 2}),
    "limits.stages": ("limits", {"stages": 2}),
    "limits.duration": ("limits", {"duration": "2h"}),
    "pipeline.budget": ("budget", {"usd": 1}),
    "budget.usd": ("budget", {"usd": 1}),
    "budget.tokens": ("budget", {"tokens": 50_000}),
    "budget.warn_at": ("budget", {"warn_at": 0.5}),
    "stage.repair": ("stages.w.repair", {}),
    "repair.attempts": ("stages.r1.repair", {"attempts": 3}),
    "repair.may_change": ("stages.r1.repair", {"may_change": ["tests/*"]}),
    "repair.agent": ("stages.r1.repair", {"attempts": 1, "agent": "update_dependencies"}),
    "repair.with": ("stages.r2.repair.with", {"level": "major"}),
    "policy.models": ("!models", None),
    "policy.budget": ("!budget", {"usd": 2}),
    "models.model": ("!models.model", "g"),
    "models.connection": ("!models.connection", "c"),
    "models.effort": ("!models.effort", "low"),
    "models.max_tokens": ("!models.max_tokens", 999),
    "models.fallback": ("!models.fallback", "g"),
    "models.agents": ("!models.agents", {}),
    "models.prices": ("!models.prices.other", {"input": 1, "output": 1}),
    "agentmodel.model": (REPAIR, {"model": "f"}),
    "agentmodel.effort": (REPAIR, {"effort": "high"}),
    "agentmodel.max_tokens": (REPAIR, {"max_tokens": 999}),
    "agentmodel.fallback": (REPAIR, {"fallback": "g"}),
    "price.input": (PRICE, {"input": 3, "output": 2}),
    "price.output": (PRICE, {"input": 1, "output": 3}),
    "price.cache_write": (PRICE, {"input": 1, "output": 2, "cache_write": 3}),
    "price.cache_read": (PRICE, {"input": 1, "output": 2, "cache_read": 3}),
    "defaults.timeout": ("defaults", {"timeout": "6m"}),
    "defaults.retries": ("defaults", {"retries": {"attempts": 2}}),
    "defaults.pool": ("defaults", {"pool": "x"}),
    "defaults.queue": ("defaults", {"queue": "x"}),
    "defaults.priority": ("defaults", {"priority": 2}),
    "retries.attempts": (f"{V}.retries", {"attempts": 2}),
    "retries.first": (f"{V}.retries", {"first": "3s"}),
    "retries.factor": (f"{V}.retries", {"factor": 3}),
    "retries.most": (f"{V}.retries", {"most": "31s"}),
    "schedule.cron": ("schedule.cron", "@daily"),
    "schedule.timezone": ("schedule.timezone", "Europe/Berlin"),
    "schedule.start": ("schedule.start", "2025-01-01"),
    "schedule.assets": ("schedule", {"assets": ["s3://bucket/x"]}),
    "asset.name": ("schedule", {"assets": [{"name": "x", "uri": "s3://bucket/x"}]}),
    "asset.uri": ("schedule", {"assets": [{"name": "x", "uri": "s3://bucket/y"}]}),
    "param.type": (f"{P}.i.type", "number"),
    "param.default": (f"{P}.s.default", "x"),
    "param.title": (f"{P}.s.title", "x"),
    "param.description": (f"{P}.s.description", "x"),
    "param.pattern": (f"{P}.s.pattern", "^a"),
    "param.minLength": (f"{P}.s.minLength", 1),
    "param.maxLength": (f"{P}.s.maxLength", 9),
    "param.minimum": (f"{P}.i.minimum", 1),
    "param.maximum": (f"{P}.i.maximum", 9),
    "param.exclusiveMinimum": (f"{P}.i.exclusiveMinimum", 1),
    "param.exclusiveMaximum": (f"{P}.i.exclusiveMaximum", 9),
    "param.multipleOf": (f"{P}.i.multipleOf", 2),
    "param.enum": (f"{P}.s.enum", ["abc"]),
    "param.examples": (f"{P}.s.examples", ["abd"]),
    "param.format": (f"{P}.s.format", "multiline"),
    "param.items": (f"{P}.a.items", {"type": "string"}),
    "stage.extends": ("stages.w", {"agent": "validate", "extends": "t"}),
    "stage.agent": ("stages.w", {"agent": "scaffold", "with": {"name": "greeter"}}),
    "stage.with": (f"{V}.with", {"strict": True}),
    "stage.needs": ("stages.w.needs", ["s"]),
    "stage.when": (f"{V}.when", "params.i > 3"),
    "stage.matrix": (f"{V}.matrix", {"strict": [True, False]}),
    "stage.gates": (f"{V}.gates", []),
    "stage.timeout": (f"{V}.timeout", "6m"),
    "stage.retries": (f"{V}.retries", {"attempts": 2}),
    "stage.pool": (f"{V}.pool", "x"),
    "stage.queue": (f"{V}.queue", "x"),
    "stage.priority": (f"{V}.priority", 2),
    "stage.recovers": ("stages.r.recovers", ["d", "w"]),
    "stage.continue_on_failure": (f"{V}.continue_on_failure", True),
    "gate.metric": (f"{V}.gates", [GATE | {"metric": "coverage.branch"}]),
    "gate.at_least": (f"{V}.gates", [GATE | {"at_least": 11}]),
    "gate.at_most": (f"{V}.gates", [{"metric": "tests.skipped", "at_most": 3}]),
    "gate.above": (f"{V}.gates", [{"metric": "coverage.line", "above": 10}]),
    "gate.below": (f"{V}.gates", [{"metric": "tests.skipped", "below": 3}]),
    "gate.equals": (f"{V}.gates", [{"metric": "tests.skipped", "equals": 3}]),
    "gate.blocking": (f"{V}.gates", [GATE | {"blocking": False}]),
    "policy.policy": ("!policy", "another"),
    "policy.description": ("!description", "other"),
    "policy.gates": ("!gates", {"validate": ["coverage.line >= 5"]}),
    "policy.repositories": ("!repositories", []),
    "policy.unisolated": ("!unisolated", True),
    "policy.pools": ("!pools", {"browsers": 2}),
    "policy.services": ("!services", {"postgres": "tests_db"}),
    "policy.waivers": ("!waivers", []),
    "repository.url": ("!repositories.0.url", "https://other/*"),
    "repository.trusted": ("!repositories.0.trusted", True),
    "repository.connection": ("!repositories.0.connection", "git"),
    "repository.forge": ("!repositories.0.forge", "github"),
    "repository.api": ("!repositories.0", {"url": "https://host/*", "forge": "github", "api": "https://host/api/v3"}),
    "waiver.agent": (f"!{W}", SECOND_WAIVER),
    "waiver.metric": (f"!{W}.metric", "lint.errors"),
    "waiver.owner": (f"!{W}.owner", "bob"),
    "waiver.expires": (f"!{W}.expires", "2026-01-02"),
    "waiver.reason": (f"!{W}.reason", "another"),
    "templates.templates": ("^templates.checked", {"agent": "monitor"}),
    "template.extends": (f"{T}.extends", "t"),
    "template.agent": (f"{T}.agent", "monitor"),
    "template.with": (f"{T}.with", {"strict": True}),
    "template.needs": (f"{T}.needs", ["s", "d"]),
    "template.when": (f"{T}.when", "params.i > 3"),
    "template.matrix": (f"{T}.matrix", {"strict": [True, False]}),
    "template.gates": (f"{T}.gates", ["coverage.line >= 50"]),
    "template.repair": (f"{T}.repair", {}),
    "template.timeout": (f"{T}.timeout", "6m"),
    "template.retries": (f"{T}.retries", {"attempts": 2}),
    "template.pool": (f"{T}.pool", "x"),
    "template.queue": (f"{T}.queue", "x"),
    "template.priority": (f"{T}.priority", 2),
    "template.recovers": ("^templates.back.recovers", ["d", "w"]),
    "template.continue_on_failure": (f"{T}.continue_on_failure", True),
}
# Says what a policy is for, to its readers; it acts in no run.
TEXT_ONLY = {"policy.description"}


def planned(pipeline: Any, policy: Any, templates: Any) -> dict[str, Any]:
    found = load_policy(yaml.safe_dump(policy, sort_keys=False).encode(), "default.yaml", AGENTS)
    policies = {"default": found, "other": load_policy(b"policy: other\n", "other.yaml", AGENTS)}
    content = yaml.safe_dump(pipeline, sort_keys=False).encode()
    extended = load_templates({"templates/t.yaml": yaml.safe_dump(templates, sort_keys=False).encode()})
    loaded = load_pipeline(content, "p.yaml", AGENTS, policies | {found.name: found}, extended)
    result = json.loads(plan(loaded, AGENTS).to_json())
    del result["digest"]  # it changes with every byte
    return result


def changed(data: Any, path: str, value: Any) -> Any:
    copy = json.loads(json.dumps(data))
    *folders, last = path.split(".")
    place = copy
    for part in folders:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    place[int(last) if isinstance(place, list) else last] = value
    return copy


FIELDS = [f"{name}.{field}" for name, model in MODELS.items() for field in fields_of(model)]


@pytest.mark.parametrize("field", FIELDS)
def test_field_changes_the_plan(field):
    path, value = CASES[field]
    files = {"": BASE, "!": POLICY, "^": TEMPLATES}
    place = path[0] if path[0] in files else ""
    files[place] = changed(files[place], path.removeprefix(place), value)
    if field == "policy.policy":
        files[""] = BASE | {"policy": "another"}
    assert (planned(*files.values()) != planned(BASE, POLICY, TEMPLATES)) is (field not in TEXT_ONLY)
