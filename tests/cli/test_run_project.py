from __future__ import annotations

from pathlib import Path

import pytest

from taxiway.cli.project import find_pipeline, find_project
from taxiway.errors import InputError, OperatorError


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "a.yaml").write_text("# pipeline: no\npipeline: first\n")
    (folder / "b.yml").write_text('pipeline: "second"  # the second\n')
    (folder / "broken.yaml").write_text("pipeline: [\n")
    (folder / ".hidden.yaml").write_text("pipeline: hidden\n")
    (folder / "second.yaml").write_text("pipeline: third\n")
    (folder / "latin.yaml").write_bytes(b"\xff\xfe\npipeline: fourth\n")
    (tmp_path / "elsewhere.yaml").write_text("pipeline: fifth\n")
    return find_project(tmp_path / "pipelines", {})


@pytest.mark.parametrize(
    ("name", "file"),
    [("first", "a.yaml"), ("second", "b.yml"), ("third", "second.yaml"), ("broken", "broken.yaml"), ("fourth", "latin.yaml")],
)
def test_finds_by_id_even_a_broken_one_by_its_name(project, name, file):
    assert find_pipeline(name, project) == project.pipelines / file


def test_finds_by_path(project, monkeypatch):
    monkeypatch.chdir(project.pipelines.parent)
    assert find_pipeline("pipelines/a.yaml", project) == project.pipelines / "a.yaml"
    assert find_pipeline(str(project.pipelines / "b.yml"), project) == project.pipelines / "b.yml"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("hidden", "there is first, fourth, second, third"),
        ("no_such", "no pipeline 'no_such'"),
        ("no_such.yaml", "no file"),
        ("../elsewhere.yaml", "is not in"),
        ("pipelines", "no pipeline"),
        ("", "no id of a pipeline"),
        ("a b", "no id of a pipeline"),
        ("a\0", "no id of a pipeline"),
    ],
)
def test_says_what_there_is(project, monkeypatch, name, problem):
    monkeypatch.chdir(project.pipelines)
    with pytest.raises(InputError, match=problem):
        find_pipeline(name, project)


def test_the_home_may_lie_elsewhere(project, tmp_path):
    found = find_project(tmp_path / "pipelines", {"TAXIWAY_HOME": str(tmp_path / "far" / "home")})
    assert (found.home.path, found.pipelines) == (tmp_path / "far" / "home", tmp_path / "pipelines")
    beside = find_project(Path("/"), {"TAXIWAY_HOME": str(tmp_path / ".taxiway")})
    assert beside.pipelines == tmp_path / "pipelines"
    with pytest.raises(OperatorError, match="no pipelines/ folder"):
        find_project(Path("/"), {"TAXIWAY_HOME": str(tmp_path / "far" / "home")})


@pytest.mark.parametrize("environ", [{"TAXIWAY_HOME": "{}"}, {}])
def test_a_home_that_is_no_folder(tmp_path, environ):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / ".taxiway").write_text("")
    with pytest.raises(OperatorError, match=r"\.taxiway is not a folder"):
        find_project(tmp_path, {name: value.format(tmp_path / ".taxiway") for name, value in environ.items()})
