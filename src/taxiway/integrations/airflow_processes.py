"""Processes that outlive the one that started them: known by pid and birth, ended with everything they started.

Each is the leader of a session. What it starts stays in that session unless it leaves on purpose, as a deployed
service does; so the session, not the process tree, says what is ended with it, also after its leader died.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from taxiway.errors import OperatorError

__all__ = ["Process", "end", "listening", "start"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_ASK_AGAIN_S = 5.0
_KILL_S = 10.0


@dataclass(frozen=True)
class Process:
    """A session leader. `birth` tells it from a later process of the same pid; `mark` is `NAME=value` of its environment."""

    pid: int
    birth: str
    mark: str = ""

    @property
    def alive(self) -> bool:
        """Whether this very process runs."""
        return _birth(self.pid) == self.birth

    def members(self) -> list[psutil.Process]:
        """Everything alive in its session."""
        mine = self.alive
        if not mine and _birth(self.pid):
            return []  # the pid was given to another process, so nothing of the session was left
        return [p for p in _session(self.pid) if mine or self._marked(p)]

    def _marked(self, process: psutil.Process) -> bool:
        """Whether it carries our mark: a session whose leader is gone may be a stranger's."""
        name, _, value = self.mark.partition("=")
        try:
            return bool(name) and process.environ().get(name) == value
        except psutil.Error:
            return False


def start(
    argv: Sequence[str], *, environ: Mapping[str, str], log: Path, folder: Path, mark: str
) -> tuple[Process, subprocess.Popen[bytes]]:
    """Start the leader of a new session, writing to `log`; the last log is kept beside it. Raises OperatorError."""
    try:
        if log.exists():
            log.replace(log.with_suffix(".old.log"))
        with log.open("wb") as output:
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environ),
                cwd=folder,
                start_new_session=True,
            )
    except OSError as error:
        raise OperatorError(f"cannot start {argv[0]}: {error}", hint="run `taxiway doctor`") from error
    return Process(child.pid, _birth(child.pid), mark), child


def end(leaders: Sequence[Process], *, ask_s: float) -> None:
    """End the leaders and all that is left in their sessions, and wait until it is gone.

    The leaders are asked first (SIGTERM) and get `ask_s` seconds, then each member is, then what is left is killed.
    Raises OperatorError where even that does not help.
    """
    for leader in leaders:
        if leader.alive:
            _signal(leader.members(), only=leader.pid)
    if not _wait(leaders, ask_s):
        _signal([m for leader in leaders for m in leader.members()])
    if not _wait(leaders, _ASK_AGAIN_S):
        _signal([m for leader in leaders for m in leader.members()], kill=True)
    if not _wait(leaders, _KILL_S):
        pids = ", ".join(str(m.pid) for leader in leaders for m in leader.members())
        raise OperatorError(f"processes do not end: {pids}", hint="look at them with `ps`; they may hang in the kernel (full or lost disk)")


def listening(leader: Process) -> set[tuple[str, int]]:
    """Addresses and ports on which its session listens."""
    found = set()
    for member in leader.members():
        try:
            found |= {(c.laddr.ip, c.laddr.port) for c in member.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        except psutil.Error:
            continue
    return found


def _birth(pid: int) -> str:
    """Boot and start time of a living process; "" where there is none. Clock changes do not touch it on Linux."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        if not _BOOT.exists():
            return repr(process.create_time())
        # The name, in parentheses, may hold anything; the start time is field 22 of the line.
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{_BOOT.read_text().strip()}:{ticks}"
    except (psutil.Error, OSError, IndexError):
        return ""


def _session(leader: int) -> list[psutil.Process]:
    found = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == leader:
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _signal(processes: Sequence[psutil.Process], *, only: int = 0, kill: bool = False) -> None:
    for process in processes:
        if only and process.pid != only:
            continue
        try:
            # psutil compares the start time first, so a pid that was given away is not signalled.
            process.kill() if kill else process.terminate()
        except psutil.Error:
            continue


def _wait(leaders: Sequence[Process], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while any(leader.members() for leader in leaders):
        if time.monotonic() >= until:
            return False
        time.sleep(0.05)
    return True
