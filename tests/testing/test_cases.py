"""Tests of pipelines in YAML: real git, a real ledger, real gates, and a scripted model over HTTP."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from taxiway.agents import registry
from taxiway.agents.base import Agent, AgentInput, Metric
from taxiway.errors import SpecError
from taxiway.home import Home
from taxiway.records import Result
from taxiway.testing.cases import load_cases
from taxiway.testing.trial import try_case

PIPELINE = """
pipeline: shop
policy: p
params:
  repository: {type: string, default: ""}
  check: {type: boolean, default: true}
stages:
  value:
    agent: value
    when: params.check
    gates: [value >= 3]
    repair: {attempts: 2}
  after: {agent: value, with: {file: app.py}}
"""
POLICY = "policy: p\nmodels: {model: m, prices: {m: {input: 1, output: 10, cache_write: 1, cache_read: 0.1}}}\n"
REPAIRED = """
  replies:
    - use: {write: {path: app.py, content: "value = 2\\n"}}
    - use: {hand_in: {cause: It was small., summary: Raise the value}}
    - say: Once more.
      use: {write: {path: app.py, content: "value = 3\\n"}}
    - use: {hand_in: {cause: It was small., summary: Raise it again}}
"""


class ValueInput(AgentInput):
    file: str = "app.py"


def value(inputs, _ports, attempt):
    """Measures the number that the code assigns."""
    text = (attempt.checkout / inputs.file).read_text()
    (attempt.reports / "report.md").write_text(f"{inputs.file} in {attempt.checkout} says: {text}")
    return Result(metrics={"value": float(text.split("=")[1])})


AGENTS = {**registry(), "value": Agent("value", "", ValueInput, value, metrics={"value": Metric("a number")})}


@dataclass
class Bench:
    folder: Path

    def file(self, cases, pipeline="pipelines/shop.yaml"):
        path = self.folder / "shop.test.yaml"
        path.write_text(f"pipeline: {pipeline}\ncases:\n{textwrap.indent(textwrap.dedent(cases).strip(), '  ')}\n")
        return path

    def problems(self, cases):
        (case,) = load_cases(self.file(cases), AGENTS)
        return try_case(case, AGENTS, environments=Home(self.folder / "home"))


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "pipelines" / "policies").mkdir(parents=True)
    (tmp_path / "pipelines" / "shop.yaml").write_text(PIPELINE)
    (tmp_path / "pipelines" / "policies" / "p.yaml").write_text(POLICY)
    return Bench(tmp_path)


def case(expect, *, replies="", value=1, more=""):
    return f"it:{replies}\n  files: {{app.py: 'value = {value}'}}\n{more}  expect: {expect}\n"


PASSES = {
    "it is good at once": case("{stages: {value: success, after: success}, gates: {value: passed}, cost: {calls: 0}}", value=5),
    "repaired twice": case(
        "{gates: {value: passed}, files: {app.py: {contains: value = 3}, b.py: {absent: true}}, cost: {calls: 4, usd: 0.1, tokens: 90000}}",
        replies=REPAIRED,
    ),
    "without a model it fails": case("{outcome: failed, stages: {value: failed, after: not_run}, gates: {value: failed}}"),
    "skipped": case("{stages: {value: skipped, after: success}}", more="  params: {check: false}\n"),
    "only one stage": case("{stages: {value: not_run, after: success}}", more="  stages: [after]\n"),
    "the provider fails, and a later try succeeds": case(
        "{gates: {value: passed}}",
        replies="""
  replies:
    - {fail: 400}
    - use: {write: {path: app.py, content: "value = 3\\n"}}
    - use: {hand_in: {cause: It was small., summary: Raise the value}}
""",
    ),
}


IDLE = """
  replies:
    - use: {hand_in: {cause: I do not know., summary: Nothing}}
    - use: {hand_in: {cause: I do not know., summary: Nothing}}
"""
PASSES["a model that refuses, and one that is cut off"] = case(
    "{outcome: failed, stages: {value: failed}, cost: {calls: 2}}", replies="\n  replies: [{stop: refusal}, {stop: max_tokens}]"
)
PASSES["repairs that change nothing leave the gates as they were measured"] = case(
    "{outcome: failed, stages: {value: failed}, gates: {value: failed}}", replies=IDLE
)


@pytest.mark.parametrize("text", PASSES.values(), ids=PASSES)
def test_what_is_as_expected_passes(bench, text):
    tried = bench.problems(text)
    assert tried.problems == ()


TOO_FEW = """
  replies:
    - say: I think.
