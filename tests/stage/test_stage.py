import json
import shutil

import pytest

from taxiway import results, stage
from taxiway.agents.monitor import MonitorInput
from taxiway.compiler.plan import Retries
from taxiway.errors import (
    Cancelled,
    DeadlineExceeded,
    GateFailed,
    InputError,
    LeaseLost,
    OperatorError,
    ProjectError,
    StageError,
    TransientError,
    VerdictMissing,
)
from taxiway.records import Reading, Result, Verdict
from taxiway.stop import Stop


def measure(value=1.0):
    def measurer(_inputs, _ports, attempt):
        (attempt.reports / "report.txt").write_text("measured")
        return Result(metrics={} if value is None else {"value": value}, summary="measured")

    return measurer


def failing(error):
    def failer(_inputs, _ports, _attempt):
        raise error

    return failer


def test_a_writer_commits_and_the_next_stage_stands_on_it(bench, write):
    seen = {}

    def reader(_inputs, _ports, attempt):
        seen["files"] = {p.name: p.read_text() for p in attempt.checkout.iterdir()}
        (attempt.checkout / "scratch.txt").write_text("only measured")
        return Result()

    bench.stage("make", write({"a.txt": "hello"}), effect="writes")
    bench.stage("look", reader, needs=("make",))
    made = bench.run("make")
    looked = bench.run("look")
    assert seen["files"] == {"a.txt": "hello"}
    assert looked.commit == made.commit != bench.workspace.start()
    assert bench.workspace.head(bench.workspace.branch) == made.commit
    assert bench.left_behind() == []


def test_a_second_try_of_the_same_change_makes_no_second_commit(bench, write):
    bench.stage("make", write({"a.txt": "hello"}), effect="writes")
    assert bench.run("make").commit == bench.run("make", attempt=2).commit


def test_gates_give_a_verdict_on_the_commit(bench, gate):
    bench.stage("check", measure(80.0), gates=(gate("value", ">=", 80),))
    result = bench.run("check")
    assert [(v.stage, v.commit, v.passed) for v in result.verdicts] == [("check", result.commit, True)]
    assert [r.measured for r in result.gates] == [80.0]


@pytest.mark.parametrize("value", [79.0, None])
def test_a_failed_gate_fails_the_stage_and_keeps_the_reports(bench, gate, value):
    bench.stage("check", measure(value), gates=(gate("value", ">=", 80),))
    with pytest.raises(GateFailed) as caught:
        bench.run("check")
    assert not caught.value.retryable
    assert caught.value.readings[0].measured == value
    folder = bench.home.artifacts / "p" / "run-1" / "check" / "1"
    assert (folder / "report.txt").read_text() == "measured"
    assert json.loads((folder / "gates.json").read_text())[0]["passed"] is False
    assert results.failed_result(caught.value).artifacts == {"reports": (folder / "index.txt").as_uri()}
    assert bench.left_behind() == []


def deployer(_inputs, _ports, attempt):
    return Result(outputs={"deployed": attempt.commit})


@pytest.mark.parametrize(
    ("prepare", "mandatory", "refused"),
    [
        (lambda b: b.run("check"), (), False),
        (lambda _: None, (), True),
        (lambda b: b.results.update(check=Result(outcome="skipped", commit=b.workspace.start())), (), False),
        (lambda b: b.results.update(check=Result(outcome="skipped", commit=b.workspace.start())), ("check",), True),
        (lambda b: b.results.update(check=Result(outcome="failed", commit=b.workspace.start())), (), True),
    ],
    ids=["passed", "no result", "skipped", "skipped but required by the policy", "failed and tolerated"],
)
def test_deploy_needs_the_verdicts(bench, gate, prepare, mandatory, refused):
    bench.stage("check", measure(80.0), gates=(gate("value", ">=", 80),))
    bench.stage("ship", deployer, effect="deploys", needs=("check",), requires=("check",), mandatory=mandatory)
    prepare(bench)
    if refused:
        with pytest.raises(VerdictMissing):
            bench.run("ship")
    else:
        assert bench.run("ship").outputs["deployed"]


