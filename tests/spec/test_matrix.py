"""A matrix: its cells, what may name them, and every way to write one wrong."""

import textwrap

import pytest

from taxiway.agents import registry
from taxiway.compiler.planning import plan
from taxiway.compiler.show import as_mermaid, as_text
from taxiway.errors import SpecError
from taxiway.spec import load_pipeline
from taxiway.spec.matrix import cells_of

AGENTS = registry()


def pipeline(stages: str):
    text = "pipeline: p\nstages:\n" + textwrap.indent(textwrap.dedent(stages).strip(), "  ") + "\n"
    return load_pipeline(text.encode(), "p.yaml", AGENTS, {})


@pytest.mark.parametrize(
    ("matrix", "names"),
    [
        ({}, []),
        ({"browser": ["chromium", "firefox"]}, ["chromium", "firefox"]),
        ({"python": ["3.11", "3.12"]}, ["python_3_11", "python_3_12"]),
        ({"browser": ["chromium"], "python": ["3.11", "3.12"]}, ["chromium_python_3_11", "chromium_python_3_12"]),
        ({"a": ["x", "y"], "b": ["p", "q"]}, ["x_p", "x_q", "y_p", "y_q"]),
        ({"strict": [True, False]}, ["strict_true", "strict_false"]),
        ({"workers": [1, 16]}, ["workers_1", "workers_16"]),
        ({"v": ["x 1", "x-1", "x_1_2", "X.1"]}, ["x_1", "x_1_2", "x_1_2_2", "x_1_3"]),
        ({"v": ["é", "!"]}, ["v", "v_2"]),
        ({"v": ["a" * 200, "a" * 201]}, ["a" * 60, "a" * 60 + "_2"]),
    ],
)
def test_every_combination_has_a_name_of_its_own_that_can_stand_in_expressions(matrix, names):
    found = cells_of(matrix)
    assert [cell.name for cell in found] == names
    assert all(cell.name.isidentifier() for cell in found)


STAGES = """
    v:
      agent: validate
      matrix: {strict: [true, false], python: ["3.11", "3.12"]}
      when: matrix.python != '3.10'
      gates: [coverage.line >= 80]
    w: {agent: validate, when: stages.v.strict_true_python_3_11.metrics.coverage.line > 90}
    i: {agent: integrate, needs: [v, w]}
"""


def test_each_cell_is_planned_and_whoever_names_the_stage_means_all():
    found = plan(pipeline(STAGES), AGENTS)
    cells = [s for s in found.stages if s.group == "v"]
    ids = [f"v.strict_{strict}_python_{python}" for strict in ("true", "false") for python in ("3_11", "3_12")]
    assert [(c.id, c.matrix) for c in cells] == list(
        zip(ids, [{"strict": s, "python": p} for s in (True, False) for p in ("3.11", "3.12")], strict=True)
    )
    # An axis that is an input of the agent is given to it; `when` names the other one.
    assert [c.inputs for c in cells] == [{"strict": True}, {"strict": True}, {"strict": False}, {"strict": False}]
    assert found.stage("w").needs == tuple(ids)
    assert found.stage("w").uses == (ids[0],)
    assert found.stage("i").needs == (*ids, "w")
    assert found.stage("i").requires == (*ids, "w")


def test_what_with_says_stands_above_the_axis():
    found = plan(pipeline("v: {agent: validate, matrix: {strict: [true, false]}, with: {strict: '{{ not matrix.strict }}'}}"), AGENTS)
    assert {s.inputs["strict"] for s in found.stages} == {"{{ not matrix.strict }}"}


def test_a_cell_has_the_default_gates_of_its_own_inputs():
    stages = "v: {agent: validate, matrix: {x: [lint, tests]}, with: {checks: ['{{ matrix.x }}']}}\nd: {agent: deploy}"
    found = plan(pipeline(stages), AGENTS)
    lint, tests = ({g.metric for g in found.stage(name).gates} for name in ("v.lint", "v.tests"))
    assert "lint.errors" in lint - tests
    assert "tests.failed" in tests - lint
    assert found.stage("d").requires == ("v.lint", "v.tests")


def test_the_plan_shows_the_stage_once_with_its_cells():
    found = plan(pipeline(STAGES), AGENTS)
    text = as_text(found, {})
    assert text.count("(validate, measures") == 2
    assert "cell          v.strict_false_python_3_12: strict=False, python=3.12" in text
    graph = as_mermaid(found)
    assert "    subgraph s_v[v]\n" in graph
    assert graph.count("--> s_i\n") + graph.endswith("--> s_i") == 5


