"""The semantics of docs/semantics.md on a real scheduler: one pipeline a case, all triggered at once, then looked at one by one."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import psutil
import pytest

from taxiway.integrations.airflow_rest import Run

HEAD = """
pipeline: {name}
policy: {policy}
limits: {{runs: 4, stages: {width}, duration: {duration}}}
defaults: {{timeout: 3m, retries: {{attempts: 1, first: 1s, factor: 1, most: 1s}}}}
stages:
"""

# Both have changed the code before either goes on to merge it.
TOGETHER = """
  w: {agent: scribe, with: {files: {SIDE.txt: hello}}}
  a: {agent: probe, with: {marks: "{{ params.marks }}", until: 2, say: "{{ params.said }}"}}
  m: {agent: integrate}
params:
  repository: {type: string, default: "FOLDER/shared.git"}
  marks: {type: string, default: FOLDER/marks}
  said: {type: string, default: TOKEN}
"""

# name -> (stages, limits.duration)
CASES = {
    "plain": (
        """
  a: {agent: probe, with: {value: 3}, gates: [value >= 3]}
  b: {agent: probe, with: {say: "{{ stages.a.metrics.value }}"}}
  c: {agent: probe, with: {say: "{{ run.pipeline }}/{{ run.attempt }}"}}
""",
        "10m",
    ),
    "skipped": (
        """
  a: {agent: probe, when: "1 > 2"}
  b: {agent: probe, with: {say: "{{ stages.a.metrics.value }}"}}
  c: {agent: probe, when: "stages.d.metrics.value > 5", needs: [d]}
  d: {agent: probe, needs: [], with: {value: 6}}
  e: {agent: probe, needs: [b, c]}
""",
        "10m",
    ),
    "tolerated": (
        """
  a: {agent: probe, with: {value: 1}, gates: [value >= 2], continue_on_failure: true}
  b: {agent: probe, with: {say: "{{ stages.a.outcome }}"}}
""",
        "10m",
    ),
    "tolerated_is_no_verdict": (
        """
  w: {agent: scribe, with: {files: {a.txt: hello}}}
  a: {agent: probe, with: {value: 1}, gates: [value >= 2], continue_on_failure: true}
  m: {agent: integrate}
""",
        "10m",
    ),
    "failed": (
        """
  a: {agent: probe, with: {fail: stage}}
  b: {agent: deploy}
  r: {agent: recover, recovers: [a, b]}
""",
        "10m",
    ),
    "unmeasured": (
        """
  a: {agent: probe, with: {value: null}, gates: [value == 0]}
  b: {agent: probe}
""",
        "10m",
    ),
    "broken_recovery": (
        """
  a: {agent: probe, with: {fail: stage}}
  r: {agent: undoer, recovers: [a], with: {fail: stage}}
""",
        "10m",
    ),
    "skipped_gate": (
        """
  w: {agent: scribe, with: {files: {a.txt: hello}}}
  a: {agent: probe, when: "1 > 2"}
  m: {agent: integrate}
""",
        "10m",
    ),
    "left": (TOGETHER.replace("SIDE", "left"), "10m"),
    "right": (TOGETHER.replace("SIDE", "right"), "10m"),
    "narrow": (
        """
  a: {agent: probe, needs: [], with: {seconds: 2}}
  b: {agent: probe, needs: [], with: {seconds: 2}}
""",
        "10m",
    ),
    "flaky": (
        """
  a: {agent: probe, with: {fail: transient, times: 1}, retries: {attempts: 3, first: 1s, factor: 1, most: 1s}}
""",
        "10m",
    ),
    "spent": (
        """
  a: {agent: probe, with: {fail: transient}, retries: {attempts: 2, first: 1s, factor: 1, most: 1s}}
""",
        "10m",
    ),
    "final": (
        """
  a: {agent: probe, with: {fail: stage}, retries: {attempts: 3, first: 1s, factor: 1, most: 1s}}
""",
        "10m",
    ),
    "late": (
        """
  a: {agent: probe, with: {fail: hang}, timeout: 5m}
  b: {agent: probe}
  d: {agent: deploy}
  r: {agent: recover, recovers: [a, d]}
""",
        "6s",
    ),
    "slow": (
        """
  a: {agent: probe, with: {fail: hang, times: 1}, timeout: 20s, retries: {attempts: 2, first: 1s, factor: 1, most: 1s}}
""",
        "10m",
    ),
    "killed": (
        """
  w: {agent: scribe, with: {files: {a.txt: hello}}}
  a: {agent: probe, with: {fail: killed, times: 1}, retries: {attempts: 2, first: 1s, factor: 1, most: 1s}}
""",
        "10m",
    ),
    "cleared": (
        """
  a: {agent: probe, with: {fail: stage, times: 1}}
  b: {agent: probe}
""",
        "10m",
    ),
    "bad_render": (
        """
  a: {agent: probe, with: {say: seven}}
  b: {agent: probe, with: {value: "{{ stages.a.outputs.said }}"}}
  c: {agent: probe, needs: [a], when: stages.a.outputs.said}
