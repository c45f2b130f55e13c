"""taxiway check, plan and schema as a person uses them."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from taxiway.agents import registry
from taxiway.cli import app
from taxiway.cli.authoring import _lines
from taxiway.cli.declared import agent_record
from taxiway.compiler.check import check

ROOT = Path(__file__).parents[2]
GOOD = """\
pipeline: good
params: {branch: {type: string, default: main}, n: {type: integer, default: 1}}
stages:
  v: {agent: validate}
  i: {agent: integrate, with: {into: '{{ params.branch }}'}}
"""
BAD = "pipeline: bad\nstages:\n  v: {agent: validat}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(BAD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def taxiway(*words: str):
    return CliRunner().invoke(app, list(words))


def test_check_says_where(folder):
    result = taxiway("check", ".")
    assert result.exit_code == 1
    assert result.stdout == (
        "bad.yaml:3:14: error: unknown agent 'validat'\n"
        "      v: {agent: validat}\n"
        "                 ^\n"
        "    hint: did you mean 'validate'?\n"
        "1 error in 1 of 2 files\n"
    )


def test_check_of_good_files(folder):
    result = taxiway("check", "good.yaml")
    assert (result.exit_code, result.stdout) == (0, "1 file checked, no errors\n")


def test_shipped_pipelines_are_good():
    result = taxiway("check", str(ROOT / "pipelines"))
    assert result.exit_code == 0, result.stdout


def test_check_as_json(folder):
    result = taxiway("check", "bad.yaml", "--format", "json")
    assert result.exit_code == 1
    (problem,) = json.loads(result.stdout)["problems"]
    assert (problem["path"], problem["line"], problem["column"], problem["rule"]) == ("bad.yaml", 3, 14, "unknown-agent")


def test_check_as_sarif(folder):
    result = taxiway("check", ".", "--format", "sarif")
    assert result.exit_code == 1
    (run,) = json.loads(result.stdout)["runs"]
    (found,) = run["results"]
    place = found["locations"][0]["physicalLocation"]
    assert (found["ruleId"], found["level"], place["region"]) == ("unknown-agent", "error", {"startLine": 3, "startColumn": 14})
    assert [r["id"] for r in run["tool"]["driver"]["rules"]] == ["unknown-agent"]


@pytest.mark.parametrize("words", [["check", "missing.yaml"], ["check"], ["check", "good.yaml", "--format", "xml"], ["check", "empty"]])
def test_wrong_use_ends_with_2(folder, words):
    (folder / "empty").mkdir()
    assert taxiway(*words).exit_code == 2


@pytest.mark.parametrize(
    ("word", "problem", "hint"),
    [
        ("missing.yaml", "no file or folder missing.yaml", "`taxiway check pipelines` checks the pipelines of this project"),
        ("good", "no file or folder good", "`taxiway check pipelines/it.yaml` checks that pipeline"),
        (".", "no YAML files in .", "`taxiway check pipelines` checks the pipelines of this project"),
    ],
)
def test_where_there_is_something_to_check(tmp_path, monkeypatch, word, problem, hint):
    monkeypatch.delenv("TAXIWAY_HOME", raising=False)
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "it.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    said = taxiway("check", word)
    assert (said.exit_code, said.stderr) == (2, f"error: {problem}\n  hint: {hint}\n")
    assert taxiway("check", hint.split("`")[1].split()[2]).exit_code == 0, "the hint works"


def test_where_there_is_nothing_to_check(tmp_path, monkeypatch):
    monkeypatch.delenv("TAXIWAY_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert taxiway("check", ".").stderr == "error: no YAML files in .\n  hint: `taxiway new` makes a pipeline\n"


def test_two_given_files_with_one_id(folder):
    (folder / "more").mkdir()
    (folder / "more" / "again.yaml").write_text(GOOD)
    result = taxiway("check", "good.yaml", "more")
    assert result.exit_code == 1
    assert "more/again.yaml:1:1: error: the pipeline id 'good' is taken" in result.stdout


def test_policies_are_checked_with_their_pipelines_and_alone(folder):
    (folder / "policies").mkdir()
    (folder / "policies" / "default.yaml").write_text("policy: default\ngates: {validate: [coverage.lines >= 1]}\n")
    for words in (["check", "good.yaml"], ["check", "policies"], ["check", "policies/default.yaml"]):
        result = taxiway(*words)
        assert result.exit_code == 1
        assert result.stdout.startswith("policies/default.yaml:2:20: error: agent 'validate' measures no 'coverage.lines'")


def test_an_expired_waiver_is_a_warning(folder):
    (folder / "policies").mkdir()
    waiver = "{agent: validate, metric: lint.errors, owner: ann, expires: 2026-03-01, reason: old code}"
    (folder / "policies" / "default.yaml").write_text(f"policy: default\nwaivers:\n  - {waiver}\n")
    assert not check([folder / "good.yaml"], registry(), date(2026, 3, 1)).warnings
    (warning,) = check([folder / "good.yaml"], registry(), date(2026, 3, 2)).warnings
    assert (warning.at.line, warning.rule) == (3, "expired-waiver")


def test_check_does_not_import_airflow(folder):
    code = "import sys; from taxiway.cli import app; app(['check', 'good.yaml'], standalone_mode=False); print('airflow' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, env=dict(os.environ))
    assert run.stdout.splitlines() == ["1 file checked, no errors", "False"]


def test_plan_as_text(folder):
    result = taxiway("plan", "good.yaml", "--param", "branch=release")
    assert result.exit_code == 0
    for words in ("moves branch release of", "requires      v", "tests.failed == 0 [default]", "after         v", "string = 'release'"):
        assert words in result.stdout


def test_plan_with_the_params_of_a_repair_rendered(folder):
    stage = "v: {agent: validate, repair: {agent: update_dependencies, with: {level: '{{ params.how }}'}}}"
    (folder / "mends.yaml").write_text(f"pipeline: mends\nparams: {{how: {{type: string, default: minor}}}}\nstages:\n  {stage}\n")
    assert "by agent update_dependencies with level=patch" in taxiway("plan", "mends.yaml", "-p", "how=patch").output


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], ["into=main", "params.n > 3 (it is skipped with these params)", "{{ stages.v.outcome }}"]),
        (["-p", "branch=release", "-p", "n=4"], ["into=release", "params.n > 3 (it runs with these params)", "moves branch release of"]),
    ],
)
def test_plan_with_its_params_rendered(folder, words, shown):
    late = "  s: {agent: scaffold, with: {name: x-y, description: '{{ stages.v.outcome }}'}}\n"
    (folder / "when.yaml").write_text(GOOD.replace("good", "when").replace("  i: {", "  i: {when: params.n > 3, ") + late)
    result = taxiway("plan", "when.yaml", *words)
    assert result.exit_code == 0, result.output
    for text in shown:
        assert text in result.stdout


def test_plan_by_id(folder, monkeypatch):
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / "any.YAML").write_text(GOOD)
    monkeypatch.delenv("TAXIWAY_HOME", raising=False)
    (folder / "good.yaml").unlink()
    assert taxiway("plan", "good").stdout.startswith("pipeline      good (any.YAML")
    assert taxiway("check", "pipelines").stdout == "1 file checked, no errors\n"
    result = taxiway("plan", "ghost")
    assert (result.exit_code, "there is good" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("name", "text"), [("floor.yaml", "is a policy: it has no plan of its own"), (".", "is a folder"), ("no.yaml", "no file no.yaml")]
)
def test_plan_says_what_it_cannot_plan(folder, monkeypatch, name, text):
    monkeypatch.setenv("TAXIWAY_HOME", str(folder / ".taxiway"))
    (folder / "pipelines").mkdir()
    (folder / "floor.yaml").write_text("# a floor\npolicy: floor\n")
    result = taxiway("plan", name)
    assert (result.exit_code, text in result.stderr) == (2, True), result.output


@pytest.mark.parametrize("name", ["no.yaml", "folder/no"])
def test_plan_names_a_missing_file_outside_a_project_too(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TAXIWAY_HOME", raising=False)
    result = taxiway("plan", name)
    assert (result.exit_code, f"no file {name}" in result.stderr) == (2, True), result.output


def test_plan_as_json(folder):
    stages = json.loads(taxiway("plan", "good.yaml", "--format", "json").stdout)["stages"]
    assert [(s["id"], s["needs"]) for s in stages] == [("v", []), ("i", ["v"])]


def test_plan_as_mermaid():
    result = taxiway("plan", str(ROOT / "pipelines" / "web_service.yaml"), "--format", "mermaid")
    assert result.stdout.startswith("flowchart LR\n")
    assert "s_scaffold --> s_validate" in result.stdout
    assert "s_deploy -. fails .-> s_rollback" in result.stdout


@pytest.mark.parametrize("given", ["nothing", "x=1", "n=many", "branch"])
def test_plan_refuses_params(folder, given):
    assert taxiway("plan", "good.yaml", "--param", given).exit_code == 2


def test_schema(folder):
    assert taxiway("schema", "--output", "schema.json").exit_code == 0
    assert taxiway("schema", "--check", "schema.json").exit_code == 0
    assert taxiway("schema").stdout == (folder / "schema.json").read_text()
    (folder / "schema.json").write_text("{}")
    assert taxiway("schema", "--check", "schema.json").exit_code == 1


REPAIRED = "pipeline: p\nstages: {check: {agent: validate, repair: {attempts: 1}}}\n"
ASKING = "policy: default\nmodels: {model: claude-opus-4-6, agents: {repair: {model: OTHER}}}\n"


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("policy: default\n", "none: nothing will be repaired; policy default names none: add"),
        (
            "policy: default\nmodels: {model: claude-opus-4-6, agents: {repair: {model: claude-sonnet-4-6}}}\n",
            "up to 1 by claude-sonnet-4-6, each",
        ),
    ],
)
def test_a_plan_says_which_model_repairs(folder, monkeypatch, policy, says):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "hush")
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "policies" / "default.yaml").write_text(policy)
    (folder / "repaired.yaml").write_text(REPAIRED)
    assert f"repair        {says}" in taxiway("plan", "repaired.yaml").stdout


def test_a_plan_says_which_agent_repairs(folder):
    repair = "{agent: update_dependencies, with: {level: patch}, may_change: ['*.txt']}"
    (folder / "repaired.yaml").write_text(f"pipeline: p\nstages: {{check: {{agent: validate, repair: {repair}}}}}\n")
    said = " ".join(taxiway("plan", "repaired.yaml").stdout.split())
    assert "repair up to 2 by agent update_dependencies with level=patch, each committed and measured again; may also change *.txt" in said


def test_an_agent_says_what_it_asks_a_model_for():
    validate = registry()["validate"]
    agent = replace(validate, asks="nothing of importance")
    assert "model    nothing of importance" in list(_lines(agent_record(agent, registry())))
    assert not any(line.startswith("model") for line in _lines(agent_record(validate, registry())))
