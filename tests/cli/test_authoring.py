"""new and agents: from an empty folder to a pipeline that passes the check."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date

import pytest
import yaml
from typer.testing import CliRunner

from taxiway.agents import registry
from taxiway.agents.base import Metric
from taxiway.cli import app
from taxiway.cli.declared import agent_record, example_pipeline
from taxiway.cli.examples import shipped
from taxiway.compiler.check import check


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("TAXIWAY_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def taxiway(*words, code=0):
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == code, (done.output, done.exception)
    return done


# --- new ------------------------------------------------------------------------------------------


NEEDED = {
    "bugfix": ("repository", "issue"),
    "check_repository": ("repository",),
    "feature": ("repository", "requirements"),
    "library": (),
}


@pytest.mark.parametrize("example", shipped())
def test_every_example_becomes_a_good_pipeline(folder, example):
    said = taxiway("new", "my_own", "--from", example).stdout
    needed = "".join(f" --param {name}=VALUE" for name in NEEDED.get(example, ()))
    assert said.splitlines()[-1] == f"next: taxiway plan pipelines/my_own.yaml, then taxiway run my_own{needed}"
    checked = check([folder / "pipelines"], registry(), date(2026, 1, 1))
    assert [str(p) for p in (*checked.problems, *checked.warnings)] == []
    assert yaml.safe_load((folder / "pipelines" / "my_own.yaml").read_text())["pipeline"] == "my_own"


def test_a_pipeline_that_lies_elsewhere_is_moved_before_it_runs(folder):
    said = taxiway("new", "lib", "--from", "bugfix", "--output", "elsewhere/lib.yaml").stdout
    run = "taxiway run lib --param repository=VALUE --param issue=VALUE"
    moved = "move it, with its policies/, to pipelines/, which Airflow reads"
    assert said.splitlines()[-1] == f"next: taxiway plan elsewhere/lib.yaml, then {moved}, and {run}"


def test_answers_go_where_the_example_has_them_and_comments_stay(folder):
    taxiway("new", "shop", "--from", "web_service", "--set", "owner=Ada: L {x}", "--set", "description=A shop\n# two", "--set", "name=s-2")
    text = (folder / "pipelines" / "shop.yaml").read_text()
    data = yaml.safe_load(text)
    assert (data["owner"], data["description"], data["params"]["name"]["default"]) == ("Ada: L {x}", "A shop\n# two", "s-2")
    example = shipped()["web_service"].read_text()
    changed = [line for line in example.splitlines() if line not in text.splitlines()]
    assert [line.split(":")[0].strip() for line in changed] == ["# yaml-language-server", "pipeline", "description", "owner", "name"]
    assert "# Airflow params" in text
    # An editor would look for a schema that is not there.
    assert "$schema" not in (folder / "pipelines" / "policies" / "default.yaml").read_text()


def test_the_service_is_called_like_the_pipeline(folder):
    taxiway("new", "my_shop", "--from", "web_service")
    assert yaml.safe_load((folder / "pipelines" / "my_shop.yaml").read_text())["params"]["name"]["default"] == "my-shop"


def test_a_schema_that_is_there_is_kept(folder):
    (folder / "schemas").mkdir()
    (folder / "schemas" / "pipeline.schema.json").write_text("{}")
    taxiway("new")
    assert (folder / "pipelines" / "web_service.yaml").read_text().startswith("# yaml-language-server")


def test_the_policy_that_is_there_stays(folder):
    policies = folder / "pipelines" / "policies"
    policies.mkdir(parents=True)
    (policies / "mine.yaml").write_text("policy: default\n")
    (folder / "pipelines" / "deep").mkdir()
    os.chdir(folder / "pipelines" / "deep")
    taxiway("new")
    assert sorted(p.name for p in policies.iterdir()) == ["mine.yaml"]
    assert (folder / "pipelines" / "web_service.yaml").is_file()


def test_nothing_is_overwritten(folder):
    taxiway("new", "-o", "a/b.yaml")
    before = (folder / "a" / "b.yaml").read_bytes()
    for words in (["new", "-o", "a/b.yaml"], ["new", "other", "-o", "a/b.yaml"], ["new", "-o", "a/c.yaml"]):
        assert "already" in taxiway(*words, code=2).stderr
    assert (folder / "a" / "b.yaml").read_bytes() == before
    assert sorted(p.name for p in (folder / "a").iterdir()) == ["b.yaml", "policies"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["Shop"], "no id of a pipeline"),
        (["../x"], "no id of a pipeline"),
        (["--from", "ghost"], "there is no example 'ghost'"),
        (["--set", "owner"], "no value"),
        (["--set", "ghost=1"], "it asks description, owner"),
        (["--set", "name=Not A Name"], "error: --set name: 'Not A Name' does not match"),
        (["--set", "name=Not A Name"], "hint: it matches ^[a-z][a-z0-9-]{1,39}$, such as greeter"),
        (["--set", "e2e=maybe"], "error: --set e2e=maybe: this is no boolean\n  hint: write it like --set 'e2e=true'"),
        (["--set", "owner=ann,bob"], "error: --set owner: 'ann,bob' does not match"),
        (["--set", "description="], "error: --set description: '' "),
        (["-o", "x.txt"], "end in .yaml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused_answers_write_nothing(folder, words, text):
    assert text in taxiway("new", *words, code=2).stderr
    assert list(folder.iterdir()) == []


def test_a_broken_policy_is_shown_and_nothing_written(folder):
    (folder / "pipelines" / "policies").mkdir(parents=True)
    (folder / "pipelines" / "policies" / "default.yaml").write_text("policy: [\n")
    assert CliRunner().invoke(app, ["new"]).exit_code == 1
    assert not (folder / "pipelines" / "web_service.yaml").exists()


def until_the_end(terminal, deadline_s=60.0):
    """All that is written to a terminal until nobody holds its other end."""
    said, ends = b"", time.monotonic() + deadline_s
    with contextlib.suppress(OSError):
        while select.select([terminal], [], [], max(0.0, ends - time.monotonic()))[0]:
            if not (chunk := os.read(terminal, 65536)):
                break
            said += chunk
    return said


def test_asks_on_a_terminal_until_the_answer_fits(folder):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TAXIWAY")}
    example = yaml.safe_load(shipped()["web_service"].read_text())
    # A wrong id and a wrong name first; all else stays as it is.
    given = {"owner": "ada", "name": "Not A Name\ncorner-shop"}
    asked = ["description", "owner", *(name for name, param in example["params"].items() if "default" in param)]
    answers = "".join(f"{answer}\n" for answer in ("Not One", "shop", *(given.get(name, "") for name in asked)))
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "taxiway.cli", "new", "--from", "web_service"]
    with subprocess.Popen(argv, env=clean, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, answers.encode())
        said = until_the_end(ours)
        os.close(ours)  # whoever still asks reads the end of its input
        assert process.wait(60) == 0, said.decode()
    data = yaml.safe_load((folder / "pipelines" / "shop.yaml").read_text())
    assert (data["pipeline"], data["owner"], data["params"]["name"]["default"]) == ("shop", "ada", "corner-shop")
    assert data["description"] == example["description"]
    assert b"no id of a pipeline" in said
    assert b"does not match" in said


# --- agents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry())
def test_every_agent_shows_an_example_that_passes_the_check(folder, name):
    text = example_pipeline(registry()[name], registry())
    (folder / "example.yaml").write_text(text)
    assert [str(p) for p in check([folder / "example.yaml"], registry(), date(2026, 1, 1)).problems] == []
    shown = taxiway("agents", name).stdout
    stage = agent_record(registry()[name], registry())["example"]
    assert all(f"  {line}\n" in shown for line in stage.splitlines())
    assert yaml.safe_load(stage).items() <= yaml.safe_load(text)["stages"].items()


def test_examples_say_something():
    shown = {name: yaml.safe_load(agent_record(agent, registry())["example"])[name] for name, agent in registry().items()}
    assert shown["diagnose"]["gates"] == ["quotes.kept >= 1"]
    assert shown["scaffold"]["with"]["requirements"]
    agent = replace(registry()["validate"], gates=(), gates_by={}, metrics={"n": Metric("a number")})
    stage = yaml.safe_load(agent_record(agent, registry())["example"])["validate"]
    assert stage["gates"] == [{"metric": "n", "at_least": 1, "blocking": False}], "nobody says which way is better"


def test_agents_are_listed(folder):
    lines = taxiway("agents").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(registry())


def test_an_agent_as_text_and_as_json(folder):
    text = taxiway("agents", "monitor").stdout
    for words in ("needs    deploy before it", 'default "30s"', "latency.p95_ms  ms  95th", "availability >= 0.95"):
        assert words in text
    found = json.loads(taxiway("agents", "monitor", "--format", "json").stdout)
    assert found["inputs"][0] == {
        "name": "for",
        "takes": found["inputs"][0]["takes"],
        "required": False,
        "description": "How long to watch",
        "default": "30s",
    }
    assert [a["name"] for a in json.loads(taxiway("agents", "--format", "json").stdout)] == list(registry())
    assert "there is scaffold" in taxiway("agents", "ghost", code=2).stderr
