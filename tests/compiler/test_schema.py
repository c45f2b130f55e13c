"""The JSON Schema accepts what check accepts, and refuses what check refuses for its shape."""

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from taxiway.agents import registry
from taxiway.compiler.schema import pipeline_schema, schema_text

ROOT = Path(__file__).parents[2]
AGENTS = registry()
VALIDATOR = Draft202012Validator(pipeline_schema(AGENTS))
WAIVER = "waivers: [{agent: validate, metric: tests.failed, owner: ann, expires: '2027-01-01', reason: known}]"
ONE = "pipeline: p\nstages:\n  s: "


def errors(text: str) -> list[str]:
    return [e.message for e in VALIDATOR.iter_errors(yaml.safe_load(text))]


def test_it_is_a_schema():
    Draft202012Validator.check_schema(pipeline_schema(AGENTS))


def test_the_committed_one_is_up_to_date():
    assert (ROOT / "schemas" / "pipeline.schema.json").read_text() == schema_text(AGENTS)


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").rglob("*.yaml")), ids=lambda p: str(p.relative_to(ROOT / "pipelines")))
def test_shipped_files_fit_and_name_the_schema(path):
    text = path.read_text()
    assert errors(text) == []
    line = text.splitlines()[0]
    assert line.startswith("# yaml-language-server: $schema=")
    assert (path.parent / line.partition("=")[2]).resolve() == ROOT / "schemas" / "pipeline.schema.json"


@pytest.mark.parametrize(
    "text",
    [
        ONE + "{agent: scaffold, with: {name: '{{ params.x }}'}}",
        ONE + "{agent: scaffold, with: {template: none, requirements: Greet in German}}",
        ONE + "{agent: scaffold, with: {template: '{{ params.x }}'}}",
        ONE + "{agent: validate, with: {checks: ['{{ params.x }}']}}",
        ONE + "{agent: validate, with: {checks: '{{ params.x }}', strict: '{{ params.y }}'}}",
        ONE + "{agent: validate, needs: [], gates: [{metric: coverage.line, above: 1}], when: params.x}",
        ONE + "{agent: validate, matrix: {strict: [true, false], python: ['3.11'], n: [1]}}",
        ONE + "{extends: x}",
        ONE + "{extends: x, agent: scaffold}",
        "templates: {x: {agent: scaffold, timeout: 5m}, y: {extends: x, with: {name: '{{ params.x }}'}}}",
        "policy: default",
        "policy: p\ngates: {validate: [coverage.line >= 8, {metric: tests.total, above: 3}]}\npools: {x: 2}\nunisolated: true",
        "policy: p\nrepositories: [{url: 'https://h/*', trusted: true, connection: c}]",
        "policy: p\n" + WAIVER,
        "policy: p\n" + ONE + "{agent: validate}",
        "schedule: '@daily'\n" + ONE + "{agent: validate}",
        "schedule: {cron: '0 1 * * *', timezone: UTC}\n" + ONE + "{agent: validate}",
        "params: {a: {type: array, items: {type: string}, default: []}}\n" + ONE + "{agent: validate}",
    ],
)
def test_it_accepts(text):
    assert errors(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "policy: Bad",
        "policy: p\ngates: {ghost: []}",
        "policy: p\ngates: {scaffold: [x > 1]}",
        "policy: p\ngates: {validate: [coverage.line 80]}",
        "policy: p\ngates: {validate: [{metric: availability, above: 1}]}",
        "policy: p\nowner: me",
        "policy: p\nmodels: {agents: {validate: {effort: low}}}",
        "policy: p\nrepositories: [{trusted: true}]",
        "policy: p\npools: {x: 0}",
        "policy: p\n" + WAIVER.replace("tests.failed", "availability"),
        "policy: p\n" + WAIVER.replace(", reason: known", ""),
        "pipeline: p",
        "pipeline: Bad\nstages:\n  s: {agent: validate}",
        "pipeline: p\nstages: {}",
        "pipeline: p\nstages:\n  S: {agent: validate}",
        "pipeline: p\nstages:\n  outcome: {agent: validate}",
        "budget: {usd: 0}\n" + ONE + "{agent: validate}",
        "limits: {runs: 0}\n" + ONE + "{agent: validate}",
        "limits: {duration: soon}\n" + ONE + "{agent: validate}",
        "tags: x\n" + ONE + "{agent: validate}",
        "params: {x: {type: strin}}\n" + ONE + "{agent: validate}",
        "params: {X: {type: string}}\n" + ONE + "{agent: validate}",
        "schedule: {timezone: UTC}\n" + ONE + "{agent: validate}",
        ONE + "{agent: nobody}",
        ONE + "{}",
        ONE + "{agent: validate, matrix: {}}",
        ONE + "{agent: validate, matrix: {x: []}}",
        ONE + "{agent: validate, matrix: {x: [null]}}",
        ONE + "{agent: validate, matrix: {x: [3.1]}}",
        ONE + "{agent: deploy, matrix: {strategy: [recreate]}}",
        "templates: {}",
        "templates: {x: {agent: validate, gate: []}}",
        "templates: {x: {agent: validate}}\npipeline: p",
        "templates: {x: {agent: validate, with: {cheks: []}}}",
        ONE + "{agent: validate, timeout: 5x}",
        ONE + "{agent: validate, retries: {attempts: 99}}",
        ONE + "{agent: validate, gates: [coverage.line 80]}",
        ONE + "{agent: validate, gates: [{metric: coverage.line}]}",
        ONE + "{agent: validate, gates: [{metric: coverage.line, above: 1, below: 2}]}",
        ONE + "{agent: validate, gates: [{metric: cov, above: 1}]}",
        ONE + "{agent: scaffold, with: {name: aa}, gates: [x > 1]}",
        ONE + "{agent: validate, with: {cheks: []}}",
        ONE + "{agent: validate, with: {checks: [all]}}",
        ONE + "{agent: scaffold}",
        ONE + "{agent: scaffold, with: {}}",
        ONE + "{agent: scaffold, with: {template: python-library}}",
        ONE + "{agent: scaffold, with: {name: Bad Name}}",
        ONE + "{agent: recover}",
        ONE + "{agent: diagnose}",
        ONE + "{agent: diagnose, recovers: []}",
        ONE + "{agent: validate, recovers: [x]}",
    ],
)
def test_it_refuses(text):
    assert errors(text)


def test_every_field_has_a_description():
    schema = pipeline_schema(AGENTS)
    places = {"": schema, **schema["$defs"]}
    bare = [
        f"{name}.{key}" for name, part in places.items() for key, field in part.get("properties", {}).items() if "description" not in field
    ]
    assert bare == []
