"""What an isolated command sees, listed whole, and what it can not reach, tried."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from taxiway.integrations import bubblewrap
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.ports import Command, CommandResult, Environment
from taxiway.stop import Stop

pytestmark = pytest.mark.skipif(bubblewrap.available() is not None, reason=str(bubblewrap.available()))

DEVICES = ("core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero")

LOOK = """
import json, os, socket
def text(path):
    with open(path, errors="replace") as file:
        return file.read()
def tried(act):
    try:
        act()
    except BaseException as error:
        return type(error).__name__
    return "done"
mounts = [line.split() for line in text("/proc/self/mountinfo").splitlines()]
print(json.dumps({
    "mounts": {m[4]: m[5].split(",")[0] for m in mounts},
    "root": sorted(os.listdir("/")),
    "etc": sorted(os.listdir("/etc")),
    "dev": sorted(os.listdir("/dev")),
    "tmp": sorted(os.listdir("/tmp")),
    "shm": sorted(os.listdir("/dev/shm")),
    "usr": sorted(os.listdir("/usr")),
    "environ": dict(os.environ),
    "init environ": text("/proc/1/environ"),
    "processes": [text(f"/proc/{p}/comm").strip() for p in sorted(filter(str.isdigit, os.listdir("/proc")), key=int)],
    "interfaces": [name for _, name in socket.if_nameindex()],
    "tcp": text("/proc/net/tcp").splitlines()[1:] + text("/proc/net/tcp6").splitlines()[1:],
    "unix": [line.split()[-1] for line in text("/proc/net/unix").splitlines()[1:]],
    "routes": text("/proc/net/route").splitlines()[1:],
    "descriptors": {n: os.readlink(f"/proc/self/fd/{n}").split(":")[0] for n in range(9) if os.path.lexists(f"/proc/self/fd/{n}")},
    "init descriptors": sorted({os.readlink(f"/proc/1/fd/{fd}").split(":")[0] for fd in os.listdir("/proc/1/fd")}),
    "host": socket.gethostname(),
    "ids": [os.getuid(), os.geteuid(), os.getgid(), os.getegid()],
    "capabilities": [line.split()[1] for line in text("/proc/self/status").splitlines() if line.startswith(("CapEff", "CapPrm", "CapBnd"))],
    "session": os.getsid(0) != 0 and tried(lambda: open("/dev/tty")),
    "cwd": os.getcwd(),
}))
"""


def isolated(checkout: Path, code: str, *arguments: object, **more: object) -> CommandResult:
    (checkout / "look.py").write_text(code)
    argv = ("python3", "{project}/look.py", *map(str, arguments))
    return ProcessSandbox(trusted=False).run(Command(argv=argv, checkout=checkout, **more), Stop())


@pytest.fixture
def checkout(tmp_path):
    place = tmp_path / "checkout"
    place.mkdir()
    return place


@pytest.fixture
def environment():
    """The environment that these tests run in, as a project's."""
    return Environment(Path(sys.prefix), "key", cached=True)


