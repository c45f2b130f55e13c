"""Set-up on a small repository of its own: what it says when something is missing, and that it repairs itself."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "taxiway"
version = "0"
[project.scripts]
taxiway = "taxiway:main"
[tool.hatch.build]
dev-mode-dirs = ["src"]
"""
PINNED = ("hatchling", "packaging", "pathspec", "pluggy", "tomli", "trove-classifiers", "uv")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The scripts as they are, over a small project whose few pins are ours. Its path has a space."""
    root = tmp_path / "a clone"
    (root / "src" / "taxiway").mkdir(parents=True)
    (root / "src" / "taxiway" / "__init__.py").write_text("def main():\n    print('it runs')\n")
    shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "pyproject.toml").write_text(PYPROJECT)
    pins = re.findall(r"^\S+==(?:.*\\\n)+.*\n", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    (root / "constraints.txt").write_text("".join(p for p in pins if p.split("==")[0] in PINNED))
    return root


def set_up(root: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, **environ}
    return subprocess.run(
        [root / "scripts" / "setup.sh"], env=environment, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL
    )


@pytest.mark.load  # two environments are made, pip and all
def test_installs_once_notices_changes_and_repairs_what_was_left_half_done(repository: Path) -> None:
    venv = repository / ".venv"
    pyproject = repository / "pyproject.toml"

    first = set_up(repository, PYTHONDONTWRITEBYTECODE="1")
    assert first.returncode == 0, first.stdout + first.stderr
    assert [line for line in first.stdout.splitlines() if "/4]" in line][-1] == "set-up: [4/4] installing Taxiway"
    assert runs(venv)
    assert list(venv.glob("lib/python*/site-packages/hatchling/__pycache__/*.pyc")), "bytecode is compiled"

    again = set_up(repository, PYTHON="")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")

    # A change of what is pinned: the same environment, brought up to date.
    (venv / "kept").touch()
    pyproject.write_text(PYPROJECT + "# changed\n")
    assert "[3/4]" in set_up(repository).stdout
    assert (venv / "kept").exists()

    # A failure is told and leaves the mark. What is there may be half a package, so the next set-up begins anew.
    pyproject.write_text(PYPROJECT.replace('"hatchling.build"', '"nothing"'))
    failed = set_up(repository)
    assert failed.returncode == 1
    assert "this failed with exit code" in failed.stderr
    assert "Traceback" not in failed.stderr.replace("  Traceback", "")  # uv shows the one of the back end, indented
    pyproject.write_text(PYPROJECT)
    repaired = set_up(repository, PYTHON="")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert "[1/4]" in repaired.stdout
    assert not (venv / "kept").exists()
    assert runs(venv)


def runs(venv: Path) -> bool:
    return subprocess.run([venv / "bin" / "taxiway"], capture_output=True, text=True, check=True, timeout=120).stdout == "it runs\n"


@pytest.mark.parametrize(
    ("mark", "place", "asked", "version", "anew"),
    [
        ("abc", "", "", "3.12.1", False),
        ("abc", "", sys.executable, sys.version.split()[0], False),
        ("", "", "", "3.12.1", False),
        ("abc", "", "", "", True),
        ("unfinished", "", "", "3.12.1", True),
        ("abc", "/another/place/.venv", "", "3.12.1", True),
        ("abc", "", sys.executable, "3.9.1", True),
    ],
    ids=["finished", "the Python asked for", "made by hand", "no Python in it", "killed", "moved", "another Python asked for"],
)
def test_what_is_made_anew(
    repository: Path, monkeypatch: pytest.MonkeyPatch, *, mark: str, place: str, asked: str, version: str, anew: bool
) -> None:
    spec = importlib.util.spec_from_file_location("setup_of_a_clone", repository / "scripts" / "setup.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    venv = repository / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "activate").write_text(f"VIRTUAL_ENV='{place or venv}'\n")
    (venv / ".taxiway-setup").write_text(mark)
    monkeypatch.setenv("PYTHON", asked)
    assert setup.must_rebuild(version) is anew


def test_uv_must_be_pinned(repository: Path) -> None:
    (repository / "constraints.txt").write_text("")
    done = set_up(repository)
    assert done.returncode == 1
    assert "constraints.txt does not pin uv" in done.stderr


@pytest.mark.parametrize("python", ["/nowhere/python3", "/bin/false", "/bin/echo"])
def test_a_python_that_is_none_is_named(repository: Path, python: str) -> None:
    if python == "/bin/echo":
        old = repository / "old python"
        old.write_text("#!/bin/sh\nexit 1\n")
        old.chmod(0o755)
        python = str(old)
    done = set_up(repository, PYTHON=python)
    assert done.returncode == 1
    assert f"PYTHON={python} does not run or is older than Python 3.11" in done.stderr
    assert "sudo apt-get install python3 python3-venv" in done.stderr
    assert not (repository / ".venv").exists()


def path_with(folder: Path, *tools: str) -> str:
    """A PATH with these tools and nothing else: no apt-get, so that nothing is installed here."""
    folder.mkdir()
    for tool in tools:
        (folder / tool).symlink_to(shutil.which(tool))
    return str(folder)


def test_no_python_at_all_is_told_with_the_command_that_gets_it(repository: Path, tmp_path: Path) -> None:
    done = set_up(repository, PYTHON="", PATH=path_with(tmp_path / "bin", "sh", "dirname", "id"))
    assert done.returncode == 1
    assert "no Python 3.11 or newer on PATH" in done.stderr
    assert "sudo apt-get install python3 python3-venv" in done.stderr


def test_missing_tools_are_named_with_the_command_that_gets_them(repository: Path, tmp_path: Path) -> None:
    done = set_up(repository, PATH=path_with(tmp_path / "bin", "sh", "dirname", "id"))
    assert done.returncode == 1
    assert "git is missing (a run's code lives in git); get it: sudo apt-get install git" in done.stdout
    assert "bubblewrap is missing (without it only trusted code runs); get it: sudo apt-get install bubblewrap" in done.stdout
    assert "chromium is missing (without it no page is tested in a browser); get it: sudo apt-get install chromium" in done.stdout
    assert "ffmpeg is missing (without it browser tests are not filmed); get it: sudo apt-get install ffmpeg" in done.stdout
    assert done.stderr.rstrip().endswith("cannot go on without git")


def test_bubblewrap_is_asked_for_but_not_needed(repository: Path, tmp_path: Path) -> None:
    (repository / "constraints.txt").write_text("")  # ends it right after the system was looked at
    done = set_up(repository, PATH=path_with(tmp_path / "bin", "sh", "dirname", "id", "git"))
    assert "bubblewrap is missing" in done.stdout
    assert "does not pin uv" in done.stderr