def test_a_verdict_on_another_commit_or_other_gates_does_not_count(bench, gate, write):
    bench.stage("check", measure(80.0), gates=(gate("value", ">=", 80),))
    bench.stage("make", write({"a": "b"}), effect="writes", needs=("check",))
    bench.stage("ship", deployer, effect="deploys", needs=("make",), requires=("check",))
    bench.run("check")
    bench.run("make")
    with pytest.raises(VerdictMissing, match="no passed verdict of check"):
        bench.run("ship")


def test_verify_measures_again_on_another_commit(bench, gate, write):
    commits = []

    def checker(_inputs, _ports, attempt):
        commits.append(attempt.commit)
        return Result(metrics={"value": float(len(list(attempt.checkout.iterdir())))})

    def merger(_inputs, ports, attempt):
        (attempt.checkout / "second.txt").write_text("x")
        with ports.ledger.lease("x", holder="h", attempt=1, stop=attempt.stop) as lease:
            merged = ports.workspace.commit(attempt.checkout, parent=attempt.commit, message="m", trailers={}, lease=lease)
        return Result(commit=merged, verdicts=attempt.verify(merged))

    bench.stage("make", write({"a": "b"}), effect="writes")
    bench.stage("check", checker, needs=("make",), gates=(gate("value", "<=", 2),))
    bench.stage("merge", merger, effect="merges", needs=("check",), requires=("check",))
    bench.stage("ship", deployer, effect="deploys", needs=("merge",), requires=("check",))
    for name in ("make", "check", "merge", "ship"):
        bench.run(name)
    assert commits == [bench.results["make"].commit, bench.results["merge"].commit]
    assert bench.results["ship"].commit == bench.results["merge"].commit


def test_verify_raises_when_a_gate_does_not_pass_on_the_new_commit(bench, gate, write):
    def checker(_inputs, _ports, attempt):
        return Result(metrics={"value": float(len(list(attempt.checkout.iterdir())))})

    def merger(_inputs, ports, attempt):
        (attempt.checkout / "second.txt").write_text("x")
        with ports.ledger.lease("x", holder="h", attempt=1, stop=attempt.stop) as lease:
            merged = ports.workspace.commit(attempt.checkout, parent=attempt.commit, message="m", trailers={}, lease=lease)
        attempt.verify(merged)
        raise AssertionError("unreachable")

    bench.stage("make", write({"a": "b"}), effect="writes")
    bench.stage("check", checker, needs=("make",), gates=(gate("value", "<=", 1),))
    bench.stage("merge", merger, effect="merges", needs=("check",), requires=("check",))
    bench.run("make")
    bench.run("check")
    with pytest.raises(GateFailed, match="do not pass on the resulting commit"):
        bench.run("merge")


def test_when_is_false(bench):
    bench.stage("check", measure(), when="params.go")
    result = bench.run("check", params={"go": False})
    assert result.outcome == "skipped"
    assert result.commit == bench.workspace.start()
    assert bench.run("check", params={"go": True}).outcome == "success"


def test_a_stage_that_uses_a_skipped_one_is_skipped(bench):
    bench.stage("a", measure(), when="false")
    bench.stage("b", measure(), needs=("a",), uses=("a",), inputs={"x": "{{ stages.a.metrics.value }}"})
    bench.stage("c", measure(), needs=("b",))
    assert [bench.run(n).outcome for n in "abc"] == ["skipped", "skipped", "success"]


def test_continue_on_failure_tells_the_truth_and_gives_no_verdict(bench, gate):
    bench.stage("check", measure(1.0), gates=(gate("value", ">=", 80),), continue_on_failure=True)
    bench.stage("ship", deployer, effect="deploys", needs=("check",), requires=("check",))
    result = bench.run("check")
    assert result.outcome == "failed"
    assert result.metrics == {"value": 1.0}
    assert result.verdicts == ()
    with pytest.raises(VerdictMissing):
        bench.run("ship")