""",
        "10m",
    ),
}


WIDTHS = {"narrow": 1}
"""limits.stages, where it is not 4."""
POLICIES = dict.fromkeys(("skipped_gate", "left", "right"), "floor")
"""The policy, where it is not open."""
FLOOR = """
policy: floor
gates: {probe: [value >= 1]}
repositories: [{url: FOLDER/shared.git, trusted: true, connection: repository_token}]
"""


def spec(name: str) -> str:
    stages, duration = CASES[name]
    return HEAD.format(name=f"sem_{name}", duration=duration, width=WIDTHS.get(name, 4), policy=POLICIES.get(name, "open")) + stages


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("semantics")


@pytest.fixture(scope="module")
def runs(airflow, folder) -> dict[str, Run]:
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(folder / "shared.git")], check=True)
    (airflow.pipelines / "policies" / "floor.yaml").write_text(FLOOR.replace("FOLDER", str(folder)))
    return airflow.trigger_all({name: spec(name).replace("FOLDER", str(folder)).replace("TOKEN", airflow.token) for name in CASES})


@pytest.fixture
def ended(airflow, runs):
    return lambda name: airflow.finish(runs[name])


def test_results_render_with_their_types(ended):
    done = ended("plain")
    assert done.run.state == "success"
    assert done.result("a").gates[0].passed
    assert done.result("b").outputs == {"said": 3.0, "type": "float"}
    assert done.result("c").outputs["said"] == "sem_plain/1"
    assert done.result("a").commit == done.result("c").commit != ""
    assert done.states()["outcome"] == "success"


def test_a_log_ends_with_the_table_of_gates(ended):
    *_, last = ended("plain").said("a")
    first, *table = last.splitlines()
    assert first.startswith("gates of a on ")
    assert [line.split()[:5] for line in table if line.startswith("value")] == [["value", ">=", "3", "3", "passed"]]


def test_skipped_stages_hand_on_and_what_uses_them_is_skipped_too(ended):
    done = ended("skipped")
    assert done.run.state == "success"
    assert done.states() == {"a": "skipped", "b": "skipped", "c": "success", "d": "success", "e": "success", "outcome": "success"}
    assert done.result("a").commit == done.result("e").commit != ""


def test_continue_on_failure_goes_on_and_says_failed(ended):
    done = ended("tolerated")
    assert done.run.state == "success"
    assert done.states()["a"] == "success"
    assert done.result("a").outcome == "failed"
    assert done.result("b").outputs["said"] == "failed"


def test_a_tolerated_failure_is_no_verdict(ended):
    done = ended("tolerated_is_no_verdict")
    assert done.run.state == "failed"
    assert done.states()["m"] == "failed"
    assert "VerdictMissing" in done.log("m")


def test_a_failed_stage_fails_the_run_and_recovery_has_nothing_to_undo(ended):
    done = ended("failed")
    assert done.run.state == "failed"
    assert done.states() == {"a": "failed", "b": "upstream_failed", "r": "skipped", "outcome": "failed"}
    assert done.result("a").summary == "it was told to fail\n  hint: do not tell it so"


def test_limits_stages_is_how_many_stages_of_a_run_work_at_once(ended):
    done = ended("narrow")
    assert done.run.state == "success"
    first, second = sorted((done.tasks["a"], done.tasks["b"]), key=lambda t: t.started)
    assert first.ended - first.started >= 2
    assert second.started >= first.ended


def test_a_recovery_that_fails_itself_is_told(ended):
    done = ended("broken_recovery")
    assert done.run.state == "failed"
    assert done.states() == {"a": "failed", "r": "failed", "outcome": "failed"}
    assert "a ended failed; r ended failed" in done.log("outcome")


def test_a_merge_needs_the_gates_of_the_policy_even_where_their_stage_was_skipped(ended):
    done = ended("skipped_gate")
    assert done.states() == {"w": "success", "a": "skipped", "m": "failed", "outcome": "failed"}
    assert done.result("m").summary.startswith("a was skipped, and policy floor requires its gates")


def test_two_runs_into_one_branch_at_once_both_land(ended, folder):
    left, right = ended("left"), ended("right")
    assert (left.run.state, right.run.state) == ("success", "success")

    def git(*command):
        return subprocess.run(
            ["git", "-C", str(folder / "shared.git"), *command], check=True, capture_output=True, text=True
        ).stdout.split()

    assert git("ls-tree", "--name-only", "main") == ["left.txt", "right.txt"]
    landed = git("log", "--format=%H", "main")
    assert set(landed[:2]) == {left.result("m").commit, right.result("m").commit}
    assert len(landed) == 3, "the first commit and one squash each"
    # Who came second measured the gates on what the first had made of the branch.
    assert all(r.result("m").verdicts for r in (left, right))


def test_a_rendered_secret_is_masked_in_the_log(airflow, ended):
    log = ended("left").log("a")
    assert '"say": "***"' in log
    assert airflow.token not in log


def test_what_was_not_measured_has_not_passed(ended):
    done = ended("unmeasured")
    assert done.run.state == "failed"
    reading = done.result("a").gates[0]
    assert (reading.measured, reading.passed, reading.note) == (None, False, "nothing to measure")


@pytest.mark.parametrize(
    ("name", "state", "tries"), [("flaky", "success", 2), ("spent", "failed", 2), ("final", "failed", 1), ("slow", "success", 2)]
)
def test_tries(ended, name, state, tries):
    done = ended(name)
    assert (done.run.state, done.tasks["a"].tries) == (state, tries)


def test_a_failed_run_that_is_cleared_and_passes_ends_in_success(airflow, ended):
    done = ended("cleared")
    assert done.run.state == "failed"
    airflow.client.clear(done.run.dag, done.run.id, ["a"])
    again = airflow.finish(done.run)
    assert again.run.state == "success"
    assert (again.tasks["a"].tries, again.states()["outcome"]) == (2, "success")


def test_evidence_reaches_the_next_try(ended):
    assert ended("flaky").result("a").summary == "probed, evidence TransientError"


def test_a_killed_try_is_followed_by_one_that_starts_where_it_did(ended):
    done = ended("killed")
    assert (done.run.state, done.tasks["a"].tries) == ("success", 2)
    assert done.result("a").commit == done.result("w").commit


def test_the_run_ends_with_its_duration(ended):
    done = ended("late")
    assert done.run.state == "failed"
    late = {"a": "failed", "b": "upstream_failed", "d": "upstream_failed", "outcome": "failed"}
    # A recovery has all the time that it needs: it looked, and there was nothing to undo.
    assert done.states() == {**late, "r": "skipped"}
    assert "limits.duration" in done.log("a")


def test_a_rendered_value_of_the_wrong_type_is_refused(ended):
    done = ended("bad_render")
    assert done.run.state == "failed"
    assert "with.value" in done.result("b").summary


def test_a_condition_that_is_neither_true_nor_false_fails_its_stage(ended):
    done = ended("bad_render")
    assert done.states()["c"] == "failed"
    assert "seven" in done.result("c").summary


CANCELLED = """
pipeline: sem_cancel
policy: open
stages:
  a: {agent: probe, with: {fail: hang_in_sandbox, marks: "{{ params.marks }}"}}
  m: {agent: integrate}