@pytest.fixture
def seen(checkout, tmp_path, environment, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    reports = tmp_path / "reports"
    reports.mkdir()
    result = isolated(
        checkout, LOOK, reports=reports, environment=environment, env={"COLOR": "no", "WHERE": "{reports} {project} {environment}"}
    )
    assert result.ok, result.stderr
    return json.loads(result.stdout)


def test_mounts_are_the_allow_list(seen, environment):
    system = dict.fromkeys(("/", "/usr", "/dev"), "ro") | dict.fromkeys(("/tmp", "/dev/shm", "/dev/pts", "/proc"), "rw")
    devices = {f"/dev/{d}": "rw" for d in ("null", "zero", "full", "random", "urandom", "tty")}
    own = {"/project": "ro", "/reports": "rw", str(environment.path): "ro"}
    etc = {f"/etc/{name}": "ro" for name in (*bubblewrap._HOST_ETC, "passwd", "group", "hosts", "nsswitch.conf")}
    hidden = {f"/proc/{name}" for name in (*bubblewrap._PROC_READ_ONLY, *bubblewrap._PROC_HIDDEN)}
    libraries = {f"/{name}": "ro" for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32")}
    base = Path(environment.python).resolve()
    interpreter = {str(base.parent): "ro", str(base.parent.parent / "lib"): "ro"}
    allowed = system | devices | own | etc | libraries | interpreter
    mounts = {place: mode for place, mode in seen["mounts"].items() if place not in hidden}
    assert {place: mode for place, mode in mounts.items() if allowed.get(place) != mode} == {}
    assert own.items() <= mounts.items()
    assert system.items() <= mounts.items()


def test_folders_hold_nothing_else(seen, environment):
    top = Path(environment.path).parts[1], Path(environment.python).resolve().parts[1]
    assert set(seen["root"]) <= {
        "bin",
        "dev",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "proc",
        "project",
        "reports",
        "sbin",
        "tmp",
        "usr",
        *top,
    }
    etc = {name.split("/")[0] for name in bubblewrap._HOST_ETC}
    assert set(seen["etc"]) <= etc | {"group", "hosts", "nsswitch.conf", "passwd"}
    assert set(seen["dev"]) == set(DEVICES)
    assert set(seen["tmp"]) <= {"home", *Path(environment.path).parts[2:3]}
    assert seen["shm"] == []


def test_environment_variables_are_the_given_ones(seen, environment):
    assert seen["environ"] == {
        "COLOR": "no",
        "WHERE": f"/reports /project {environment.path}",
        "HOME": "/tmp/home",
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "PATH": f"{environment.path}/bin:/usr/local/bin:/usr/bin:/bin",
        "PWD": "/project",
    }
    assert seen["init environ"] == ""


def test_processes_network_and_identity_are_its_own(seen):
    assert seen["processes"][0] == "bwrap"
    assert len(seen["processes"]) == 2
    assert seen["interfaces"] == ["lo"]
    assert seen["tcp"] == seen["unix"] == seen["routes"] == []
    assert seen["host"] == "sandbox"
    assert seen["ids"] == [1000] * 4
    assert {int(c, 16) for c in seen["capabilities"]} == {0}
    assert seen["descriptors"] == {"0": "/dev/null", "1": "pipe", "2": "pipe"}
    assert set(seen["init descriptors"]) <= {"/dev/null", "anon_inode", "pipe"}
    assert seen["session"] == "OSError"
    assert seen["cwd"] == "/project"


REACH = """
import ctypes, os, socket, sys
secret, folder, path, abstract, port, pid, home = sys.argv[1:]
def connect(family, where):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(2)
        s.connect(where)
def write(path):
    os.close(os.open(path, os.O_WRONLY))
def namespaces():
    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000) != 0:
        raise PermissionError
tries = {
    "file": lambda: open(secret).read(),
    "file below /proc/1/root": lambda: open("/proc/1/root" + secret).read(),
    "folder": lambda: os.listdir(folder),
    "ssh": lambda: os.listdir(home + "/.ssh"),
    "host's passwords": lambda: open("/etc/shadow").read(),
    "socket": lambda: connect(socket.AF_UNIX, path),
    "abstract socket": lambda: connect(socket.AF_UNIX, chr(0) + abstract),
    "loopback": lambda: connect(socket.AF_INET, ("127.0.0.1", int(port))),
    "network": lambda: connect(socket.AF_INET, ("192.0.2.1", 80)),
    "IPv6": lambda: connect(socket.AF_INET6, ("2001:db8::1", 80)),
    "names": lambda: socket.getaddrinfo("example.org", 80),
    "metadata service": lambda: connect(socket.AF_INET, ("169.254.169.254", 80)),
    "process": lambda: os.kill(int(pid), 0),
    "core pattern": lambda: write("/proc/sys/kernel/core_pattern"),
    "sysrq": lambda: write("/proc/sysrq-trigger"),
    "system": lambda: write("/usr/bin/env"),
    "project": lambda: open("/project/new", "w"),
    "root folder": lambda: open("/new", "w"),
    "kernel's keys": lambda: open("/proc/keys").read(),
    "kernel's log": lambda: open("/proc/kmsg").read(),
    "user namespace": namespaces,
    "mount": lambda: os.mkdir("/mnt"),
}
for name, act in tries.items():
    try:
        act()
        print("REACHED", name)
    except OSError as error:
        print("refused", name, error)
"""


def test_the_host_is_out_of_reach(checkout, tmp_path):
    secret = tmp_path / "airflow.db"
    secret.write_text("planted")
    listeners = [socket.socket(family) for family in (socket.AF_UNIX, socket.AF_UNIX, socket.AF_INET)]
    abstract = f"taxiway-test-{os.getpid()}"
    short = Path("/tmp") / f"taxiway-test-{os.getpid()}.sock"
    try:
        for listener, where in zip(listeners, (str(short), "\0" + abstract, ("127.0.0.1", 0)), strict=True):
            listener.bind(where)
            listener.listen()
        port = listeners[2].getsockname()[1]
        result = isolated(checkout, REACH, secret, tmp_path, short, abstract, port, os.getpid(), Path.home())
    finally:
        for listener in listeners:
            listener.close()
        short.unlink(missing_ok=True)
    assert result.ok, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == REACH.count("lambda:") + 1
    assert [line for line in lines if not line.startswith("refused")] == []
    assert secret.read_text() == "planted"


KEYS = """
import ctypes, os, sys
from pathlib import Path
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.ports import Command
from taxiway.stop import Stop
keyctl, add_key = {"x86_64": (250, 248), "aarch64": (219, 217)}[os.uname().machine]
libc = ctypes.CDLL(None)
libc.syscall(keyctl, 1, None)
serial = libc.syscall(add_key, b"user", b"planted", b"secret", 6, -3)
read = f"import ctypes; b = ctypes.create_string_buffer(9); print(ctypes.CDLL(None).syscall({keyctl}, 11, {serial}, b, 9), b.value)"
exec(read)
sys.stdout.flush()
print(ProcessSandbox(trusted=False).run(Command(("python3", "-c", read), Path(sys.argv[1])), Stop()).stdout)
"""


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="the numbers of its system calls are not known")
def test_keys_of_the_session_are_out_of_reach(checkout):
    argv = [sys.executable, "-c", KEYS, str(checkout)]
    here, inside = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True).stdout.split("\n")[:2]
    if here != "6 b'secret'":
        pytest.skip("this kernel or container has no keyrings")
    assert inside == "-1 b''"


