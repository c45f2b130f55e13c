from __future__ import annotations

import pytest

from taxiway.cli.doctor import Finding, examine
from taxiway.cli.project import Project
from taxiway.home import Home


def by_name(project, environ):
    return {f.what: f for f in examine(project, environ)}


def test_a_good_machine(tmp_path):
    found = by_name(Project(Home(tmp_path / "home"), tmp_path), {})
    assert {found[n].level for n in ("python", "git", "uv", "airflow", "home", "disk", "ports", "package index")} == {"ok"}
    assert not (tmp_path / "home").exists(), "it changes nothing"


def test_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = by_name(Project(Home(tmp_path), tmp_path), {})
    assert found["git"].level == "missing"
    assert "apt-get install git" in str(found["git"])
    assert found["browser"].level == "note"
    assert found["redis"].level == "note"
    assert "apt-get install redis-server" in str(found["redis"])
    assert found["sandbox"].level in ("ok", "note")  # tried once a process


def test_an_old_git(tmp_path, monkeypatch):
    (tmp_path / "git").write_text("#!/bin/sh\necho git version 2.30.1\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert by_name(Project(Home(tmp_path), tmp_path), {})["git"].found == "git version 2.30.1: too old for merges without a work tree"


@pytest.mark.parametrize("path", ["a?b", "a%b", "a#b", "a$b"])
def test_a_home_that_airflow_cannot_use(tmp_path, path):
    assert by_name(Project(Home(tmp_path / path), tmp_path), {})["home"].level == "missing"


def test_settings_by_name_only(tmp_path):
    environ = {"AIRFLOW__CORE__FERNET_KEY": "hush", "PIP_INDEX_URL": "https://user:hush@index", "HTTPS_PROXY": "http://hush"}
    found = by_name(Project(Home(tmp_path), tmp_path), environ)
    assert found["environment"].found.startswith("AIRFLOW__CORE__FERNET_KEY")
    assert found["package index"].found == "from PIP_INDEX_URL"
    assert found["proxy"].level == "note"
    assert not any("hush" in str(f) for f in found.values())


def test_reads_as_a_line_with_a_hint():
    assert str(Finding("missing", "git", "gone", "get it")) == "missing  git: gone\n         hint: get it"


def test_servers_for_tests(tmp_path):
    for name, said in (("postgres", "postgres (PostgreSQL) 16.1"), ("initdb", ""), ("redis-server", "Redis server v=7.2.4 sha=0")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{said}'\n")
        (tmp_path / name).chmod(0o755)
    found = by_name(Project(Home(tmp_path), tmp_path), {"PATH": str(tmp_path)})
    assert f"16 ({tmp_path})" in found["postgres"].found
    assert found["redis"].found.startswith("7 (")


ASKING = "policy: floor\nmodels: {model: claude-opus-4-8}\n"
BY_CONNECTION = "policy: floor\nmodels: {model: claude-opus-4-8, connection: our_models}\n"


@pytest.mark.parametrize(
    ("policy", "environ", "level", "says"),
    [
        ("policy: floor\n", {"ANTHROPIC_API_KEY": "hush"}, "ok", "no policy names one"),
        (ASKING, {}, "note", "policy floor: claude-opus-4-8, and there is no key"),
        (ASKING, {"ANTHROPIC_API_KEY": "hush"}, "ok", "policy floor: claude-opus-4-8, through ANTHROPIC_API_KEY"),
        (
            ASKING,
            {"ANTHROPIC_BASE_URL": "http://user:hush@box:11434"},
            "ok",
            "claude-opus-4-8, through ANTHROPIC_BASE_URL, without a key at box",
        ),
        (ASKING, {"ANTHROPIC_BASE_URL": "hush://["}, "note", "ANTHROPIC_BASE_URL cannot be read"),
        (ASKING, {"TAXIWAY_MODEL_REPLAY": "/tape"}, "ok", "claude-opus-4-8, through the answers recorded in /tape"),
        ("policy: floor\nmodels: {model: none}\n", {}, "ok", "policy floor wants none"),
        ("policy: floor\nmodels: {agents: {repair: {model: claude-opus-4-8}}}\n", {}, "note", "policy floor: claude-opus-4-8, and there"),
        (BY_CONNECTION, {}, "ok", "through Airflow's connection our_models"),
        ("policy: floor\nmodels: {modl: x}\n", {}, "note", "a policy cannot be read"),
    ],
)
def test_the_way_to_models_is_known_and_no_key_is_shown(tmp_path, policy, environ, level, says):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "floor.yaml").write_text(policy)
    found = [f for f in examine(Project(Home(tmp_path / "home"), tmp_path), environ) if f.what == "models"]
    assert found[0].level == level
    assert says in found[0].found
    assert not any("hush" in str(f) for f in found)
