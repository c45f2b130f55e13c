"""runs, logs and diff of a project whose Airflow does not run."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from taxiway import cli

sys.path.insert(0, str(Path(__file__).parent))

from recorded import Recorded

from taxiway.errors import InputError, OperatorError, TaxiwayError
from taxiway.home import Home
from taxiway.integrations.airflow_archive import Archive
from taxiway.records import Result

OLD, NEW, BAD = "taxiway__20260301T120000_aaaaaa", "taxiway__20260301T120100_bbbbbb", "taxiway__20260301T120200_cccccc"


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    (tmp_path / "pipelines").mkdir()
    for name in ("TAXIWAY_HOME", "TAXIWAY_AIRFLOW_URL", "TAXIWAY_AIRFLOW_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.chdir(tmp_path)
    made = Recorded(Home(tmp_path / ".taxiway"))
    made.add("shop", OLD, minute=0)
    made.add("shop", NEW, "failed", minute=1)
    made.add("blog", BAD, "running", minute=2)
    return made


def taxiway(*words, code=0):
    done = CliRunner().invoke(cli.app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done


# --- runs -----------------------------------------------------------------------------------------


def test_runs_newest_first(recorded):
    head, *rows = [line.split() for line in taxiway("runs").stdout.splitlines()]
    assert head == ["pipeline", "run", "state", "started", "seconds"]
    assert [row[:3] for row in rows] == [["blog", BAD, "running"], ["shop", NEW, "failed"], ["shop", OLD, "success"]]
    assert rows[2][3:] == ["2026-03-01", "12:00:00", "30"]
    assert [line.split()[1] for line in taxiway("runs", "shop", "-n", "1").stdout.splitlines()[1:]] == [NEW]


def test_a_queued_run_has_not_started(recorded):
    recorded.add("queue", "q", "queued", minute=9)
    assert taxiway("runs", "queue").stdout.splitlines()[1].split() == ["queue", "q", "queued", "-", "-"]


def test_no_runs(recorded):
    assert taxiway("runs", "ghost").stdout == "no run of ghost yet: taxiway run ghost\n"
    (recorded.home.airflow / "airflow.db").unlink()
    assert taxiway("runs").stdout == "no run yet: taxiway run PIPELINE\n"


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to be looked at" * 40])
def test_a_database_of_something_else(recorded, content):
    (recorded.home.airflow / "airflow.db").write_bytes(content)
    with pytest.raises(OperatorError, match="cannot read") as caught:
        taxiway("runs")
    assert "taxiway up" in caught.value.hint


def test_a_busy_database_is_waited_for(recorded):
    import sqlite3  # noqa: PLC0415

    lock = sqlite3.connect(recorded.home.airflow / "airflow.db", check_same_thread=False, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.5, lock.close)
    timer.start()
    assert len(taxiway("runs").stdout.splitlines()) == 4
    timer.join()


# --- which run ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("shop", NEW),
        (OLD, OLD),
        (f"shop/{OLD}", OLD),
        ("aaaaaa", OLD),
        ("shop/aaaaaa", OLD),
        ("taxiway__20260301T1202", BAD),
        ("blog/t", BAD),
    ],
)
def test_finds_a_run(recorded, name, run):
    recorded.task("blog" if run == BAD else "shop", run, "look")
    recorded.say("blog" if run == BAD else "shop", run, "look", {"event": f"this is {run}"})
    assert f"this is {run}" in taxiway("logs", name).stdout


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ghost", "no run 'ghost'"),
        ("shop/ghost", "no run"),
        ("ghost/aaaaaa", "no run"),
        ("shop/", "names no run"),
        ("/aaaaaa", "names no run"),
        ("", "names no run"),
        ("aaa", "no run 'aaa'"),
        ("taxiway__", rf"fits 3 runs:\n    blog/{BAD}  running\n    shop/{NEW}  failed"),
        ("shop/taxiway", "fits 2 runs"),
    ],
)
def test_says_which_runs_there_are(recorded, name, text):
    with pytest.raises(InputError, match=text) as caught:
        taxiway("logs", name)
    assert "PIPELINE/RUN" in caught.value.hint


# --- logs -----------------------------------------------------------------------------------------


@pytest.fixture
def told(recorded):
    group = [
        {"event": "::group::Pre Execute", "logger": "task"},
        {"event": "DAG bundles loaded: pipelines", "logger": "airflow.x"},
        {"event": "disk nearly full", "level": "warning", "logger": "airflow.x"},
        {"event": "::endgroup::", "logger": "task"},
    ]
    recorded.task("shop", NEW, "scaffold", result=Result(), second=1)
    recorded.task("shop", NEW, "validate", "failed", 2, second=2)
    recorded.task("shop", NEW, "deploy", "upstream_failed", 0)
    recorded.say("shop", NEW, "scaffold", *group, {"event": "added app.py\n  and more", "logger": "taxiway.stage", "run_id": NEW, "n": 3})
    recorded.say("shop", NEW, "validate", {"event": "first try"})
    error = [
        {"exc_type": "AirflowFailException", "exc_value": "GateFailed: lint\n  hint: mend it"},
        {"exc_type": "OSError", "exc_value": "x"},
    ]
    evil = {"event": "\x1b[2J\x1b]0;title\x07red \x1b[31mtext\x1b[0m\u202e"}
    recorded.say("shop", NEW, "validate", "no JSON", evil, {"event": "it failed", "level": "error", "error_detail": error}, attempt=2)
    return recorded


def test_logs_of_all_stages(told):
    done = taxiway("logs", "shop")
    assert (
        done.stdout
        == """\
