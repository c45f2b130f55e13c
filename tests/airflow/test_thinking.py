"""Pipelines with a model, on a real scheduler: from a requirement to merged code, with repairs, within a budget, without cheating."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from thinking import CODE, TEST, artifacts, git, repository, stages

SHIPPED = Path(__file__).parents[2] / "pipelines"
REQUIREMENTS = "A function that says how many words a text has."
BUG = {"issue": "Two spaces between words give an empty word.", "reproduction": 'words("a  b") == ["a", "", "b"]'}


def cheap(name, **changes):
    """The shipped pipeline for features under another id, with two checks, and no floor but the default gates."""
    spec = yaml.safe_load((SHIPPED / "feature.yaml").read_text())
    spec["stages"]["validate"]["with"] = {"checks": ["lint", "tests"]}
    return yaml.safe_dump({**spec, "pipeline": name, "policy": "thinking", **changes}, sort_keys=False)


SHIPPED_AS_THEY_ARE = {"at once": "feature", "a bug": "bugfix"}
CHEAP = {
    "two repairs": cheap("feature_repaired"),
    "a waste": cheap("feature_too_dear", budget={"tokens": 30_000}),
    "cheats": cheap("feature_cheated"),
    "cheats, then works": cheap("feature_honest_in_the_end"),
}


@pytest.fixture(scope="module")
def runs(airflow, tmp_path_factory):
    """Every scenario, side by side: its run, and its repository."""
    texts = {**{key: (SHIPPED / f"{name}.yaml").read_text() for key, name in SHIPPED_AS_THEY_ARE.items()}, **CHEAP}
    for text in texts.values():
        airflow.save(text)
    started = {}
    for number, (key, text) in enumerate(texts.items()):
        origin = repository(tmp_path_factory.mktemp(f"thinking{number}"), key)
        asked = BUG if key == "a bug" else {"requirements": REQUIREMENTS}
        started[key] = (airflow.trigger(text, {"repository": str(origin), **asked}), origin)
    return {key: (airflow.finish(run, timeout_s=900), origin) for key, (run, origin) in started.items()}


def test_a_requirement_is_built_checked_and_merged(airflow, runs):
    done, origin = runs["at once"]
    assert stages(done) == dict.fromkeys(("build", "validate", "integrate"), "success")
    assert done.tasks["validate"].tries == 1
    result = done.result("build")
    assert result.summary == "Count the words of a text"
    assert (result.outputs["requirements"], result.outputs["covered"]) == (1, 1)
    assert result.cost.calls == 3
    assert result.cost.usd > 0
    assert "len(words(text))" in git(origin, "show", f"main:{CODE}")
    assert f"{TEST}::test_count" in artifacts(airflow, done, "build", 1)["requirements.md"].read_text()
    assert "scaffold.html" in artifacts(airflow, done, "build", 1)


def test_a_bug_is_fixed_with_a_test_that_fails_without_the_fix(runs):
    done, origin = runs["a bug"]
    assert stages(done) == dict.fromkeys(("fix", "validate", "integrate"), "success")
    assert done.result("fix").outputs["covered"] == 1
    assert "split()" in git(origin, "show", f"main:{CODE}")
    assert "test_spaces" in git(origin, "show", "main:tests/test_spaces.py")


def test_two_repairs_are_two_more_tries(airflow, runs):
    done, origin = runs["two repairs"]
    assert stages(done) == dict.fromkeys(("build", "validate", "integrate"), "success")
    assert done.tasks["validate"].tries == 3
    assert "repair 1 of 2 comes next" in done.log("validate", 1)
    assert "repair 2 of 2 comes next" in done.log("validate", 2)
    assert "key-that-no-log-may-show" not in done.log("validate")
    result = done.result("validate")
    assert result.cost.calls == 4
    log = git(origin, "log", "--all", "--format=%s%n%b")
    assert "validate: Count otherwise" in log
    assert "Taxiway-Repair: 2" in log
    # What was squashed says what models did for it.
    merged = git(origin, "log", "-1", "--format=%B", "main")
    assert "- validate: Count otherwise" in merged
    calls = sum(done.result(name).cost.calls for name in ("build", "validate"))
    assert f"calls={calls}" in merged
    assert "Taxiway-Model: claude-sonnet-5-5" in merged
    assert {v.stage for v in done.result("integrate").verdicts} == {"validate"}
    assert "repair.html" in artifacts(airflow, done, "validate", 3)
    assert "len(words(text))" in git(origin, "show", f"main:{CODE}")


def test_a_run_ends_at_its_budget_and_shows_the_ledger(airflow, runs):
    done, origin = runs["a waste"]
    assert stages(done) == {"build": "failed", "validate": "upstream_failed", "integrate": "upstream_failed"}
    assert done.run.state == "failed"
    assert done.tasks["build"].tries == 1
    failed = done.result("build")
    assert "BudgetExceeded" in done.log("build")
    assert "the run's budget of 30000 tokens is spent" in failed.summary
    assert "claude-sonnet-5-5" in done.log("build")
    assert "unanswered" in done.log("build")
    asked = [r for r in airflow.claude.requests if "scenario: a waste" in r["system"][1]["text"]]
    assert 2 <= len(asked) < 20
    assert git(origin, "log", "--format=%s", "main") == "Split words"


def test_who_cheats_gets_nothing_merged(runs):
    done, origin = runs["cheats"]
    assert stages(done) == {"build": "success", "validate": "failed", "integrate": "upstream_failed"}
    assert done.run.state == "failed"
    assert done.tasks["validate"].tries == 3
    gates = {g.metric: g.passed for g in done.result("validate").gates}
    assert gates["tests.failed"] is False
    assert git(origin, "log", "--format=%s", "main") == "Split words"
    commits = git(origin, "log", "--all", "--format=%H").split()
    assert all(
        "pytest.skip" not in git(origin, "show", f"{c}:{CODE}") and "noqa" not in git(origin, "show", f"{c}:{CODE}") for c in commits
    )


def test_every_way_to_cheat_was_refused(airflow, runs):
    done, origin = runs["cheats, then works"]
    assert stages(done) == dict.fromkeys(("build", "validate", "integrate"), "success")
    assert done.tasks["validate"].tries == 2
    assert "len(words(text))" in git(origin, "show", f"main:{CODE}")
    assert "count" in git(origin, "show", f"main:{TEST}")
    assert "assert True" not in git(origin, "show", f"main:{TEST}")
    assert "conftest.py" not in git(origin, "ls-tree", "-r", "--name-only", "main")
    last = [r for r in airflow.claude.requests if "scenario: cheats, then works" in r["system"][1]["text"]][-1]
    told = [b for m in last["messages"][1:] if m["role"] == "user" for b in m["content"] if b["type"] == "tool_result"]
    # Two at once, two at once, a file written, a hand-in sent back, a file written, a hand-in sent back, a file written.
    assert [bool(b.get("is_error")) for b in told] == [True, True, True, True, False, True, False, True, False]
