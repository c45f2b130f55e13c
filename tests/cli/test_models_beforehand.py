"""What plan and run say beforehand of the models that stages may ask."""

import pytest
from typer.testing import CliRunner

from taxiway.agents import registry
from taxiway.cli import app
from taxiway.cli.models import Asks
from taxiway.compiler import compile_file
from taxiway.errors import OperatorError

PIPELINE = """\
pipeline: p
params:
  how: {type: string, default: ask_model}
  fix: {type: boolean, default: true}
  wish: {type: string, default: A page.}
stages:
  build: {agent: scaffold, with: {name: greeter, requirements: '{{ params.wish }}'}}
  check: {agent: validate, repair: {attempts: 1}}
  merge: {agent: integrate, with: {conflicts: '{{ params.how }}'}}
  why: {agent: diagnose, recovers: [check]}
"""
WRITE = "  write: {agent: write_e2e, needs: [build], with: {requirements: The page greets by name.}}\n  check: {"
MODEL = "policy: default\nmodels: {model: claude-sonnet-5-5, agents: {repair: {model: claude-opus-5-5, fallback: claude-opus-4-8}}}\n"
CONNECTED = "policy: default\nmodels: {model: claude-sonnet-5-5, connection: ours}\n"
SILENT = "policy: default\n"
CONFIGURE = "set ANTHROPIC_API_KEY (or ANTHROPIC_BASE_URL for a server of your own), or name a connection in the policy"
UNNAMED = "policy default names none: add `models: {model: ...}` to it"
ADD = "add `models: {model: ...}` to it"
REPAIRED = "pipeline: p\nstages: {check: {agent: validate, repair: {attempts: 1}}}\n"
KEYLESS = "policy default names claude-sonnet-5-5, and there is no key"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "policies").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "TAXIWAY_MODEL_REPLAY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def model_lines(*words):
    said = CliRunner().invoke(app, ["plan", "p.yaml", *words])
    assert said.exit_code == 0, said.output
    rows = [line.split(maxsplit=1) for line in said.stdout.splitlines() if line.split()[:1] in (["model"], ["repair"])]
    return [text for word, text in rows if word == "model" or text.startswith("none: nothing will be repaired")]


@pytest.mark.parametrize(
    ("policy", "environ", "says"),
    [
        (
            MODEL,
            {},
            [
                f"none: template alone (degraded); {KEYLESS}: {CONFIGURE}",
                f"none: nothing will be repaired; policy default names claude-opus-5-5, and there is no key: {CONFIGURE}",
                f"none: a conflict will fail the stage; {KEYLESS}: {CONFIGURE}",
                f"none: this stage will fail; {KEYLESS}: {CONFIGURE}",
            ],
        ),
        (
            MODEL,
            {"ANTHROPIC_API_KEY": "hush"},
            [
                "claude-sonnet-5-5, through ANTHROPIC_API_KEY",
                "for repairs, claude-opus-5-5, else claude-opus-4-8, through ANTHROPIC_API_KEY",
                *["claude-sonnet-5-5, through ANTHROPIC_API_KEY"] * 2,
            ],
        ),
        (CONNECTED, {}, ["claude-sonnet-5-5, through Airflow's connection ours"] * 4),
        (
            SILENT,
            {"ANTHROPIC_API_KEY": "hush"},
            [
                f"none: template alone (degraded); {UNNAMED}",
                f"none: nothing will be repaired; {UNNAMED}",
                f"none: a conflict will fail the stage; {UNNAMED}",
                f"none: this stage will fail; {UNNAMED}",
            ],
        ),
    ],
    ids=["no key", "a key", "a connection", "a silent policy"],
)
def test_a_plan_says_which_model_is_asked_and_through_what(folder, monkeypatch, policy, environ, says):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    (folder / "policies" / "default.yaml").write_text(policy)
    (folder / "p.yaml").write_text(PIPELINE)
    said = model_lines()
    assert [text.removeprefix("for repairs, ") if policy == CONNECTED else text for text in said] == says


def test_a_plan_with_params_that_ask_nothing(folder):
    (folder / "policies" / "default.yaml").write_text(MODEL)
    (folder / "p.yaml").write_text(PIPELINE)
    said = model_lines("--param", "how=fail", "--param", "wish=")
    assert [text.partition(";")[0] for text in said] == ["none: nothing will be repaired", "none: this stage will fail"]


