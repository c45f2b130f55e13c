from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from conftest_local import APP, FixedLease, Local, alive, project, release

from taxiway.errors import Cancelled, LeaseLost, NotTrusted, OperatorError, ProjectError, StageTimeout, TransientError
from taxiway.home import Home
from taxiway.integrations import bubblewrap
from taxiway.integrations.local import LocalTarget
from taxiway.integrations.local.state import read_state
from taxiway.stop import Stop


def get(url: str, path: str = "/") -> httpx.Response:
    return httpx.get(url + path, timeout=60, trust_env=False)


def eventually(true, within_s=60.0):
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_first_deployment_answers_on_loopback(local):
    status = local.deploy("aaa")
    assert (status.state, status.live.id, status.restarts) == ("running", "aaa", 0)
    assert status.url.startswith("http://127.0.0.1:")
    assert get(status.url).text == "aaa"
    assert local.target.status("greeter") == status


def test_a_service_that_was_never_deployed_has_no_status(local):
    assert local.target.status("greeter") is None


@pytest.mark.parametrize("strategy", ["blue-green", "recreate"])
def test_the_next_release_takes_over_on_the_same_url(local, strategy):
    first = local.deploy("aaa")
    second = local.deploy("bbb", strategy=strategy)
    assert second.url == first.url
    assert get(second.url).text == "bbb"
    assert not alive(first.pid)


def test_what_is_live_already_is_left_alone(local):
    first = local.deploy("aaa")
    second = local.deploy("aaa")
    assert second == first
    assert "aaa is live and healthy already" in local.said[-1]


def test_the_same_commit_with_another_health_path_is_started_anew(local):
    first = local.deploy("aaa")
    second = local.deploy("aaa", path="/other")
    assert second.pid != first.pid
    assert second.live.health.path == "/other"


def test_isolated_code_sees_no_file_and_no_port_of_this_machine(isolated):
    app = """
    import json, os, socket, http.server, sys
    class App(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"home": os.path.exists(sys.argv[2]), "interfaces": [n for _, n in socket.if_nameindex()],
                               "writes": os.access("app.py", os.W_OK), "names": sorted(os.environ)}).encode()
            self.send_response(200); self.end_headers(); self.wfile.write(body)
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
    """
    status = isolated.deploy("aaa", app=app, start=("python", "app.py", "{port}", str(isolated.home.services)))
    seen = get(status.url).json()
    assert seen["home"] is False
    assert seen["interfaces"] == ["lo"]
    assert seen["writes"] is False
    assert not {name for name in seen["names"] if "TAXIWAY" in name or "SECRET" in name}


def test_code_that_is_not_trusted_needs_isolation(local):
    target = LocalTarget(local.home, trusted=False, isolate=False)
    with pytest.raises(NotTrusted, match="nothing isolates it"):
        target.deploy(
            release("aaa"),
            files=project(local.folder),
            environment=None,
            strategy="blue-green",
            drain_s=1,
            lease=FixedLease(),
            stop=Stop(),
            say=print,
        )


HANDLER = """
import http.server, sys, time
class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        {}
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), App).serve_forever()
"""

