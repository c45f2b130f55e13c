"""What a shell offers after TAB, and that installing it makes a real shell offer it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))

from recorded import Recorded

from taxiway.cli import app
from taxiway.cli.examples import shipped
from taxiway.home import Home

OLD, NEW = "taxiway__20260301T120000_aaaaaa", "taxiway__20260301T120100_bbbbbb"
RUNS = {"shop", f"shop/{OLD}", f"shop/{NEW}", OLD, NEW}
PROGRAM = Path(sys.executable).with_name("taxiway")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a pipeline, two runs of it, and a service."""
    for name in [n for n in os.environ if n.startswith("TAXIWAY")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "project"
    (folder / "pipelines" / "policies").mkdir(parents=True)
    shutil.copy(shipped()["web_service"], folder / "pipelines")
    monkeypatch.chdir(folder)
    recorded = Recorded(Home(folder / ".taxiway"))
    for minute, run in enumerate((OLD, NEW)):
        recorded.add("shop", run, minute=minute)
        for second, stage in enumerate(("scaffold", "validate", "outcome")):
            recorded.task("shop", run, stage, second=second)
    (folder / ".taxiway" / "services" / "greeter").mkdir(parents=True)
    return folder


def bash(line):
    environ = {"_TAXIWAY_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    return set(CliRunner().invoke(app, [], env=environ, prog_name="taxiway").stdout.split())


def zsh(line):
    environ = {"_TAXIWAY_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
    said = CliRunner().invoke(app, [], env=environ, prog_name="taxiway").stdout
    assert said.startswith("_arguments '*: :((") or said.strip() == "_files"
    return set(re.findall(r'^(?:_arguments.*\(\()?"([^"]+)"', said, re.MULTILINE))


def fish(line):
    environ = {"_TAXIWAY_COMPLETE": "complete_fish", "_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    said = CliRunner().invoke(app, [], env=environ, prog_name="taxiway").stdout
    return {found.partition("\t")[0] for found in said.split("\n") if found}


@pytest.mark.parametrize("shell", [bash, zsh, fish])
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("taxiway run ", {"web_service"}),
        ("taxiway plan we", {"web_service"}),
        ("taxiway agents mon", {"monitor"}),
        ("taxiway new --from ", set(shipped())),
        ("taxiway services url ", {"greeter"}),
        ("taxiway logs ", RUNS),
        ("taxiway diff shop/", {f"shop/{OLD}", f"shop/{NEW}"}),
        (f"taxiway logs {NEW[:20]}", {NEW, OLD}),
        ("taxiway logs shop ", {"scaffold", "validate", "outcome"}),
        (f"taxiway diff {OLD} va", {"validate"}),
        ("taxiway retry shop --from ", {"scaffold", "validate", "outcome"}),
        ("taxiway retry shop --from sc", {"scaffold"}),
        ("taxiway logs ghost ", set()),
        ("taxiway retry --from ", set()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.usefixtures("project")
def test_each_shell_is_offered(shell, line, found):
    assert shell(line) == found


def test_outside_a_project_there_is_nothing_to_offer(tmp_path, monkeypatch):
    monkeypatch.setenv("TAXIWAY_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert [bash(line) for line in ("taxiway run ", "taxiway logs ", "taxiway services url ", "taxiway retry x --from ")] == [set()] * 4


@pytest.mark.parametrize(
    ("shell", "says"),
    [("bash", "complete -o default -F _taxiway_completion taxiway"), ("zsh", "#compdef taxiway"), ("fish", "complete --command taxiway")],
)
def test_the_script_of_each_shell_is_shown(shell, says):
    done = CliRunner().invoke(app, [], env={"_TAXIWAY_COMPLETE": f"source_{shell}"}, prog_name="taxiway")
    assert says in done.stdout


ASK = """
set -e
taxiway --install-completion
. ~/.bashrc
COMP_WORDS=(taxiway retry shop --from v) COMP_CWORD=4
_taxiway_completion taxiway
echo "offered: ${COMPREPLY[*]}"
"""


def test_installing_it_makes_a_real_bash_complete(project, tmp_path):
    (tmp_path / "home").mkdir()
    environ = {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "HOME": str(tmp_path / "home"), "LANG": "C.UTF-8"}
    done = subprocess.run(["bash", "--norc", "-c", ASK], cwd=project, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bash completion installed in" in done.stdout
    assert done.stdout.splitlines()[-1] == "offered: validate"
    assert {p.name for p in (tmp_path / "home").iterdir()} >= {".bashrc", ".bash_completions"}
