"""The shipped pipelines for libraries: a new one, one that is there, and one that is only looked at."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SHIPPED = Path(__file__).parents[2] / "pipelines"
FILES = {
    "pyproject.toml": '[project]\nname = "wordy"\nversion = "1.0"\nrequires-python = ">=3.11"\n',
    "src/wordy/__init__.py": "def words(text: str) -> list[str]:\n    return text.split()\n",
    "tests/test_words.py": 'from wordy import words\n\n\ndef test_words() -> None:\n    assert words("a b") == ["a", "b"]\n',
}


def git(place, *words):
    own = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]
    done = subprocess.run(["git", "-C", str(place), *own, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def repository(folder, files):
    """A bare repository, as a server has it, with the files on its branch `main`."""
    work = folder / "work"
    for name, text in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    git(folder, "init", "-q", "-b", "main", "work")
    git(work, "add", "-A")
    git(work, "commit", "-qm", "Split words")
    git(folder, "clone", "-q", "--bare", "work", "origin.git")
    return folder / "origin.git"


@pytest.fixture(scope="module")
def runs(airflow, tmp_path_factory):
    """Runs, side by side, by what they show; and the repositories that they were given."""
    good = repository(tmp_path_factory.mktemp("good"), FILES)
    bad = repository(tmp_path_factory.mktemp("bad"), FILES | {"src/wordy/more.py": "import os\n\nundefined\n"})
    wanted = {
        "new": ("library", {"name": "shortener"}),
        "there": ("library", {"repository": str(good)}),
        "refused": ("library", {"repository": str(bad)}),
        "looked at": ("check_repository", {"repository": str(bad)}),
    }
    texts = {name: (SHIPPED / f"{name}.yaml").read_text() for name in ("library", "check_repository")}
    for text in texts.values():
        airflow.save(text)
    started = {key: airflow.trigger(texts[name], params) for key, (name, params) in wanted.items()}
    return {key: airflow.finish(run) for key, run in started.items()}, good, bad


def test_a_new_library_is_checked_and_merged(airflow, runs):
    done = runs[0]["new"]
    assert done.states() == dict.fromkeys(("scaffold", "validate", "integrate", "outcome"), "success")
    assert done.result("validate").metrics["coverage.line"] >= 80
    assert {v.stage for v in done.result("integrate").verdicts} == {"validate"}


def test_a_library_that_is_there_is_checked_and_not_made_anew(runs):
    finished, good, _ = runs
    done = finished["there"]
    assert done.states() == {"scaffold": "skipped", "validate": "success", "integrate": "success", "outcome": "success"}
    assert done.result("validate").metrics["tests.passed"] == 1
    # Nothing was changed, so that there is nothing to merge.
    assert git(good, "rev-parse", "main") == done.result("integrate").commit == git(good.parent / "work", "rev-parse", "main")


def test_a_library_that_does_not_pass_is_not_merged(runs):
    states = runs[0]["refused"].states()
    assert (states["validate"], states["integrate"], states["outcome"]) == ("failed", "upstream_failed", "failed")


def test_what_is_only_looked_at_is_reported_and_does_not_fail_the_run(runs):
    finished, _, bad = runs
    done = finished["looked at"]
    assert done.states() == {"validate": "success", "outcome": "success"}
    found = done.result("validate")
    assert found.outcome == "failed"
    assert {reading.metric for reading in found.gates if not reading.passed} >= {"lint.errors", "types.errors"}
    assert {"tests.passed", "format.files", "complexity.files", "duplication.files"} <= found.metrics.keys()
    assert found.artifacts
    assert git(bad, "for-each-ref", "--format=%(refname)", "refs/heads") == "refs/heads/main"
