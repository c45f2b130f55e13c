"""A repository behind HTTP with a token, servers that refuse or do not answer, and what git says about them."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from taxiway.errors import Cancelled, OperatorError, StageError, StageTimeout, TransientError
from taxiway.home import Home
from taxiway.integrations.git import GitCredentials, GitWorkspace
from taxiway.integrations.git_command import Done
from taxiway.integrations.ledger import SqliteLedger
from taxiway.stop import Stop

sys.path.insert(0, str(Path(__file__).parents[1]))

from git_http import serve_git

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TOKEN = "s3cret-token"


class Backend(BaseHTTPRequestHandler):
    """git's own http-backend behind basic authentication; `/moved/` leads to another server."""

    def do_GET(self):
        self.server.seen.append(self.headers.get("Authorization"))
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.server.elsewhere + self.path.removeprefix("/moved"))
            self.end_headers()
            return
        if self.path.startswith("/broken/"):
            self.send_error(503)
            return
        if self.headers.get("Authorization") != self.server.wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()
            return
        serve_git(self, self.server.root)

    do_POST = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(tmp_path):
    servers = []

    def serve(wanted=TOKEN):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
        server.root, server.seen, server.elsewhere = tmp_path, [], ""
        server.wanted = "Basic " + base64.b64encode(f"git:{wanted}".encode()).decode()
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return server, f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def shared(tmp_path):
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "shared.git")], check=True)
    subprocess.run(["git", "-C", str(tmp_path / "shared.git"), "config", "http.receivepack", "true"], check=True)
    return tmp_path / "shared.git"


@pytest.fixture
def open_url(tmp_path):
    def open_url(url, token="", home="home"):
        credentials = GitCredentials(token=token) if token else None
        return GitWorkspace(home=Home(tmp_path / home), pipeline="web", run="run-1", started=STARTED, url=url, credentials=credentials)

    return open_url


def test_a_private_repository_by_token(serve, shared, open_url, tmp_path):
    _, url = serve()
    workspace = open_url(f"{url}/shared.git", TOKEN)
    start = workspace.start()
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_text("1\n")
    trailers = {"Taxiway-Run": "run-1", "Taxiway-Stage": "scaffold", "Taxiway-Attempt": "1"}
    with SqliteLedger(tmp_path / "ledger.db").lease("k", holder="h", attempt=1, stop=Stop()) as lease:
        commit = workspace.commit(tmp_path / "files", parent=start, message="m", trailers=trailers, lease=lease)
        workspace.push(commit, branch="main", expected=start, lease=lease)
    assert open_url(f"{url}/shared.git", TOKEN, home="there").head("main") == commit
    kept = [p for p in (tmp_path / "home").rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]
    assert kept == []
    assert TOKEN not in repr(workspace._git)


@pytest.mark.parametrize("token", ["", "wrong-token"])
def test_a_login_that_fails_is_the_operators(serve, shared, open_url, token):
    _, url = serve()
    with pytest.raises(OperatorError, match="Airflow git connection") as error:
        open_url(f"{url}/shared.git", token).start()
    assert "wrong-token" not in str(error.value)


def test_a_token_does_not_follow_to_another_host(serve, shared, open_url):
    thief, elsewhere = serve()
    server, url = serve()
    server.elsewhere = elsewhere
    with pytest.raises(OperatorError):
        open_url(f"{url}/moved/shared.git", TOKEN).start()
    assert thief.seen
    assert set(thief.seen) == {None}


FAKE_SSH = """#!/bin/sh
printf '%s\\n' "$@" > {log}
while [ $# -gt 1 ]; do
  [ "$1" != -i ] || {{ stat -c %a "$2"; cat "$2"; }} >> {log}
  shift
done
exec sh -c "$1"
"""