params: {marks: {type: string, default: ""}}
"""


def sandboxed() -> list[psutil.Process]:
    """Processes of the probe's sandboxed command, bubblewrap's and the shell's."""
    return [p for p in psutil.process_iter(["cmdline"]) if "trap '' TERM; while" in " ".join(p.info["cmdline"] or [])]


def test_cancel_ends_everything(airflow, tmp_path):
    marks = tmp_path / "marks"
    run = airflow.trigger(CANCELLED, {"marks": str(marks)})
    until(sandboxed, 60, "the sandbox never started")
    airflow.client.cancel(run.dag, run.id)
    # The supervisor sees the state at its next heartbeat; the command itself would go on for 300 s.
    until(lambda: not sandboxed(), 120, "the sandbox lives on")
    done = airflow.finish(run)
    assert done.run.state == "failed"
    assert done.states()["m"] != "success"
    # Airflow has no other word than failed; what the stage left has, and `taxiway run` and the summary show it.
    until(lambda: airflow.client.result(run.dag, run.id, "a"), 30, "it left no result")
    assert (done.states()["a"], done.result("a").outcome) == ("failed", "cancelled")
    assert marks.read_text().splitlines() == ["a 1 start"]


def until(condition, seconds, message):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, message
        time.sleep(0.1)


SUPERVISOR = """
pipeline: sem_supervisor
policy: open
params: {marks: {type: string, default: ""}}
stages:
  w: {agent: scribe, with: {files: {a.txt: hello}}}
  a:
    agent: probe
    with: {fail: supervisor_killed, times: 1, marks: "{{ params.marks }}"}
    retries: {attempts: 2, first: 1s, factor: 1, most: 1s}
"""


def test_a_try_whose_supervisor_was_killed_is_taken_over(airflow, tmp_path):
    marks = tmp_path / "marks"
    done = airflow.run_pipeline(SUPERVISOR, {"marks": str(marks)}, timeout_s=400)
    assert (done.run.state, done.tasks["a"].tries) == ("success", 2)
    lines = marks.read_text().splitlines()
    assert lines[:3] == ["a 1 start", "a 2 start", "a 2 end"]


def test_a_param_against_its_schema_is_refused(airflow):
    params = "params: {n: {type: integer, minimum: 1, default: 1}}"
    text = spec("plain").replace("sem_plain", "sem_params").replace("\nstages:", f"\n{params}\nstages:")
    dag = airflow.wait_for(text)
    with pytest.raises(Exception, match="n") as caught:
        airflow.client.trigger(dag, {"n": 0})
    assert "minimum" in str(caught.value)
