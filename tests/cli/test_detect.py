"""`taxiway detect` as a user sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from taxiway.cli import app
from taxiway.errors import ProjectError


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").touch()
    (tmp_path / "thing.py").touch()
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "thing"\nversion = "1"\ndependencies = ["six"]\n[dependency-groups]\ntest = ["pytest"]\n'
    )
    return tmp_path


def test_shows_what_was_found_and_why_and_changes_nothing(project: Path) -> None:
    before = sorted(project.rglob("*"))
    done = CliRunner().invoke(app, ["detect", str(project)], catch_exceptions=False)
    assert done.exit_code == 0
    for line in (
        "pyproject.toml: dependency group test: test dependencies",
        "tests: folder tests",
        "would install: six, pytest",
        "from: pyproject.toml",
    ):
        assert line in done.output
    assert sorted(project.rglob("*")) == before


def test_writes_it_down_once(project: Path) -> None:
    done = CliRunner().invoke(app, ["detect", str(project), "--write"], catch_exceptions=False)
    assert f"wrote {project / '.taxiway.yaml'}" in done.output
    text = (project / ".taxiway.yaml").read_text()
    with pytest.raises(ProjectError, match="stays as it is"):
        CliRunner().invoke(app, ["detect", str(project), "--write"], catch_exceptions=False)
    assert (project / ".taxiway.yaml").read_text() == text


def test_says_what_to_write_where_nothing_was_found(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="no Python project") as raised:
        CliRunner().invoke(app, ["detect", str(tmp_path)], catch_exceptions=False)
    assert "name: my-project" in raised.value.hint
