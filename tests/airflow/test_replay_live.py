"""`taxiway run --record` and `--replay`, each on an Airflow that it starts and stops: a whole run, once with a model and then without."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from thinking import CODE, FILES, answer, git, repository

from taxiway.home import Home
from taxiway.integrations import bubblewrap
from taxiway.integrations.airflow_archive import Archive
from taxiway.integrations.indexes import uv_environment
from taxiway.integrations.ledger import SqliteLedger
from taxiway.stage import run_key
from taxiway.testing import ScriptedClaude

sys.path.insert(0, str(Path(__file__).parents[1] / "integrations"))

from index_server import Answer, index_server, wheel

pytestmark = [
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bubblewrap.available() is not None, reason=str(bubblewrap.available())),
]

PIPELINE = """
pipeline: taped
policy: taped
params: {repository: {type: string}}
defaults: {timeout: 10m, retries: {attempts: 1, first: 1s, factor: 1, most: 1s}}
stages:
  update: {agent: update_dependencies, with: {level: minor}}
  build:
    agent: scaffold
    with: {template: none, requirements: A function that says how many words a text has.}
  validate: {agent: validate, with: {checks: [lint, tests]}, repair: {attempts: 1}}
  integrate: {agent: integrate}
"""
POLICY = "policy: taped\nmodels: {model: claude-sonnet-5-5, max_tokens: 4000}\n"
PINNED = {
    **FILES,
    "requirements.in": "tinything\n",
    "requirements.txt": "tinything==1.2.0\n",
    "tests/test_thing.py": 'import tinything\n\n\ndef test_thing() -> None:\n    assert tinything.VERSION == "1.3.0"\n',
}
STAGES = ("update", "build", "validate", "integrate")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A package index with newer versions of what the project pins."""
    folder = tmp_path_factory.mktemp("wheels")
    with index_server(folder) as server:
        made = [wheel(folder, version=version) for version in ("1.2.0", "1.3.0", "2.0.0")]
        server.answers |= {f"/files/{place.name}": Answer(place.read_bytes()) for place in made}
        server.html(*(f"/files/{place.name}" for place in made))
        yield server


@dataclass(frozen=True)
class Ended:
    """What a command said, and the run that it made."""

    code: int
    said: str
    run: str
    origin: Path
    home: Home

    def result(self, stage):
        found = Archive(self.home).result("taped", self.run, stage)
        assert found is not None, self.said
        return found

    def states(self):
        return {t.id: t.state for t in Archive(self.home).tasks("taped", self.run) if t.id in STAGES}

    def spending(self):
        return SqliteLedger(self.home.ledger).spending(run_key("taped", self.run))

    def trees(self):
        """Of every commit that the run brought into the repository."""
        return git(self.origin, "log", "--all", "--topo-order", "--format=%T").splitlines()


class Command:
    """`taxiway run` in a project's folder, with an Airflow of its own and no settings of a model but those that are given."""

    def __init__(self, folder, index):
        self.folder, self.home, self.tape = folder, Home(folder / "home"), folder / "tape"
        (folder / "pipelines" / "policies").mkdir(parents=True)
        (folder / "pipelines" / "taped.yaml").write_text(PIPELINE)
        (folder / "pipelines" / "policies" / "taped.yaml").write_text(POLICY)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("TAXIWAY", "ANTHROPIC"))}
        # The machine's own indexes still have the tools.
        indexes = " ".join(filter(None, [index.url, uv_environment(os.environ).get("UV_INDEX", "")]))
        self.environ = {**clean, "UV_INDEX": indexes, "TAXIWAY_HOME": str(self.home.path)}

    def run(self, origin, option, **environ):
        before = {r.id for r in Archive(self.home).runs("taped")} if self.home.airflow.exists() else set()
        done = subprocess.run(
            [sys.executable, "-m", "taxiway.cli", "run", "taped", "-p", f"repository={origin}", option, str(self.tape)],
            cwd=self.folder,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        new = [r.id for r in Archive(self.home).runs("taped") if r.id not in before]
        assert len(new) == 1, done.stdout
        return Ended(done.returncode, done.stdout, new[0], origin, self.home)


@pytest.fixture(scope="module")
def command(tmp_path_factory, index):
    command = Command(tmp_path_factory.mktemp("taped"), index)
    yield command
    shutil.rmtree(command.home.sockets, ignore_errors=True)


@pytest.fixture(scope="module")
def recorded(command, tmp_path_factory):
    origin = repository(tmp_path_factory.mktemp("recorded"), "one repair", PINNED)
    # The replays begin where this one does.
    shutil.copytree(origin.parent, origin.parent / "again")
    with ScriptedClaude(answer) as claude:
        ended = command.run(origin, "--record", ANTHROPIC_BASE_URL=claude.url, ANTHROPIC_API_KEY="test")
    return ended, claude


def test_a_run_with_newer_pins_and_a_repair_is_recorded(command, recorded):
    ended, claude = recorded
    assert ended.code == 0, ended.said
    assert ended.states() == dict.fromkeys(STAGES, "success")
    assert "len(words(text))" in git(ended.origin, "show", f"main:{CODE}")
    assert len(list(command.tape.glob("*.json"))) == len(claude.requests) == len(ended.spending()) == 5
    assert {call.state for call in ended.spending()} == {"settled"}
    assert ended.result("validate").cost.usd > 0


def test_pins_are_updated_from_the_index_and_installed(recorded):
    ended, _ = recorded
    update = ended.result("update")
    assert (update.outputs, update.metrics) == (
        {"updated": 1, "files": 1, "held": 0},
        {"dependencies.updated": 1, "dependencies.held": 0},
    )
    assert update.summary == "Update 1 dependency (minor)"
    assert git(ended.origin, "show", "main:requirements.txt") == "tinything==1.3.0"
    message = git(ended.origin, "log", "-1", "--format=%B", update.commit)
    assert "- tinything 1.2.0 -> 1.3.0" in message
    assert "Taxiway-Agent: update_dependencies" in message
    # Its own test wants the new one.
    assert ended.result("validate").metrics["tests.passed"] == 3


def test_a_replay_makes_the_same_commits_and_costs_nothing(command, recorded):
    first, claude = recorded
    asked = len(claude.requests)
    again = command.run(first.origin.parent / "again" / "origin.git", "--replay")
    assert again.code == 0, again.said
    assert again.states() == dict.fromkeys(STAGES, "success")
    assert again.trees() == first.trees()
    assert {call.state for call in again.spending()} == {"replayed"}
    assert (len(again.spending()), sum(call.micros for call in again.spending()), len(claude.requests)) == (5, 0, asked)
    cost = again.result("validate").cost
    assert (cost.calls, cost.replayed, cost.usd) == (2, 2, 0)
    assert "Taxiway-Cost: 0.000000 USD" in git(again.origin, "log", "-1", "--format=%B", again.result("validate").commit)
    assert "replayed" in again.said


def test_a_replay_that_goes_another_way_says_where(command, recorded, tmp_path):
    origin = repository(tmp_path, "one repair", {**PINNED, CODE: FILES[CODE].replace("text", "line")})
    other = command.run(origin, "--replay")
    assert other.code == 1, other.said
    assert other.states() == {"update": "success", "build": "failed", "validate": "upstream_failed", "integrate": "upstream_failed"}
    # The file that the model reads first has as many bytes and says something else.
    assert f"build failed: the replay has no recorded answer in {command.tape}: messages[2].content[0].content was " in other.said
    assert "hint: the conversation changed: record it again" in other.said
    assert git(origin, "log", "--format=%s", "main") == "Split words"