@pytest.mark.parametrize("error", [Cancelled("x"), DeadlineExceeded("x"), LeaseLost("x"), OperatorError("x")])
def test_continue_on_failure_is_not_for_ends_that_are_not_the_stages_own(bench, error):
    bench.stage("check", failing(error), continue_on_failure=True)
    with pytest.raises(type(error)):
        bench.run("check")


def test_tries_are_counted_and_the_last_one_is_final(bench):
    bench.stage("check", failing(TransientError("busy")), retries=Retries(2, 0, 1, 0))
    with pytest.raises(TransientError):
        bench.run("check")
    with pytest.raises(StageError, match="gave up after 2 of 2 tries: busy") as caught:
        bench.run("check", attempt=2)
    assert not caught.value.retryable


def test_a_try_that_nobody_follows_is_final_whatever_the_count(bench):
    bench.stage("check", failing(TransientError("busy")), continue_on_failure=True)
    with pytest.raises(TransientError):
        bench.run("check", attempt=2)
    assert bench.run("check", attempt=3, last=True).outcome == "failed"


@pytest.mark.parametrize(("after", "ends"), [(("deploy",), "skipped"), ((), "failed")], ids=["watches", "measures"])
def test_who_watches_nothing_holds_no_gates_and_who_measures_nothing_fails(bench, gate, after, ends):
    def idle(_inputs, _ports, _attempt):
        return Result(outcome="skipped", summary="nothing there")

    bench.stage("check", idle, after=after, gates=(gate("value", ">=", 1),))
    if ends == "failed":
        with pytest.raises(GateFailed):
            bench.run("check")
    else:
        result = bench.run("check")
        assert (result.outcome, result.verdicts, result.commit) == ("skipped", (), bench.workspace.start())


def test_a_cleared_task_starts_fresh(bench):
    bench.stage("check", failing(TransientError("busy")), retries=Retries(1, 0, 1, 0))
    with pytest.raises(StageError):
        bench.run("check", generation="0")
    bench.stages[0] = bench.stages[0].__class__(**{**bench.stages[0].__dict__, "retries": Retries(2, 0, 1, 0)})
    with pytest.raises(TransientError):
        bench.run("check", attempt=2, generation="1")


def test_being_stopped_is_nobodys_failed_try(bench):
    bench.stage("check", failing(Cancelled("stopped")), retries=Retries(1, 0, 1, 0))
    for attempt in (1, 2):
        with pytest.raises(Cancelled):
            bench.run("check", attempt=attempt)


def test_the_next_try_sees_what_the_last_one_left(bench):
    seen = []

    def flaky(_inputs, _ports, attempt):
        seen.append(dict(attempt.evidence))
        if attempt.attempt == 1:
            raise TransientError("network")
        return Result()

    bench.stage("check", flaky)
    with pytest.raises(TransientError):
        bench.run("check")
    bench.run("check", attempt=2)
    assert seen[0] == {}
    assert (seen[1]["attempt"], seen[1]["error"], seen[1]["problem"]) == (1, "TransientError", "network")
    assert bench.memories["check"] == {}


def test_an_older_try_is_refused_once_a_newer_one_took_over(bench, write):
    def slow(inputs, ports, attempt):
        if attempt.attempt == 1:
            bench.run("make", attempt=2)
        return write({"a.txt": f"from try {attempt.attempt}"})(inputs, ports, attempt)

    bench.stage("make", slow, effect="writes")
    with pytest.raises(LeaseLost):
        bench.run("make")
    out = bench.home.path / "out"
    out.mkdir()
    bench.workspace.checkout(bench.workspace.head(bench.workspace.branch), out)
    assert (out / "a.txt").read_text() == "from try 2"


def test_the_runs_time_counts_and_recovery_is_exempt(bench):
    bench.duration_s = -1
    bench.stage("check", measure())
    bench.stage("undo", measure(), effect="undoes", needs=("check",))
    with pytest.raises(DeadlineExceeded):
        bench.run("check")
    assert bench.run("undo").outcome == "success"


