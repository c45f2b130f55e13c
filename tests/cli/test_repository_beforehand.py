"""What plan and run say beforehand of the repository that a run would work on, with real git."""

import shlex
import subprocess

import pytest
from typer.testing import CliRunner

from taxiway.agents import registry
from taxiway.cli import app
from taxiway.cli.repositories import check_repository
from taxiway.compiler import compile_file
from taxiway.errors import InputError
from taxiway.integrations.git_folder import CHECKED_OUT, checked_out

PIPELINE = """\
pipeline: p
params:
  repository: {type: string, default: ""}
  branch: {type: string, default: main}
  merge: {type: boolean, default: true}
stages:
  check: {agent: validate}
  merge: {agent: integrate, when: params.merge, with: {into: '{{ params.branch }}', mode: push}}
"""


def git(folder, *words):
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "a project"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "begin")
    return folder


def planned(tmp_path, text=PIPELINE):
    (tmp_path / "p.yaml").write_text(text)
    return compile_file(tmp_path / "p.yaml", registry())


@pytest.mark.parametrize("address", ["{}", "file://{}", "file://localhost{}"])
def test_a_branch_that_is_checked_out_is_refused_before_the_run(tmp_path, project, address):
    url = address.format(str(project).replace(" ", "%20") if address != "{}" else project)
    with pytest.raises(InputError) as refused:
        check_repository(planned(tmp_path), {"repository": url}, registry())
    assert refused.value.problem == f"stage merge pushes to branch main of {url}, which is checked out there: git refuses that"
    assert refused.value.hint == CHECKED_OUT


def test_it_is_what_git_refuses(tmp_path, project):
    git(tmp_path, "clone", "-q", str(project), "clone")
    git(tmp_path / "clone", "commit", "-q", "--allow-empty", "-m", "more")
    with pytest.raises(subprocess.CalledProcessError):
        git(tmp_path / "clone", "push", "-q", "origin", "main")
    assert checked_out(project) == {"main"}
    git(project, "config", "receive.denyCurrentBranch", "updateInstead")
    assert checked_out(project) == frozenset()
    git(tmp_path / "clone", "push", "-q", "origin", "main")


@pytest.mark.parametrize(
    ("params", "pipeline"),
    [
        ({"branch": "release"}, PIPELINE),
        ({"merge": False}, PIPELINE),
        ({}, PIPELINE.replace("mode: push", "mode: pull_request")),
        (
            {},
            PIPELINE.replace(", mode: push", "")
            .replace("agent: integrate", "agent: validate")
            .replace("{into: '{{ params.branch }}'}", "{}"),
        ),
    ],
    ids=["another branch", "skipped", "by a forge", "nothing is merged"],
)
def test_what_pushes_nothing_there_may_run(tmp_path, project, params, pipeline):
    check_repository(planned(tmp_path, pipeline), {"repository": str(project), **params}, registry())


@pytest.mark.parametrize("kind", ["bare", "another branch", "on a server", "new"])
def test_other_repositories_may_be_used(tmp_path, project, kind):
    urls = {"bare": str(tmp_path / "bare.git"), "new": ""}
    git(tmp_path, "clone", "-q", "--bare", str(project), "bare.git")
    if kind == "another branch":
        git(project, "checkout", "-q", "-b", "mine")
    url = urls.get(kind, "https://git.example.com/a/b" if kind == "on a server" else str(project))
    check_repository(planned(tmp_path), {"repository": url}, registry())


@pytest.mark.parametrize(
    ("place", "problem", "hint"),
    [
        ("ghost", "{} does not exist on this machine", "check the path"),
        ("plain", "{} is no git repository", "git -C {} init"),
        ("a project/inside", "{} is no git repository", "git -C {} init"),
    ],
)
def test_a_folder_that_git_cannot_clone(tmp_path, project, place, problem, hint):
    (tmp_path / "plain").mkdir()
    (project / "inside").mkdir()
    folder = tmp_path / place
    with pytest.raises(InputError) as refused:
        check_repository(planned(tmp_path), {"repository": str(folder)}, registry())
    assert refused.value.problem == problem.format(folder)
    assert hint.format(shlex.quote(str(folder))) in refused.value.hint
    assert subprocess.run(["git", "clone", "-q", str(folder), str(tmp_path / "c")], capture_output=True, check=False).returncode


def test_a_work_tree_of_it_counts_too(tmp_path, project):
    git(project, "checkout", "-q", "-b", "mine")
    git(project, "worktree", "add", "-q", str(tmp_path / "beside"), "main")
    assert checked_out(project) == {"main", "mine"}


def test_an_address_that_is_none(tmp_path):
    with pytest.raises(InputError, match="neither a URL nor an absolute path"):
        check_repository(planned(tmp_path), {"repository": "../shop"}, registry())


def test_a_plan_warns_of_it(tmp_path, project, monkeypatch):
    planned(tmp_path)
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, ["plan", "p.yaml", "--param", f"repository={project}"])
    assert said.exit_code == 0
    assert said.stderr.endswith(f"which is checked out there: git refuses that\n  hint: {CHECKED_OUT}\n")
