"""The command as a process: what it says and how it ends where no Airflow is needed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typer.main
from typer.testing import CliRunner

from taxiway.cli import app
from taxiway.cli.ends import told
from taxiway.cli.project import Project
from taxiway.cli.status import status_lines
from taxiway.errors import OperatorError
from taxiway.home import Home
from taxiway.integrations.airflow_state import changing

GOOD = """
pipeline: good
params:
  name: {type: string, pattern: "^[a-z]+$"}
stages:
  scaffold:
    agent: scaffold
    with: {template: python-service, name: x-y}
"""


@pytest.fixture
def taxiway(tmp_path):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "good.yaml").write_text(GOOD)
    (tmp_path / "pipelines" / "broken.yaml").write_text("pipeline: broken\nstages: {a: {agent: scafold}}\n")
    (tmp_path / "pipelines" / "policies").mkdir()
    (tmp_path / "pipelines" / "policies" / "floor.yaml").write_text("policy: floor\n")
    (tmp_path / "empty").mkdir()

    def call(*arguments, folder=".", **environ):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("TAXIWAY", "AIRFLOW"))}
        command = [sys.executable, "-m", "taxiway.cli", *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path / folder,
            env=clean | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    yield call
    assert not (tmp_path / ".taxiway").exists(), "nothing was started"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["run", "broken"], 2, "broken.yaml:2:21: error: unknown agent 'scafold'"),
        (["run", "good"], 2, "params without a value: name"),
        (["run", "good", "--param", "nam=x"], 2, "did you mean name?"),
        (["run", "good", "--param", "name=X1"], 2, "'X1' does not match its pattern\n  hint: it matches ^[a-z]+$"),
        (["run", "pipelines/policies/floor.yaml"], 2, "is a policy: it does not run"),
        (["run", "ghost"], 2, "there is broken, good"),
        (["run"], 2, "Missing argument"),
        (["run", "good", "--ghost"], 2, "No such option"),
        (["run", "good", "--url", "nonsense"], 2, "no address of an Airflow"),
        (["run", "good", "--url", "http://127.0.0.1:1"], 2, "no credentials"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors(taxiway, arguments, code, text):
    done = taxiway(*arguments)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_outside_of_a_project(taxiway, tmp_path):
    for command, code in (("run x", 2), ("up", 1), ("down", 1), ("status", 1)):
        done = subprocess.run(
            [sys.executable, "-m", "taxiway.cli", *command.split()],
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={k: v for k, v in os.environ.items() if k != "TAXIWAY_HOME"},
        )
        assert (done.returncode, "no pipelines/ folder" in done.stderr) == (code, True), command


def test_debug_shows_the_traceback(taxiway):
    assert "Traceback" in taxiway("--debug", "run", "ghost").stderr


def commands(command, path=()):
    for name, inner in command.commands.items():
        yield from commands(inner, (*path, name)) if hasattr(inner, "commands") else [(*path, name)]


@pytest.mark.parametrize("command", list(commands(typer.main.get_command(app))), ids=" ".join)
def test_every_help_has_an_example(command):
    done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "120"}, prog_name="taxiway")
    assert done.exit_code == 0
    assert f"taxiway {' '.join(command)}" in done.stdout.split("Example", 1)[1]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(13, "Permission denied", "/x/y"), "error: cannot use /x/y: Permission denied\n  hint: mend the permissions"),
        (
            OSError(28, "No space left on device", "/x/y"),
            "error: cannot use /x/y: No space left on device\n  hint: mend the path or the disk",
        ),
        (OperatorError("gone", hint="look"), "error: gone\n  hint: look"),
        (ZeroDivisionError("ours"), None),
        (OSError("without a file"), None),
    ],
)
def test_what_the_machine_refuses_is_no_fault_of_ours(error, text):
    said = told(error)
    assert said is None if text is None else said.startswith(text)


def test_a_folder_that_cannot_be_written_ends_with_1(taxiway, tmp_path):
    (tmp_path / "file").touch()
    done = taxiway("schema", "-o", "file/schema.json")
    assert (done.returncode, "cannot use file/schema.json: Not a directory" in done.stderr) == (1, True), done.stderr


def test_nothing_runs_yet(taxiway):
    done = taxiway("status")
    assert done.returncode == 0
    assert "not running" in done.stdout


def test_status_while_it_starts_or_stops(tmp_path):
    project = Project(Home(tmp_path / "home"), tmp_path)
    with changing(project.home):
        assert "airflow    being started or stopped: no process yet" in list(status_lines(project))
    assert "airflow    not running (`taxiway up` starts it)" in list(status_lines(project))
