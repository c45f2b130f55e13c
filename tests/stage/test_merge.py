"""A whole run up to its merge, while somebody else's change reaches the target first."""

from __future__ import annotations

from pathlib import Path

import pytest

from taxiway.agents import integrate
from taxiway.errors import GateFailed, MergeConflict, VerdictMissing
from taxiway.records import Result
from taxiway.stop import Stop


def count(_inputs, _ports, attempt):
    return Result(metrics={"value": float(len(list(attempt.checkout.iterdir())))})


def deployer(_inputs, _ports, attempt):
    return Result(outputs={"deployed": attempt.commit})


@pytest.fixture
def run(bench, gate, write):
    """Stages make, check (at most one file), merge, ship."""
    bench.stage("make", write({"a.txt": "mine\n"}), effect="writes")
    bench.stage("check", count, needs=("make",), gates=(gate("value", "<=", 1),))
    bench.built_in("merge", integrate.AGENT, needs=("check",), requires=("check",))
    bench.stage("ship", deployer, effect="deploys", needs=("merge",), requires=("check",))
    return bench


def landed_meanwhile(bench, files):
    """Somebody else's commit on main."""
    workspace, head = bench.workspace, bench.workspace.head("main")
    folder = bench.home.path / "theirs"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    with bench.ledger.lease("theirs", holder="theirs", attempt=1, stop=Stop()) as lease:
        commit = workspace.commit(folder, parent=head, message="theirs", trailers={"Taxiway-Stage": "theirs"}, lease=lease)
        workspace.push(commit, branch="main", expected=head, lease=lease)
    return commit


def test_a_merge_that_passes_is_deployed(run):
    for name in ("make", "check", "merge", "ship"):
        run.run(name)
    assert run.workspace.head("main") == run.results["merge"].commit == run.results["ship"].outputs["deployed"]


def test_a_gate_that_fails_on_the_merged_tree_stops_the_merge_and_what_follows(run):
    run.run("make")
    run.run("check")
    theirs = landed_meanwhile(run, {"b.txt": "theirs\n"})
    with pytest.raises(GateFailed, match="gates of check do not pass on the resulting commit") as caught:
        run.run("merge")
    assert [(r.metric, r.measured, r.passed) for r in caught.value.readings] == [("value", 2.0, False)]
    assert run.workspace.head("main") == theirs
    # A person who marks the failed merge as a success gets no deployment: its input commit was never merged.
    run.results["merge"] = Result(outcome="failed", commit=theirs)
    with pytest.raises(VerdictMissing):
        run.run("ship")


def test_a_conflict_stops_the_merge_and_leaves_its_report(run):
    run.run("make")
    run.run("check")
    theirs = landed_meanwhile(run, {"a.txt": "theirs\n"})
    with pytest.raises(MergeConflict, match=r"conflicts in a\.txt") as caught:
        run.run("merge")
    assert run.workspace.head("main") == theirs
    index = Path(caught.value.artifacts["reports"].removeprefix("file://"))
    assert index.read_text().split() == ["attempt.log", "conflicts.json", "conflicts.md"]
