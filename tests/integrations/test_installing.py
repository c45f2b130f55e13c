"""Installs for code that is not trusted: uv in a sandbox, the index through the proxy, and everything else out of reach."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from taxiway.errors import Cancelled, NotTrusted, OperatorError, ProjectError, TransientError
from taxiway.home import Home
from taxiway.integrations import bubblewrap, installing
from taxiway.integrations.egress import egress, read_sources
from taxiway.integrations.environments import UvEnvironments
from taxiway.stop import Stop

sys.path.insert(0, str(Path(__file__).parent))

from index_server import NAME, Answer, index_server, wheel

pytestmark = pytest.mark.skipif(bubblewrap.available() is not None, reason=str(bubblewrap.available()))

CLEAN = {"PATH": os.defpath, "UV_HTTP_RETRIES": "0", "PIP_CONFIG_FILE": "/dev/null", "HOME": "/nonexistent"}
SECRET = "planted-secret"


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    yield home
    for folder, _, _ in os.walk(home.path):
        Path(folder).chmod(0o700)


@pytest.fixture
def index(tmp_path):
    (tmp_path / "wheels").mkdir()
    with index_server(tmp_path / "wheels") as server:
        server.login = f"someone:{SECRET}"
        yield server


@pytest.fixture
def project(tmp_path):
    """Make a project with these requirements."""

    def make(requirements: str = "tinything\n") -> Path:
        place = tmp_path / "project"
        place.mkdir(exist_ok=True)
        (place / ".taxiway.yaml").write_text("name: thing\ninstall: {requirements: [requirements.txt]}\n")
        (place / "requirements.txt").write_text(requirements)
        return place

    return make


def environments(home, index, **environ):
    return UvEnvironments(home, environ=CLEAN | {"UV_DEFAULT_INDEX": index.private_url, "AWS_SECRET_ACCESS_KEY": SECRET} | environ)


def all_text(*folders: Path) -> str:
    return "".join(p.read_bytes().decode(errors="replace") for f in folders for p in f.rglob("*") if p.is_file() and not p.is_symlink())


def installed(environment) -> list[Path]:
    return list(environment.path.glob("lib/python*/site-packages/tinything.py"))


@pytest.mark.parametrize("kind", ["html", "html with hash", "html with metadata", "json", "redirects"])
def test_installs_through_the_proxy(home, index, project, kind):
    match kind:
        case "html with hash":
            digest = subprocess.run(["sha256sum"], input=index.answers[f"/files/{NAME}"].body, capture_output=True, check=True).stdout[:64]
            index.html(f"../../files/{NAME}#sha256={digest.decode()}")
        case "html with metadata":
            index.html(f'{index.root}/files/{NAME}" data-core-metadata="true')
        case "json":
            index.json({"filename": NAME, "url": f"{index.root}/files/{NAME}", "hashes": {}, "core-metadata": True})
        case "redirects":
            index.answers["/there/"] = index.answers["/simple/tinything/"]
            index.answers[f"/stored/{NAME}"] = index.answers[f"/files/{NAME}"]
            index.answers["/simple/tinything/"] = Answer(status=301, headers={"Location": "/there/"})
            index.answers[f"/files/{NAME}"] = Answer(status=302, headers={"Location": f"{index.root}/stored/{NAME}"})
    environment = environments(home, index).project(project(), Stop())
    assert installed(environment)
    assert list(environment.path.glob("lib/python*/site-packages/__pycache__/tinything.*.pyc"))
    assert (f"/files/{NAME}.metadata" in index.paths) == (kind in ("html with metadata", "json"))
    assert SECRET not in all_text(home.path)
    assert index.root not in all_text(home.path)
    script = (environment.path / "bin/tinything").read_text()
    # A path of more than 127 characters does not fit behind `#!`, and is handed to a shell.
    assert script.startswith((f"#!{environment.path}/bin/python", f"#!/bin/sh\n'''exec' '{environment.path}/bin/python"))


def test_a_wrong_hash_is_found(home, index, project):
    index.html(f"/files/{NAME}#sha256={'0' * 64}")
    with pytest.raises(ProjectError, match=r"(?i)hash mismatch"):
        environments(home, index).project(project(), Stop())


def test_wheels_are_cached_for_this_trust_alone(home, index, project):
    for requirements, trusted in (("tinything", False), ("tinything<9", False), ("tinything", True)):
        UvEnvironments(home, trusted=trusted, environ=environments(home, index).environ).project(project(requirements), Stop())
        downloads = sum(r.path == f"/files/{NAME}" and r.method == "GET" and "Range" not in r.headers for r in index.requests)
        assert downloads == (2 if trusted else 1)


def test_two_indexes_and_a_folder(home, index, project, tmp_path):
    (tmp_path / "more").mkdir()
    with index_server(tmp_path / "more") as other:
        other.answers["/simple/elsewhere/"] = Answer('<a href="/files/elsewhere-1.0-py3-none-any.whl"></a>', "text/html")
        made = tmp_path / "folder"
        made.mkdir()
        wheel(made, "lying", "1.0")
        other.answers["/files/elsewhere-1.0-py3-none-any.whl"] = Answer(wheel(tmp_path, "elsewhere", "1.0").read_bytes())
        found = environments(home, index, UV_INDEX=other.url, UV_FIND_LINKS=str(made)).project(
            project("tinything\nelsewhere\nlying\n"), Stop()
        )
    assert {p.stem for p in found.path.glob("lib/python*/site-packages/*.py")} >= {"tinything", "elsewhere", "lying"}
    # The first index that has a package is the only one that is asked for it, as uv does it.
    assert [r for r in index.paths if "elsewhere" in r or "tinything/" in r] == []
    assert f"/files/{NAME}" in other.paths


# --- what goes wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"), [(401, OperatorError), (403, OperatorError), (407, OperatorError), (429, TransientError), (500, TransientError)]
)
def test_an_index_that_refuses(home, index, project, status, error):
    index.answers["/simple/tinything/"] = Answer(f"who is {SECRET}?", status=status)
    with pytest.raises(error, match=str(status)) as raised:
        environments(home, index).project(project(), Stop())
    assert SECRET not in str(raised.value)
    assert f"{index.url}/tinything/" in str(raised.value)
    assert "127.0.0.1:8000" not in str(raised.value)


@pytest.mark.parametrize(
    ("break_it", "error", "words"),
    [
        ("hang", TransientError, "timed out"),
        ("hostile link", OperatorError, "refused|Forbidden"),
        ("hostile redirect", OperatorError, "refused: it leads to 169.254.169.254"),
        ("nonsense", OperatorError, "refused: its JSON has no files"),
        ("cut", TransientError, "connection closed|error sending request|request or response body"),
        ("missing", ProjectError, "tinything"),
        ("sdist", ProjectError, "wheel"),
        ("not a wheel", ProjectError, ""),
    ],
)
def test_an_index_that_fails(home, index, project, *, break_it, error, words):
    match break_it:
        case "hang":
            index.answers["/simple/tinything/"] = Answer(lambda _: index.released.wait(60))
        case "hostile link":
            index.html(f"http://169.254.169.254/{NAME}")
        case "hostile redirect":
            index.answers[f"/files/{NAME}"] = Answer(status=302, headers={"Location": f"http://169.254.169.254/{NAME}"})
        case "nonsense":
            index.answers["/simple/tinything/"] = Answer("{}", "application/json")
        case "cut":
            index.answers[f"/files/{NAME}"] = Answer(
                lambda h: h.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n" + bytes(70_000))
            )
        case "missing":
            del index.answers["/simple/tinything/"]
        case "sdist":
            index.html("/files/tinything-1.0.tar.gz")
        case "not a wheel":
            index.answers[f"/files/{NAME}"] = Answer(b"PK nonsense")
    with pytest.raises(error, match=f"(?is){words}.*hint:") as raised:
        environments(home, index, UV_HTTP_TIMEOUT="1").project(project(), Stop())
    assert SECRET not in str(raised.value)
    assert not [p for p in home.environments.iterdir() if p.is_dir()]


def test_nobody_answers(home, project):
    url = f"http://u:{SECRET}@127.0.0.1:9/simple?token={SECRET}"
    with pytest.raises(TransientError, match=r"(?i)connection refused") as raised:
        UvEnvironments(home, environ=CLEAN | {"UV_DEFAULT_INDEX": url}).project(project(), Stop())
    assert SECRET not in str(raised.value)


def test_can_be_stopped_and_begun_again(home, index, project):
    page = index.answers["/simple/tinything/"]
    index.answers["/simple/tinything/"] = Answer(lambda _: index.released.wait(60))
    stop = Stop()
    timer = threading.Timer(1.0, stop.cancel)
    timer.start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        environments(home, index).project(project(), stop)
    assert time.monotonic() - began < 10
    assert [t for t in threading.enumerate() if t.name == "egress"] == []
    index.answers["/simple/tinything/"] = page
    assert not environments(home, index).project(project(), Stop()).cached


def test_an_environment_that_is_there_needs_no_index(home, index, project):
    first = environments(home, index).project(project(), Stop())
    asked = len(index.requests)
    second = environments(home, index).project(project(), Stop())
    assert (second.path, second.cached, len(index.requests)) == (first.path, True, asked)


def test_without_a_sandbox_nothing_is_installed(home, index, project, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    bubblewrap.available.cache_clear()
    try:
        with pytest.raises(NotTrusted, match=r"(?s)without isolation.*hint: install bubblewrap"):
            environments(home, index).project(project(), Stop())
        assert index.requests == []
        assert environments(home, index).project(project(""), Stop())
        allowed = UvEnvironments(home, unisolated=True, environ=environments(home, index).environ)
        assert installed(allowed.project(project(), Stop()))
    finally:
        bubblewrap.available.cache_clear()


def certificate(folder: Path) -> ssl.SSLContext:
    """A self-signed one for 127.0.0.1 as `cert.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "index")])
    now = dt.datetime.now(dt.UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), 7, now - dt.timedelta(1), now + dt.timedelta(1))
    built = built.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "cert.pem").write_bytes(pem)
    (folder / "key.pem").write_bytes(secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def test_certificates_are_the_machines(home, project, tmp_path):
    with index_server(tmp_path, tls=certificate(tmp_path)) as index:
        index.login = f"someone:{SECRET}"
        with pytest.raises(OperatorError, match="peer certificate cannot be verified"):
            environments(home, index).project(project(), Stop())
        assert installed(environments(home, index, SSL_CERT_FILE=str(tmp_path / "cert.pem")).project(project(), Stop()))
        assert installed(environments(home, index, UV_INSECURE_HOST="127.0.0.1").project(project("tinything>0"), Stop()))


# --- what an install can reach ------------------------------------------------------------------------


REACH = """
import json, os, socket, sys, urllib.error, urllib.request
told = json.loads(sys.argv[1])
base, page = "http://127.0.0.1:8000", told["page"]
def text(path):
    with open(path, errors="replace") as file:
        return file.read()
def connect(family, where):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(2)
        s.connect(where)
def get(path):
    return urllib.request.urlopen(base + path, timeout=10).read().decode(errors="replace")
def raw(line):
    with socket.create_connection(("127.0.0.1", 8000)) as s:
        s.sendall(line.encode() + b"\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        status = s.makefile("rb").readline()
    if status.split()[1] not in (b"403", b"400"):
        return status
    raise PermissionError(status)
got = get(page)
link = got.split('href="')[1].split('"')[0].partition("#")[0]
print("page", "tinything" in got, "wheel", len(get(link)) > 100)
tries = {
    "Postgres": lambda: connect(socket.AF_INET, ("127.0.0.1", 5432)),
    "the index itself": lambda: connect(socket.AF_INET, ("127.0.0.1", told["index"])),
    "a server of loopback": lambda: connect(socket.AF_INET, ("127.0.0.1", told["victim"])),
    "a server of loopback, by IPv6": lambda: connect(socket.AF_INET6, ("::1", told["victim"])),
    "a unix socket": lambda: connect(socket.AF_UNIX, told["socket"]),
    "an abstract socket": lambda: connect(socket.AF_UNIX, chr(0) + told["abstract"]),
    "metadata service": lambda: connect(socket.AF_INET, ("169.254.169.254", 80)),
    "public address": lambda: connect(socket.AF_INET, ("1.1.1.1", 443)),
    "public address, by IPv6": lambda: connect(socket.AF_INET6, ("2606:4700:4700::1111", 443)),
    "names": lambda: socket.getaddrinfo("example.org", 443),
    "another path of the index": lambda: get("/admin"),
    "another path below the index": lambda: get(page + "../../../admin"),
    "a file that no page linked": lambda: get("/files/" + "f" * 32 + "/" + told["name"]),
    "another name of a linked file": lambda: get(link + ".asc"),
    "a query": lambda: get(page + "?url=http://127.0.0.1:5432/"),
    "proxy to loopback": lambda: raw(f"GET http://127.0.0.1:{told['victim']}/ HTTP/1.1"),
    "proxy to metadata": lambda: raw("GET http://169.254.169.254/latest/ HTTP/1.1"),
    "tunnel": lambda: raw(f"CONNECT 127.0.0.1:{told['victim']} HTTP/1.1"),
    "upload": lambda: raw(f"POST {page} HTTP/1.1"),
    "home": lambda: os.listdir(told["home"] + "/.ssh"),
    "other environments": lambda: os.listdir(told["environments"]),
    "trusted cache": lambda: os.listdir(told["cache"]),
    "credentials": lambda: open(told["netrc"]).read(),
    "a link to a file": lambda: os.link("/etc/passwd", "/installer/cache/passwd"),
    "uv": lambda: open("/installer/uv", "r+b"),
    "requirements": lambda: open("/project/requirements.txt", "w"),
    "root folder": lambda: open("/new", "w"),
}
for name, act in tries.items():
    try:
        print("REACHED", name, act())
    except OSError as error:
        print("refused", name, error)
mounts = [line.split() for line in text("/proc/self/mountinfo").splitlines()]
environments = sorted(os.listdir(os.path.dirname(told["environment"])))
print(json.dumps({
    "environ": dict(os.environ),
    "writable": [m[4] for m in mounts if m[5].split(",")[0] == "rw"],
    "descriptors": sorted(os.readlink(f"/proc/self/fd/{n}").split(":")[0] for n in range(64) if os.path.exists(f"/proc/self/fd/{n}")),
    "init": sorted({os.readlink(f"/proc/1/fd/{fd}").split(":")[0] for fd in os.listdir("/proc/1/fd")}),
    "installer": sorted(os.listdir("/installer")),
    "environments": environments,
    "interfaces": [name for _, name in socket.if_nameindex()],
}))
"""


def test_an_install_reaches_the_index_alone(home, index, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    folder, environment, cache = tmp_path / "requirements", home.environments / "made", home.path / "cache" / "uv-untrusted"
    for place in (folder, home.environments / "another", cache, home.path / "cache" / "uv"):
        place.mkdir(parents=True)
    (tmp_path / ".netrc").write_text(SECRET)
    index.answers["/admin"] = Answer("secret of the index")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    listeners = [socket.socket(f) for f in (socket.AF_UNIX, socket.AF_UNIX, socket.AF_INET)]
    abstract, short = f"taxiway-egress-{os.getpid()}", Path("/tmp") / f"taxiway-egress-{os.getpid()}.sock"
    sources = read_sources(CLEAN | {"UV_DEFAULT_INDEX": index.private_url})
    try:
        for listener, where in zip(listeners, (str(short), "\0" + abstract, ("127.0.0.1", 0)), strict=True):
            listener.bind(where)
            listener.listen()
            listener.setblocking(False)
        told = {
            "page": f"{sources.indexes[0].path}tinything/",
            "index": index.server_address[1],
            "victim": listeners[2].getsockname()[1],
            "socket": str(short),
            "abstract": abstract,
            "name": NAME,
            "home": str(Path.home()),
            "environments": str(home.environments / "another"),
            "environment": str(environment),
            "cache": str(home.path / "cache" / "uv"),
            "netrc": str(tmp_path / ".netrc"),
        }
        with egress(sources) as (proxy, door):
            inside = installing._Inside(folder, environment, cache, sources.uv_environment("http://127.0.0.1:8000", 30), Stop(), door)
            result = inside(str(environment / "bin/python"), "-I", "-c", REACH, json.dumps(told), timeout_s=60)
        for listener in listeners:
            with pytest.raises(BlockingIOError):
                listener.accept()
    finally:
        for listener in listeners:
            listener.close()
        short.unlink(missing_ok=True)
    assert result.ok, result.stderr
    first, *lines, last = result.stdout.splitlines()
    assert first == "page True wheel True"
    assert [line for line in lines if not line.startswith("refused")] == []
    assert len(lines) == REACH.count("lambda:")
    assert SECRET not in result.stdout + result.stderr
    assert "/admin" not in index.paths
    assert proxy.notes == {}
    seen = json.loads(last)
    assert {n: v for n, v in seen["environ"].items() if n not in ("PATH", "HOME", "TMPDIR", "LANG", "PWD")} == {
        "UV_CACHE_DIR": "/installer/cache",
        "UV_DEFAULT_INDEX": f"http://127.0.0.1:8000{sources.indexes[0].path}",
        "UV_HTTP_RETRIES": "0",
        "UV_HTTP_TIMEOUT": "35",
        "UV_NO_CONFIG": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    }
    own = {str(environment), "/installer/cache"}
    devices = {"/tmp", "/dev/shm", "/dev/pts", "/proc", *(f"/dev/{d}" for d in ("null", "zero", "full", "random", "urandom", "tty"))}
    assert own <= set(seen["writable"]) <= own | devices | {f"/proc/{n}" for n in bubblewrap._PROC_HIDDEN}
    assert seen["installer"] == ["cache", "door.py", "uv"]
    assert seen["environments"] == ["made"]
    assert seen["interfaces"] == ["lo"]
    assert set(seen["descriptors"]) <= {"/dev/null", "pipe", "/proc/1/fd", f"/proc/{os.getpid()}/fd"}
    assert set(seen["init"]) <= {"/dev/null", "anon_inode", "pipe"}


def test_bytecode_is_compiled_without_any_way_out(home, tmp_path):
    environment = home.environments / "made"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    inside = installing._Inside(tmp_path, environment, None, {}, Stop())
    code = "import os, socket; print(os.path.exists('/installer')); socket.create_connection(('127.0.0.1', 8000))"
    result = inside(str(environment / "bin/python"), "-c", code, timeout_s=60)
    assert result.stdout == "False\n"
    assert "ConnectionRefusedError" in result.stderr


# --- the real one -------------------------------------------------------------------------------------


def reachable() -> str:
    try:
        url = next(s.url for s in read_sources(os.environ).indexes if s.folder is None)
        httpx.head(f"{url}/iniconfig/", timeout=10, follow_redirects=True, trust_env=True)
    except (StopIteration, OperatorError, httpx.HTTPError) as error:
        return f"this machine's package index does not answer ({type(error).__name__})"
    return ""


def test_the_index_of_this_machine(home, project):
    if why := reachable():
        pytest.skip(why)
    template = files("taxiway").joinpath("templates/python-service/project/requirements.txt").read_text()
    environment = UvEnvironments(home).project(project(template), Stop())
    assert list(environment.path.glob("lib/python*/site-packages/fastapi/__init__.py"))
    shutil.rmtree(home.path / "cache")
    assert UvEnvironments(home).project(project(template), Stop()).cached
