"""Process trees on this machine: what belongs to one, what it uses, and how it ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process", "Usage", "index_environment", "kill_tree", "tree", "usage"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_KILL_S = 2.0
_INDEX_NAMES = frozenset(
    {
        "ALL_PROXY",
        "CURL_CA_BUNDLE",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
        "PIP_CERT",
        "PIP_CLIENT_CERT",
        "PIP_CONFIG_FILE",
        "PIP_DEFAULT_TIMEOUT",
        "PIP_EXTRA_INDEX_URL",
        "PIP_FIND_LINKS",
        "PIP_INDEX_URL",
        "PIP_NO_INDEX",
        "PIP_PROXY",
        "PIP_RETRIES",
        "PIP_TRUSTED_HOST",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "SSL_CLIENT_CERT",
        "UV_DEFAULT_INDEX",
        "UV_EXTRA_INDEX_URL",
        "UV_FIND_LINKS",
        "UV_HTTP_CONNECT_TIMEOUT",
        "UV_HTTP_RETRIES",
        "UV_HTTP_TIMEOUT",
        "UV_INSECURE_HOST",
        "UV_KEYRING_PROVIDER",
        "UV_NATIVE_TLS",
        "UV_NO_INDEX",
        "UV_OFFLINE",
        "UV_SYSTEM_CERTS",
    }
)
_INDEX_PREFIX = "UV_INDEX"


@dataclass(frozen=True)
class Process:
    """One process as /proc shows it; `started` tells it from a later one with the same pid."""

    pid: int
    parent: int
    started: int
    name: str
    state: str
    threads: int
    rss: int

    @property
    def alive(self) -> bool:
        """Whether it still runs or can run again: a zombie only waits to be counted."""
        return self.state not in "ZXx"


@dataclass(frozen=True)
class Usage:
    """What a tree uses now. `memory` is in bytes, shared pages counted once where the kernel says so (PSS)."""

    processes: int
    threads: int
    memory: int


def tree(pid: int, *, known: Iterable[Process] = ()) -> list[Process]:
    """`pid`, those of `known` that still exist, and all their descendants, zombies too; parents come before children."""
    table = _processes()
    roots = [p for p in known if (now := table.get(p.pid)) is not None and now.started == p.started]
    found = {p.pid: table[p.pid] for p in roots} | ({pid: table[pid]} if pid in table else {})
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    queue = list(found.values())
    for process in queue:
        new = [c for c in children.get(process.pid, ()) if c.pid not in found]
        found.update((c.pid, c) for c in new)
        queue += new
    return list(found.values())


def usage(members: Collection[Process], memory_limit: int) -> Usage:
    """What these processes use. Below `memory_limit` the sum of RSS stands for memory: it is never less than PSS, and
    reading PSS makes the kernel walk every page."""
    living = [p for p in members if p.alive]
    memory = sum(p.rss for p in living)
    if memory > memory_limit:
        memory = sum(_pss(p) for p in living)
    return Usage(len(living), sum(p.threads for p in living), memory)


def kill_tree(pid: int, grace_s: float) -> bool:
    """End `pid` and all its descendants: SIGTERM, `grace_s` to clean up, SIGKILL; whether all of it is dead.

    The caller reaps `pid` where it is its child. bubblewrap's own processes get no SIGTERM: they would end at once
    and take what they run with them.
    """
    members = [p for p in tree(pid) if p.alive]
    if grace_s > 0:
        for process in members:
            if process.name != "bwrap":
                _send(process, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while members and time.monotonic() < deadline:
            time.sleep(0.02)
            members = [p for p in tree(pid, known=members) if p.alive]
    deadline = time.monotonic() + _KILL_S
    # Half of the time: what could not be stopped for lack of it is still killed.
    members = _freeze(pid, members, deadline - _KILL_S / 2)
    while members and time.monotonic() < deadline:
        for process in reversed(members):
            _send(process, signal.SIGKILL)
        time.sleep(0.005)
        members = [p for p in tree(pid, known=members) if p.alive]
    return not members


def _freeze(pid: int, members: list[Process], deadline: float) -> list[Process]:
    """Stop everything, until a look finds nothing new: a process that does not run cannot start another one."""
    stopped: set[tuple[int, int]] = set()
    while time.monotonic() < deadline:
        members = [p for p in tree(pid, known=members) if p.alive]
        new = [p for p in members if (p.pid, p.started) not in stopped]
        if not new:
            break
        for process in new:
            _send(process, signal.SIGSTOP)
            stopped.add((process.pid, process.started))
    return members


def _send(process: Process, number: int) -> None:
    # A pid may have got a new owner since we looked; a pidfd cannot get one.
    with suppress(OSError):
        handle = os.pidfd_open(process.pid)
        try:
            now = _read(process.pid)
            if now is not None and now.started == process.started:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def _processes() -> dict[int, Process]:
    found = (_read(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - only names are needed
    return {p.pid: p for p in found if p is not None}


def _read(pid: int) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 - read hundreds of times a second
            text = file.read(4096)
    except OSError:
        return None
    # The name stands in parentheses and may hold anything, spaces and parentheses too. Fields: proc(5).
    head, _, rest = text.rpartition(b")")
    fields = rest.split()
    name = head.partition(b"(")[2].decode(errors="replace")
    return Process(pid, int(fields[1]), int(fields[19]), name, chr(fields[0][0]), int(fields[17]), int(fields[21]) * _PAGE)


def _pss(process: Process) -> int:
    try:
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # gone, or the kernel does not let us look: RSS counts shared pages again, and errs on the safe side
    return process.rss


def index_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The machine's package index, certificate and proxy settings of pip and uv, and nothing else of `environ`."""
    # npm's come with projects that npm installs: what nothing reads is not passed on.
    return {name: value for name, value in environ.items() if (upper := name.upper()) in _INDEX_NAMES or upper.startswith(_INDEX_PREFIX)}