def test_a_private_repository_by_key(shared, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh").write_text(FAKE_SSH.format(log=tmp_path / "log"))
    (tmp_path / "bin" / "ssh").chmod(0o755)
    workspace = GitWorkspace(
        home=Home(tmp_path / "home"),
        pipeline="web",
        run="run-1",
        started=STARTED,
        url=f"ssh://git@localhost{shared}",
        credentials=GitCredentials(private_key="-----KEY-----", known_hosts=tmp_path / "known hosts"),
        environ={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SSH_AUTH_SOCK": "/nowhere"},
    )
    assert workspace.head("main") == ""
    assert workspace.head("main") != workspace.start()
    words = (tmp_path / "log").read_text().splitlines()
    for word in ("BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes", f"UserKnownHostsFile={tmp_path / 'known hosts'}"):
        assert word in words
    assert words[-2:] == ["600", "-----KEY-----"]
    assert [p for p in (tmp_path / "home").rglob("*") if p.name == "key"] == []


def test_a_repository_that_is_not_there(serve, open_url, tmp_path):
    _, url = serve()
    for missing in (f"{url}/gone.git", str(tmp_path / "gone.git")):
        with pytest.raises(OperatorError, match="check the repository's URL"):
            open_url(missing, TOKEN).start()


def test_a_server_that_does_not_answer_is_another_try(serve, open_url):
    _, url = serve()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/a.git"
        for broken in (nobody, f"{url}/broken/a.git", f"ssh://git@127.0.0.1:{free.getsockname()[1]}/a.git"):
            with pytest.raises(TransientError):
                open_url(broken, TOKEN).start()


def test_a_refusal_repeats_the_servers_words(shared, open_url, tmp_path):
    workspace = open_url(str(shared))
    start = workspace.start()
    (shared / "hooks").mkdir(exist_ok=True)
    (shared / "hooks" / "pre-receive").write_text("#!/bin/sh\necho reviews are required >&2\nexit 1\n")
    (shared / "hooks" / "pre-receive").chmod(0o755)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_text("1\n")
    lease = SqliteLedger(tmp_path / "ledger.db").lease("k", holder="h", attempt=1, stop=Stop())
    with lease, pytest.raises(StageError, match="reviews are required"):
        workspace.commit(tmp_path / "files", parent=start, message="m", trailers={}, lease=lease)
    assert workspace.head(workspace.branch) == ""


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("fatal: unable to access 'x': Could not resolve host: example.org", TransientError),
        ("ssh: connect to host x port 22: Connection timed out", TransientError),
        ("error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502", TransientError),
        ("fatal: early EOF", TransientError),
        ("git@x: Permission denied (publickey).\nfatal: Could not read from remote repository.", OperatorError),
        ("Host key verification failed.\nfatal: Could not read from remote repository.", OperatorError),
        ("remote: Repository not found.", OperatorError),
        ("fatal: unable to access 'x': SSL certificate problem: unable to get local issuer certificate", OperatorError),
        ("fatal: detected dubious ownership in repository at '/x'", OperatorError),
        ("error: unable to write file: No space left on device", OperatorError),
    ],
)
def test_who_must_act(open_url, said, kind):
    error = open_url("https://example.org/a")._git.error("fetch", Done(128, b"", said))
    assert type(error) is kind
    assert error.hint


@pytest.fixture
def silent(tmp_path):
    """A server that takes connections and says nothing, and a workspace with its repository, by what ends it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/shared.git"
        home = Home(tmp_path / "home")
        yield listener, lambda stop: GitWorkspace(home=home, pipeline="web", run="run-1", started=STARTED, url=url, stop=stop)
    assert not list(home.path.rglob("*.lock"))


def test_a_server_that_says_nothing_does_not_keep_a_stopped_run(silent):
    listener, workspace = silent
    stop, at = Stop(), []

    def cancel_once_asked():
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            at.append(time.monotonic())
            stop.cancel()
            while connection.recv(65_536):  # until git is gone
                pass

    thread = threading.Thread(target=cancel_once_asked, daemon=True)
    thread.start()
    with pytest.raises(Cancelled):
        workspace(stop).start()
    assert time.monotonic() - at[0] < 4
    thread.join(60)
    assert not thread.is_alive()


def test_a_server_that_says_nothing_does_not_outlast_the_time_of_a_try(silent):
    stop, began = Stop(), time.monotonic()
    stop.arm(1, None)
    with pytest.raises(StageTimeout):
        silent[1](stop).start()
    assert time.monotonic() - began < 1 + 4
