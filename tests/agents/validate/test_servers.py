"""Tests of projects beside a real Postgres and a real Redis, and what happens to those who mistreat them."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
from projects import CODE, Bench, Installed, failing, write

from taxiway.errors import TransientError
from taxiway.home import Home
from taxiway.integrations import bubblewrap
from taxiway.integrations.environments import UvEnvironments
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.integrations.servers import LocalServers
from taxiway.integrations.servers_elsewhere import Address, GivenServers, Name
from taxiway.ports import Cancellation, Command, CommandResult
from taxiway.records import Result
from taxiway.stop import Stop

sys.path.insert(0, str(Path(__file__).parents[2]))

from database_servers import PASSWORD, SERVERS, running

BWRAP = pytest.mark.skipif(bubblewrap.available() is not None, reason=str(bubblewrap.available()))
POSTGRES = pytest.mark.skipif(not SERVERS.find("postgres"), reason="no Postgres: apt-get install postgresql")
REDIS = pytest.mark.skipif(not SERVERS.find("redis"), reason="no Redis: apt-get install redis-server")
MANIFEST = 'name: tiny\ninstall: {packages: ["psycopg[binary]>=3.2", "redis>=5"]}\ntest: {services: [%s]}\n'


@pytest.fixture(scope="module")
def with_drivers(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    root = tmp_path_factory.mktemp("drivers")
    environments = UvEnvironments(Home(root / "home"), trusted=True)
    checkout = write(root / "checkout", {".taxiway.yaml": MANIFEST % ""})
    return replace(installed, environment=environments.project(checkout, Stop()))


@pytest.fixture
def beside(bench: Bench, with_drivers: Installed) -> Bench:
    return replace(bench, ports=replace(bench.ports, environments=with_drivers, servers=SERVERS))


def project(services: str, test: str) -> dict[str, str]:
    return {".taxiway.yaml": MANIFEST % services, "src/tiny/__init__.py": CODE, "tests/test_tiny.py": test}


def report(bench: Bench, name: str) -> str:
    return (bench.scratch / "reports" / name).read_text()


def outcomes(result: Result) -> tuple[float, float]:
    assert "tests.total" in result.metrics, result.unmeasured
    return result.metrics["tests.passed"], result.metrics["tests.failed"]


BOTH = """
import os, psycopg, redis

def test_the_database_is_new_and_utf_8():
    with psycopg.connect(os.environ["TEST_DB"]) as connection:
        connection.execute("create table greeting (text text)")
        connection.execute("insert into greeting values ('gr\\u00fc\\u00df dich')")
        assert connection.execute("select upper(text) from greeting").fetchone() == ("GR\\u00dc\\u00df DICH",)

def test_libpq_finds_it_by_its_own_variables():
    with psycopg.connect("", autocommit=True) as connection:
        assert connection.execute("select count(*) from greeting").fetchone() == (1,)
        connection.execute("create database another")

def test_the_cache_is_empty():
    cache = redis.Redis.from_url(os.environ["REDIS_URL"])
    assert cache.dbsize() == 0
    cache.set("a", "b")
    assert cache.get("a") == b"b"

def test_strangers_need_a_password():
    isolated = os.getcwd() == "/project"
    cache = redis.Redis.from_url(os.environ["REDIS_URL"])
    port = cache.connection_pool.connection_kwargs["port"]
    assert (port == 6379) == isolated
    try:
        redis.Redis(port=port).ping()
        psycopg.connect("", password="guessed").close()
    except (redis.AuthenticationError, psycopg.OperationalError):
        assert not isolated
    else:
        assert isolated
"""


@POSTGRES
@REDIS
@pytest.mark.parametrize("isolate", [pytest.param("auto", marks=BWRAP), "never"], ids=["isolated", "plain"])
def test_tests_find_their_servers(beside: Bench, isolate: Literal["auto", "never"]) -> None:
    bench = beside.with_sandbox(ProcessSandbox(trusted=True, isolate=isolate))
    result = bench.validate(project("{server: postgres, env: TEST_DB}, redis", BOTH), checks=["tests"])
    assert outcomes(result) == (4, 0), report(bench, "tests.log")
    assert not failing(result, "tests")
    assert "database system is ready" in report(bench, "postgres.log")
    assert "Ready to accept connections" in report(bench, "redis.log")
    assert not servers_of(bench), "nothing outlives the tests"


def servers_of(bench: Bench) -> list[list[str]]:
    """Servers that this process started and that still run."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "taxiway-" in " ".join(process.cmdline()):
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


