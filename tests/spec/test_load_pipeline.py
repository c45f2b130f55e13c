"""Every problem of a pipeline file is found, at its line and column, with a hint."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from taxiway.agents import registry
from taxiway.errors import SpecError
from taxiway.spec import Pipeline, load_pipeline, load_policy

AGENTS = registry()
POLICIES = {
    "strict": load_policy(
        b"policy: strict\ngates:\n  validate: [coverage.line >= 80, {metric: types.suppressed, at_most: 5, blocking: false}]\n",
        "policies/strict.yaml",
        AGENTS,
    ),
    "secret": load_policy(
        b"policy: secret\ngates: {validate: [secrets.found == 0, secrets.possible <= 9, tests.total >= 3]}\n"
        b"waivers: [{agent: validate, metric: tests.total, owner: ann, expires: 2027-01-01, reason: legacy}]\n",
        "policies/secret.yaml",
        AGENTS,
    ),
    "watched": load_policy(b"policy: watched\ngates:\n  monitor: [availability >= 0.95]\n", "policies/watched.yaml", AGENTS),
}
HEAD = "pipeline: p\n"


def problems(text: str | bytes) -> list[tuple[int, int, str, str, str]]:
    content = text if isinstance(text, bytes) else text.encode()
    try:
        load_pipeline(content, "p.yaml", AGENTS, POLICIES)
    except SpecError as error:
        assert all(p.at.path == "p.yaml" for p in error.problems)  # noqa: PT017 - either may happen
        assert all(p.hint for p in error.problems)  # noqa: PT017 - either may happen
        return [(p.at.line, p.at.column, p.rule, p.problem, p.hint) for p in error.problems]
    return []


def stages(text: str) -> str:
    return HEAD + "stages:\n" + textwrap.indent(textwrap.dedent(text).strip(), "  ") + "\n"


GOOD = stages("""
    s: {agent: scaffold, with: {name: greeter}}
    v: {agent: validate}
    d: {agent: deploy}
    m: {agent: monitor, with: {for: 3s}}
    r: {agent: recover, recovers: [d, m]}
