from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from taxiway import cli

sys.path.insert(0, str(Path(__file__).parents[1] / "integrations" / "local"))

from conftest_local import Local

from taxiway.errors import OperatorError
from taxiway.home import Home


@pytest.fixture
def local(tmp_path, monkeypatch):
    (tmp_path / "pipelines" / "deep").mkdir(parents=True)
    monkeypatch.delenv("TAXIWAY_HOME", raising=False)
    monkeypatch.chdir(tmp_path / "pipelines" / "deep")
    made = Local(Home(tmp_path / ".taxiway"), tmp_path, isolate=False)
    yield made
    made.close()


def taxiway(*words: str) -> str:
    done = CliRunner().invoke(cli.app, ["services", *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_no_service(local):
    assert "no service was deployed yet" in taxiway("list")
    assert taxiway("stop") == "there is no service\n"
    for words in (("stop", "ghost"), ("logs", "ghost"), ("url", "ghost"), ("start", "ghost"), ("url",), ("logs",)):
        with pytest.raises(OperatorError, match="there is no service"):
            taxiway(*words)


def test_the_life_of_a_service(local):
    url = local.deploy("aaa").url
    head, row = taxiway("list").splitlines()
    assert head.split() == ["service", "url", "release", "state", "since", "restarts"]
    assert row.split()[:4] == ["greeter", url, "aaa", "running"]
    assert row.split()[-1] == "0"
    assert taxiway("url") == url + "\n"
    assert "aaa | listening" in taxiway("logs", "greeter")
    assert len(taxiway("logs", "-n", "1").splitlines()) == 1

    assert taxiway("stop", "greeter") == "greeter stopped\n"
    assert taxiway("stop") == "greeter did not run\n"
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)
    assert taxiway("list").splitlines()[1].split()[3] == "stopped"
    assert local.target.status("greeter").state == "stopped"
    with pytest.raises(OperatorError, match=f"greeter does not run; it would be at {url}\\n  hint: `taxiway services start greeter`"):
        taxiway("url")

    assert taxiway("start") == f"greeter started: {url}\n"
    until = time.monotonic() + 60
    while local.target.status("greeter").state != "running":
        assert time.monotonic() < until
        time.sleep(0.05)
    assert httpx.get(url, trust_env=False).text == "aaa"


def test_answered_health_checks_are_left_out_of_the_log(local):
    local.deploy("aaa")
    checked = 'INFO: 127.0.0.1:0 - "GET /healthz HTTP/1.1"'
    lines = [
        f"now aaa | {line}"
        for line in ("one", f"{checked} 200 OK", f"{checked} 503 Busy", 'x - "GET /healthz/deep HTTP/1.1" 200 OK', "two")
    ]
    with (local.client().folder / "service.log").open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))
    assert taxiway("logs", "-n", "4").splitlines() == [line for line in lines if line != lines[1]]
    assert taxiway("logs", "-n", "5", "--all").splitlines() == lines


def test_which_service(local):
    local.deploy("aaa")
    local.deploy("aaa", service="other")
    with pytest.raises(OperatorError, match=r"which service\?\n  hint: name one of: greeter, other"):
        taxiway("url")
    with pytest.raises(OperatorError, match=r"no service 'gr'\n  hint: there are: greeter, other"):
        taxiway("stop", "gr")
    assert [line.split()[0] for line in taxiway("list").splitlines()[1:]] == ["greeter", "other"]


def test_a_daemon_that_does_not_answer_is_stopped_all_the_same(local):
    status = local.deploy("aaa")
    holder = local.client()._holder()
    local.client().socket.unlink()
    assert taxiway("list").splitlines()[1].split()[3] == "down"
    holder.send_signal(signal.SIGSTOP)
    # Not to wait for an answer that cannot come: the lock says who holds the service.
    local.client()._wait(0.0)
    holder.kill()
    assert taxiway("stop") in ("greeter stopped\n", "greeter did not run\n")
    with pytest.raises(httpx.ConnectError):
        httpx.get(status.url, trust_env=False)


def test_following_the_log(local, tmp_path):
    local.deploy("aaa")
    argv = [sys.executable, "-c", "from taxiway.cli import main; main()", "services", "logs", "--follow", "-n", "0"]
    seen = tmp_path / "seen"
    # Tests that a script started in the background ignore SIGINT, and so would what they start.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with seen.open("w") as out, subprocess.Popen(argv, stdout=out, stderr=out, env=environ, preexec_fn=heard) as following:  # noqa: PLW1509
        try:
            until = time.monotonic() + 60
            while "a new line" not in seen.read_text():
                assert time.monotonic() < until
                with (local.client().folder / "service.log").open("a") as file:
                    file.write("a new line\n")
                time.sleep(0.1)
            following.send_signal(signal.SIGINT)
            assert following.wait(60) in (0, 130)
        finally:
            following.kill()
    assert "Traceback" not in seen.read_text()
