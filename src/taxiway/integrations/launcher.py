"""Starts one command for the sandbox; run as a script by a bare `python -I -S`, so it imports nothing of Taxiway.

    launcher.py PARENT FILE_BYTES OPEN_FILES supervise|exec -- ARGV...

Sets limits that need no code between fork and exec of a threaded program. With `exec` it becomes the command
(bubblewrap supervises); with `supervise` it adopts whatever the command leaves behind, and ends it with the command
or with the process that started it. Exit code 127: the command was not found.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KEYCTL_JOIN_SESSION_KEYRING = 1
_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}


def main(arguments: list[str]) -> int:
    """Start the command; return its exit code where it did not end by a signal."""
    parent, file_bytes, open_files, mode, _, *argv = arguments
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, int(file_bytes))
    _limit(resource.RLIMIT_NOFILE, int(open_files))
    with contextlib.suppress(OSError):
        os.nice(5)  # what checks a project yields to what schedules and serves
    # A signal of its own for the death of the thread that started us; it stays set when we become another program.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if mode == "exec" else signal.SIGUSR2, 0, 0, 0)
    if os.getppid() != int(parent):
        return 1
    # Namespaces do not divide the kernel's keyrings: who inherits the session's can read the keys in it.
    if keyctl := _SYS_KEYCTL.get(os.uname().machine):
        libc.syscall(keyctl, _KEYCTL_JOIN_SESSION_KEYRING, None)
    if mode == "exec":
        _become(argv)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return _supervise(argv)


def _limit(kind: int, wanted: int) -> None:
    hard = resource.getrlimit(kind)[1]
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (most, most))


def _become(argv: list[str]) -> None:
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python; what is ignored stays so in a new program
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _supervise(argv: list[str]) -> int:
    signal.signal(signal.SIGUSR2, lambda *_: _end())
    command = os.fork()
    if command == 0:
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
        _become(argv)
    # The command gets SIGTERM and half a second to clean up; this process waits for it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pid, status = os.wait()
        if pid == command:
            break
    _end_children()
    if os.WIFSIGNALED(status):
        _die_by(os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status)


def _die_by(number: int) -> None:
    with contextlib.suppress(OSError):  # nobody may set what SIGKILL does
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _end() -> None:
    _end_children()
    os._exit(1)


def _end_children() -> None:
    """Kill children until none is left: what a killed one leaves behind becomes a child of this process."""
    while True:
        for child in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def _children() -> list[int]:
    me, found = os.getpid(), []
    for name in os.listdir("/proc"):  # noqa: PTH208 - the names are all that is needed
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                # The command's name stands in parentheses and may hold anything.
                if int(Path("/proc", name, "stat").read_text(errors="replace").rpartition(")")[2].split()[1]) == me:
                    found.append(int(name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
