"""Servers that run elsewhere: real ones, started here on a port of their own, and reached through the relay."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from taxiway.errors import OperatorError, TransientError
from taxiway.integrations.servers import LocalServers
from taxiway.integrations.servers_elsewhere import Address, GivenServers, Name
from taxiway.integrations.socket_relay import Relay
from taxiway.ports import Server
from taxiway.stop import Stop

sys.path.insert(0, str(Path(__file__).parents[1]))

from database_servers import PASSWORD, SERVERS, running


@pytest.fixture(scope="module")
def postgres() -> Iterator[Address]:
    with running("postgres") as address:
        yield address


@pytest.fixture(scope="module")
def redis() -> Iterator[Address]:
    with running("redis") as address:
        yield address


def sql(address: Address, statement: str) -> list[str]:
    environ = {"PATH": os.environ["PATH"], "PGPASSWORD": address.password}
    argv = [
        "psql",
        "-XAtqw",
        "-h",
        address.host,
        "-p",
        str(address.port),
        "-U",
        "postgres",
        address.database or "postgres",
        "-c",
        statement,
    ]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout.split()


def ask(place: Path, words: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(place))
        connection.settimeout(5)
        connection.sendall(words)
        return connection.recv(100)


def test_each_run_has_a_database_of_its_own_and_leaves_none(postgres: Address) -> None:
    for name in ("taxiway_1000000000_deadbeef", "taxiway_mine"):
        sql(postgres, f"create database {name}")
    sql(postgres, f"create database taxiway_{int(time.time())}_deadbeef")
    servers = GivenServers(SERVERS, {"postgres": postgres})
    with servers.lend("postgres", None, Stop()) as server, servers.lend("postgres", server.version, Stop()) as other:
        parts = urlsplit(server.url.replace("{port}", "1"))
        assert (parts.hostname, parts.username, parts.password) == ("127.0.0.1", "postgres", "s3cret%2F%2Bword")
        assert server.secrets == (PASSWORD, "s3cret%2F%2Bword")
        there = sql(postgres, "select datname from pg_database")
        assert {parts.path[1:], urlsplit(other.url.replace("{port}", "1")).path[1:]} < set(there)
        holder = subprocess.Popen(
            ["psql", "-XAtqw", f"postgresql://postgres:s3cret%2F%2Bword@127.0.0.1:{postgres.port}{parts.path}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        holder.stdin.write(b"select 1;\n")  # type: ignore[union-attr]
        holder.stdin.flush()  # type: ignore[union-attr]
        assert holder.stdout.readline() == b"1\n"  # type: ignore[union-attr]
    holder.communicate()
    left = [n for n in sql(postgres, "select datname from pg_database") if n.startswith("taxiway_")]
    assert sorted(n.split("_")[-1] for n in left) == ["deadbeef", "mine"], "old ones of ours go, younger ones and those of others stay"
    assert "taxiway_1000000000_deadbeef" not in left


def test_a_redis_is_reached_as_it_is(redis: Address) -> None:
    with GivenServers(SERVERS, {"redis": redis}).lend("redis", None, Stop()) as server:
        assert server.url == "redis://:s3cret%2F%2Bword@127.0.0.1:{port}/3"
        assert server.socket is not None
        assert ask(server.socket, b"AUTH s3cret/+word\r\n") == b"+OK\r\n"
    assert not server.socket.parent.exists()


@pytest.mark.parametrize(
    ("name", "changes", "version", "problem"),
    [
        ("postgres", {"password": "wrong"}, None, "refuses SHOW: .*password authentication failed"),
        ("postgres", {}, 9, r"need postgres 9, and the policy's connection leads to \d+"),
        ("redis", {"password": "wrong"}, None, "the tests' redis answers -WRONGPASS"),
        ("redis", {"password": ""}, None, "the tests' redis answers -NOAUTH"),
        ("redis", {}, 2, r"need redis 2, and the policy's connection leads to \d+"),
    ],
)
def test_a_server_that_cannot_be_used(
    request: pytest.FixtureRequest, name: Name, changes: dict[str, str], version: int | None, problem: str
) -> None:
    address = replace(request.getfixturevalue(name), **changes)
    with (
        pytest.raises(OperatorError, match=problem) as raised,
        GivenServers(SERVERS, {name: address}).lend(name, version, Stop()),
    ):
        pass
    assert "s3cret" not in str(raised.value)


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for name in ("postgres", "redis"):
        lent = GivenServers(SERVERS, {name: Address("127.0.0.1", port)}).lend(name, None, Stop())  # type: ignore[arg-type]
        with pytest.raises(TransientError, match=f"no {name} answers at 127.0.0.1:{port}"), lent:
            pass


def test_no_psql(postgres: Address) -> None:
    servers = GivenServers(LocalServers({"PATH": "/nowhere"}, packaged=()), {"postgres": postgres})
    with pytest.raises(OperatorError, match="no psql") as raised, servers.lend("postgres", None, Stop()):
        pass
    assert "postgresql-client" in raised.value.hint


def test_what_is_not_given_is_started_beside(tmp_path: Path) -> None:
    servers = GivenServers(LocalServers({"PATH": str(tmp_path)}, packaged=()), {"redis": OperatorError("no such connection")})
    with pytest.raises(OperatorError, match="this machine has none"), servers.lend("postgres", None, Stop()):
        pass
    with pytest.raises(OperatorError, match="no such connection"), servers.lend("redis", None, Stop()):
        pass


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets."""

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_the_relay_passes_all_bytes_and_ends_what_is_open(echo: int) -> None:
    before = threading.active_count()
    with Relay("127.0.0.1", echo) as relay:
        with socket.socket(socket.AF_UNIX) as whole:
            whole.connect(str(relay.socket))
            sent = os.urandom(3_000_000)
            threading.Thread(target=lambda: (whole.sendall(sent), whole.shutdown(socket.SHUT_WR))).start()
            got = b"".join(iter(lambda: whole.recv(1 << 16), b""))
            assert got == sent
        kept = [socket.socket(socket.AF_UNIX) for _ in range(200)]
        for connection in kept:
            connection.connect(str(relay.socket))
            connection.settimeout(5)
        answered = [c for c in kept if _answers(c)]
        assert 0 < len(answered) <= 128, "more connections than it may hold are closed"
    for connection in answered:
        assert connection.recv(1) == b"", "nobody stays connected"
    for connection in kept:
        connection.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before


def _answers(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b"x"
    except OSError:
        return False


def test_a_relay_to_nobody_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Relay("127.0.0.1", port) as relay, contextlib.suppress(BrokenPipeError):  # it may end before the question is there
        assert ask(relay.socket, b"") == b""


def test_servers_are_plain_data() -> None:
    assert "hush" not in repr(Address("h", 1, "u", "hush"))
    assert Server("redis", 7).url == ""
