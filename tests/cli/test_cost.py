"""What the models of a run cost, from a real ledger while Airflow does not run."""

from __future__ import annotations

import json
import logging
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from taxiway import cli

sys.path.insert(0, str(Path(__file__).parent))

from recorded import Recorded

from taxiway.agents import registry
from taxiway.compiler import compile_file
from taxiway.compiler.plan import Budget, ModelChoice, PlannedModels
from taxiway.errors import InputError
from taxiway.home import Home
from taxiway.integrations.ledger import SqliteLedger
from taxiway.ports import Reply, Usage
from taxiway.purse import RunPurse
from taxiway.stage import run_key
from taxiway.stop import Stop

RUN = "taxiway__20260301T120000_aaaaaa"
MODELS = PlannedModels("", {"": ModelChoice("m", "", 1000, "")}, {"m": (1.0, 10.0, 1.0, 0.1)})
REPLY = Reply((), "end_turn", "m", Usage(100, 200, 1000))
PIPELINE = "pipeline: shop\npolicy: p\nbudget: {usd: 2, tokens: 100_000}\nstages: {check: {agent: validate}}\n"
POLICY = "policy: p\nmodels: {model: m, prices: {m: {input: 1, output: 10, cache_write: 1, cache_read: 0.1}}}\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "pipelines" / "policies").mkdir(parents=True)
    (tmp_path / "pipelines" / "shop.yaml").write_text(PIPELINE)
    (tmp_path / "pipelines" / "policies" / "p.yaml").write_text(POLICY)
    for name in ("TAXIWAY_HOME", "TAXIWAY_AIRFLOW_URL", "TAXIWAY_AIRFLOW_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    recorded = Recorded(Home(tmp_path / ".taxiway"))
    recorded.add("shop", RUN)
    recorded.began_with(RUN, compile_file(tmp_path / "pipelines" / "shop.yaml", registry()))
    return tmp_path


def spend(project, stage, *replies, models=MODELS, model="m"):
    """Calls of one stage, settled with each reply; None for one that the provider did not answer, "open" for one that goes on."""
    run = run_key("shop", RUN)
    ledger = SqliteLedger(Home(project / ".taxiway").ledger)
    with ledger.lease(f"attempt:{run}/{stage}", holder=f"{run}/{stage}", attempt=1, stop=Stop()) as lease:
        log = logging.getLogger("test")
        budget = Budget(2 if models.prices else None, 100_000, 1)
        purse = RunPurse(ledger, lease, run=run, stage=stage, attempt=1, budget=budget, models=models, may_ask=[model], log=log)
        for reply in replies:
            made = purse.reserve(model, prompt_tokens=100, output_tokens=100)
            if reply != "open":
                purse.settle(made, reply, failed=reply is None)


def taxiway(*words):
    done = CliRunner().invoke(cli.app, ["cost", *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_line_for_each_stage_and_model_and_what_is_left(project):
    spend(project, "scaffold", REPLY, REPLY)
    spend(project, "check", REPLY, None, "open")
    said = taxiway("shop").splitlines()
    assert [line.split() for line in said[:3]] == [
        ["stage", "model", "calls", "read", "cached", "written", "USD", "unanswered", "open"],
        ["scaffold", "m", "2", "200", "2000", "400", "0.0044", "0", "0"],
        ["check", "m", "1", "100", "1000", "200", "0.0022", "1", "1"],
    ]
    assert said[4:] == ["in all   0.0066 USD, 3900 tokens", "budget   2 USD (1.9934 left) and 100000 tokens (96100 left)"]


def test_for_programs(project):
    spend(project, "check", REPLY)
    told = json.loads(taxiway("shop", "--format", "json"))
    assert (told["pipeline"], told["run"], told["usd"], told["tokens"]) == ("shop", RUN, 0.0022, 1300)
    assert told["budget"] == {"usd": 2.0, "tokens": 100_000}
    assert [(s["stage"], s["model"], s["calls"]) for s in told["stages"]] == [("check", "m", 1)]


def test_the_budget_is_the_one_that_the_run_began_with(project):
    spend(project, "check", REPLY)
    (project / "pipelines" / "shop.yaml").write_text(PIPELINE.replace("usd: 2", "usd: 4"))
    assert json.loads(taxiway("shop", "--format", "json"))["budget"] == {"usd": 2.0, "tokens": 100_000}
    (project / "pipelines" / "shop.yaml").unlink()
    assert "budget   2 USD (1.9978 left) and 100000 tokens (98700 left)" in taxiway("shop")


@pytest.mark.parametrize("module", ["", "dag = build_dag('{}')\n", "dag = build_dag(\\'x)\n", "from elsewhere import dag\n"])
def test_a_run_whose_plan_is_not_known_any_more_has_a_cost_and_no_budget(project, module):
    spend(project, "check", REPLY)
    with sqlite3.connect(project / ".taxiway" / "airflow" / "airflow.db") as db:
        db.execute("UPDATE dag_code SET source_code = ?", (module,))
    told = json.loads(taxiway("shop", "--format", "json"))
    assert (told["usd"], told["budget"]) == (0.0022, None)
    assert "budget" not in taxiway("shop")


def test_what_was_replayed_cost_nothing(project):
    spend(project, "check", REPLY, replace(REPLY, replayed=True))
    head, line = (row.split() for row in taxiway("shop").splitlines()[:2])
    assert dict(zip(head, line, strict=True)) | {"calls": "2", "USD": "0.0022", "replayed": "1"} == dict(zip(head, line, strict=True))


def test_a_price_that_nobody_knows(project):
    (project / "pipelines" / "policies" / "p.yaml").write_text("policy: p\nmodels: {model: other}\n")
    (project / "pipelines" / "shop.yaml").write_text(PIPELINE.replace("usd: 2, ", ""))
    with sqlite3.connect(project / ".taxiway" / "airflow" / "airflow.db") as db:
        db.execute("DELETE FROM dag_code")
    spend(project, "check", replace(REPLY, model="other"), models=replace(MODELS, prices={}), model="other")
    said = taxiway("shop").splitlines()
    assert said[1].split()[6] == "unknown"
    assert said[3] == "in all   unknown, 1300 tokens"


def test_a_run_without_a_model(project):
    assert taxiway("shop") == f"no model was asked in run {RUN} of shop\n"
    assert not Home(project / ".taxiway").ledger.exists(), "asking makes nothing"


def test_an_unknown_run(project):
    with pytest.raises(InputError, match="no run 'ghost'"):
        taxiway("ghost")