FAILURES = [
    pytest.param("import sys; print('no module named greeter'); sys.exit(3)", "exit code 3.*no module named greeter", id="exits"),
    pytest.param("import os, time\nif os.fork() == 0:\n    time.sleep(60)", "exit code 0; it must stay in the foreground", id="forks"),
    pytest.param("import time; print('thinking'); time.sleep(60)", "nothing listens on 127.0.0.1.*thinking", id="never-listens"),
    pytest.param(HANDLER.format("self.send_error(500)"), "/healthz answered 500", id="answers-500"),
    pytest.param(
        HANDLER.format("self.send_response(302); self.send_header('Location', '/'); self.end_headers()"), "answered 302", id="redirect"
    ),
    pytest.param(HANDLER.format("time.sleep(60)"), "no whole answer within 2 s", id="hangs"),
    pytest.param(HANDLER.format("self.wfile.write(b'hello')"), "no HTTP answer", id="no-http"),
    pytest.param("import time\nx = [b'x' * 1_000_000 for _ in range(2400)]\ntime.sleep(60)", "used more than 2048 MB", id="memory"),
    pytest.param(
        "import os, time\nfor _ in range(400):\n    os.fork() or time.sleep(60)\ntime.sleep(60)", "more than 256 processes", id="processes"
    ),
    pytest.param("import socket; socket.socket().bind(('127.0.0.1', 1))", "exit code 1.*Error", id="port-taken"),
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """Case -> the status before, and the error of the release that was to follow; all cases wait side by side."""
    if reason := bubblewrap.available():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("refused")
    made = Local(Home(folder / "home"), folder, isolate=True)

    def deploy(case):
        within_s = 60.0 if "than" in case.values[1] else 8.0  # to start and to answer, or to use too much, on a busy machine
        before = made.deploy("aaa", service=case.id, fence=1)
        with pytest.raises(ProjectError) as caught:
            made.deploy("bbb", service=case.id, fence=2, app=case.values[0], within_s=within_s, timeout_s=2.0)
        return before, str(caught.value)

    with ThreadPoolExecutor(len(FAILURES)) as pool:
        futures = {case.id: pool.submit(deploy, case) for case in FAILURES}
    yield made, futures
    made.close()


@pytest.mark.parametrize(("case", "problem"), [(case.id, case.values[1]) for case in FAILURES])
def test_a_release_that_does_not_become_healthy_changes_nothing(refused, case, problem):
    made, futures = refused
    before, said = futures[case].result()
    assert re.search(problem, said, re.DOTALL)
    assert made.target.status(case) == before
    assert get(before.url).text == "aaa"


def test_a_first_release_that_fails_leaves_no_service_and_no_process(local):
    with pytest.raises(ProjectError, match="exit code 3"):
        local.deploy("aaa", app="import sys; sys.exit(3)")
    assert local.target.status("greeter") is None
    assert local.client().status() is None


def test_a_command_that_is_not_there_is_named(local):
    with pytest.raises(ProjectError, match="cannot start no-such-program"):
        local.deploy("aaa", start=("no-such-program",))


def test_after_a_failed_recreate_the_old_release_runs_again(local):
    before = local.deploy("aaa")
    with pytest.raises(ProjectError):
        local.deploy("bbb", app="import sys; sys.exit(3)", strategy="recreate")
    eventually(lambda: local.target.status("greeter").state == "running")
    assert get(before.url).text == "aaa"


def test_while_one_replaces_the_other_by_recreate_clients_are_told_to_come_back(local):
    before = local.deploy("aaa")
    slow = "import time; time.sleep(1)\n" + APP
    with ThreadPoolExecutor() as pool:
        deploying = pool.submit(local.deploy, "bbb", app=slow, strategy="recreate")
        answers = []
        while not deploying.done():
            answers.append(get(before.url))
            time.sleep(0.05)
        deploying.result()
    told = [a for a in answers if a.status_code == 503]
    assert told
    assert all(a.headers["Retry-After"] for a in told)
    assert {a.status_code for a in answers} <= {200, 502, 503}
    assert get(before.url).text == "bbb"


def test_a_slow_stream_of_the_old_release_ends_whole(local):
    url = local.deploy("aaa").url
    with ThreadPoolExecutor() as pool:
        stream = pool.submit(get, url, "/slow=15")
        time.sleep(0.3)
        local.deploy("bbb")
        assert get(url).text == "bbb"
        assert stream.result().text == "aaa  " * 15


def test_a_stream_that_outlasts_the_draining_is_cut_visibly(local):
    url = local.deploy("aaa").url
    with ThreadPoolExecutor() as pool:
        stream = pool.submit(get, url, "/slow=300")
        time.sleep(0.3)
        local.deploy("bbb", drain_s=0.2)
        with pytest.raises(httpx.HTTPError):
            stream.result()
    assert "were cut after 0.2 s" in local.log()


def test_an_earlier_release_comes_back(local):
    local.deploy("aaa")
    local.deploy("bbb")
    status = local.restore("aaa")
    assert (status.live.id, status.state) == ("aaa", "running")
    assert get(status.url).text == "aaa"
    assert local.restore("aaa").pid == status.pid


def test_restoring_nothing_stops_the_service(local):
    pid = local.deploy("aaa").pid
    status = local.restore("")
    assert (status.live, status.state) == (None, "stopped")
    assert not alive(pid)
    assert local.restore("").state == "stopped"
    assert local.target.status("greeter").live is None
    assert local.deploy("aaa").state == "running"


def test_restoring_what_never_was(local):
    assert local.restore("").live is None
    local.deploy("aaa")
    with pytest.raises(ProjectError, match="release zzz of service greeter is not kept"):
        local.restore("zzz")


def test_three_releases_are_kept_the_live_and_the_previous_one_among_them(local):
    for name in ("aaa", "bbb", "ccc", "ddd"):
        local.deploy(name)
    kept = {r.id for r in read_state(local.client().folder).releases}
    assert kept == {"bbb", "ccc", "ddd"}
    assert {p.name for p in (local.client().folder / "releases").iterdir()} == kept
    local.restore("bbb")
    assert read_state(local.client().folder).previous == "ddd"


def test_an_older_lease_is_refused(local):
    local.deploy("aaa", fence=7)
    with pytest.raises(LeaseLost, match=r"newer lease \(7, this one is 6\)"):
        local.deploy("bbb", fence=6)
    with pytest.raises(LeaseLost):
        local.restore("", fence=6)
    assert local.target.status("greeter").live.id == "aaa"
    local.client().stop(rest=False)
    with pytest.raises(LeaseLost):
        local.deploy("bbb", fence=6)


def test_a_newer_attempt_takes_over_in_the_middle(local):
    slow = "import time; time.sleep(2)\n" + APP
    with ThreadPoolExecutor() as pool:
        first = pool.submit(local.deploy, "aaa", app=slow, fence=1)
        eventually(lambda: "aaa starts" in "".join(local.said))
        assert local.deploy("aaa", fence=2).state == "running"
        with pytest.raises((LeaseLost, TransientError), match=r"newer lease|gave the starting release up"):
            first.result()
    assert local.target.status("greeter").state == "running"


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_stopped_in_the_middle_what_was_live_stays(local, how):
    before = local.deploy("aaa")
    stop = Stop()
    if how == "cancel":
        threading.Timer(0.5, stop.cancel).start()
    else:
        stop.arm(0.5, None)
    with pytest.raises(Cancelled if how == "cancel" else StageTimeout):
        local.deploy("bbb", app="import time; time.sleep(60)", stop=stop)
    assert local.target.status("greeter") == before
    assert local.client().status()["candidate"] is None


def test_a_release_that_crashes_is_started_again(local):
    status = local.deploy("aaa")
    with pytest.raises(httpx.HTTPError):
        get(status.url, "/crash").raise_for_status()
    assert get(status.url).status_code in (502, 503)
    eventually(lambda: local.target.status("greeter").restarts == 1 and local.target.status("greeter").state == "running")
    assert get(status.url).text == "aaa"
    assert "ended with exit code 7; it starts again in 0.5 s" in local.log()


@pytest.mark.parametrize("kind", ["local", "isolated"])
def test_killed_the_daemon_takes_its_release_with_it_and_status_starts_both_again(kind, request):
    made = request.getfixturevalue(kind)
    status = made.deploy("aaa")
    holder = made.client()._holder()
    below = [child.pid for child in holder.children(recursive=True)]
    assert below
    os.kill(holder.pid, signal.SIGKILL)
    eventually(lambda: not any(alive(pid) for pid in below))
    assert made.target.status("greeter").url == status.url
    eventually(lambda: made.target.status("greeter").state == "running")
    assert get(status.url).text == "aaa"


def test_two_daemons_for_one_service_are_impossible(local):
    local.deploy("aaa")
    assert local.client()._spawn() == "locked"
    with ThreadPoolExecutor() as pool:
        local.client().stop(rest=False)
        list(pool.map(lambda _: local.client().start(), range(4)))
    assert local.client().status()["live"] == "aaa"


def test_the_service_outlives_the_process_that_deployed_it(local):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from conftest_local import Local; from taxiway.home import Home\n"
        "made = Local(Home(Path(sys.argv[2])), Path(sys.argv[3]), isolate=False); print(made.deploy('aaa').url)"
    )
    argv = [sys.executable, "-c", script, str(Path(__file__).parent), str(local.home.path), str(local.folder)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True, start_new_session=True)
    local.fence = 1
    assert get(done.stdout.strip()).text == "aaa"


def test_a_port_that_somebody_took_meanwhile_is_named(local):
    status = local.deploy("aaa")
    local.client().stop(rest=False)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(status.url.rpartition(":")[2])))
        other.listen()
        with pytest.raises(OperatorError, match=r"of service greeter cannot be opened.*\n.*ss -ltnp"):
            local.target.status("greeter")


def test_a_state_that_cannot_be_read_is_named(local):
    local.client().folder.mkdir(parents=True)
    (local.client().folder / "state.json").write_text('{"service": 1')
    with pytest.raises(OperatorError, match=r"state\.json cannot be read"):
        local.target.status("greeter")


@pytest.mark.parametrize("name", ["../x", "", "A", "x" * 41, "a/b", "-a"])
def test_a_name_that_is_none_is_refused(local, name):
    with pytest.raises(OperatorError, match="no name of a service"):
        local.target.status(name)


def test_sockets_in_a_folder_of_somebody_else_are_refused(local):
    local.home.sockets.mkdir(parents=True, mode=0o755)
    local.home.sockets.chmod(0o755)
    with pytest.raises(OperatorError, match="not a private folder"):
        local.deploy("aaa")
