from __future__ import annotations

import subprocess
import sys

import pytest

from taxiway.errors import OperatorError
from taxiway.home import Home
from taxiway.integrations.airflow_processes import Process
from taxiway.integrations.airflow_state import State, Users, changing, read_state, stop_server, write_state

STATE = State(8080, "/pipelines", "abc", 12.5, keep=True, components={"scheduler": Process(2**22 - 1, "boot:1", "A=b")})

HOLD = """
import sys, time
from pathlib import Path
from taxiway.home import Home
from taxiway.integrations.airflow_state import Users, changing
home = Home(Path(sys.argv[1]))
users = Users(home); users.enter()
with changing(home):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def test_reads_what_it_wrote(home):
    assert read_state(home) is None
    write_state(home, STATE)
    assert read_state(home) == STATE
    assert STATE.dead == ["scheduler"]
    assert not STATE.running


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 9}', '{"format": 1}', '{"format": 1, "components": {"a": 1}}', "\0"])
def test_says_what_to_do_with_an_unreadable_file(home, text):
    home.airflow.mkdir(parents=True)
    (home.airflow / "server.json").write_text(text)
    with pytest.raises(OperatorError, match=r"cannot read .*server\.json(.|\n)*hint: "):
        read_state(home)


def test_stopping_what_is_gone_is_nothing(home):
    with changing(home):
        assert not stop_server(home)
        write_state(home, STATE)
        assert not stop_server(home)
    assert read_state(home).components == {}


def test_users_count_each_other(home):
    first, second = Users(home), Users(home)
    assert not first.others()
    first.enter()
    first.enter()
    assert not first.others()
    assert second.others()
    second.enter()
    assert first.others()
    assert second.others()
    first.leave()
    first.leave()
    assert not second.others()
    second.leave()


def test_locks_end_with_their_process_however_it_ends(home):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(home.path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        assert Users(home).others()
        with pytest.raises(OperatorError, match="starting or stopping Airflow for too long"), changing(home, wait_s=0.2):
            pass
    finally:
        process.kill()
        process.wait(60)
        process.stdout.close()
    with changing(home, wait_s=60):
        assert not Users(home).others()