--- scaffold: success
12:00:01  disk nearly full
12:00:01  added app.py
            and more n=3
--- validate: failed, try 2 of 2
          no JSON
12:00:01  red text
12:00:01  it failed
          GateFailed: lint
            hint: mend it
          OSError: x
"""
    )
    assert done.stderr == f"run {NEW} of shop: failed\n"


def test_logs_of_one_stage_and_try(told):
    assert taxiway("logs", "shop", "validate", "--try", "1").stdout == "--- validate: failed, try 1 of 2\n12:00:01  first try\n"
    assert "scaffold" not in taxiway("logs", "shop", "validate").stdout


@pytest.mark.parametrize(
    ("words", "kind", "text"),
    [
        (["shop", "ghost"], InputError, "no stage 'ghost'\n  hint: it has scaffold, validate, deploy"),
        (["shop", "deploy"], OperatorError, "no log of deploy"),
        (["shop", "validate", "--try", "9"], OperatorError, "no log of try 9 of validate"),
        (["blog"], OperatorError, "no log of any stage"),
    ],
)
def test_no_log(told, words, kind, text):
    with pytest.raises(kind, match=text):
        taxiway("logs", *words)


def test_a_log_that_cannot_be_read(told):
    path = told.home.airflow / "logs" / "dag_id=shop" / f"run_id={NEW}" / "task_id=scaffold" / "attempt=1.log"
    path.unlink()
    path.mkdir()
    with pytest.raises(OperatorError, match="cannot read"):
        taxiway("logs", "shop", "scaffold")


def test_following_without_an_airflow_says_so(told):
    told.task("blog", BAD, "look", "running")
    told.say("blog", BAD, "look", {"event": "so far"}, '{"event": "half a li')
    done = taxiway("logs", "blog", "--follow")
    assert "so far" in done.stdout
    assert "Airflow does not run: the run goes on when `taxiway up` starts it" in done.stderr


def test_following_a_run_that_ended_prints_it(told):
    assert "GateFailed" in taxiway("logs", "shop", "-f").stdout


# --- diff -----------------------------------------------------------------------------------------


@pytest.fixture
def changed(recorded, tmp_path):
    """A run with two writing stages, one that measured, and a merge into a branch that had moved."""
    workspace = recorded.workspace("shop", NEW)
    start = workspace.start()
    one = recorded.commit(workspace, "shop", NEW, "scaffold", {"a.txt": "hello\n"}, start, tmp_path / "one")
    two = recorded.commit(workspace, "shop", NEW, "mend", {"a.txt": "hello, world\n", "b.bin": "\0\1"}, one, tmp_path / "two")
    for second, (name, commit) in enumerate({"scaffold": one, "validate": one, "mend": two}.items()):
        recorded.task("shop", NEW, name, result=Result(commit=commit), second=second)
    return recorded


def test_diff_of_a_run_applies(changed, tmp_path):
    content = taxiway("diff", "shop").stdout_bytes
    assert b"+hello, world" in content
    target = tmp_path / "target"
    target.mkdir()
    subprocess.run(["git", "init", "-q", target], check=True)
    subprocess.run(["git", "-C", target, "apply"], input=content, check=True)
    assert (target / "a.txt").read_text() == "hello, world\n"
    assert (target / "b.bin").read_bytes() == b"\0\1"


def test_diff_of_a_stage(changed):
    assert "+hello\n" in taxiway("diff", "shop", "scaffold").stdout
    assert "-hello\n+hello, world\n" in taxiway("diff", "shop", "mend").stdout
    done = taxiway("diff", "shop", "validate")
    assert (done.stdout, done.stderr) == ("", f"stage validate of run {NEW} of shop changed nothing\n")


def test_diff_as_statistics(changed):
    assert " a.txt |   1 +" in taxiway("diff", "shop", "--stat").stdout
    assert "+hello" not in taxiway("diff", "shop", "--stat").stdout


def test_diff_of_a_killed_stage_shows_its_last_try(changed, tmp_path):
    with changed.connected() as db:
        db.execute("DELETE FROM xcom WHERE task_id = 'mend'")
    assert "+hello, world" in taxiway("diff", "shop", "mend").stdout
    assert "+hello, world" in taxiway("diff", "shop").stdout


def test_diff_of_a_run_that_changed_nothing(recorded):
    recorded.workspace("shop", NEW).start()
    assert taxiway("diff", "shop").stderr == f"run {NEW} of shop changed nothing\n"


def test_diff_of_a_run_on_a_repository_elsewhere(recorded, tmp_path):
    """The mirror has the commits, the branches are there; what others merged meanwhile is not the run's."""
    origin = tmp_path / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", origin], check=True)
    recorded.add("far", "r1", conf={"repository": str(origin)}, minute=5)
    workspace = recorded.workspace("far", "r1", url=f"file://{origin}")
    start = workspace.start()
    one = recorded.commit(workspace, "far", "r1", "scaffold", {"a.txt": "hello\n"}, start, tmp_path / "one")
    recorded.task("far", "r1", "scaffold", result=Result(commit=one))
    assert "+hello" in taxiway("diff", "far").stdout
    assert "+hello" in taxiway("diff", "far", "scaffold").stdout
    other = recorded.commit(workspace, "other", "r9", "theirs", {"c.txt": "theirs\n"}, start, tmp_path / "other")
    merged = recorded.commit(workspace, "far", "r1", "integrate", {"a.txt": "hello\n"}, other, tmp_path / "merged")
    recorded.task("far", "r1", "integrate", result=Result(commit=merged), second=9)
    assert "theirs" not in taxiway("diff", "far").stdout
    assert "+hello" in taxiway("diff", "far", "integrate").stdout
    # Without the mirror it is fetched, for this once.
    shutil.rmtree(recorded.home.repositories)
    done = taxiway("diff", "far", "scaffold")
    assert "+hello" in done.stdout
    assert done.stderr == f"fetching {workspace.branch} from {origin} ...\n"
    assert not recorded.home.repositories.exists()


