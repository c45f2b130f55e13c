"""Database servers that run elsewhere and that tests may use: reached by a relay, a Postgres with a database for each run of tests."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Literal
from urllib.parse import quote

from taxiway.errors import OperatorError, TransientError
from taxiway.integrations.servers import LocalServers
from taxiway.integrations.socket_relay import Relay
from taxiway.ports import Cancellation, Server
from taxiway.waiting import attended

__all__ = ["Address", "GivenServers"]

Name = Literal["postgres", "redis"]

_CONNECT_S = 10.0
_SQL_S = 30.0
_STOPPED_S = 2.0
_FORCES = 13
_DAY_S = 86_400
_OURS = re.compile(r"taxiway_(\d{10})_[0-9a-f]{8}")
_INFO_BYTES = 65_536


@dataclass(frozen=True)
class Address:
    """Where a server is and how to log in. `database` is a Postgres database to begin in, or the number of a Redis one."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The password in each form that it may appear in."""
        return tuple(dict.fromkeys(s for s in (self.password, quote(self.password, safe="")) if s))

    def url(self, scheme: str, database: str) -> str:
        """As tests see it: on their own loopback, `{port}` to be filled in."""
        login = quote(self.user, safe="") + (":" + quote(self.password, safe="") if self.password else "")
        return f"{scheme}://{login + '@' if login else ''}127.0.0.1:{{port}}/{database}"


@dataclass(frozen=True)
class GivenServers:
    """Those in `given`, or the reason why one cannot be used; for all others `local`."""

    local: LocalServers
    given: Mapping[str, Address | OperatorError]

    @contextmanager
    def lend(self, name: Name, version: int | None, stop: Cancellation) -> Iterator[Server]:
        """A way to it for the time of the block; raise OperatorError where it cannot be used, TransientError where it does not answer."""
        if (address := self.given.get(name)) is None:
            with self.local.lend(name, version, stop) as server:
                yield server
            return
        if isinstance(address, OperatorError):
            raise address
        stop.check()
        attended(partial(_reach, name, address), stop)
        lend = self._postgres if name == "postgres" else _redis
        with lend(address, version, stop) as server:
            yield server

    @contextmanager
    def _postgres(self, address: Address, version: int | None, stop: Cancellation) -> Iterator[Server]:
        sql = _Sql(_psql(self.local), address)
        found = int(attended(partial(sql.run, "SHOW server_version_num"), stop)) // 10_000
        _must_be("postgres", found, version)
        attended(sql.clean, stop)
        database = f"taxiway_{int(time.time())}_{secrets.token_hex(4)}"
        attended(partial(sql.run, f'CREATE DATABASE "{database}"'), stop)
        try:
            with Relay(address.host, address.port) as relay:
                yield Server("postgres", found, url=address.url("postgresql", database), socket=relay.socket, secrets=address.secrets)
        finally:
            with suppress(OperatorError):  # the next run drops it, a day later
                sql.drop(database, forced=found >= _FORCES, within_s=_STOPPED_S if stop.requested else _SQL_S)


@contextmanager
def _redis(address: Address, version: int | None, stop: Cancellation) -> Iterator[Server]:
    stop.check()
    found = attended(partial(_redis_version, address), stop)
    _must_be("redis", found, version)
    with Relay(address.host, address.port) as relay:
        url = address.url("redis", address.database or "0")
        yield Server("redis", found, url=url, socket=relay.socket, secrets=address.secrets)


def _reach(name: str, address: Address) -> None:
    try:
        socket.create_connection((address.host, address.port), timeout=_CONNECT_S).close()
    except OSError as error:
        raise TransientError(
            f"no {name} answers at {address.host}:{address.port}: {error}", hint="the policy's `services` name its connection"
        ) from error


def _must_be(name: str, found: int, wanted: int | None) -> None:
    if wanted not in (None, found):
        raise OperatorError(f"the tests need {name} {wanted}, and the policy's connection leads to {found}", hint="give it another one")


def _psql(local: LocalServers) -> str:
    path = os.pathsep.join([local.environ.get("PATH", os.defpath), *(str(s.programs) for s in local.find("postgres"))])
    if (place := shutil.which("psql", path=path)) is None:
        raise OperatorError("this machine has no psql to make a database for the tests with", hint="`apt-get install postgresql-client`")
    return place


@dataclass(frozen=True)
class _Sql:
    psql: str
    address: Address

    def run(self, statement: str, *, within_s: float = _SQL_S) -> str:
        """What it answers, without decoration."""
        given = {
            "PGHOST": self.address.host,
            "PGPORT": str(self.address.port),
            "PGUSER": self.address.user or "postgres",
            "PGPASSWORD": self.address.password,
            "PGDATABASE": self.address.database or "postgres",
            "PGCONNECT_TIMEOUT": f"{_CONNECT_S:.0f}",
        }
        environ = {"PATH": os.defpath, "LC_ALL": "C"} | {name: value for name, value in given.items() if value}
        argv = [self.psql, "-XAtqw", "-v", "ON_ERROR_STOP=1", "-c", statement]
        try:
            done = subprocess.run(
                argv, env=environ, capture_output=True, text=True, errors="replace", timeout=within_s, check=False, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OperatorError(
                f"psql did not end: {type(error).__name__}", hint="look at the server that the connection leads to"
            ) from error
        if done.returncode != 0:
            said = " ".join(done.stderr.split())[-300:]
            raise OperatorError(
                f"the tests' postgres refuses {statement.split(maxsplit=1)[0]}: {said}", hint="its user must be allowed to create databases"
            )
        return done.stdout.strip()

    def drop(self, database: str, *, forced: bool, within_s: float = _SQL_S) -> None:
        """Whoever is still connected loses the connection, where the server knows how."""
        self.run(f'DROP DATABASE IF EXISTS "{database}"{" WITH (FORCE)" if forced else ""}', within_s=within_s)

    def clean(self) -> None:
        """Drop databases that killed runs left more than a day ago."""
        for name in self.run("SELECT datname FROM pg_database").splitlines():
            if (match := _OURS.fullmatch(name)) and int(match[1]) < time.time() - _DAY_S:
                with suppress(OperatorError):  # somebody uses it
                    self.drop(name, forced=False)


def _redis_version(address: Address) -> int:
    login = [w for w in (address.user, address.password) if w] if address.password else []
    words = [["AUTH", *login]] if login else []
    said = b""
    try:
        with socket.create_connection((address.host, address.port), timeout=_CONNECT_S) as connection:
            for command in (*words, ["INFO", "server"]):
                connection.sendall(
                    b"".join([b"*%d\r\n" % len(command), *(b"$%d\r\n%s\r\n" % (len(w := word.encode()), w) for word in command)])
                )
            while (
                b"redis_version:" not in said and not said.startswith(b"-") and len(said) < _INFO_BYTES and (data := connection.recv(4096))
            ):
                said += data
    except OSError as error:
        raise TransientError(f"no redis answers at {address.host}:{address.port}: {error}") from error
    if match := re.search(rb"redis_version:(\d+)", said):
        return int(match[1])
    refusal = said.splitlines()[0].decode(errors="replace")[:200] if said else "nothing"
    raise OperatorError(f"the tests' redis answers {refusal}", hint="set login and password of its connection")
