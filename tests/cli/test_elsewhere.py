"""Commands against an Airflow elsewhere: a server on a real socket that answers what an Airflow would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integrations"))

sys.path.insert(0, str(Path(__file__).parent))

from airflow_replay import serving
from recorded import Recorded

from taxiway.agents import registry
from taxiway.cli import main
from taxiway.compiler import compile_file
from taxiway.home import Home

RUN = {"dag_id": "shop", "dag_run_id": "r1", "state": "failed", "start_date": "2026-03-01T12:00:00Z", "end_date": "2026-03-01T12:00:09Z"}
TASK = {"start_date": "2026-03-01T12:00:00Z", "end_date": "2026-03-01T12:00:01Z", "map_index": -1, "try_number": 1}
TASKS = [{**TASK, "task_id": "scaffold", "state": "success"}, {**TASK, "task_id": "validate", "state": "failed", "try_number": 2}]
AT = "/api/v2/dags/shop/dagRuns/r1"


@pytest.fixture
def airflow():
    with serving() as server:
        server.answers |= {
            ("GET", "/api/v2/version"): [(200, {"version": "3.3.2"})],
            ("GET", "/api/v2/dags/~/dagRuns"): [(200, {"dag_runs": [RUN], "total_entries": 1})],
            ("GET", "/api/v2/dags/shop/dagRuns"): [(200, {"dag_runs": [RUN], "total_entries": 1})],
            ("GET", AT): [(200, RUN)],
            ("GET", f"{AT}/taskInstances"): [(200, {"task_instances": TASKS, "total_entries": 2})],
            ("GET", f"{AT}/taskInstances/validate/logs/2"): [(200, {"content": [{"event": "one error", "level": "error"}]})],
            ("GET", "/api/v2/dags/shop"): [(200, {"is_stale": False, "is_paused": False})],
            ("GET", "/api/v2/dags/shop/tasks"): [
                (
                    200,
                    {
                        "tasks": [
                            {"task_id": "scaffold", "downstream_task_ids": ["validate"]},
                            {"task_id": "validate", "downstream_task_ids": []},
                        ]
                    },
                )
            ],
        }
        yield server


@pytest.fixture
def taxiway(airflow, tmp_path, monkeypatch, capsys):
    """Outside of any project: an Airflow elsewhere needs none. The whole command, but for the start of the interpreter."""
    for name in [name for name in os.environ if name.startswith(("TAXIWAY", "AIRFLOW"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def call(*words, url="", token="hush-token", **environ):
        for name, value in {"TAXIWAY_AIRFLOW_URL": url or airflow.url, "TAXIWAY_AIRFLOW_TOKEN": token, **environ}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["taxiway", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert "hush" not in said.out + said.err
        assert "Traceback" not in said.out + said.err
        return SimpleNamespace(returncode=ended.value.code, stdout=said.out, stderr=said.err)

    return call


def test_runs_and_logs(airflow, taxiway):
    assert taxiway("runs", "shop").stdout.splitlines()[1].split()[:3] == ["shop", "r1", "failed"]
    done = taxiway("logs", "r1", "validate", url=f"{airflow.url}/api/v2/")
    assert done.stdout.splitlines()[0] == "--- validate: failed, try 2 of 2"
    assert "one error" in done.stdout
    assert {a[4] for a in airflow.asked} == {"Bearer hush-token"}


def test_a_name_and_a_password(airflow, taxiway):
    done = taxiway("runs", token="", TAXIWAY_AIRFLOW_USERNAME="ada", TAXIWAY_AIRFLOW_PASSWORD="hush")
    assert done.returncode == 0, done.stderr
    assert [a[3] for a in airflow.asked if a[1] == "/auth/token"] == [{"username": "ada", "password": "hush"}]


def test_options_beat_variables(airflow, taxiway):
    done = taxiway("runs", "--url", airflow.url, "--token", "hush-other", url="http://127.0.0.1:1")
    assert done.returncode == 0, done.stderr
    assert {a[4] for a in airflow.asked} == {"Bearer hush-other"}


def test_cost_is_what_the_stages_handed_on(airflow, taxiway):
    cost = {"calls": 3, "input_tokens": 100, "cached_tokens": 40, "output_tokens": 20, "usd": 0.5, "models": ["m", "n"]}
    place = f"{AT}/taskInstances/validate/xcomEntries/return_value"
    airflow.answers["GET", place] = [(200, {"value": {"outcome": "failed", "cost": cost}})]
    done = taxiway("cost", "shop")
    assert done.returncode == 0, done.stderr
    rows = [line.split("  ") for line in done.stdout.splitlines()]
    assert [word.strip() for word in rows[1] if word] == ["validate", "m, n", "3", "100", "40", "20", "0.5000", "0", "0"]
    assert done.stdout.splitlines()[3] == "in all   0.5000 USD, 160 tokens"
    assert "budget" not in done.stdout


def test_cost_elsewhere_knows_the_budget_that_the_run_began_with(airflow, taxiway, tmp_path):
    (tmp_path / "shop.yaml").write_text("pipeline: shop\nbudget: {usd: 2}\nstages: {validate: {agent: validate}}\n")
    plan = compile_file(tmp_path / "shop.yaml", registry())
    module = f"from taxiway_airflow.dag import build_dag\n\ndag = build_dag({plan.to_json()!a})\n"
    airflow.answers["GET", AT] = [(200, {**RUN, "dag_versions": [{"version_number": 3}]})]
    airflow.answers["GET", "/api/v2/dagSources/shop"] = [(200, {"content": module})]
    done = taxiway("cost", "shop", "--format", "json")
    assert json.loads(done.stdout)["budget"] == {"usd": 2.0, "tokens": None}
    assert any("version_number" in str(asked[2]) for asked in airflow.asked if asked[1] == "/api/v2/dagSources/shop")


def test_nothing_is_recorded_elsewhere(taxiway):
    done = taxiway("run", "shop", "--record", "tape")
    assert (done.returncode, "not for one elsewhere" in done.stderr) == (2, True), done.stderr


def test_diff_says_where_the_commits_are(taxiway):
    done = taxiway("diff", "shop")
    assert (done.returncode, "is not on this machine" in done.stderr) == (1, True), done.stderr


@pytest.fixture
def origin(tmp_path):
    """A repository that the run elsewhere worked on, as its worker left it."""
    place = tmp_path / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", place], check=True)
    theirs = Recorded(Home(tmp_path / "theirs"))
    workspace = theirs.workspace("shop", "r1", url=str(place))
    theirs.commit(workspace, "shop", "r1", "scaffold", {"a.txt": "hello\n"}, workspace.start(), tmp_path / "work")
    return place


@pytest.mark.parametrize("words", [["diff", "shop"], ["diff", "shop", "scaffold"]], ids=" ".join)
def test_diff_fetches_what_can_be_reached_from_here(airflow, taxiway, origin, words):
    run = {**RUN, "conf": {"repository": str(origin)}}
    airflow.answers["GET", "/api/v2/dags/shop/dagRuns"] = [(200, {"dag_runs": [run], "total_entries": 1})]
    done = taxiway(*words)
    assert (done.returncode, "+hello" in done.stdout) == (0, True), done.stderr
    assert done.stderr.startswith("fetching taxiway/shop/r1-")


@pytest.mark.parametrize(
    ("repository", "why"),
    [
        ("{origin}", "nor in the repository that it worked on"),
        ("{origin}/nowhere", "and cannot be fetched: "),
        ("ext::sh -c 'touch hacked'", "holds blanks"),
        ("ext::touch", "remote helpers"),
        ("--upload-pack=x", "begins with a dash"),
    ],
)
def test_diff_of_what_cannot_be_fetched(airflow, taxiway, origin, repository, why, tmp_path):  # noqa: PLR0917 - fixtures
    subprocess.run(["git", "-C", origin, "branch", "-D", "-q", "--", *branches(origin)], check=True)
    run = {**RUN, "dag_run_id": "r2", "conf": {"repository": repository.format(origin=origin)}}
    airflow.answers["GET", "/api/v2/dags/shop/dagRuns"] = [(200, {"dag_runs": [run], "total_entries": 1})]
    airflow.answers["GET", "/api/v2/dags/shop/dagRuns/r2/taskInstances"] = [(200, {"task_instances": TASKS, "total_entries": 2})]
    done = taxiway("diff", "shop")
    assert (done.returncode, why in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "hacked").exists()


def branches(origin):
    done = subprocess.run(
        ["git", "-C", origin, "for-each-ref", "--format=%(refname:short)", "refs/heads"], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_status_says_what_runs_there(airflow, taxiway):
    airflow.answers["GET", "/api/v2/dags/~/dagRuns"] = [(200, {"dag_runs": [{**RUN, "state": "running"}], "total_entries": 1})]
    done = taxiway("status")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == f"airflow    {airflow.url}"
    assert second.startswith("run        shop r1: running for ")
    airflow.answers["GET", "/api/v2/dags/~/dagRuns"] = [(200, {"dag_runs": [], "total_entries": 0})]
    assert taxiway("status").stdout.splitlines()[1] == "runs       none in progress"


def test_retry_clears_what_failed_and_watches(airflow, taxiway):
    queued, over = {**RUN, "state": "queued", "end_date": None}, {**RUN, "state": "success"}
    airflow.answers["POST", "/api/v2/dags/shop/clearTaskInstances"] = [(200, {"task_instances": [], "total_entries": 0})]
    airflow.answers["GET", AT] = [(200, queued), (200, over)]
    done = taxiway("retry", "shop")
    assert done.returncode == 0, done.stderr
    (body,) = [a[3] for a in airflow.asked if a[0] == "POST"]
    assert (body["task_ids"], body["include_downstream"], body["dag_run_id"]) == (["validate"], True, "r1")
    assert "run       shop r1: success" in done.stdout


def test_retry_from_a_stage_that_fails_again(airflow, taxiway):
    airflow.answers["POST", "/api/v2/dags/shop/clearTaskInstances"] = [(200, {"task_instances": [], "total_entries": 0})]
    assert taxiway("retry", "shop", "--from", "scaffold").returncode == 1
    assert [a[3]["task_ids"] for a in airflow.asked if a[0] == "POST"] == [["scaffold"]]


def test_retry_of_a_paused_pipeline_clears_nothing(airflow, taxiway):
    airflow.answers["GET", "/api/v2/dags/shop"] = [(200, {"is_stale": False, "is_paused": True})]
    done = taxiway("retry", "shop")
    assert (done.returncode, "is paused" in done.stderr) == (2, True)
    assert not [a for a in airflow.asked if a[0] == "POST"]


def test_cancel(airflow, taxiway):
    running = {**RUN, "state": "running", "end_date": None}
    airflow.answers["GET", "/api/v2/dags/shop/dagRuns"] = [(200, {"dag_runs": [running], "total_entries": 1})]
    airflow.answers["GET", AT] = [(200, running), (200, RUN)]
    airflow.answers["PATCH", AT] = [(200, RUN)]
    done = taxiway("cancel", "shop")
    assert done.returncode == 0, done.stderr
    assert [a[3] for a in airflow.asked if a[0] == "PATCH"] == [{"state": "failed"}]
    assert "nothing of it works any more" in done.stdout
    assert "taxiway retry shop/r1 --from STAGE" in done.stdout


@pytest.mark.parametrize("words", [["runs"], ["logs", "shop"], ["diff", "shop"], ["cancel", "shop"], ["status"]], ids=" ".join)
@pytest.mark.parametrize(
    ("status", "body", "text"),
    [(401, {}, "it expired"), (403, {"detail": "no"}, "rights"), (404, {}, "no Airflow 3"), (200, b"<html>", "no JSON")],
    ids=["expired", "forbidden", "not found", "a web page"],
)
def test_what_goes_wrong_there(airflow, taxiway, words, status, body, text):  # noqa: PLR0917 - the columns of the table
    if status in (200, 404):
        airflow.answers["GET", "/api/v2/version"] = [(status, body)]
    else:
        for key in [key for key in airflow.answers if key != ("GET", "/api/v2/version")]:
            airflow.answers[key] = [(status, body)]
    done = taxiway(*words)
    assert (done.returncode, text in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize(
    ("words", "environ", "text"),
    [
        (["runs"], {"token": ""}, "no credentials"),
        (["runs"], {"token": "hush\nhush"}, "this is no token"),
        (["runs"], {"url": "nonsense"}, "no address of an Airflow"),
        (["runs"], {"url": "http://me:hush@a"}, "holds credentials"),
        (["runs"], {"url": "https://127.0.0.1:{port}"}, "no secure connection"),
    ],
)
def test_bad_addresses_and_tokens(airflow, taxiway, words, environ, text):
    done = taxiway(*words, **{name: value.replace("{port}", str(airflow.server_port)) for name, value in environ.items()})
    assert (done.returncode, text in done.stderr) == (1, True), done.stderr
