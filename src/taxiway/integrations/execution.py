"""One started command until its end: its output, its limits, and the reasons to stop it."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from taxiway.errors import OperatorError
from taxiway.integrations.output import Bounded
from taxiway.integrations.processes import kill_tree, tree, usage
from taxiway.ports import Cancellation, Command, CommandResult, Ending

__all__ = ["Execution", "start"]

_LAUNCHER = Path(__file__).with_name("launcher.py")
# With processes._KILL_S: grace, kill and wait stay under the 4 s in which Airflow's SIGTERM must be obeyed (SIGKILL follows after 5).
_GRACE_S = 0.5
_LOOK_S = 0.05
_WATCH_S = 0.1
_DRAIN_S = 1.0
_FILE_BYTES = 2 << 30
_OPEN_FILES = 4096
_THREADS_PER_PROCESS = 16


def start(
    mode: Literal["exec", "supervise"], argv: list[str], *, cwd: Path, environ: Mapping[str, str], keep: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start `argv` by the launcher, in a session of its own with exactly `environ`; `keep` are file descriptors that it gets.
    `supervise` ends all that it leaves behind, and itself with the calling thread; `exec` leaves both to `argv`."""
    limits = [str(os.getpid()), str(_FILE_BYTES), str(_OPEN_FILES), mode, "--"]
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LAUNCHER), *limits, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=environ,
            start_new_session=True,
            pass_fds=keep,
        )
    except (OSError, ValueError) as error:
        raise OperatorError(
            f"cannot start {argv[-1][:200]}: {error}", hint="the command or its arguments cannot be given to a process"
        ) from error


class Execution:
    """A process from `start`. `own_processes` of its tree are not the command's."""

    def __init__(self, process: subprocess.Popen[bytes], command: Command, *, own_processes: int) -> None:
        self._process = process
        self._command = command
        self._own_processes = own_processes
        self._began = time.monotonic()
        self._next_watch = self._began
        self._stdout = Bounded(command.output_limit)
        self._stderr = Bounded(command.output_limit)

    def follow(self, stop: Cancellation) -> CommandResult:
        """Block until it ended or had to be ended, with all that it started."""
        with selectors.DefaultSelector() as selector:
            pipes = [(pipe, into) for pipe, into in ((self._process.stdout, self._stdout), (self._process.stderr, self._stderr)) if pipe]
            for pipe, into in pipes:
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe.fileno(), selectors.EVENT_READ, into)
            try:
                ended = self._until_end(selector, stop)
                if ended != "exited":
                    self._kill(_GRACE_S if ended == "timeout" else 0)
                self._process.wait(_DRAIN_S)
                self._drain(selector)
            except subprocess.TimeoutExpired as error:
                raise OperatorError(
                    f"{self._command.argv[0]} cannot be killed (pid {self._process.pid})",
                    hint="look at what it waits for: ps -o stat,wchan",
                ) from error
            except BaseException:
                self._kill(_GRACE_S)
                raise
            finally:
                for pipe, _ in pipes:
                    pipe.close()
        return self._result(ended)

    def _until_end(self, selector: selectors.BaseSelector, stop: Cancellation) -> Ending:
        exited = os.pidfd_open(self._process.pid)
        try:
            selector.register(exited, selectors.EVENT_READ)
            next_look = 0.0
            while True:
                for key, _ in selector.select(_LOOK_S):
                    if key.fd == exited:
                        return "exited"
                    _read(key, selector)
                if (now := time.monotonic()) >= next_look:
                    next_look = now + _LOOK_S
                    stop.check()
                    if (ended := self._over(now)) is not None:
                        return ended
        finally:
            with suppress(KeyError):
                selector.unregister(exited)
            os.close(exited)

    def _over(self, now: float) -> Ending | None:
        command = self._command
        if now - self._began > command.timeout_s:
            return "timeout"
        if now < self._next_watch:
            return None
        limit = command.memory_mb << 20
        used = usage(tree(self._process.pid), limit)
        # Looking costs at most a tenth of one core, however many processes there are.
        self._next_watch = now + max(_WATCH_S, 10 * (time.monotonic() - now))
        if used.memory > limit:
            return "memory"
        processes = used.processes - self._own_processes
        return "processes" if processes > command.processes or used.threads > command.processes * _THREADS_PER_PROCESS else None

    def _drain(self, selector: selectors.BaseSelector) -> None:
        """Read what is left in the pipes. All writers are dead; should one not be, it is not waited for."""
        deadline = time.monotonic() + _DRAIN_S
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(_LOOK_S):
                _read(key, selector)

    def _kill(self, grace_s: float) -> None:
        if self._process.poll() is None:
            kill_tree(self._process.pid, grace_s)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_DRAIN_S)

    def _result(self, ended: Ending) -> CommandResult:
        return CommandResult(
            argv=self._command.argv,
            exit_code=self._process.returncode,
            stdout=self._stdout.text(),
            stderr=self._stderr.text(),
            duration_s=time.monotonic() - self._began,
            ended=ended,
            truncated=self._stdout.truncated or self._stderr.truncated,
        )


def _read(key: selectors.SelectorKey, selector: selectors.BaseSelector) -> None:
    try:
        data = os.read(key.fd, 1 << 16)
    except BlockingIOError:
        return
    if data:
        key.data.add(data)
    else:
        selector.unregister(key.fd)