KILLED = """
import os, signal, time, psycopg
from contextlib import suppress

def postgres():
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/comm") as comm:  # it may end meanwhile
            if comm.read().strip() == "postgres":
                yield int(name)

def test_kills_it():
    for pid in list(postgres()):
        with suppress(ProcessLookupError):  # its children go with the first of them
            os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)

def test_needs_it():
    psycopg.connect(os.environ["DATABASE_URL"]).close()
"""
FILLED = """
import os, pytest, redis

def test_fills_it():
    cache = redis.Redis.from_url(os.environ["REDIS_URL"])
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        for number in range(2000):
            cache.set(number, b"x" * (1 << 20))
"""
OVERFILLED = """
import os, redis

def test_fills_it():
    cache = redis.Redis.from_url(os.environ["REDIS_URL"])
    cache.config_set("maxmemory", 0)
    for number in range(1000):
        cache.set(number, b"x" * (1 << 20))
"""
LEFT = """
import os, subprocess, sys, psycopg

HOLDS = "import psycopg, time; c = psycopg.connect(''); c.execute('select 1'); print(1, flush=True); time.sleep(86399)"

def test_leaves_an_open_transaction():
    child = subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout.read(1) == b"1"

def test_the_server_sees_what_the_tests_see():
    with psycopg.connect("") as connection:
        connection.execute("create table said (line text)")
        for place in ("127.0.0.1/%d", "192.0.2.1/5432"):
            reach = f"bash -c 'exec 3<>/dev/tcp/{place} && echo reached || echo alone'"
            connection.execute("copy said from program $word$" + reach + "$word$")
        connection.execute("copy said from program 'ls /project'")
        assert {line for (line,) in connection.execute("select line from said")} == {"alone", "src", "tests"}
"""


@BWRAP
@POSTGRES
def test_who_kills_the_server_fails_the_tests_after_it(beside: Bench) -> None:
    result = beside.validate(project("postgres", KILLED), checks=["tests"])
    assert outcomes(result) == (1, 1)
    assert "postgres had ended with exit code -9 before the tests did" in report(beside, "tests.log")


@BWRAP
@REDIS
def test_who_fills_the_cache_is_told_and_not_killed(beside: Bench) -> None:
    assert outcomes(beside.validate(project("redis", FILLED), checks=["tests"])) == (1, 0)


class Small(ProcessSandbox):
    """A sandbox with less memory."""

    def run(self, command: Command, stop: Cancellation) -> CommandResult:
        return super().run(replace(command, memory_mb=400), stop)


@BWRAP
@REDIS
def test_limits_hold_for_tests_and_servers_together(beside: Bench) -> None:
    result = beside.with_sandbox(Small(trusted=True)).validate(project("redis", OVERFILLED), checks=["tests"])
    assert result.unmeasured["tests.total"] == "pytest was killed for using too much memory"


@BWRAP
@POSTGRES
def test_what_is_left_ends_and_the_server_reaches_nobody(beside: Bench, listener: int) -> None:
    result = beside.validate(project("postgres", LEFT % listener), checks=["tests"])
    assert outcomes(result) == (2, 0), report(beside, "tests.log")
    assert not any("86399" in " ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"]))


