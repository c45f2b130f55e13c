import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from taxiway.compiler.plan import ModelChoice, PlannedModels, PlannedPolicy, Repository
from taxiway.errors import OperatorError
from taxiway.integrations.ledger import SqliteLedger
from taxiway.integrations.servers_elsewhere import Address
from taxiway.ports import Spending
from taxiway.stop import Stop
from taxiway_airflow.connections import build_ports, taxiway_home

STARTED = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("TAXIWAY_HOME", str(tmp_path))
    monkeypatch.setenv("TAXIWAY_SHARED_HOME", "1")


@pytest.mark.parametrize(
    ("executor", "changes", "refused"),
    [
        ("CeleryExecutor", {}, "target local runs a service on one machine"),
        ("CeleryExecutor", {"inputs": {"target": "local"}}, "target local runs a service on one machine"),
        ("LocalExecutor,CeleryExecutor", {}, "target local runs a service on one machine"),
        ("CeleryExecutor", {"agent": "validate"}, ""),
        ("LocalExecutor", {}, ""),
    ],
    ids=["by default", "by name", "beside another executor", "no deploy", "on one machine"],
)
def test_target_local_is_refused_where_stages_run_on_any_machine(monkeypatch, plan, stage, executor, changes, refused):  # noqa: PLR0917 - a table
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    given = {"run": "r", "params": {}, "started": STARTED, "stage": stage("ship", **{"agent": "deploy", "inputs": {}} | changes)}
    if refused:
        with pytest.raises(OperatorError, match=refused):
            build_ports(plan, **given)
    else:
        assert build_ports(plan, **given).trusted


def test_a_home_of_one_machine_is_refused_where_stages_run_on_any(monkeypatch, plan, stage):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.delenv("TAXIWAY_SHARED_HOME")
    with pytest.raises(OperatorError, match="the repository lies in the Taxiway home of one machine"):
        build_ports(plan, run="r", params={}, started=STARTED, stage=stage("check"))


def answered(run):
    """A model has answered in the run, on this machine or another."""
    ledger = SqliteLedger(taxiway_home().ledger)
    with ledger.lease(f"attempt:{run}/s", holder=f"{run}/s", attempt=1, stop=Stop()) as lease:
        call = ledger.reserve(Spending(run, "s", 1, "m", 1, 1), lambda _: None, lease)
        ledger.settle_call(replace(call, state="settled"))


@pytest.mark.parametrize(
    ("writes", "policy"), [(False, {}), (True, {}), (True, {"unisolated": True})], ids=["people", "a model", "unisolated"]
)
@pytest.mark.parametrize("way", ["key", "connection", "recording", "answered", ""])
def test_code_of_a_model_is_not_trusted(monkeypatch, plan, stage, writes, policy, way):  # noqa: PLR0917 - a table
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    if way in ("key", "recording"):
        monkeypatch.setenv({"key": "ANTHROPIC_API_KEY", "recording": "TAXIWAY_MODEL_REPLAY"}[way], "x")
    if way == "answered":
        answered("r")
    models = PlannedModels("claude" if way == "connection" else "", {"": ModelChoice("m", "", 1000, "")}, {})
    policy = PlannedPolicy("default", (Repository("*", True, ""),), **{"unisolated": False, "models": models} | policy)
    written, writes = writes, writes and bool(way)
    open_ = policy.unisolated and not writes
    plan = replace(plan, policy=policy, stages=(*plan.stages, stage("mended", model_writes=written)))
    ports = build_ports(plan, run="r", params={"repository": "https://git.example/a"}, started=STARTED, stage=stage("check"))
    assert ports.trusted is not writes
    assert ports.sandbox.trusted is not writes
    assert ports.environments.trusted is not writes
    assert ports.environments.unisolated is open_
    assert ports.targets["local"]._trusted is not writes


def test_a_connection_that_is_not_there_is_no_model(plan, stage):
    models = PlannedModels("ghost", {"": ModelChoice("m", "", 1000, "")}, {})
    plan = replace(plan, policy=PlannedPolicy("default", (), unisolated=False, models=models))
    found = build_ports(plan, run="r", params={}, started=STARTED, stage=stage("check")).models
    assert found.open("m", fallback="", effort="", stop=Stop()) is None
    assert found.missing.startswith("Airflow has no connection 'ghost': make it")


SERVICES = {"postgres": "tests_db", "redis": "tests_cache"}


@pytest.mark.parametrize(
    ("postgres", "redis", "expected"),
    [
        (
            {"conn_type": "postgres", "host": "db.example", "login": "tests", "password": "s3cret/word", "schema": "start", "port": 5433},
            {"conn_type": "redis", "host": "cache.example", "extra": {"db": 4}},
            {
                "postgres": Address("db.example", 5433, "tests", "s3cret/word", "start"),
                "redis": Address("cache.example", 6379, "", "", "4"),
            },
        ),
        ({"conn_type": "postgres"}, None, {"postgres": "has no host", "redis": "Airflow has none"}),
    ],
    ids=["both", "neither"],
)
def test_servers_of_the_policy_are_for_trusted_code(monkeypatch, plan, stage, postgres, redis, expected):  # noqa: PLR0917 - a table
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    for name, connection in (("TESTS_DB", postgres), ("TESTS_CACHE", redis)):
        if connection:
            monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(connection))
    named = replace(plan, policy=replace(plan.policy, services=SERVICES))
    given = {"run": "r", "started": STARTED, "stage": stage("check")}
    found = build_ports(named, params={}, **given).servers.given
    for name, wanted in expected.items():
        assert found[name] == wanted if isinstance(wanted, Address) else wanted in found[name].problem
    assert build_ports(named, params={"repository": "https://elsewhere.example/x.git"}, **given).servers.given == {}


FORGES = [
    ("https://github.com/team/shop", {}, "pull_request", ("GitHub", "https://api.github.com", "t0ken")),
    ("https://git.example/team/shop", {"forge": "gitlab"}, "{{ params.mode }}", ("GitLab", "https://git.example", "t0ken")),
    (
        "https://git.example/team/shop",
        {"forge": "github", "api": "https://api.example"},
        "pull_request",
        ("GitHub", "https://api.example", "t0ken"),
    ),
    ("https://git.example/team/shop", {}, "pull_request", None),
    ("https://git.example/too/long/path", {"forge": "github"}, "push", None),
    ("", {"forge": "github"}, "pull_request", None),
]


@pytest.mark.parametrize(("url", "entry", "mode", "expected"), FORGES)
def test_the_forge_gets_the_token_that_git_logs_in_with(monkeypatch, plan, stage, url, entry, mode, expected):  # noqa: PLR0917 - a table
    monkeypatch.setenv("AIRFLOW_CONN_GIT", '{"conn_type": "git", "password": "t0ken"}')
    policy = PlannedPolicy("default", (Repository("*", False, "git", **entry),), unisolated=False)
    inputs = {"mode": mode}
    merging = stage("merge", agent="integrate", effect="merges", inputs=inputs)
    ports = build_ports(replace(plan, policy=policy), run="r", params={"repository": url}, started=STARTED, stage=merging)
    found = ports.forge and (ports.forge.name, ports.forge._api, ports.forge._token)
    assert found == expected
