"""Commands in the sandbox, with and without isolation: limits, endings, output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from taxiway.errors import Cancelled, NotTrusted, OperatorError, StageTimeout
from taxiway.integrations import bubblewrap
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.ports import Command, Environment
from taxiway.stop import Stop

BWRAP = pytest.mark.skipif(bubblewrap.available() is not None, reason=str(bubblewrap.available()))


@pytest.fixture(params=[pytest.param("auto", marks=BWRAP), "never"], ids=["isolated", "plain"])
def sandbox(request):
    return ProcessSandbox(trusted=True, isolate=request.param)


@pytest.fixture
def run(sandbox, tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()

    def run(*argv: str, stop: Stop | None = None, **more: object):
        return sandbox.run(Command(argv=argv, checkout=checkout, **more), stop or Stop())

    return run


@pytest.fixture
def mark():
    """A sleep time that no other process on this machine has; the test fails if such a process outlives it."""
    text = f"{os.getpid()}.{time.monotonic_ns() % 10**9}"
    yield text
    assert not living(text)


def living(text: str) -> list[list[str]]:
    found = []
    for process in psutil.process_iter():
        try:
            if "sleep" in process.name() and text in process.cmdline():
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    ("argv", "exit_code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["no-such-program"], 127),
        (["/etc"], 126),
        (["sh", "-c", "kill -KILL $$"], -signal.SIGKILL),
        (["sh", "-c", "kill -SEGV $$"], -signal.SIGSEGV),
    ],
    ids=["true", "7", "missing", "no program", "killed", "crashed"],
)
def test_exit_codes(run, argv, exit_code):
    result = run(*argv)
    assert (result.exit_code, result.ended, result.ok) == (exit_code, "exited", exit_code == 0)
    assert result.argv == tuple(argv)
    if exit_code == 127:
        assert "no-such-program" in result.stderr


def test_output_is_kept_apart_and_read_as_utf_8(run):
    result = run("sh", "-c", r"printf 'a\377\303\251\033[31m'; printf err >&2; cat")
    assert (result.stdout, result.stderr) == ("a\ufffd\u00e9\x1b[31m", "err")


def test_the_environment_is_clean(run, monkeypatch):
    monkeypatch.setenv("TAXIWAY_PLANTED", "secret")
    result = run("env", env={"GIVEN": "{project}", "OTHER": "{unknown} {reports}"})
    names = dict(line.split("=", 1) for line in result.stdout.splitlines())
    assert set(names) <= {"PATH", "HOME", "TMPDIR", "LANG", "PWD", "PYTHONDONTWRITEBYTECODE", "GIVEN", "OTHER"}
    assert names["GIVEN"] in ("/project", names.get("PWD", names["GIVEN"]))
    assert names["OTHER"] == "{unknown} {reports}"


def test_plain_leaves_no_home_behind(tmp_path):
    result = ProcessSandbox(trusted=True, isolate="never").run(Command(("sh", "-c", "touch $HOME/x; echo $HOME"), tmp_path), Stop())
    home = Path(result.stdout.strip())
    assert home.is_absolute()
    assert not home.exists()


def test_placeholders_stand_for_what_the_command_sees(run, tmp_path):
    reports = tmp_path / "reports"
    reports.mkdir()
    environment = Environment(Path(sys.prefix), "key", cached=True)
    code = (
        "import sys; from pathlib import Path; Path(sys.argv[1], 'here').touch()\n"
        "print(sys.prefix == sys.argv[2], Path.cwd() == Path(sys.argv[3]))"
    )
    result = run(
        "{environment}/bin/python", "-c", code, "{reports}", "{environment}", "{project}", reports=reports, environment=environment
    )
    assert result.stdout == "True True\n", result.stderr
    assert (reports / "here").exists()


def test_limits_of_the_launcher(run):
    result = run("sh", "-c", "ulimit -c; ulimit -n; ulimit -f; ulimit -Hc")
    core, files, blocks, hard = result.stdout.split()
    assert (core, hard) == ("0", "0")
    assert int(files) <= 4096
    assert int(blocks) == (2 << 30) // 512


def test_pipes_end_silently(run):
    assert run("sh", "-c", "yes | head -c 2", timeout_s=60).stdout == "y\n"


def test_timeout(run, mark):
    result = run("sleep", mark, timeout_s=0.3)
    assert (result.ended, result.ok, result.exit_code) == ("timeout", False, -signal.SIGTERM)


def test_timeout_leaves_time_to_clean_up(run):
    result = run("sh", "-c", "trap 'echo cleaned; exit 3' TERM; echo up; while :; do sleep 0.05; done", timeout_s=4)
    assert result.ended == "timeout"
    assert result.stdout == "up\ncleaned\n"


def test_whoever_ignores_sigterm_is_killed(run, mark):
    result = run("sh", "-c", f"trap '' TERM; sleep {mark}; sleep {mark}", timeout_s=4)
    assert (result.ended, result.exit_code) == ("timeout", -signal.SIGKILL)


def test_memory_hog(run):
    result = run("python3", "-c", "x = b'x' * (400 << 20)\nimport time; time.sleep(60)", memory_mb=150)
    assert (result.ended, result.ok) == ("memory", False)


def test_memory_counts_the_whole_tree(run, mark):
    hog = "python3 -c 'x = b\"x\" * (80 << 20); import time; time.sleep(60)' &"
    assert run("sh", "-c", f"{hog} {hog} {hog} sleep {mark}", memory_mb=160).ended == "memory"


def test_shared_memory_counts_once(run):
    code = "import os, time\nx = b'x' * (100 << 20)\nfor _ in range(4):\n  if os.fork() == 0: time.sleep(0.6); os._exit(0)\ntime.sleep(0.7)"
    # Five times 100 MiB if each process counted in full; the margin is for processes that end while they are counted.
    assert run("python3", "-c", code, memory_mb=350).ended == "exited"


def test_fork_bomb(run, mark):
    # Bounded, should the watchdog fail: 120 processes that live for 20 s.
    result = run("sh", "-c", f"i=0; while [ $i -lt 120 ]; do sleep {mark} & i=$((i+1)); done; wait", processes=40)
    assert (result.ended, result.ok) == ("processes", False)


def test_threads_count_too(run):
    code = "import threading, time\nfor _ in range(100): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    code += "time.sleep(60)"
    assert run("python3", "-c", code, processes=4).ended == "processes"


def test_endless_output_is_cut_in_the_middle(run):
    result = run("sh", "-c", "echo first; yes middle | head -c 3000000; echo last; yes err >&2", timeout_s=4, output_limit=10_000)
    assert (result.ended, result.truncated) == ("timeout", True)
    assert result.stdout.startswith("first\n")
    assert result.stdout.endswith("last\n")
    assert "[... 2990011 bytes cut ...]" in result.stdout
    assert len(result.stdout) < 10_100
    assert len(result.stderr) < 10_100


def test_a_daemon_does_not_outlive_the_command(run, mark):
    daemon = f"import os, sys\nif os.fork(): sys.exit(3)\nos.setsid()\nif os.fork(): os._exit(0)\nos.execvp('sleep', ['sleep', '{mark}'])"
    result = run("python3", "-c", daemon, timeout_s=120)
    assert (result.exit_code, result.ended) == (3, "exited")


def test_a_daemon_with_the_pipes_open_does_not_hold_us_up(run, mark):
    result = run("sh", "-c", f"setsid sleep {mark} & echo done", timeout_s=120)
    assert (result.stdout, result.ended) == ("done\n", "exited")


@pytest.mark.parametrize("stubborn", [False, True])
def test_cancel_from_another_thread(run, mark, stubborn):
    stop = Stop()
    timer = threading.Timer(0.4, stop.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        run("sh", "-c", f"{'trap : TERM;' if stubborn else ''} while :; do sleep {mark} & sleep {mark}; done", stop=stop)
    assert not living(mark)
    timer.join()


def test_the_time_of_the_stage_ends_it(run, mark):
    stop = Stop()
    stop.arm(0.4, None)
    with pytest.raises(StageTimeout):
        run("sleep", mark, stop=stop)


def test_stopped_before_it_starts(run):
    stop = Stop()
    stop.cancel()
    with pytest.raises(Cancelled):
        run("true", stop=stop)


def test_runs_side_by_side_in_threads(run):
    results = []
    threads = [threading.Thread(target=lambda n=n: results.append(run("sh", "-c", f"sleep 0.2; echo {n}").stdout)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["0\n", "1\n", "2\n", "3\n"]


@pytest.mark.parametrize(("argv", "problem"), [(["echo", "a\0b"], "null byte"), (["echo", "x" * 3_000_000], "Argument list too long")])
def test_what_no_process_can_take(run, argv, problem):
    with pytest.raises(OperatorError, match=problem):
        run(*argv)


def test_a_missing_folder(sandbox, tmp_path):
    with pytest.raises(OperatorError, match="not a folder"):
        sandbox.run(Command(("true",), tmp_path / "gone"), Stop())
    with pytest.raises(OperatorError, match="not a folder"):
        sandbox.run(Command(("true",), tmp_path, reports=tmp_path / "gone"), Stop())


@BWRAP
def test_bubblewrap_that_cannot_start_is_no_exit_code(tmp_path):
    environment = Environment(tmp_path / "gone", "key", cached=True)
    with pytest.raises(OperatorError, match=r"bubblewrap could not start true: .*gone"):
        ProcessSandbox(trusted=False).run(Command(("true",), tmp_path, environment=environment), Stop())


def test_untrusted_code_does_not_run_without_isolation(tmp_path):
    sandbox = ProcessSandbox(trusted=False, isolate="never")
    assert not sandbox.isolated
    with pytest.raises(NotTrusted, match=r"(?s)without isolation.*hint: install bubblewrap"):
        sandbox.run(Command(("touch", "{project}/ran"), tmp_path, writable=True), Stop())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("isolate", [pytest.param("auto", marks=BWRAP), "never"])
def test_ends_with_the_process_that_runs_it(tmp_path, mark, isolate):
    code = (
        "import sys; from pathlib import Path\n"
        "from taxiway.integrations.sandbox import ProcessSandbox; from taxiway.ports import Command; from taxiway.stop import Stop\n"
        f"command = Command(('sh', '-c', 'setsid sleep {mark} & sleep {mark}'), Path({str(tmp_path)!r}))\n"
        f"ProcessSandbox(trusted=True, isolate={isolate!r}).run(command, Stop())"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        wait_until(lambda: len(living(mark)) == 2)
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not living(mark))


def wait_until(true) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