@pytest.mark.parametrize(
    ("conf", "hint"), [({}, "repositories/"), ({"repository": "https://127.0.0.1:9/x"}, "git fetch https://127.0.0.1:9/x taxiway/far/")]
)
def test_diff_of_a_run_that_is_not_here(recorded, conf, hint):
    recorded.add("far", "r1", conf=conf, minute=5)
    recorded.task("far", "r1", "scaffold", result=Result(commit="1" * 40))
    with pytest.raises(OperatorError, match="not on this machine") as caught:
        taxiway("diff", "far")
    assert hint in caught.value.hint
    assert "taxiway/far/r1-" in caught.value.hint


# --- as a process ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["retry", "ghost"], 2, "no run 'ghost'"),
        (["retry", "blog"], 2, "is running"),
        (["retry", "shop", "--from", "ghost"], 2, "no stage 'ghost'"),
        (["retry", "aaaaaa"], 2, "no stage of run"),
        (["cancel", "shop"], 1, "ended already: failed"),
        (["cancel", "ghost"], 1, "no run 'ghost'"),
        (["logs", "ghost"], 1, "no run 'ghost'"),
        (["runs", "--token", "abc"], 2, "for an Airflow elsewhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_how_refusals_end(told, monkeypatch, capsys, words, code, text):  # noqa: PLR0917 - the columns of the table
    monkeypatch.setattr(sys, "argv", ["taxiway", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert (ended.value.code, text in said) == (code, True), said


def test_output_is_plain_in_a_pipe_and_without_colour(told):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TAXIWAY", "AIRFLOW"))} | {"TERM": "xterm-256color"}
    argv = [sys.executable, "-m", "taxiway.cli", "logs", "shop"]
    done = subprocess.run(argv, env=clean, capture_output=True, text=True, timeout=120, check=True, stdin=subprocess.DEVNULL)
    assert "GateFailed" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\x1b[31m" in on_a_terminal(argv, clean)
    assert "\x1b[31m" not in on_a_terminal(argv, clean | {"NO_COLOR": "1"})


def on_a_terminal(argv, environ):
    ours, theirs = pty.openpty()
    with subprocess.Popen(argv, env=environ, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # Linux's word for the end of a terminal
            while chunk := os.read(ours, 65536):
                said += chunk
        assert process.wait(60) == 0
    os.close(ours)
    return said.decode()


def test_archive_and_unknown_runs(recorded):
    with pytest.raises(TaxiwayError, match="there is no run x"):
        Archive(recorded.home).run("shop", "x")
