"""Environments installed by the real uv: from this machine's index, and from local servers that misbehave."""

from __future__ import annotations

import hashlib
import http.server
import os
import shutil
import stat
import sys
import threading
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from taxiway.errors import Cancelled, OperatorError, ProjectError, StageTimeout, TransientError
from taxiway.home import Home
from taxiway.integrations.environments import UvEnvironments
from taxiway.integrations.indexes import uv_environment
from taxiway.integrations.requirements import read_requirements
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.manifest import Install
from taxiway.ports import Command
from taxiway.stop import Stop

sys.path.insert(0, str(Path(__file__).parent))

from index_server import wheel

CLEAN = {"PATH": os.defpath, "UV_HTTP_RETRIES": "0", "PIP_CONFIG_FILE": "/dev/null"}


@pytest.fixture
def project(tmp_path):
    """Make a project whose requirements.txt holds the given text, beside any other files."""

    def make(requirements: str, **others: str) -> Path:
        place = tmp_path / "project"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        (place / ".taxiway.yaml").write_text("name: thing\ninstall: {requirements: [requirements.txt]}\n")
        for name, text in {"requirements.txt": requirements, **others}.items():
            (place / name).write_text(text)
        return place

    return make


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    yield home
    for folder, _, _ in os.walk(home.path):
        Path(folder).chmod(0o700)


