"""`taxiway test`: what it prints, and how it ends."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from taxiway import cli
from taxiway.errors import InputError, SpecError

PIPELINE = """pipeline: shop
params: {repository: {type: string, default: ""}}
stages: {scan: {agent: validate, with: {checks: [secrets]}}}
"""
CASES = """pipeline: pipelines/shop.yaml
cases:
  clean:
    files: {app.py: "x = 1", requirements.txt: ""}
    expect: {stages: {scan: success}, gates: {scan: passed}}
  expected otherwise:
    files: {app.py: "x = 1", requirements.txt: ""}
    expect: {stages: {scan: failed}}
"""


@pytest.fixture
def taxiway(tmp_path, monkeypatch):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "shop.yaml").write_text(PIPELINE)
    (tmp_path / "shop.test.yaml").write_text(CASES)
    (tmp_path / "wrong.test.yaml").write_text(CASES.replace("files:", "file:"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TAXIWAY_HOME", raising=False)

    def call(*words):
        done = CliRunner().invoke(cli.app, ["test", *words])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout

    return call


def test_a_line_for_each_case_and_why_it_failed(taxiway):
    code, said = taxiway("shop.test.yaml")
    first, second, why, end = said.splitlines()
    assert code == 1
    assert first.startswith("passed  shop.test.yaml: clean (")
    assert second.startswith("FAILED  shop.test.yaml: expected otherwise (")
    assert why == "        stage scan: expected failed, it is success"
    assert end == "1 passed, 1 failed"


def test_some_of_them_for_programs(taxiway):
    code, said = taxiway("shop.test.yaml", "--only", "clean", "--format", "json")
    assert code == 0
    (tried,) = json.loads(said)
    assert (tried["case"], tried["passed"], tried["problems"], tried["cost"]) == ("clean", True, [], None)


def test_a_wrong_file_runs_nothing(taxiway):
    with pytest.raises(SpecError, match=r"wrong\.test\.yaml:4:5: error: unknown key 'file'\n.*\n.*\^\n.*did you mean 'files'\?"):
        taxiway("shop.test.yaml", "wrong.test.yaml")


def test_no_such_case(taxiway):
    with pytest.raises(InputError, match="no case has 'ghost'") as refused:
        taxiway("shop.test.yaml", "-k", "ghost")
    assert refused.value.hint == "there is clean, expected otherwise"