WRONG = {
    "no axis": ("v: {agent: validate, matrix: {}}", (3, 32, "out-of-range", "at least 1")),
    "no value": ("v: {agent: validate, matrix: {strict: []}}", (3, 41, "out-of-range", "at least 1")),
    "not a list": ("v: {agent: validate, matrix: {strict: true}}", (3, 41, "wrong-type", "[a, b]")),
    "a bad axis": ("v: {agent: validate, matrix: {Py-thon: [a]}}", (3, 33, "bad-id", "match")),
    "a template": ("v: {agent: validate, matrix: {strict: ['{{ params.x }}']}}", (3, 42, "bad-matrix", "known before a run")),
    "a number with a point": ("v: {agent: validate, matrix: {strict: [3.10]}}", (3, 42, "bad-matrix", "quote it")),
    "null": ("v: {agent: validate, matrix: {strict: [~]}}", (3, 42, "bad-matrix", "one value")),
    "a mapping": ("v: {agent: validate, matrix: {strict: [{a: b}]}}", (3, 42, "bad-matrix", "one value")),
    "twice": ("v: {agent: validate, matrix: {strict: [true, true]}}", (3, 48, "bad-matrix", "remove it")),
    "too many": (
        f"v: {{agent: validate, when: matrix.a > matrix.b, matrix: {{a: {list(range(10))}, b: {list(range(6))}}}}}",
        (3, 59, "bad-matrix", "50 are the most"),
    ),
    "unused": ("v: {agent: validate, matrix: {browser: [chromium]}}", (3, 33, "bad-matrix", "{{ matrix.browser }}")),
    "nearly used": ("v: {agent: validate, matrix: {strickt: [true]}}", (3, 33, "bad-matrix", "did you mean 'strict'?")),
    "a value that the agent does not take": ("v: {agent: validate, matrix: {strict: [true, 7]}}", (3, 41, "wrong-type", "true or false")),
    "a value that does not fit where it goes": (
        "v: {agent: validate, matrix: {x: [lint, tipes]}, with: {checks: ['{{ matrix.x }}']}}",
        (3, 68, "bad-value", "did you mean 'types'?"),
    ),
    "an unknown axis": (
        "v: {agent: validate, matrix: {strict: [true]}, when: matrix.strikt}",
        (3, 56, "unknown-axis", "did you mean 'strict'?"),
    ),
    "below a value": ("v: {agent: validate, matrix: {strict: [true]}, when: matrix.strict.x}", (3, 56, "unknown-name", "matrix.strict")),
    "a condition that is text": ("v: {agent: validate, matrix: {x: [a, b]}, when: matrix.x}", (3, 51, "bad-condition", "compare")),
    "no matrix": ("v: {agent: validate, when: matrix.strict}", (3, 30, "unknown-name", "no `matrix:`")),
    "the stage instead of a cell": (
        "v: {agent: validate, matrix: {strict: [true]}}\nw: {agent: validate, when: stages.v.metrics.coverage.line > 9}",
        (4, 30, "unknown-cell", "strict_true"),
    ),
    "an unknown cell": (
        "v: {agent: validate, matrix: {strict: [true]}}\nw: {agent: validate, when: stages.v.strict_tru.metrics.coverage.line > 9}",
        (4, 30, "unknown-cell", "did you mean 'strict_true'?"),
    ),
    "an unknown metric of a cell": (
        "v: {agent: validate, matrix: {strict: [true]}}\nw: {agent: validate, when: stages.v.strict_true.metrics.coverage.lin > 9}",
        (4, 30, "unknown-metric", "coverage.line"),
    ),
    "needs of a cell": (
        "v: {agent: validate, matrix: {strict: [true]}}\nw: {agent: validate, needs: [v.strict_true]}",
        (4, 32, "unknown-stage", ""),
    ),
    "a writer": ("v: {agent: scaffold, matrix: {name: [aa, bb]}}", (3, 24, "bad-matrix", "only stages that measure")),
    "a merger": ("v: {agent: integrate, matrix: {into: [main, next]}}", (3, 25, "bad-matrix", "only stages that measure")),
    "a deployer": ("v: {agent: deploy, matrix: {strategy: [recreate]}}", (3, 22, "bad-matrix", "only stages that measure")),
}


@pytest.mark.parametrize(("stages", "expected"), WRONG.values(), ids=WRONG)
def test_what_is_refused(stages, expected):
    with pytest.raises(SpecError) as caught:
        pipeline(stages)
    found = [(p.at.line, p.at.column, p.rule) for p in caught.value.problems]
    assert found == [expected[:3]]
    assert expected[3] in caught.value.problems[0].hint


def test_a_recovery_has_no_matrix():
    with pytest.raises(SpecError, match="agent 'recover' undoes: its stage has no matrix"):
        pipeline("d: {agent: deploy}\nr: {agent: recover, recovers: [d], matrix: {x: [a]}}")