def test_writable_places_are_checkout_and_reports_only_when_given(checkout, tmp_path):
    reports = tmp_path / "reports"
    reports.mkdir()
    code = "open('made.txt', 'w').write('x'); open('/reports/r.xml', 'w').write('y')"
    result = isolated(checkout, code, reports=reports, writable=True)
    assert result.ok, result.stderr
    assert (checkout / "made.txt").read_text() == "x"
    assert (reports / "r.xml").read_text() == "y"


@pytest.mark.parametrize(("folder", "most"), [("/tmp", 1 << 30), ("/dev/shm", 256 << 20)])
def test_private_memory_file_systems_have_a_size(checkout, folder, most):
    result = isolated(checkout, f"import os; s = os.statvfs({folder!r}); print(s.f_blocks * s.f_frsize)")
    assert int(result.stdout) == most


def test_links_in_the_checkout_lead_nowhere(checkout, tmp_path):
    (tmp_path / "secret").write_text("planted")
    (checkout / "link").symlink_to(tmp_path / "secret")
    result = isolated(checkout, "print(open('/project/link').read())")
    assert "FileNotFoundError" in result.stderr


def test_a_server_and_its_client_meet_inside_one_sandbox(checkout):
    code = (
        "import socket, threading\n"
        "s = socket.create_server(('127.0.0.1', 8000)); c = socket.create_connection(('127.0.0.1', 8000))\n"
        "s.accept()[0].sendall(b'hello'); print(c.recv(5))"
    )
    assert isolated(checkout, code).stdout == "b'hello'\n"


def test_ends_with_the_thread_that_started_it(checkout):
    command = bubblewrap.wrap(["sh", "-c", "echo up; exec sleep 60"], bubblewrap.Layout(checkout=checkout))
    started = []

    def start():
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        started[0].stdout.readline()

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    with started[0] as process:
        try:
            assert process.wait(60) == -signal.SIGKILL
        finally:
            process.kill()


def test_names_what_it_does_when_absent(monkeypatch, checkout):
    monkeypatch.setenv("PATH", str(checkout))
    bubblewrap.available.cache_clear()
    try:
        assert re.search("bubblewrap.*apt-get install bubblewrap", bubblewrap.available() or "")
    finally:
        bubblewrap.available.cache_clear()