def test_nothing_is_committed_after_a_cancel(bench, write):
    stop = Stop()

    def writer(inputs, ports, attempt):
        stop.cancel()
        return write({"a": "b"})(inputs, ports, attempt)

    bench.stage("make", writer, effect="writes")
    with pytest.raises(Cancelled):
        bench.run("make", stop=stop)
    assert bench.workspace.head(bench.workspace.branch) in ("", bench.workspace.start())


def test_rendered_inputs_are_checked(bench):
    bench.stage("watch", measure(), inputs={"for": "{{ params.window }}"})
    bench.agents["measurer"] = bench.agents["measurer"].__class__(**{**bench.agents["measurer"].__dict__, "inputs": MonitorInput})
    bench.run("watch", params={"window": "5s"})
    with pytest.raises(InputError, match=r"with\.for: .*is 7"):
        bench.run("watch", params={"window": 7})


def test_undeclared_metrics_are_refused(bench):
    bench.stage("check", measure(), metrics=())
    with pytest.raises(OperatorError, match="does not declare: value"):
        bench.run("check")


def test_an_agent_that_is_not_installed(bench):
    bench.stage("check", measure())
    bench.agents.clear()
    with pytest.raises(OperatorError, match="measurer"):
        bench.run("check")


def test_reports_are_plain_files_only(bench):
    def hostile(_inputs, _ports, attempt):
        (attempt.reports / "passwd").symlink_to("/etc/passwd")
        (attempt.reports / "deep").mkdir()
        (attempt.reports / "deep" / "ok.txt").write_text("fine")
        return Result()

    bench.stage("check", hostile)
    bench.run("check")
    folder = bench.home.artifacts / "p" / "run-1" / "check" / "1"
    kept = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert kept - {"attempt.log"} == {"deep/ok.txt", "index.txt", "result.json"}


def test_a_checkout_without_write_permission_is_removed(bench):
    def stubborn(_inputs, _ports, attempt):
        (attempt.checkout / "locked").mkdir()
        (attempt.checkout / "locked" / "file").write_text("x")
        (attempt.checkout / "locked").chmod(0o500)
        return Result()

    bench.stage("check", stubborn)
    bench.run("check")
    assert bench.left_behind() == []


def test_a_folder_that_cannot_be_removed_hides_no_failure(bench, caplog):
    def gone(_inputs, _ports, attempt):
        shutil.rmtree(attempt.checkout.parent)
        raise ProjectError("no manifest")

    bench.stage("check", gone)
    with pytest.raises(ProjectError, match="no manifest"):
        bench.run("check")
    assert "could not be removed" in caplog.text


def test_a_failed_project_leaves_its_words(bench):
    bench.stage("check", failing(ProjectError("no manifest", hint="write one")))
    with pytest.raises(ProjectError) as caught:
        bench.run("check")
    left = results.failed_result(caught.value)
    assert (left.outcome, left.summary, left.verdicts) == ("failed", "no manifest\n  hint: write one", ())


@pytest.mark.parametrize(("error", "outcome"), [(Cancelled("the run was stopped"), "cancelled"), (OperatorError("no disk"), "failed")])
def test_what_was_stopped_is_cancelled_and_not_failed(error, outcome):
    left = results.failed_result(error)
    assert (left.outcome, left.summary, left.verdicts) == (outcome, error.problem, ())


def test_however_many_gates_failed_the_failure_is_told():
    readings = tuple(Reading(metric=f"metric.number.{i}", wanted=">= 1", measured=0.0, passed=False) for i in range(60))
    left = results.failed_result(GateFailed("60 of 60 gates did not pass", readings=readings))
    assert (left.outcome, left.summary) == ("failed", "60 of 60 gates did not pass")
    assert len(left.model_dump_json().encode()) <= results.XCOM_LIMIT