""")


def test_a_good_file_is_a_pipeline():
    pipeline = load_pipeline(b"\xef\xbb\xbf" + GOOD.encode(), "p.yaml", AGENTS, {})
    assert isinstance(pipeline, Pipeline)
    assert pipeline.needs == {"s": (), "v": ("s",), "d": ("v",), "m": ("d",), "r": ("d", "m")}
    assert pipeline.lines["v"] == 4


FILES = {
    "empty": (b"", (1, 1, "empty")),
    "only a comment": (b"# nothing\n", (1, 1, "empty")),
    "null": (b"~\n", (1, 1, "empty")),
    "a list": (b"- a\n", (1, 1, "wrong-type")),
    "a text": (b"hello\n", (1, 1, "wrong-type")),
    "not UTF-8": (b"pipeline: p\nowner: \xff\n", (2, 8, "not-utf-8")),
    "UTF-16": ("pipeline: p".encode("utf-16"), (1, 1, "not-utf-8")),
    "NUL": (b"pipeline: p\x00\n", (1, 12, "control-character")),
    "escape": (b"pipeline: p\nowner: \x1b[31m\n", (2, 8, "control-character")),
    "escaped NUL": (b'pipeline: p\nowner: "a\\0b"\n', (2, 8, "control-character")),
    "over 1 MiB": (b"#" * 1_048_577, (1, 1, "too-large")),
    "tab": (b"pipeline: p\nstages:\n\ts: {agent: scaffold}\n", (3, 1, "tab")),
    "two documents": (GOOD.encode() + b"---\na: 1\n", (8, 1, "two-documents")),
    "bad YAML": (b"pipeline: [p\nstages: {\n", None),
    "python tag": (b"pipeline: !!python/object/apply:os.system [id]\n", (1, 11, "tag")),
    "include tag": (b"pipeline: p\nstages: !include other.yaml\n", (2, 9, "tag")),
    "str tag": (b"pipeline: !!str p\n", (1, 11, "tag")),
    "merge key": (b"pipeline: p\nlimits:\n  <<: {runs: 1}\n", (3, 3, "merge-key")),
    "list as key": (b"pipeline: p\n? [a]\n: b\n", (2, 3, "key-not-text")),
    "on as key": (b"pipeline: p\non: b\n", (2, 1, "ambiguous")),
    "yes": (b"pipeline: yes\n", (1, 11, "ambiguous")),
    "octal": (b"pipeline: p\nlimits: {runs: 010}\n", (2, 16, "ambiguous")),
    "sexagesimal": (b"pipeline: p\nlimits: {duration: 1:30}\n", (2, 20, "ambiguous")),
    "number as key": (b"pipeline: p\n1: b\n", (2, 1, "key-not-text")),
    "nan": (b"pipeline: p\ndefaults: {retries: {factor: .nan}}\n", (2, 30, "not-finite")),
    "inf": (b"pipeline: p\ndefaults: {retries: {factor: 1.0e999}}\n", (2, 30, "not-finite")),
    "alias in itself": (b"pipeline: &a [*a]\n", (1, 15, "alias")),
    "alias of nothing": (b"pipeline: *a\n", (1, 11, "alias")),
    "deep": (b"pipeline: " + b"[" * 5000, (1, 50, "too-deep")),
    "deep by indentation": (b"".join(b" " * i + b"- a:\n" for i in range(100)), None),
    "duplicate key": (b"pipeline: p\npipeline: q\n", (2, 1, "duplicate-key")),
}


@pytest.mark.parametrize(("content", "expected"), FILES.values(), ids=FILES)
def test_a_file_that_cannot_be_read_is_refused(content, expected):
    found = problems(content)
    assert found
    if expected:
        assert expected in [p[:3] for p in found]


def test_an_alias_bomb_is_refused_at_once():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    assert [p[2] for p in problems("\n".join(lines))] == ["too-large"]


def test_aliases_of_values_are_allowed():
    text = HEAD + "stages:\n  s: {agent: scaffold, with: {name: &n greeter}}\n  d: {agent: deploy, with: {service: *n}}\n"
    assert problems(text) == []


TOP = {
    "unknown key": ("descripton: x", (2, 1, "unknown-key"), "did you mean 'description'?"),
    "later field": ("approval: {by: ann}", (2, 1, "not-supported"), "remove it"),
    "later in a schedule": ("schedule: {cron: '@daily', catchup: true}", (2, 28, "not-supported"), "remove it"),
    "a schedule without a word": ("schedule: {}", (2, 11, "missing-key"), "assets"),
    "a timezone alone": ("schedule: {timezone: UTC}", (2, 11, "missing-key"), "cron"),
    "a cron beside assets": ("schedule: {cron: '@daily', assets: [x]}", (2, 12, "bad-schedule"), "remove one"),
    "a timezone beside assets": ("schedule: {assets: [x], timezone: UTC}", (2, 25, "bad-schedule"), "remove one"),
    "no assets": ("schedule: {assets: []}", (2, 20, "out-of-range"), "at least 1"),
    "an asset with a line break": ('schedule: {assets: ["a\\nb"]}', (2, 21, "bad-value"), "matches"),
    "an asset of Airflow's": ("schedule: {assets: ['airflow://x']}", (2, 21, "bad-value"), "scheme"),
    "an asset without a name": ("schedule: {assets: [{uri: 's3://b/x'}]}", (2, 21, "missing-key"), "name"),
    "no default for assets": ("schedule: {assets: [x]}\nparams: {x: {type: string}}", (3, 10, "schedule-without-default"), "default"),
    "a pool at the top": ("pool: x", (2, 1, "unknown-key"), "below `defaults:`"),
    "a pool with a space": ("defaults: {pool: a b}", (2, 18, "bad-value"), "matches"),
    "no priority": ("defaults: {priority: 0}", (2, 22, "out-of-range"), "at least 1"),
    "wrong type": ("tags: service", (2, 7, "wrong-type"), "[a, b]"),
    "empty value": ("limits:", (2, 8, "wrong-type"), "write a value"),
    "bool as number": ("limits: {runs: true}", (2, 16, "wrong-type"), "digits"),
    "text as number": ("limits: {runs: '4'}", (2, 16, "wrong-type"), "without quotes"),
    "number as text": ("owner: 5", (2, 8, "wrong-type"), "quote"),
    "below": ("limits: {runs: 0}", (2, 16, "out-of-range"), "at least 1"),
    "above": ("defaults: {retries: {attempts: 11}}", (2, 32, "out-of-range"), "at most 10"),
    "a number as duration": ("defaults: {timeout: 10}", (2, 21, "wrong-type"), "10s"),
    "an empty range": ("params: {x: {type: integer, minimum: 5, maximum: 4}}", (2, 50, "bad-param"), "mend"),
    "an empty range of lengths": ("params: {x: {type: string, minLength: 5, maxLength: 4}}", (2, 53, "bad-param"), "mend"),
    "bad duration": ("defaults: {timeout: 5 minutes}", (2, 21, "bad-duration"), "5m"),
    "duration out of range": ("limits: {duration: 30d}", (2, 20, "out-of-range"), "7d"),
    "waits": ("defaults: {retries: {first: 1m}}", (2, 21, "out-of-range"), "most"),
    "bad cron": ("schedule: '61 * * * *'", (2, 11, "bad-cron"), "five fields"),
    "six fields": ("schedule: '0 0 * * * *'", (2, 11, "bad-cron"), "five fields"),
    "no such day": ("schedule: '0 0 31 2 *'", (2, 11, "bad-cron"), "five fields"),
    "bad preset": ("schedule: '@dayly'", (2, 11, "bad-cron"), "@daily"),
    "bad cron in mapping": ("schedule: {cron: x}", (2, 18, "bad-cron"), "five fields"),
    "bad timezone": ("schedule: {cron: '@daily', timezone: Europe/Berln}", (2, 38, "bad-timezone"), "Europe/Berlin"),
    "timezone as path": ("schedule: {cron: '@daily', timezone: ../../etc/passwd}", (2, 38, "bad-timezone"), ""),
    "bad start": ("schedule: {cron: '@daily', start: 2026-02-30}", (2, 35, "bad-date"), "2026-12-31"),
    "unknown policy": ("policy: strikt", (2, 9, "unknown-policy"), "strict"),
    "no default": ("schedule: '@daily'\nparams: {x: {type: string}}", (3, 10, "schedule-without-default"), "default"),
    "bad param id": ("params: {Bad-Name: {type: string}}", (2, 10, "bad-id"), "match"),
    "param without type": ("params: {x: {default: 1}}", (2, 13, "missing-key"), "type"),
    "bad type": ("params: {x: {type: strin}}", (2, 20, "bad-value"), "string"),
    "default refused": ("params: {x: {type: integer, default: a}}", (2, 38, "bad-param"), "mend"),
    "default out of enum": ("params: {x: {type: string, default: c, enum: [a, b]}}", (2, 37, "bad-param"), "mend"),
    "bad pattern": ("params: {x: {type: string, pattern: '('}}", (2, 37, "bad-pattern"), "re"),
    "look-around": ("params: {x: {type: string, pattern: '^(?=a)'}}", (2, 37, "bad-pattern"), "look-around"),
    "endless pattern": (f"params: {{x: {{type: string, default: {'a' * 60}b, pattern: '^(a|a)*$'}}}}", (2, 37, "bad-param"), "mend"),
    "keyword of another type": ("params: {x: {type: boolean, pattern: a}}", (2, 29, "bad-param"), "remove"),
    "unknown keyword": ("params: {x: {type: string, minlength: 1}}", (2, 28, "unknown-key"), "minLength"),
    "repository is text": ("params: {repository: {type: integer}}", (2, 29, "bad-param"), "URL"),
    "bad items": ("params: {x: {type: array, items: {type: nothing}}}", (2, 34, "bad-param"), "string"),
    "bad format": ("params: {x: {type: string, format: multi}}", (2, 36, "bad-value"), "multiline"),
}


@pytest.mark.parametrize(("line", "place", "hint"), TOP.values(), ids=TOP)
def test_fields_of_the_pipeline(line, place, hint):
    found = problems(HEAD + line + "\n" + GOOD.removeprefix(HEAD))
    assert [p[:3] for p in found] == [place]
    assert hint in found[0][4]


STAGES = {
    "invalid pipeline id": ("pipeline: Web-1\n" + GOOD.removeprefix(HEAD), [(1, 11, "bad-id")], "'Web-1'"),
    "no stages": (HEAD, [(1, 1, "missing-key")], "stages"),
    "empty stages": (HEAD + "stages: {}\n", [(2, 9, "out-of-range")], "stages"),
    "stages as list": (HEAD + "stages: [a]\n", [(2, 9, "wrong-type")], "mapping"),
    "stage as text": (stages("s: scaffold"), [(3, 6, "wrong-type")], "mapping"),
    "no agent": (stages("s: {when: 'true'}"), [(3, 6, "missing-key")], "agent"),
    "invalid stage id": (stages("S-1: {agent: validate}"), [(3, 3, "bad-id")], "S-1"),
    "reserved pipeline": ("pipeline: taxiway_gc\nstages:\n  a: {agent: validate}\n", [(1, 11, "bad-id")], "names that begin with taxiway_"),
    "reserved id": (stages("outcome: {agent: validate}"), [(3, 3, "bad-id")], "taken"),
    "unknown agent": (stages("s: {agent: scafold}"), [(3, 14, "unknown-agent")], "scafold"),
    "repair of a writer": (stages("s: {agent: scaffold, with: {name: shop}, repair: {}}"), [(3, 44, "bad-repair")], "a failed"),
    "repair in cells": (
        stages("v: {agent: validate, matrix: {strict: [true, false]}, repair: {}}"),
        [(3, 57, "bad-repair")],
        "has cells",
    ),
    "repairs side by side": (
        stages("v: {agent: validate, repair: {}}\nw: {agent: validate, needs: []}"),
        [(4, 31, "two-writers")],
        "beside",
    ),
    "too many repairs": (stages("v: {agent: validate, repair: {attempts: 9}}"), [(3, 43, "out-of-range")], "attempts"),
    "a repair by nobody": (stages("v: {agent: validate, repair: {agent: fixer}}"), [(3, 40, "unknown-agent")], "fixer"),
    "a repair by who only looks": (stages("v: {agent: validate, repair: {agent: monitor}}"), [(3, 40, "bad-repair")], "changes no code"),
    "a repair by who merges": (stages("v: {agent: validate, repair: {agent: integrate}}"), [(3, 40, "bad-repair")], "changes no code"),
    "a model's repair with inputs": (stages("v: {agent: validate, repair: {with: {level: patch}}}"), [(3, 33, "bad-repair")], "'agent'"),
    "a repair with what its agent does not take": (
        stages("v: {agent: validate, repair: {agent: update_dependencies, with: {levl: patch}}}"),
        [(3, 68, "unknown-key")],
        "levl",
    ),
    "a repair that knows no such param": (
        stages("v: {agent: validate, repair: {agent: update_dependencies, with: {level: '{{ params.how }}'}}}"),
        None,
        "how",
    ),
    "a repair outside": (stages("v: {agent: validate, repair: {may_change: [a/../x]}}"), None, "no path of the project's own"),
    "a repair of git": (stages("v: {agent: validate, repair: {may_change: ['.git/*']}}"), None, "no path of the project's own"),
    "a repair of everything": (stages("v: {agent: validate, repair: {may_change: ['**']}}"), None, "all that judges it"),
    "a repair by half a pattern": (stages("v: {agent: validate, repair: {may_change: ['a[']}}"), None, "no pattern"),
    "a key where none belongs": (stages("v: {agent: validate, with: {api_key: sk-ant-api03-" + "a" * 30 + "}}"), None, "api_key"),
    "later field": (stages("s: {agent: validate, approval: {by: ann}}"), [(3, 24, "not-supported")], "approval"),
    "unknown field": (stages("s: {agent: validate, gate: []}"), [(3, 24, "unknown-key")], "gate"),
    "unknown needs": (stages("s: {agent: validate, needs: [ghost]}"), [(3, 32, "unknown-stage")], "ghost"),
    "self needs": (stages("s: {agent: validate, needs: [s]}"), [(3, 32, "cycle")], "itself"),
    "needs as text": (stages("a: {agent: validate}\nb: {agent: validate, needs: a}"), [(4, 31, "wrong-type")], "list"),
    "cycle": (
        stages("a: {agent: validate, needs: [c]}\nb: {agent: validate, needs: [a]}\nc: {agent: validate, needs: [b]}"),
        [(4, 31, "cycle")],
        "a -> b -> c -> a",
    ),
    "needs a recovery": (GOOD + "  x: {agent: validate, needs: [r]}\n", [(8, 32, "bad-recovery")], "recovery"),
    "two writers": (
        stages("a: {agent: scaffold, with: {name: aa}}\nb: {agent: scaffold, with: {name: bb}, needs: []}"),
        [(4, 49, "two-writers")],
        "beside",
    ),
    "a writer beside a reader": (
        stages("a: {agent: validate}\nb: {agent: scaffold, with: {name: bb}, needs: []}"),
        [(4, 49, "two-writers")],
        "beside",
    ),
    "a join of two commits": (
        stages(
            "a: {agent: validate}\nb: {agent: scaffold, with: {name: bb}, needs: [a]}\n"
            "c: {agent: validate, needs: [a]}\nd: {agent: validate, needs: [b, c]}"
        ),
        [(5, 31, "two-writers")],
        "beside",
    ),
    "two deploys": (
        stages("d: {agent: deploy, with: {service: one}}\ne: {agent: deploy, with: {service: two}, needs: []}"),
        [(4, 51, "two-writers")],
        "both deploy",
    ),
    "gates that contradict each other": (
        stages("v: {agent: validate, gates: [coverage.line >= 90, coverage.line < 80]}"),
        [(3, 53, "contradiction")],
        "no value passes `coverage.line < 80` and `coverage.line >= 90`",
    ),
    "a gate that contradicts the default": (
        stages("v: {agent: validate, gates: [tests.failed > 3]}"),
        [(3, 32, "contradiction")],
        "the default of agent 'validate'",
    ),
    "a number compared with a text": (
        HEAD + "params: {n: {type: integer, default: 1}}\n" + stages("v: {agent: validate, when: params.n > 'a'}").removeprefix(HEAD),
        [(4, 30, "bad-condition")],
        "compares a number with a text",
    ),
    "an axis compared with another type": (
        stages("v: {agent: validate, matrix: {strict: [true]}, when: matrix.strict == 'true'}"),
        [(3, 56, "bad-condition")],
        "compares true or false with a text",
    ),
    "a merge key": (stages("s: {<<: {agent: validate}}"), [(3, 7, "merge-key")], "merge keys"),
    "bad gate": (stages("v: {agent: validate, gates: [coverage.line > 80%]}"), [(3, 32, "bad-gate")], "80%"),
    "gate without threshold": (stages("v: {agent: validate, gates: [{metric: coverage.line}]}"), [(3, 32, "bad-gate")], "one threshold"),
    "gate with two": (
        stages("v: {agent: validate, gates: [{metric: coverage.line, above: 1, below: 9}]}"),
        [(3, 32, "bad-gate")],
        "one threshold",
    ),
    "gate with a typo": (stages("v: {agent: validate, gates: [{metric: coverage.line, atleast: 1}]}"), [(3, 56, "unknown-key")], "atleast"),
    "unknown metric": (stages("v: {agent: validate, gates: [coverage.lines >= 80]}"), [(3, 32, "unknown-metric")], "coverage.lines"),
    "gates on what measures nothing": (
        stages("s: {agent: scaffold, with: {name: aa}, gates: [x > 1]}"),
        [(3, 50, "unknown-metric")],
        "measures nothing",
    ),
    "weaker than the default": (
        stages("v: {agent: validate, gates: [tests.failed <= 3]}"),
        [(3, 32, "loosens-policy")],
        "tests.failed == 0",
    ),
    "default unblocked": (
        stages("v: {agent: validate, gates: [{metric: tests.failed, equals: 0, blocking: false}]}"),
        [(3, 32, "loosens-policy")],
        "does not block",
    ),
    "weaker than the default of a check that a template may choose": (
        stages('v: {agent: validate, with: {checks: ["{{ run.id }}"]}, gates: [lint.errors <= 3]}'),
        [(3, 66, "loosens-policy")],
        "lint.errors == 0",
    ),
    "weaker than the policy": (
        "policy: strict\n" + stages("v: {agent: validate, gates: [tests.total >= 2, coverage.line >= 79]}"),
        [(4, 50, "loosens-policy")],
        "policy 'strict'",
    ),
    "a gate that no check measures": (
        stages(
            "v: {agent: validate, with: {checks: [lint]}, gates: [security.high == 0, {metric: tests.total, above: 9, blocking: false}]}"
        ),
        [(3, 56, "never-measured")],
        "could never pass: add `security` to checks",
    ),
    "a gate that no default check measures": (
        stages("v: {agent: validate, gates: [tests.total >= 2, complexity.max <= 10]}"),
        [(3, 50, "never-measured")],
        "`complexity.max <= 10` needs complexity.max, which only 'complexity' in `checks` measures",
    ),
    "the policy's gates that no check measures": (
        "policy: secret\n" + stages("v: {agent: validate, with: {checks: [lint]}}"),
        [(4, 39, "never-measured")],
        "policy 'secret' needs secrets.found and secrets.possible, which only 'secrets' in `checks` measures",
    ),
    "a gate that one cell does not measure": (
        stages("v: {agent: validate, matrix: {x: [lint, tests]}, with: {checks: ['{{ matrix.x }}']}, gates: [tests.total >= 2]}"),
        [(3, 96, "never-measured")],
        "add `tests` to checks",
    ),
    "what the policy wants": ("policy: strict\n" + stages("d: {agent: deploy}"), [(4, 3, "policy-requires")], "'validate' before 'deploy'"),
    "what the policy wants after a deploy": (
        "policy: watched\n" + stages("d: {agent: deploy}"),
        [(4, 3, "policy-requires")],
        "'monitor' after 'deploy'",
    ),
    "a skip that the policy stops": (
        "policy: watched\n" + stages("d: {agent: deploy}\nm: {agent: monitor, when: run.attempt > 1}"),
        [(5, 29, "loosens-policy")],
        "may not be skipped",
    ),
    "a failure that the policy stops": (
        "policy: watched\n" + stages("d: {agent: deploy}\nm: {agent: monitor, continue_on_failure: true}"),
        [(5, 44, "loosens-policy")],
        "policy 'watched'",
    ),
    "unknown input": (stages("v: {agent: validate, with: {cheks: [lint]}}"), [(3, 31, "unknown-key")], "cheks"),
    "missing input": (stages("s: {agent: scaffold}"), [(3, 6, "missing-key")], "name"),
    "a name without a template": (
        stages("s: {agent: scaffold, with: {template: none, bug: x, name: aa}}"),
        [(3, 61, "idle-input")],
        "name",
    ),
    "nothing to build": (stages("s: {agent: scaffold, with: {template: none}}"), [(3, 30, "missing-key")], "requirements"),
    "a bug and requirements": (
        stages("s: {agent: scaffold, with: {template: none, bug: x, requirements: y}}"),
        [(3, 69, "idle-input")],
        "`requirements` beside `bug`",
    ),
    "a bug of a new project": (stages("s: {agent: scaffold, with: {name: aa, bug: x}}"), [(3, 46, "idle-input")], "new project"),
    "bad input": (stages("s: {agent: scaffold, with: {name: Bad Name}}"), [(3, 37, "bad-value")], "Bad Name"),
    "an input of another mode": (
        stages("v: {agent: validate}\ni: {agent: integrate, with: {wait: 5m}}"),
        [(4, 38, "idle-input")],
        "mode push opens no pull request",
    ),
    "a title without a pull request": (
        stages("v: {agent: validate}\ni: {agent: integrate, with: {mode: push, title: T}}"),
        [(4, 51, "idle-input")],
        "`title` does nothing here",
    ),
    "conflicts that nobody merges": (
        stages("v: {agent: validate}\ni: {agent: integrate, with: {strategy: fast-forward, conflicts: ours}}"),
        [(4, 67, "idle-input")],
        "merges no hunks",
    ),
    "bad choice": (stages("v: {agent: validate, with: {checks: [lint, tipes]}}"), [(3, 46, "bad-value")], "tipes"),
    "a value of later": (stages("d: {agent: deploy, with: {target: ecs}}"), [(3, 37, "not-supported")], "'ecs' is not supported yet"),
    "a value of never": (stages("d: {agent: deploy, with: {target: esc}}"), [(3, 37, "bad-value")], "cannot be 'esc'"),
    "a window longer than the timeout": (
        stages("d: {agent: deploy}\nm: {agent: monitor, with: {for: 10m}, timeout: 5m}"),
        [(4, 35, "out-of-time")],
        "'for' 10m does not fit into the stage's timeout of 5m",
    ),
    "a window as long as the default timeout": (
        stages("d: {agent: deploy}\nm: {agent: monitor, with: {for: 300s}}"),
        [(4, 35, "out-of-time")],
        "timeout of 5m",
    ),
    "a default window longer than the timeout": (
        stages("d: {agent: deploy}\nm: {agent: monitor, timeout: 30s}"),
        [(4, 6, "out-of-time")],
        "'for' 30s does not fit",
    ),
    "a window longer than the run": (
        HEAD
        + "limits: {duration: 8m}\ndefaults: {timeout: 1h}\n"
        + stages("d: {agent: deploy}\nm: {agent: monitor, with: {for: 10m}}").removeprefix(HEAD),
        [(6, 35, "out-of-time")],
        "`limits.duration` of 8m",
    ),
    "default of a param does not fit": (
        HEAD
        + "params: {n: {type: string, default: X Y}}\n"
        + stages("s: {agent: scaffold, with: {name: '{{ params.n }}'}}").removeprefix(HEAD),
        [(4, 37, "bad-value")],
        "X Y",
    ),
    "template syntax": (stages("s: {agent: scaffold, with: {name: '{{ params.'}}"), [(3, 37, "bad-template")], "read"),
    "template statement": (
        stages("s: {agent: scaffold, with: {name: '{% for x in [1] %}a{% endfor %}'}}"),
        [(3, 37, "bad-template")],
        "'for'",
    ),
    "template call": (stages("s: {agent: scaffold, with: {name: '{{ run.id.upper() }}'}}"), [(3, 37, "bad-template")], "'call'"),
    "template power": (stages("s: {agent: scaffold, with: {name: '{{ 9 ** 9 }}'}}"), [(3, 37, "bad-template")], "'pow'"),
    "template filter": (stages("s: {agent: scaffold, with: {name: '{{ run.id | uper }}'}}"), [(3, 37, "bad-template")], "'uper'"),
    "unknown name": (stages("s: {agent: scaffold, with: {name: '{{ parms.x }}'}}"), [(3, 37, "unknown-name")], "parms"),
    "unknown run field": (stages("s: {agent: scaffold, with: {name: '{{ run.idd }}'}}"), [(3, 37, "unknown-name")], "run.idd"),
    "unknown param": (stages("s: {agent: scaffold, with: {name: '{{ params.x }}'}}"), [(3, 37, "unknown-param")], "'x'"),
    "unknown stage": (
        stages("s: {agent: scaffold, with: {name: '{{ stages.x.outcome }}'}}"),
        [(3, 37, "unknown-stage")],
        "'x'",
    ),
    "a later stage": (
        stages("v: {agent: validate, when: stages.w.outcome == 'success'}\nw: {agent: validate}"),
        [(3, 30, "not-before")],
        "does not run before",
    ),
    "the stage itself": (stages("v: {agent: validate, when: stages.v.outcome == 'success'}"), [(3, 30, "not-before")], "itself"),
    "unknown metric of a stage": (
        stages("v: {agent: validate}\nw: {agent: validate, when: stages.v.metrics.coverage.lin > 9}"),
        [(4, 30, "unknown-metric")],
        "coverage.lin",
    ),
    "unknown output of a stage": (
        stages("v: {agent: validate}\nw: {agent: validate, when: stages.v.outputs.url == 'x'}"),
        [(4, 30, "unknown-metric")],
        "url",
    ),
    "unknown field of a stage": (
        stages("v: {agent: validate}\nw: {agent: validate, when: stages.v.sumary == 'x'}"),
        [(4, 30, "unknown-name")],
        "sumary",
    ),
    "a computed stage": (
        stages("v: {agent: validate}\nw: {agent: validate, when: \"stages[run.id].commit == 'x'\"}"),
        [(4, 30, "bad-template")],
        "expression",
    ),
    "when with braces": (stages("v: {agent: validate, when: '{{ true }}'}"), [(3, 30, "bad-template")], "braces"),
    "when without sense": (stages("v: {agent: validate, when: run.id ==}"), [(3, 30, "bad-template")], "read"),
    "when that breaks out": (stages("v: {agent: validate, when: 'true) }} x {{ (true'}"), [(3, 30, "bad-template")], ""),
    "when is a number": (stages("v: {agent: validate, when: '1 + 1'}"), [(3, 30, "bad-condition")], "neither"),
    "when is a text": (stages("v: {agent: validate, when: run.id}"), [(3, 30, "bad-condition")], "neither"),
    "when is a metric": (
        stages("v: {agent: validate}\nw: {agent: validate, when: stages.v.metrics.coverage.line}"),
        [(4, 30, "bad-condition")],
        "neither",
    ),
    "when is a bool, not text": (stages("v: {agent: validate, when: true}"), [(3, 30, "wrong-type")], "text"),
    "recovers by the wrong agent": (stages("d: {agent: deploy}\nv: {agent: validate, recovers: [d]}"), [(4, 24, "bad-recovery")], "undo"),
    "diagnose without recovers": (stages("d: {agent: deploy}\nw: {agent: diagnose}"), None, "does not say"),
    "a matrix of diagnoses": (
        stages("v: {agent: validate}\nw: {agent: diagnose, recovers: [v], matrix: {x: [a]}}"),
        None,
        "'diagnose' explains: its stage has no matrix",
    ),
    "after a diagnosis": (
        stages("v: {agent: validate}\nw: {agent: diagnose, recovers: [v]}\nd: {agent: deploy, needs: [w]}"),
        [(5, 30, "bad-recovery")],
        "only after a failure",
    ),
    "a threshold for nobody": (stages("i: {agent: integrate, with: {threshold: 0.9}}"), [(3, 43, "idle-input")], "no model is asked"),
    "a threshold beyond certainty": (
        stages("i: {agent: integrate, with: {conflicts: ask_model, threshold: 2}}"),
        None,
        "out of range",
    ),
    "recover without recovers": (stages("d: {agent: deploy}\nr: {agent: recover}"), None, "does not say"),
    "recovers unknown": (GOOD.replace("[d, m]", "[d, x]"), [(7, 37, "unknown-stage")], "'x'"),
    "recovers below": (
        stages("d: {agent: deploy}\nr: {agent: recover, recovers: [d, m]}\nm: {agent: monitor}"),
        [(4, 37, "bad-recovery")],
        "below",
    ),
    "recovery with needs": (GOOD.replace("recovers:", "needs: [s], recovers:"), [(7, 23, "bad-recovery")], "needs"),
    "nothing to recover": (stages("v: {agent: validate}\nr: {agent: recover, recovers: [v]}"), [(4, 3, "not-before")], "deploy"),
    "monitor before deploy": (stages("m: {agent: monitor}\nd: {agent: deploy}"), [(3, 3, "not-before")], "deploy"),
}


@pytest.mark.parametrize(("text", "places", "says"), STAGES.values(), ids=STAGES)
def test_stages(text, places, says):
    found = problems(text)
    assert found
    if places is not None:
        assert [p[:3] for p in found] == places
    assert any(says in f"{p[3]}; {p[4]}" for p in found)


@pytest.mark.parametrize(
    "checks", ["['{{ run.id }}']", "[lint, security]", "'{{ params.checks }}'"], ids=["known in a run", "named", "a param"]
)
def test_a_gate_that_a_check_may_measure_is_good(checks):
    text = stages(f"v: {{agent: validate, with: {{checks: {checks}}}, gates: [security.high == 0]}}")
    assert problems(text.replace("stages:", "params: {checks: {type: array}}\nstages:")) == []


def test_all_problems_of_a_file_are_found_at_once():
    text = """\