def test_a_plan_says_once_that_nothing_is_repaired(folder):
    (folder / "policies" / "default.yaml").write_text(MODEL)
    (folder / "p.yaml").write_text(PIPELINE)
    said = CliRunner().invoke(app, ["plan", "p.yaml"]).stdout
    repair = [line.strip() for line in said.splitlines() if "repair" in line and not line.startswith("models")]
    why = "nothing will be repaired; policy default names claude-opus-5-5, and there is no key"
    assert repair == [f"repair        none: {why}: {CONFIGURE}"]


def asks(folder, policy, pipeline, params=None, environ=None, *, sure=True):
    (folder / "policies" / "default.yaml").write_text(policy)
    (folder / "p.yaml").write_text(pipeline)
    return Asks(compile_file(folder / "p.yaml", registry()), params or {}, registry(), environ or {}, sure=sure)


class Airflow:
    """One that has these connections."""

    def __init__(self, *names):
        self.names = names

    def has_connection(self, name):
        return name in self.names


def test_a_run_warns_of_what_will_be_missing(folder):
    (keyless, of_repair) = asks(folder, MODEL, PIPELINE).missing()
    stages = "build: template alone (degraded); merge: a conflict will fail the stage; why: this stage will fail"
    assert keyless == f"no model: {KEYLESS}. {stages} ({CONFIGURE})"
    assert ". check: nothing will be repaired (" in of_repair
    assert asks(folder, MODEL, PIPELINE, environ={"ANTHROPIC_API_KEY": "hush"}).missing() == ()
    assert asks(folder, MODEL, PIPELINE, environ={"TAXIWAY_MODEL_REPLAY": "/tape"}).missing() == ()


def test_a_run_that_would_certainly_fail_does_not_start(folder):
    with pytest.raises(OperatorError, match="stage write cannot work without a model: policy default names claude-sonnet") as refused:
        asks(folder, MODEL, PIPELINE.replace("  check: {", WRITE)).missing()
    assert refused.value.hint == CONFIGURE
    with pytest.raises(OperatorError, match="policy default names none"):
        asks(folder, SILENT, PIPELINE.replace("  check: {", WRITE), sure=False).missing()


@pytest.mark.parametrize(
    ("given", "params", "sure", "told"),
    [
        ("when: params.fix, ", {"fix": False}, True, False),
        ("when: stages.build.outputs.degraded, ", {}, True, True),
        ("continue_on_failure: true, ", {}, True, True),
        ("", {}, False, True),
    ],
    ids=["skipped", "who knows", "tolerated", "another environment"],
)
def test_what_may_go_well_only_warns(folder, given, params, sure, told):
    pipeline = PIPELINE.replace("  check: {", WRITE).replace("agent: write_e2e, ", f"agent: write_e2e, {given}")
    said = asks(folder, MODEL, pipeline, params, sure=sure).missing()
    assert any("write: this stage will fail" in text for text in said) is told
    assert all(("; unless the Airflow that runs already was started with it" in text) is not sure for text in said)


def test_no_environment_helps_where_the_policy_names_no_model(folder):
    (said,) = asks(folder, "policy: default\nmodels: {model: none}\n", REPAIRED, sure=False).missing()
    assert said == f"no model: policy default names none. check: nothing will be repaired ({ADD})"


def test_a_connection_that_airflow_lacks(folder):
    wants = asks(folder, CONNECTED, PIPELINE.replace("  check: {", WRITE))
    assert wants.missing() == ()
    assert wants.unconnected(Airflow("ours")) == ()
    with pytest.raises(OperatorError, match="Airflow has no connection ours") as refused:
        wants.unconnected(Airflow("theirs"))
    assert "AIRFLOW_CONN_OURS" in refused.value.hint
    assert asks(folder, CONNECTED, PIPELINE, environ={"AIRFLOW_CONN_OURS": "anthropic://:hush@"}).unconnected(Airflow()) == ()
    assert asks(folder, MODEL, PIPELINE, environ={"ANTHROPIC_API_KEY": "hush"}).unconnected(Airflow()) == ()