@pytest.fixture
def listener() -> Iterator[int]:
    """A port of this machine's loopback that something listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


# --- servers that are not there, or do not start --------------------------------------------------------


def programs(folder: Path, **scripts: str) -> LocalServers:
    """A machine with these programs, and no others."""
    folder.mkdir()
    for name, text in scripts.items():
        place = folder / name.replace("_", "-")
        place.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "$0 (PostgreSQL) 16.1 v=7.2" && exit\n{text}\n')
        place.chmod(0o755)
    return LocalServers({"PATH": str(folder)}, packaged=())


NEVER = "import sys\n\ndef test_it():\n    print('the tests ran', file=sys.stderr)\n"


@pytest.mark.parametrize(
    ("services", "scripts", "why", "said"),
    [
        ("postgres", {}, "the tests need postgres, and this machine has none: install it (`apt-get install postgresql`)", ""),
        ("redis", {}, "the tests need redis, and this machine has none: install it (`apt-get install redis-server`)", ""),
        ("postgres", {"postgres": ""}, "this machine has none", ""),
        (
            "{server: postgres, version: 15}",
            {"postgres": "", "initdb": ""},
            "the tests need postgres 15, and this machine has only 16: install it (`apt-get install postgresql-15`)",
            "",
        ),
        (
            "postgres",
            {"postgres": "", "initdb": "echo no room >&2; exit 3"},
            "a server of the tests did not start: postgres: initdb ended with exit code 3: no room",
            "no room\n",
        ),
        (
            "redis",
            {"redis_server": "echo bad day; exit 1"},
            "a server of the tests did not start: redis ended with exit code 1 before it answered: bad day",
            "bad day\n",
        ),
    ],
    ids=["no postgres", "no redis", "half a postgres", "another version", "initdb fails", "redis fails"],
)
def test_a_server_that_is_not_to_be_had(beside: Bench, services: str, scripts: dict[str, str], why: str, said: str) -> None:
    bench = replace(beside, ports=replace(beside.ports, servers=programs(beside.scratch / "bin", **scripts)))
    result = bench.validate(project(services, NEVER), checks=["tests"])
    assert not [m for m in result.metrics if m.startswith(("tests.", "coverage."))], "never zero"
    assert why in result.unmeasured["tests.total"]
    left = {p.name: p.read_text() for p in (bench.scratch / "reports").iterdir()}
    assert "".join(text for name, text in left.items() if name in ("postgres.log", "redis.log")) == said
    assert "the tests ran" not in left.get("tests.log", "")


def test_no_servers_are_offered(bench: Bench) -> None:
    files: Any = project("postgres", NEVER)
    assert "no servers are offered here" in bench.validate(files, checks=["tests"]).unmeasured["tests.total"]


# --- servers elsewhere -----------------------------------------------------------------------------------

ELSEWHERE = """
import os, socket, psycopg, redis
from urllib.parse import urlsplit

def test_uses_them():
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute("create table greeting (text text)")
    with psycopg.connect("") as connection:
        (name,) = connection.execute("select current_database()").fetchone()
        assert name.startswith("taxiway_"), name
        assert connection.execute("select count(*) from greeting").fetchone() == (0,)
    cache = redis.Redis.from_url(os.environ["REDIS_URL"])
    cache.set("a", os.environ["DATABASE_URL"])

def test_reaches_these_alone():
    assert {urlsplit(os.environ[n]).hostname for n in ("DATABASE_URL", "REDIS_URL")} == {"127.0.0.1"}
    try:
        socket.create_connection(("127.0.0.1", %d), timeout=2).close()
    except OSError:
        return
    assert os.getcwd() != "/project"

def test_talks():
    raise AssertionError(os.environ["DATABASE_URL"] + " " + os.environ["PGPASSWORD"])
"""


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[Name, Address]]:
    with running("postgres") as postgres, running("redis") as redis:
        yield {"postgres": postgres, "redis": redis}


@pytest.mark.parametrize("isolate", [pytest.param("auto", marks=BWRAP), "never"], ids=["isolated", "plain"])
def test_servers_elsewhere_are_reached_and_nothing_else(
    beside: Bench, addresses: dict[Name, Address], listener: int, isolate: Literal["auto", "never"]
) -> None:
    given = replace(beside, ports=replace(beside.ports, servers=GivenServers(SERVERS, addresses)))
    bench = given.with_sandbox(ProcessSandbox(trusted=True, isolate=isolate))
    result = bench.validate(project("postgres, redis", ELSEWHERE % listener), checks=["tests"])
    assert outcomes(result) == (2, 1), report(bench, "tests.log")
    texts = {p.name: p.read_text() for p in (bench.scratch / "reports").iterdir()} | {"result": result.model_dump_json()}
    assert "[secret]" in texts["report.md"]
    assert "[secret]" in texts["tests.log"]
    assert not [name for name, text in texts.items() if PASSWORD in text or "s3cret" in text]


def test_a_server_that_does_not_answer_is_tried_again(beside: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    servers = GivenServers(SERVERS, {"redis": Address("127.0.0.1", port)})
    with pytest.raises(TransientError, match="no redis answers"):
        replace(beside, ports=replace(beside.ports, servers=servers)).validate(project("redis", NEVER), checks=["tests"])