def test_only_a_merge_hands_on_a_commit_of_its_own(bench, gate):
    forged = "f" * 40

    def liar(_inputs, _ports, attempt):
        return Result(commit=forged, metrics={"value": 1.0}, verdicts=(Verdict(stage="check", commit=forged, gates="x", passed=True),))

    bench.stage("check", liar, gates=(gate("value", ">=", 1),))
    result = bench.run("check")
    assert result.commit == bench.workspace.start()
    assert [v.commit for v in result.verdicts] == [result.commit]


def test_compact_keeps_what_decides():
    gates = tuple(Reading(metric=f"m{i}", wanted=">= 1", measured=1.0, passed=True, note="n" * 900) for i in range(10))
    big = Result(
        commit="a" * 40,
        gates=gates,
        metrics={f"m{i}": 1.0 for i in range(300)},
        unmeasured={f"u{i}": "why " * 200 for i in range(20)},
        summary="s" * 5000,
        outputs={"url": "http://127.0.0.1:1"},
    )
    small = results.compact(big)
    assert len(small.model_dump_json().encode()) <= results.XCOM_LIMIT
    assert [g.metric for g in small.gates] == [g.metric for g in gates]
    assert set(small.metrics) >= {g.metric for g in gates}
    assert (small.commit, small.outputs) == (big.commit, big.outputs)


def test_many_gates_that_pass_are_no_failure_and_later_stages_have_their_metrics(bench, gate):
    names = [f"quality.number_{i}" for i in range(60)]
    gates = tuple(gate(name, ">=", 1) for name in names[:40])

    def check(*_):
        return Result(metrics=dict.fromkeys(names, 1.0))

    def later(*_):
        return Result(metrics={"value": 1.0})

    bench.stage("check", check, metrics=tuple(names), gates=gates)
    when = f"stages.check.metrics.{names[50]} == 1 and stages.check.metrics.{names[5]} == 1"
    bench.stage("later", later, needs=("check",), uses=("check",), when=when)
    result = bench.run("check")
    assert len(result.model_dump_json().encode()) <= results.XCOM_LIMIT
    assert set(result.metrics) == {*names[:40], names[50]}
    assert 0 < len(result.gates) < 40
    assert f"({40 - len(result.gates)} gates that passed: see gates.json)" in result.summary
    assert [v.passed for v in result.verdicts] == [True]
    assert bench.run("later").outcome == "success"


def test_compact_keeps_gates_that_did_not_pass():
    readings = [Reading(metric=f"quality.m{i}", wanted=">= 1", measured=float(i % 2), passed=bool(i % 2)) for i in range(44)]
    small = results.compact(Result(gates=tuple(readings), metrics={r.metric: 1.0 for r in readings}))
    assert len(small.model_dump_json().encode()) <= results.XCOM_LIMIT
    assert {g.metric for g in small.gates} >= {r.metric for r in readings if not r.passed}


def test_compact_refuses_what_cannot_be_small():
    with pytest.raises(OperatorError, match="outputs"):
        results.compact(Result(outputs={f"o{i}": "x" * 100 for i in range(100)}))


@pytest.mark.parametrize(
    ("run_id", "starts"),
    [
        ("manual__2026-11-22T08:12:13.5+00:00", "manual-2026-11-22t08"),
        ("../../etc", "etc-"),
        ("", ""),
        ("ünïcode / run", "n-code-run-"),
        ("x" * 300, "x" * 40),
    ],
)
def test_run_keys_are_safe_and_their_own(run_id, starts):
    key = stage.run_key("p", run_id)
    assert key.startswith(starts)
    assert len(key) <= 49
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert key != stage.run_key("q", run_id)


def test_further_lines_of_a_summary_are_for_the_commit_alone(bench):
    def writer(_inputs, _ports, attempt):
        (attempt.checkout / "a.txt").write_text("a")
        return Result(summary="Update one\n\n- a 1 -> 2")

    bench.stage("update", writer, effect="writes")
    result = bench.run("update")
    assert result.summary == "Update one"
    message = bench.workspace._git("log", "-1", "--format=%B", result.commit).text
    assert message.startswith("update: Update one\n\n- a 1 -> 2\n\nTaxiway-")