"""


def test_too_few_replies_say_what_to_add(bench):
    asked, *rest = bench.problems(case("{}", replies=TOO_FEW)).problems
    assert asked.startswith(
        "the model was asked more often than there are replies: request 2 has no answer: the script has 1\nhint: add what"
    )
    assert rest == ["outcome: expected success, it is failed", "stage value failed: its model had no reply left"]


FAILS = {
    "outcome": (case("{outcome: failed}", value=5), ["outcome: expected failed, it is success"]),
    "failed": (case("{}"), ["outcome: expected success, it is failed", "stage value failed: 1 of 1 gates did not pass: value >= 3: 1"]),
    "stage": (case("{stages: {value: skipped}}", value=5), ["stage value: expected skipped, it is success"]),
    "gates failed": (case("{gates: {value: failed}}", value=5), ["gates of value: expected failed, all passed"]),
    "gates passed": (
        case("{outcome: failed, gates: {value: passed}}"),
        ["gates of value: expected passed, these failed: value >= 3 (measured 1)"],
    ),
    "no gates": (case("{gates: {after: passed}}", value=5), ["gates of after: expected passed, none was held against a measurement"]),
    "file": (case("{files: {app.py: {contains: xyz}}}", value=5), ["file app.py: expected to contain 'xyz'"]),
    "no file": (case("{files: {b.py: {contains: xyz}}}", value=5), ["file b.py: expected to contain 'xyz', it is absent"]),
    "a file too many": (case("{files: {app.py: {absent: true}}}", value=5), ["file app.py: expected to be absent, it is there"]),
    "calls": (case("{cost: {calls: 3}}", replies=REPAIRED), ["cost: expected at most 3 calls, it took 4"]),
    "usd": (case("{cost: {usd: 0}}", replies=REPAIRED), ["cost: expected at most 0 usd, it took 0.0"]),
    "a reply too many": (case("{}", value=5, replies=REPAIRED), ["4 of 4 replies were not asked for"]),
    "a reply too few": (
        case("{outcome: failed}", replies="\n  replies: [{use: {read: {path: app.py}}}]"),
        ["the model was asked more often than there are replies: request 2 has no answer"],
    ),
}


@pytest.mark.parametrize(("text", "problems"), FAILS.values(), ids=FAILS)
def test_what_is_not_as_expected_is_named(bench, text, problems):
    found = bench.problems(text).problems
    assert len(found) == len(problems), found
    for said, problem in zip(found, problems, strict=True):
        assert said.startswith(problem)


def test_a_project_from_a_folder_with_a_file_on_top(bench):
    (bench.folder / "project" / ".git").mkdir(parents=True)
    (bench.folder / "project" / ".git" / "config").write_text("not to be copied")
    (bench.folder / "project" / "app.py").write_text("value = 1")
    (bench.folder / "project" / "logo.png").write_bytes(b"\x89PNG")
    tried = bench.problems(case("{files: {logo.png: {contains: PNG}}, gates: {value: passed}}", value=7, more="  repository: project\n"))
    assert tried.problems == ()


def test_a_key_is_not_read(bench, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "real")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    assert bench.problems(case("{outcome: failed, stages: {value: failed}, cost: {calls: 0}}")).problems == ()


WRONG = {
    "unknown key": ("it: {param: {}}", "3:8: error: unknown key 'param'", "did you mean 'params'?"),
    "unknown stage": ("it: {stages: [valu]}", "3:17: error: the pipeline has no stage 'valu'", "did you mean 'value'?"),
    "unknown stage expected": ("it: {expect: {stages: {valu: success}}}", "3:26: error: the pipeline has no stage 'valu'", ""),
    "unknown gates": ("it: {expect: {gates: {ghost: passed}}}", "3:25: error: the pipeline has no stage 'ghost'", ""),
    "unknown end": ("it: {expect: {stages: {value: green}}}", "'value' cannot be 'green'", "success, failed, skipped"),
    "unknown param": ("it: {params: {chek: true}}", "3:17: error: the pipeline has no param 'chek'", "did you mean 'check'?"),
    "a param's type": ("it: {params: {check: 3}}", "3:24: error: param 'check': ", ""),
    "no folder": ("it: {repository: ghost}", "3:20: error: there is no folder", "as seen from this file"),
    "no cassette": ("it: {cassette: ghost}", "3:18: error: there is no folder", "as seen from this file"),
    "both": ("it: {cassette: pipelines, replies: [{say: x}]}", "not both", "remove one"),
    "an empty reply": ("it: {replies: [{}]}", "a reply says something, uses tools, stops, or fails", "{say: TEXT}"),
    "a reply that does both": ("it: {replies: [{say: x, fail: 500}]}", "a reply says something, uses tools, stops, or fails", ""),
    "a reply that stops and fails": ("it: {replies: [{stop: refusal, fail: 500}]}", "a reply says something, uses tools, stops", ""),
    "unknown tool": ("it: {replies: [{use: {replce: {path: a}}}]}", "3:25: error: no model has a tool 'replce'", "did you mean 'replace'?"),
    "unknown argument": (
        "it: {replies: [{use: {write: {pth: a, content: b}}}]}",
        "3:33: error: unknown key 'pth'",
        "did you mean 'path'?",
    ),
    "missing argument": ("it: {replies: [{use: {write: {path: a}}}]}", "error: 'content' is missing", "add `content:` here"),
    "argument of a wrong type": (
        "it: {replies: [{use: {read: {path: a, first: two}}}]}",
        "3:48: error: 'first' must be a whole number",
        "write digits",
    ),
    "unknown tool of two": ("it: {replies: [{use: {hand_in: {}, shell: {}}}]}", "3:38: error: no model has a tool 'shell'", "known: check"),
    "no error status": ("it: {replies: [{fail: 200}]}", "out of range: 200", "at least 400"),
    "a path that leads out": ("it: {files: {../x: y}}", "error: '../x' is no path in the project", "from the project's root"),
    "an absolute path": ("it: {expect: {files: {/etc/passwd: {contains: root}}}}", "'/etc/passwd' is no path in the project", ""),
    "a file that is neither": ("it: {expect: {files: {a: {}}}}", "say what is in the file, or that it is absent", "{absent: true}"),
    "a cassette of something else": ("it: {cassette: other}", "other/x.json is no recorded answer", "record the run again"),
    "an empty cassette": ("it: {cassette: pipelines}", "nothing is recorded in", "--record DIR"),
    "no cases": ("", "'cases' must be a mapping of keys to values, not empty", ""),
}


@pytest.mark.parametrize(("text", "problem", "hint"), WRONG.values(), ids=WRONG)
def test_a_file_that_is_wrong_says_where(bench, text, problem, hint):
    (bench.folder / "other").mkdir()
    (bench.folder / "other" / "x.json").write_text('{"format": 1}')
    with pytest.raises(SpecError) as wrong:
        load_cases(bench.file(text), AGENTS)
    assert problem in str(wrong.value)
    assert hint in str(wrong.value)


OTHERS = {
    "nothing": ("", "1:1: error: the file is empty", "start with `pipeline: ../pipelines/NAME.yaml` and `cases:`"),
    "no case": ("pipeline: pipelines/shop.yaml\ncases: {}\n", "2:8: error: 'cases' has no entries", "at least 1 entry"),
    "a pipeline": (PIPELINE, "error: this file is a pipeline, and holds no test cases", "into a file of their own"),
    "a policy": (POLICY, "1:1: error: this file is a policy, and holds no test cases", "into a file of their own"),
}


@pytest.mark.parametrize(("text", "problem", "hint"), OTHERS.values(), ids=OTHERS)
def test_another_file_says_what_it_is(bench, text, problem, hint):
    path = bench.folder / "it.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as wrong:
        load_cases(path, AGENTS)
    assert len(wrong.value.problems) == 1
    assert problem in str(wrong.value)
    assert hint in str(wrong.value)


def test_a_pipeline_that_is_not_there_or_broken(bench):
    with pytest.raises(SpecError, match="there is no file"):
        load_cases(bench.file("it: {}", pipeline="ghost.yaml"), AGENTS)
    (bench.folder / "pipelines" / "shop.yaml").write_text("pipeline: shop\nstages: {a: {agent: ghost}}\n")
    with pytest.raises(SpecError, match=r"shop\.yaml:2:21: error: unknown agent 'ghost'"):
        load_cases(bench.file("it: {}"), AGENTS)