@pytest.fixture
def index(tmp_path):
    """A package index of one wheel, by http on loopback; `behaviour` says what it does instead of answering."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server = self.server
            server.requests.append((self.path, self.headers.get("Authorization")))
            if server.behaviour == "hang":
                server.released.wait(300)
                return
            if isinstance(server.behaviour, int):
                self.send_error(server.behaviour)
                return
            file = folder / self.path.rsplit("/", 1)[-1]
            if self.path.rstrip("/").endswith("/tinything"):
                links = "".join(f'<a href="/files/{p.name}">{p.name}</a>' for p in sorted(folder.glob("*.whl")))
                self.answer(f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), "text/html")
            elif file.is_file():
                self.answer(file.read_bytes(), "application/octet-stream")
            else:
                self.send_error(404)

        do_HEAD = do_GET  # noqa: N815 - the name is http.server's

        def answer(self, body, kind):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel(folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.behaviour, server.requests, server.released, server.folder = None, [], threading.Event(), folder
        server.url = f"http://127.0.0.1:{server.server_address[1]}/simple"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def local(home, index):
    """Environments from the local index, named only by PIP_INDEX_URL."""
    return UvEnvironments(home, trusted=True, environ=CLEAN | {"PIP_INDEX_URL": index.url})


def test_installs_from_the_index_of_this_machine(project, home):
    checkout = project("iniconfig==2.1.0\n")
    environments = UvEnvironments(home)
    environment = environments.project(checkout, Stop())
    assert not environment.cached
    sandbox = ProcessSandbox(trusted=True)
    seen = sandbox.run(Command(("python", "-c", "import iniconfig; print(iniconfig.__file__)"), checkout, environment=environment), Stop())
    assert seen.stdout.startswith(str(environment.path)), seen.stderr


def test_tools_run_in_the_sandbox(home, tmp_path):
    environments = UvEnvironments(home)
    tools = environments.tools(Stop())
    assert environments.tools(Stop()) == type(tools)(tools.path, tools.key, cached=True)
    script = "ruff --version && mypy --version && pytest --version && coverage --version"
    seen = ProcessSandbox(trusted=True).run(Command(("sh", "-c", script), tmp_path, tools=tools), Stop())
    assert seen.ok, seen.stderr
    assert [line.split()[0].rstrip(",") for line in seen.stdout.splitlines()[:4]] == ["ruff", "mypy", "pytest", "Coverage.py"]


def test_the_second_time_it_is_there(project, local, index):
    checkout = project("tinything\n")
    first = local.project(checkout, Stop())
    asked = len(index.requests)
    second = local.project(checkout, Stop())
    assert (second.path, second.key, first.cached, second.cached) == (first.path, first.key, False, True)
    assert len(index.requests) == asked


def test_what_decides_the_key(project, home, index):
    environ = CLEAN | {"PIP_INDEX_URL": index.url}
    trusted, untrusted = (UvEnvironments(home, trusted=t, environ=environ) for t in (True, False))
    keys = [
        trusted.project(project("tinything\n"), Stop()).key,
        trusted.project(project("# another comment\n\ntinything # why\n"), Stop()).key,
        trusted.project(project("tinything==1.0\n"), Stop()).key,
        untrusted.project(project("tinything\n"), Stop()).key,
        trusted.project(project(""), Stop()).key,
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_is_read_only_and_compiled(project, local):
    environment = local.project(project("tinything\n"), Stop())
    writable = [p for p in environment.path.rglob("*") if not p.is_symlink() and stat.S_IMODE(p.stat().st_mode) & 0o222]
    assert writable == []
    assert stat.S_IMODE(environment.path.stat().st_mode) == 0o555
    assert list(environment.path.glob("lib/python*/site-packages/__pycache__/tinything.*.pyc"))
    # A file of the environment is not a file of uv's cache under another name.
    (module,) = environment.path.glob("lib/python*/site-packages/tinything.py")
    assert module.stat().st_nlink == 1


def test_no_code_of_a_package_runs_while_it_is_installed(project, local, index, tmp_path):
    proof = tmp_path / "ran"
    code = f"import pathlib; pathlib.Path({str(proof)!r}).touch()"
    for old in index.folder.glob("*.whl"):
        old.unlink()
    wheel(index.folder, files={"tinything.pth": code + "\n", "sitecustomize.py": code + "\n", "tinything/__init__.py": code + "\n"})
    environment = local.project(project("tinything\n"), Stop())
    assert list(environment.path.glob("lib/python*/site-packages/tinything.pth"))
    assert not proof.exists()


@pytest.mark.parametrize("damage", ["marker", "python", "half"])
def test_a_damaged_one_is_made_again(project, local, damage):
    checkout = project("tinything\n")
    environment = local.project(checkout, Stop())
    for folder in (environment.path, environment.path / "bin"):
        folder.chmod(0o755)
    if damage == "python":
        (environment.path / "bin" / "python").unlink()
    else:
        (environment.path / ".taxiway-complete").unlink()
    if damage == "half":
        shutil.rmtree(environment.path / "bin")
    again = local.project(checkout, Stop())
    assert (again.path, again.cached) == (environment.path, False)
    assert again.python.exists()
    assert local.project(checkout, Stop()).cached


def test_two_stages_install_once(project, local, index):
    checkout = project("tinything\n")
    found = []
    threads = [threading.Thread(target=lambda: found.append(local.project(checkout, Stop()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(e.cached for e in found) == [False, True, True]
    assert len({e.path for e in found}) == 1


def test_hashes_are_required_where_all_are_given(project, local, index):
    digest = hashlib.sha256(next(index.folder.glob("*.whl")).read_bytes()).hexdigest()
    assert local.project(project(f"tinything==1.0 \\\n    --hash=sha256:{digest}\n"), Stop())
    with pytest.raises(ProjectError, match=r"(?i)hash mismatch"):
        local.project(project(f"tinything==1.0 --hash=sha256:{'0' * 64}\n"), Stop())


@pytest.mark.parametrize(
    ("requirements", "problem"),
    [
        ("no-such-thing-at-all\n", "not found"),
        ("tinything==9\n", "tinything==9"),
        ("tinything==1.0\ntinything==2.0\n", "(?i)no solution|conflict"),
    ],
    ids=["missing", "version", "conflict"],
)
def test_requirements_that_cannot_be_met(project, local, requirements, problem):
    with pytest.raises(ProjectError, match=f"(?s){problem}.*hint:"):
        local.project(project(requirements), Stop())
    assert not [p for p in local.home.environments.iterdir() if p.is_dir()]


def test_a_package_without_a_wheel_is_not_built(project, local, index):
    (index.folder / "tinything-1.0-py3-none-any.whl").rename(index.folder / "tinything-1.0.tar.gz.whl")
    with pytest.raises(ProjectError, match=r"wheel|no versions"):
        local.project(project("tinything\n"), Stop())


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [(500, TransientError), (503, TransientError), (429, TransientError), (401, OperatorError), (403, OperatorError)],
)
def test_an_index_that_refuses(project, local, index, behaviour, error):
    index.behaviour = behaviour
    with pytest.raises(error, match=str(behaviour)) as raised:
        local.project(project("tinything\n"), Stop())
    assert raised.value.hint


def test_an_index_that_is_not_there(project, home):
    with pytest.raises(TransientError, match=r"(?i)connection refused"):
        UvEnvironments(home, environ=CLEAN | {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"}).project(project("tinything\n"), Stop())


def test_credentials_of_the_index_are_used_and_not_told(project, home, index):
    url = index.url.replace("://", "://someone:planted-secret@")
    environments = UvEnvironments(home, environ=CLEAN | {"PIP_INDEX_URL": url})
    assert environments.project(project("tinything\n"), Stop())
    assert any(authorization for _, authorization in index.requests)
    index.behaviour = 500
    with pytest.raises(TransientError) as raised:
        environments.project(project("tinything>0\n"), Stop())
    assert "planted-secret" not in str(raised.value)


@pytest.mark.parametrize("how", ["cancel", "time"])
def test_an_index_that_hangs_holds_nobody_up(project, local, index, how):
    index.behaviour = "hang"
    stop = Stop()
    timer = threading.Timer(0.8, stop.cancel)
    if how == "cancel":
        timer.start()
    else:
        stop.arm(0.8, None)
    began = time.monotonic()
    with pytest.raises(Cancelled if how == "cancel" else StageTimeout):
        local.project(project("tinything\n"), stop)
    assert time.monotonic() - began < 60
    timer.cancel()
    index.behaviour = None
    assert not local.project(project("tinything\n"), Stop()).cached


def test_waiting_for_another_installer_can_be_stopped(project, local, index):
    checkout = project("tinything\n")
    index.behaviour = "hang"
    first = Stop()

    def install() -> None:
        with pytest.raises(Cancelled):
            local.project(checkout, first)

    thread = threading.Thread(target=install)
    thread.start()
    deadline = time.monotonic() + 60
    while not index.requests and time.monotonic() < deadline:
        time.sleep(0.02)
    second = Stop()
    second.arm(0.3, None)
    with pytest.raises(StageTimeout):
        local.project(checkout, second)
    first.cancel()
    thread.join()


def test_settings_of_pip_reach_uv(tmp_path, project, home, index):
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nindex-url = {index.url}\nextra-index-url = file:///no/such/index\nfind-links = /no/such/folder\n")
    assert UvEnvironments(home, environ=CLEAN | {"PIP_CONFIG_FILE": str(config)}).project(project("tinything\n"), Stop())


def test_translates_settings(tmp_path):
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/pip/pip.conf").write_text(
        "[global]\nindex-url = https://a/simple\ncert = /c.pem\nfind-links =\n  /no/such\n  /usr\n"
    )
    (tmp_path / "pip.conf").write_text("[install]\nextra-index-url = https://b/simple file:///no/such https://c/%7Ex\ntrusted-host = b\n")
    environ = {
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
        "PIP_NO_INDEX": "1",
        "AWS_SECRET": "x",
        "https_proxy": "http://p",
    }
    assert uv_environment(environ) == {
        "UV_DEFAULT_INDEX": "https://a/simple",
        "UV_INDEX": "https://b/simple https://c/%7Ex",
        "UV_INDEX_STRATEGY": "unsafe-first-match",
        "UV_FIND_LINKS": "/usr",
        "UV_NO_INDEX": "1",
        "UV_INSECURE_HOST": "b",
        "SSL_CERT_FILE": "/c.pem",
        "https_proxy": "http://p",
    }
    own = uv_environment(environ | {"UV_DEFAULT_INDEX": "https://own", "UV_INDEX": "https://more", "SSL_CERT_FILE": "/own.pem"})
    assert (own["UV_DEFAULT_INDEX"], own["UV_INDEX"], own["SSL_CERT_FILE"]) == ("https://own", "https://more", "/own.pem")


def test_a_broken_pip_file_is_passed_over(tmp_path):
    (tmp_path / "pip.conf").write_bytes(b"\xff\x00no section\n")
    environ = {"HOME": "/nonexistent", "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_INDEX_URL": "https://a"}
    assert uv_environment(environ)["UV_DEFAULT_INDEX"] == "https://a"


GOOD_HASH = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("-e ../other", "option -e"),
        ("-e git+https://evil/six.git", "option -e"),
        ("--index-url https://evil/simple", "option --index-url"),
        ("--extra-index-url=https://evil", "option --extra-index-url"),
        ("--find-links /tmp", "option --find-links"),
        ("-i https://evil", "option -i"),
        ("--no-binary :all:", "option --no-binary"),
        ("-c ../constraints.txt", "leads out of the project"),
        ("six --config-settings x=y", "option --config-settings"),
        ("six @ https://evil/six.whl", "an address"),
        ("six@file:///etc/passwd", "an address"),
        ("git+https://evil/six.git", "not a requirement"),
        ("https://evil/six-1-py3-none-any.whl", "not a requirement"),
        ("./six", "not a requirement"),
        ("/etc", "not a requirement"),
        ("six-1-py3-none-any.whl", "file"),
        ("six.tar.gz", "file"),
        ("six==$SECRET", "not a requirement"),
        ("six==${HOME}", "not a requirement"),
        ("six --hash=sha256:short", "not a hash"),
        ("six --hash=md5:" + "a" * 32, "not a hash"),
        ("-r ../outside.txt", "leads out"),
        ("-r /etc/passwd", "leads out"),
        ("-r missing.txt", "missing.txt"),
        ("six\\", ""),
        ("ünïcode==1", "not a requirement"),
        ("six\x00==1", "not a requirement"),
    ],
)
def test_requirement_lines_that_are_refused(project, line, problem):
    checkout = project(f"# first\nattrs==25.1.0\n{line}\n")
    if not problem:
        assert read_requirements(checkout, Install(requirements=["requirements.txt"])).lines[-1] == "six"
        return
    with pytest.raises(ProjectError, match=problem) as raised:
        read_requirements(checkout, Install(requirements=["requirements.txt"]))
    if "missing" not in line:
        assert "requirements.txt:3" in str(raised.value)
    assert raised.value.hint


def test_requirement_lines_that_are_taken(project):
    text = (
        "\ufeff# comment\nhttpx[http2]>=0.27,<1  # with a comment\r\n\n--require-hashes\nuvicorn==0.30 ; python_version >= '3.11' \\\n"
        f"  --hash={GOOD_HASH} \\\n  --hash={GOOD_HASH.replace('0', '1')}\n-r more.txt\n--requirement=requirements.txt\n"
    )
    checkout = project(text, **{"more.txt": "-r requirements.txt\nsix\n"})
    found = read_requirements(checkout, Install(requirements=["requirements.txt", "more.txt"]))
    assert found.lines == (
        str(Requirement("httpx[http2]>=0.27,<1")),
        f'uvicorn==0.30; python_version >= "3.11" --hash={GOOD_HASH} --hash={GOOD_HASH.replace("0", "1")}',
        "six",
    )
    assert not found.hashed


def test_requirements_in_a_link_out_of_the_project(project, tmp_path):
    checkout = project("")
    (tmp_path / "secret").write_text("planted==1\n")
    (checkout / "requirements.txt").unlink()
    (checkout / "requirements.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(ProjectError, match="leads out of the project"):
        read_requirements(checkout, Install(requirements=["requirements.txt"]))


def test_too_many_requirements(project):
    checkout = project("".join(f"p{n}\n" for n in range(2001)))
    with pytest.raises(ProjectError, match="more than 2000"):
        read_requirements(checkout, Install(requirements=["requirements.txt"]))


def test_a_home_that_cannot_be_written(project, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match="cannot write the environment"):
        UvEnvironments(Home(tmp_path / "file"), environ=CLEAN).project(project(""), Stop())
