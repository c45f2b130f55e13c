"""Templates of stages: what lies over what, and problems shown in the file that holds them."""

from datetime import date
from pathlib import Path

import pytest

from taxiway.agents import registry
from taxiway.compiler import compile_file, compile_folder
from taxiway.compiler.check import check
from taxiway.compiler.planning import plan
from taxiway.errors import SpecError
from taxiway.spec import load_pipeline
from taxiway.spec.extends import load_templates

AGENTS = registry()
TEMPLATES = """\
templates:
  checked:
    agent: validate
    with: {checks: [lint, tests], strict: true}
    gates: [coverage.line >= 80]
    retries: {attempts: 5, first: 3s}
    timeout: 10m
  tight:
    extends: checked
    gates: [coverage.line >= 90]
    timeout: 20m
  names: {agent: scaffold, with: {name: "{{ params.shop }}"}}
  bad_input: {agent: validate, with: {cheks: [lint]}}
  undo: {agent: recover}
"""


def load(stage, templates=TEMPLATES):
    found = load_templates({"templates/t.yaml": templates.encode()})
    assert found.broken is None
    return load_pipeline(f"pipeline: p\nstages:\n  v: {stage}\n".encode(), "p.yaml", AGENTS, {}, found)


def planned(stage):
    return plan(load(stage), AGENTS).stage("v")


def test_a_stage_lies_over_its_template():
    stage = planned("{extends: checked, with: {checks: [tests]}, retries: {first: 1s}, gates: [tests.total >= 3], timeout: 5m}")
    assert stage.agent == "validate"
    assert stage.inputs == {"checks": ["tests"], "strict": True}
    assert (stage.retries.attempts, stage.retries.first_s, stage.timeout_s) == (5, 1, 300)
    assert [f"{g.metric} {g.op} {g.threshold:g}" for g in stage.gates if g.source == "spec"] == ["coverage.line >= 80", "tests.total >= 3"]


def test_a_template_lies_over_another():
    stage = planned("{extends: tight}")
    assert (stage.timeout_s, stage.inputs["strict"]) == (1200, True)
    assert [g.threshold for g in stage.gates if g.metric == "coverage.line"] == [90]
    assert plan(load("{extends: tight}"), AGENTS).templates == (("checked", "t.yaml"), ("tight", "t.yaml"))


WRONG = {
    "unknown": ("{extends: cheked}", ("p.yaml", 3, 16, "unknown-template"), "did you mean 'checked'?"),
    "a path": ("{extends: ../secret}", ("p.yaml", 3, 16, "unknown-template"), "templates/"),
    "weaker": ("{extends: checked, gates: [coverage.line >= 70]}", ("p.yaml", 3, 33, "loosens-template"), "stricter"),
    "unblocked": (
        "{extends: checked, gates: [{metric: coverage.line, at_least: 80, blocking: false}]}",
        ("p.yaml", 3, 33, "loosens-template"),
        "stricter",
    ),
    "in the stage": ("{extends: checked, with: {cheks: [lint]}}", ("p.yaml", 3, 32, "unknown-key"), "checks"),
    "in the template": ("{extends: bad_input}", ("templates/t.yaml", 13, 39, "unknown-key"), "p.yaml:3:16 extends it"),
    "in the template, for this pipeline": ("{extends: names}", ("templates/t.yaml", 12, 41, "unknown-param"), "p.yaml:3:16 extends it"),
    "what neither says": ("{extends: undo}", ("p.yaml", 3, 6, "bad-recovery"), "recovers"),
}


@pytest.mark.parametrize(("stage", "place", "hint"), WRONG.values(), ids=WRONG)
def test_problems_stand_where_they_are_written(stage, place, hint):
    with pytest.raises(SpecError) as caught:
        load(stage)
    problem = next(p for p in caught.value.problems if (p.at.path, p.at.line, p.at.column, p.rule) == place)
    assert hint in problem.hint
    lines = (TEMPLATES if place[0] != "p.yaml" else f"pipeline: p\nstages:\n  v: {stage}\n").splitlines()
    assert problem.line == lines[place[1] - 1]


FILES = {
    "unknown key": ("templates: {x: {agent: validate, gate: []}}", (1, 34, "unknown-key")),
    "later": ("templates: {x: {agent: validate, approval: {}}}", (1, 34, "not-supported")),
    "bad name": ("templates: {Bad-Name: {agent: validate}}", (1, 13, "bad-id")),
    "empty": ("templates: {}", (1, 12, "out-of-range")),
    "a pipeline": ("pipeline: p\nstages: {}", (1, 1, "unknown-key")),
    "wrong type": ("templates: {x: {timeout: [5m]}}", (1, 26, "wrong-type")),
    "unknown base": ("templates: {x: {extends: y}}", (1, 26, "unknown-template")),
    "itself": ("templates: {x: {extends: x}}", (1, 26, "cycle")),
    "a cycle": ("templates: {x: {extends: y}, y: {extends: x}}", (1, 26, "cycle")),
    "code": ("templates: {x: !!python/name:os.system }", (1, 16, "tag")),
}


@pytest.mark.parametrize(("text", "place"), FILES.values(), ids=FILES)
def test_a_template_file_is_checked_by_itself(text, place):
    found = load_templates({"t.yaml": text.encode()})
    assert place in [(p.at.line, p.at.column, p.rule) for p in found.broken.problems]
    assert not found.found


def test_a_name_is_taken_once():
    found = load_templates({"a.yaml": b"templates: {x: {agent: validate}}", "b.yaml": b"templates: {x: {agent: deploy}}"})
    assert [(p.at.path, p.rule) for p in found.broken.problems] == [("b.yaml", "duplicate-template")]


def write(folder: Path, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def test_a_broken_template_takes_down_only_who_stands_on_it(tmp_path):
    write(
        tmp_path,
        {
            "a.yaml": "pipeline: a\nstages: {v: {extends: x}}\n",
            "b.yaml": "pipeline: b\nstages: {v: {extends: y}}\n",
            "c.yaml": "pipeline: c\nstages: {v: {agent: validate}}\n",
            "templates/x.yaml": "templates: {x: {agnt: validate}}\n",
            "templates/y.yaml": "templates: {y: {agent: validate}}\n",
        },
    )
    a, b, c = compile_folder(tmp_path, AGENTS).values()
    assert [(Path(p.at.path).name, p.rule) for p in a.problems] == [("x.yaml", "unknown-key")]
    assert [b.pipeline, c.pipeline] == ["b", "c"]
    for path in (tmp_path, tmp_path / "templates", tmp_path / "templates" / "x.yaml"):
        assert "unknown-key" in {p.rule for p in check([path], AGENTS, date(2026, 1, 1)).problems}


def test_a_change_of_a_template_changes_the_digest_of_its_users_alone(tmp_path):
    write(
        tmp_path,
        {
            "a.yaml": "pipeline: a\nstages: {v: {extends: x}}\n",
            "b.yaml": "pipeline: b\nstages: {v: {agent: validate}}\n",
            "templates/x.yaml": "templates: {x: {agent: validate}}\n",
        },
    )
    before = [compile_file(tmp_path / name, AGENTS).digest for name in ("a.yaml", "b.yaml")]
    write(tmp_path, {"templates/x.yaml": "templates: {x: {agent: validate, timeout: 6m}}\n"})
    after = [compile_file(tmp_path / name, AGENTS).digest for name in ("a.yaml", "b.yaml")]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True]
