"""Cells of a matrix as stages: each holds the gates on its own, and who merges or deploys needs them all."""

import pytest

from taxiway.errors import GateFailed, VerdictMissing
from taxiway.records import Result

CELLS = ("check.fast", "check.slow")


def checker(inputs, _ports, attempt):
    return Result(metrics={"value": float(inputs.value)}, outputs={"on": attempt.name})


@pytest.fixture
def cells(bench, gate):
    def make(values, **changes):
        for name, value in zip(CELLS, values, strict=True):
            bench.stage(
                name,
                checker,
                group="check",
                matrix={"speed": value},
                inputs={"value": "{{ matrix.speed }}"},
                gates=(gate("value", ">=", 5),),
                **changes,
            )

    return make


def ship(_inputs, _ports, attempt):
    return Result(outputs={"deployed": attempt.commit})


def test_all_cells_must_have_passed(bench, cells):
    cells((5, 4))
    bench.stage("ship", ship, effect="deploys", needs=CELLS, requires=CELLS)
    assert bench.run("check.fast").metrics == {"value": 5.0}
    with pytest.raises(GateFailed):
        bench.run("check.slow")
    with pytest.raises(VerdictMissing, match=r"no passed verdict of check\.slow"):
        bench.run("ship")


@pytest.mark.parametrize(("mandatory", "refused"), [((), False), (CELLS, True)], ids=["no policy", "policy"])
def test_a_cell_that_when_skips_needs_no_verdict_unless_the_policy_wants_it(bench, cells, mandatory, refused):
    cells((5, 4), when="matrix.speed > 4")
    bench.stage("ship", ship, effect="deploys", needs=CELLS, requires=CELLS, mandatory=mandatory)
    assert [bench.run(name).outcome for name in CELLS] == ["success", "skipped"]
    if refused:
        with pytest.raises(VerdictMissing, match=r"check\.slow was skipped"):
            bench.run("ship")
    else:
        assert bench.run("ship").outcome == "success"


def test_a_merge_measures_every_cell_again_and_hands_on_one_verdict(bench, cells):
    def merger(_inputs, ports, attempt):
        (attempt.checkout / "second.txt").write_text("x")
        with ports.ledger.lease("x", holder="h", attempt=1, stop=attempt.stop) as lease:
            merged = ports.workspace.commit(attempt.checkout, parent=attempt.commit, message="m", trailers={}, lease=lease)
        return Result(commit=merged, verdicts=attempt.verify(merged))

    cells((5, 6))
    bench.stage("merge", merger, effect="merges", needs=CELLS, requires=CELLS)
    bench.stage("ship", ship, effect="deploys", needs=("merge",), requires=CELLS)
    for name in (*CELLS, "merge"):
        bench.run(name)
    assert [v.stage for v in bench.results["merge"].verdicts] == ["check"]
    assert bench.run("ship").outcome == "success"


def test_expressions_name_a_cell(bench, cells):
    cells((5, 6))
    bench.stage(
        "next", lambda inputs, *_: Result(outputs={"saw": inputs.x}), needs=CELLS, inputs={"x": "{{ stages.check.slow.metrics.value }}"}
    )
    for name in CELLS:
        bench.run(name)
    assert bench.run("next").outputs == {"saw": 6.0}
