"""Where `run --record` and `--replay` are refused, and what they tell Airflow."""

from __future__ import annotations

import json
import os

import pytest

from taxiway.cli.project import Project
from taxiway.cli.tapes import refuse_running, tape
from taxiway.errors import InputError
from taxiway.home import Home
from taxiway.integrations.airflow_processes import start
from taxiway.integrations.airflow_server import AirflowServer
from taxiway.integrations.airflow_state import State, write_state
from taxiway.integrations.claude import RECORD_VARIABLE, REPLAY_VARIABLE


@pytest.fixture
def tapes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    usage = {"input_tokens": 1, "output_tokens": 1, "cache_read_tokens": 0, "cache_write_tokens": 0}
    reply = {"content": [], "stop_reason": "end_turn", "model": "m", "usage": usage}
    (tmp_path / "full" / "0.json").write_text(json.dumps({"format": 1, "asked": "m", "request": {}, "reply": reply}))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "0.json").write_text('{"format": 1}')
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    return tmp_path


REFUSED = {
    "both": ({"record": "new", "replay": "full"}, "not both"),
    "replay from nowhere": ({"replay": "ghost"}, "nothing is recorded in ghost"),
    "replay from an empty folder": ({"replay": "empty"}, "nothing is recorded in empty"),
    "replay from a file": ({"replay": "file"}, "nothing is recorded in file"),
    "replay of something else": ({"replay": "other"}, "other/0.json is no recorded answer"),
    "record into a file": ({"record": "file"}, "file is no folder"),
    "record elsewhere": ({"record": "new", "elsewhere": True}, "--record is for the Airflow that `taxiway run` starts"),
    "replay elsewhere": ({"replay": "full", "elsewhere": True}, "--replay is for the Airflow that `taxiway run` starts"),
    "replay and keep": ({"replay": "full", "keep": True}, "--keep-airflow would keep it for the next"),
}


@pytest.mark.parametrize(("given", "problem"), REFUSED.values(), ids=REFUSED)
def test_refused_with_what_to_do(tapes, given, problem):
    folders = {name: tapes / given[name] if name in given else None for name in ("record", "replay")}
    folders = {name: path and path.relative_to(tapes) for name, path in folders.items()}
    with pytest.raises(InputError, match=problem) as refused:
        tape(**folders, elsewhere=given.get("elsewhere", False), keep=given.get("keep", False))
    assert refused.value.hint


def test_workers_are_told_where_whatever_folder_they_start_in(tapes):
    relative = tapes.relative_to(tapes)
    assert tape(relative / "new", None, elsewhere=False, keep=False) == {RECORD_VARIABLE: str(tapes / "new")}
    assert tape(None, relative / "full", elsewhere=False, keep=False) == {REPLAY_VARIABLE: str(tapes / "full")}
    assert tape(None, None, elsewhere=True, keep=True) == {}


def test_an_airflow_that_runs_was_told_nothing(tmp_path):
    project = Project(Home(tmp_path / "home"), tmp_path)
    told = {REPLAY_VARIABLE: "/x"}
    refuse_running(told, project)
    process, child = start(["sleep", "60"], environ=os.environ, log=tmp_path / "log", folder=tmp_path, mark="PATH")
    try:
        write_state(project.home, State(1, str(tmp_path), "", 0.0, components={"scheduler": process}))
        with pytest.raises(InputError, match="runs already") as refused:
            refuse_running(told, project)
        assert "taxiway down" in refused.value.hint
        refuse_running({}, project)
    finally:
        child.kill()
        child.wait()
    refuse_running(told, project)


def test_nobody_joins_an_airflow_that_replays_something_else(tmp_path):
    home, folder = Home(tmp_path / "home"), tmp_path
    prints = [AirflowServer(home, folder, environ=e)._fingerprint("") for e in ({}, {REPLAY_VARIABLE: "/x"}, {REPLAY_VARIABLE: "/y"})]
    assert len(set(prints)) == 3
