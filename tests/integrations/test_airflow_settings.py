from __future__ import annotations

import configparser
import json
import stat
from pathlib import Path

import pytest

from taxiway.errors import OperatorError
from taxiway.home import Home
from taxiway.integrations.airflow_settings import configuration, environment, foreign, secrets_of, write_private


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def test_settings_reach_the_file_and_can_be_overridden(home):
    text = configuration(home, Path("/my pipelines"), 8123, {"core": {"parallelism": "2"}, "new": {"a": "100%"}})
    parser = configparser.ConfigParser()
    parser.read_string(text)
    assert parser["api"]["host"] == "127.0.0.1"
    assert parser["core"]["execution_api_server_url"] == "http://127.0.0.1:8123/execution/"
    assert parser["core"]["parallelism"] == "2"
    assert parser["new"]["a"] == "100%"
    (bundle,) = json.loads(parser["dag_processor"]["dag_bundle_config_list"])
    assert bundle["kwargs"] == {"source": "/my pipelines", "home": str(home.path), "refresh_interval": 2}


@pytest.mark.parametrize("path", ["/a?b", "/a#b", "/a%b", "/a$b", "/a\nb"])
def test_refuses_a_home_that_cannot_be_written_down(path, tmp_path):
    with pytest.raises(OperatorError, match="TAXIWAY_HOME"):
        configuration(Home(Path(f"{tmp_path}{path}")), Path("/p"), 1, {})


def test_secrets_are_made_once_and_private(home):
    first = secrets_of(home)
    assert secrets_of(home) == first
    assert len({first.password, first.jwt, first.session, first.fernet}) == 4
    assert stat.S_IMODE((home.airflow / "secrets.json").stat().st_mode) == 0o600
    assert secrets_of(Home(home.path / "other")) != first


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"password": "x"}'])
def test_broken_secrets_are_said(home, text):
    write_private(home.airflow / "secrets.json", text)
    with pytest.raises(OperatorError, match="cannot read"):
        secrets_of(home)


def test_the_environment_is_ours_with_the_users_connections(home):
    given = {"AIRFLOW__CORE__EXECUTOR": "x", "AIRFLOW_HOME": "/y", "AIRFLOW_CONFIG": "/z", "AIRFLOW_CONN_GIT": "git://", "PATH": "/bin"}
    found = environment(home, given | {"PYTHONDONTWRITEBYTECODE": "1"})
    assert foreign(given) == ["AIRFLOW_CONFIG", "AIRFLOW_HOME", "AIRFLOW__CORE__EXECUTOR"]
    assert found["AIRFLOW_HOME"] == str(home.airflow)
    assert found["TAXIWAY_HOME"] == str(home.path)
    assert found["AIRFLOW_CONN_GIT"] == "git://"
    assert found["PATH"].endswith(":/bin")
    assert not {"AIRFLOW__CORE__EXECUTOR", "AIRFLOW_CONFIG", "PYTHONDONTWRITEBYTECODE"} & set(found)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    place = tmp_path / "a" / "b"
    write_private(place, "one")
    write_private(place, "two")
    assert place.read_text() == "two"
    assert [p.name for p in place.parent.iterdir()] == ["b"]
    with pytest.raises(OperatorError, match="cannot write"):
        write_private(place / "c", "three")