pipeline: Bad
colour: red
params: {n: {type: strin}, n: {type: string}}
limits: {runs: 0, duration: soon}
stages:
  a: {agent: scafold, needs: [c]}
  b: {agent: validate, gates: [x, coverage.lin > 1]}
  c: {agent: validate, when: params.zz, needs: [b, ghost], timeout: 1y}
"""
    assert [(line, rule) for line, _, rule, _, _ in problems(text)] == [
        (1, "bad-id"),
        (2, "unknown-key"),
        (3, "bad-value"),
        (3, "duplicate-key"),
        (4, "out-of-range"),
        (4, "bad-duration"),
        (6, "unknown-agent"),
        (7, "bad-gate"),
        (7, "unknown-metric"),
        (8, "cycle"),
        (8, "unknown-stage"),
        (8, "bad-duration"),
    ]


def test_a_problem_shows_its_line_and_a_caret():
    with pytest.raises(SpecError) as error:
        load_pipeline(b"pipeline: p\nstages:\n  s: {agent: scafold}\n", "p.yaml", AGENTS, {})
    assert str(error.value) == (
        "p.yaml:3:14: error: unknown agent 'scafold'\n      s: {agent: scafold}\n                 ^\n    hint: did you mean 'scaffold'?"
    )


@pytest.mark.parametrize(
    "value",
    ["{{ params.x }}", "a-{{ run.id }}", "{% if params.x %}a{% endif %}", "{{ params.x | lower }}", "{{ 'a' if params.x else 'b' }}"],
)
def test_a_template_fits_any_field(value):
    text = HEAD + "params: {x: {type: string}}\nstages:\n  s: {agent: scaffold, with: {name: " + repr(value).replace("'", '"') + "}}\n"
    assert problems(text.replace('"a"', "'a'").replace('"b"', "'b'")) == []


def test_the_default_policy_holds_where_none_is_named():
    policies = {"default": load_policy(b"policy: default\ngates: {validate: [coverage.line >= 80]}\n", "x", AGENTS)}
    with pytest.raises(SpecError, match="weaker"):
        load_pipeline(stages("v: {agent: validate, gates: [coverage.line >= 1]}").encode(), "p.yaml", AGENTS, policies)


def test_loading_imports_neither_airflow_nor_heavy_libraries():
    code = (
        "import sys; from pathlib import Path; from taxiway.agents import registry; from taxiway.compiler import compile_file; "
        "compile_file(Path(sys.argv[1]), registry()); "
        "print([m for m in ('airflow', 'copier', 'aiohttp', 'httpx', 'git', 'taxiway.integrations') if m in sys.modules])"
    )
    spec = Path(__file__).parents[2] / "pipelines" / "web_service.yaml"
    run = subprocess.run(
        [sys.executable, "-c", code, str(spec)], capture_output=True, text=True, timeout=120, check=True, env=dict(os.environ)
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ("{url: x, forge: bitbucket}", (2, 32, "bad-value")),
        ("{url: x, api: 'https://git.example.com'}", (2, 30, "bad-value")),
        ("{url: x, forge: github, api: 'http://git.example.com'}", (2, 45, "bad-value")),
        ("{url: x, forge: github, api: 'https://u:p@git.example.com'}", (2, 45, "bad-value")),
        ("{url: x, forge: github, api: 'https://git.example.com/a?b'}", (2, 45, "bad-value")),
        ("{url: x, forge: github, api: 'file:///etc'}", (2, 45, "bad-value")),
        ("{url: x, forge: github, api: 'https://git.example.com:8443/api/v3'}", None),
        ("{url: x, forge: gitlab, api: 'http://127.0.0.1:8080'}", None),
        ("{url: x, forge: gitlab}", None),
    ],
)
def test_the_forge_of_a_repository(entry, place):
    text = f"policy: p\nrepositories: [{entry}]\n".encode()
    if place is None:
        assert load_policy(text, "p.yaml", AGENTS).spec.repositories[0].forge
        return
    with pytest.raises(SpecError) as error:
        load_policy(text, "p.yaml", AGENTS)
    assert [(p.at.line, p.at.column, p.rule) for p in error.value.problems] == [place]


def test_a_mode_that_a_run_decides_takes_the_inputs_of_both():
    text = "params: {m: {type: string}}\n" + stages("i: {agent: integrate, with: {mode: '{{ params.m }}', wait: 5m}}").removeprefix(HEAD)
    assert problems(HEAD + text) == []


@pytest.mark.parametrize(
    ("gate", "rule", "says"),
    [
        ("tests.total >= 0", "idle-gate", "`tests.total >= 0` checks nothing: tests.total is always at least 0"),
        ("tests.total > -1", "idle-gate", "is always at least 0"),
        ("tests.total != -1", "idle-gate", "is always at least 0"),
        ("coverage.line <= 100", "idle-gate", "is always at least 0 and at most 100"),
        ("{metric: coverage.line, at_least: 0}", "idle-gate", "`coverage.line >= 0` checks nothing"),
        ("tests.total < 0", "contradiction", "no value passes `tests.total < 0`: tests.total is always at least 0"),
        ("coverage.line > 100", "contradiction", "no value passes `coverage.line > 100`"),
        ("coverage.line == 101", "contradiction", "no value passes `coverage.line == 101`"),
    ],
)
def test_a_gate_that_decides_nothing(gate, rule, says):
    pipeline = f"pipeline: p\nstages:\n  v:\n    agent: validate\n    gates:\n      - {gate}\n"
    policy = f"policy: p\ngates:\n  validate:\n    - {gate}\n"
    for load in (
        lambda: load_pipeline(pipeline.encode(), "p.yaml", AGENTS, {}),
        lambda: load_policy(policy.encode(), "p.yaml", AGENTS),
    ):
        with pytest.raises(SpecError) as refused:
            load()
        (found,) = refused.value.problems
        assert found.rule == rule
        assert says in found.problem


@pytest.mark.parametrize(
    "gate",
    [
        "tests.skipped > 0",
        "tests.skipped != 0",
        "coverage.line >= 100",
        "coverage.line < 100",
        "{metric: complexity.max, at_least: 0, blocking: false}",
    ],
)
def test_a_gate_at_the_end_of_its_range_may_decide(gate):
    given = f"agent: validate\nwith: {{checks: [tests, complexity]}}\ngates:\n  - {gate}\n"
    load_pipeline(f"pipeline: p\nstages:\n  v:\n{textwrap.indent(given, '    ')}".encode(), "p.yaml", AGENTS, {})


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("prices: {m: {input: 1, output: 1}}", "write it below `models:`"),
        ("model: m", "write it below `models:`"),
        ("usd: 1", "write it below `budget:`"),
    ],
)
def test_what_stands_in_another_place_of_a_policy(line, hint):
    with pytest.raises(SpecError) as refused:
        load_policy(f"policy: p\n{line}\n".encode(), "p.yaml", AGENTS)
    (found,) = refused.value.problems
    assert (found.rule, found.hint) == ("unknown-key", hint)


def test_a_bug_or_requirements_as_a_run_decides():
    given = "{template: none, bug: '{{ params.bug }}', requirements: '{{ params.wish }}'}"
    params = "params: {bug: {type: string, default: ''}, wish: {type: string}}\n"
    load_pipeline((f"pipeline: p\n{params}stages:\n  s: {{agent: scaffold, with: {given}}}\n").encode(), "p.yaml", AGENTS, {})


@pytest.mark.parametrize(
    ("value", "problem", "hint"),
    [
        ("{usd: .nan}", "'.nan' is not a number that can be compared", "write a finite number"),
        ("{tokens: 999999999999999999999999}", "'999999999999999999999999' is too long a number", "quote it if it is text"),
        ("{tokens: 0x10}", "'0x10' means different things to different YAML readers", "quote it if it is text"),
        ("{tokens: 99999999999}", "'tokens' is out of range: 99_999_999_999", "at most 10_000_000_000"),
        ("{tokens: 999999999999999999999}", "'tokens' is out of range: a number of 21 digits", "at most 10_000_000_000"),
        ("{usd: 0}", "'usd' is out of range: 0", "above 0"),
    ],
)
def test_a_number_that_is_none_is_one_problem(value, problem, hint):
    with pytest.raises(SpecError) as refused:
        load_pipeline(f"budget: {value}\n{GOOD}".encode(), "p.yaml", AGENTS, {})
    (found,) = refused.value.problems
    assert found.problem == problem
    assert found.hint.startswith(hint)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("../../etc/passwd", "write the value of `policy:` in its file; there is strict, watched"),
        ("policies/strict.yaml", "name it: `policy: strict`"),
    ],
)
def test_a_policy_is_named_by_its_id(name, hint):
    policies = {n: load_policy(f"policy: {n}\n".encode(), f"{n}.yaml", AGENTS) for n in ("strict", "watched")}
    with pytest.raises(SpecError) as refused:
        load_pipeline(f"policy: {name}\n{GOOD}".encode(), "p.yaml", AGENTS, policies)
    (found,) = refused.value.problems
    assert (found.rule, found.problem, found.hint) == ("bad-id", f"'{name}' is no id of a policy", hint)


def test_what_looks_like_a_key_is_not_repeated():
    key = "sk-ant-api03-" + "a" * 30
    with pytest.raises(SpecError, match=r"\[secret\]") as refused:
        load_pipeline(stages(f"v: {{agent: validate, with: {{api_key: {key}}}}}").encode(), "p.yaml", AGENTS, POLICIES)
    assert key not in str(refused.value)
