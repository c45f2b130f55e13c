"""Starts one release, lets the switch reach the port it listens on, and takes everything down with it.

Runs beside the release, in its sandbox where it has one: only the standard library, no import of Taxiway.
The switch asks over an inherited socket for connections; this process makes them where the release
listens and passes them out as file descriptors, so no byte of a request is copied here.
When that socket closes, the daemon is gone and everything here ends.

    python -I relay.py CHANNEL_FD PORT COMMAND...
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time

CONNECT = struct.Struct("!Q")  # from the switch: connect, and this number comes back
TERMINATE = struct.Struct("!I")  # from the switch: SIGTERM, and SIGKILL after so many milliseconds
ANSWER = struct.Struct("!Qi")  # to the switch: the number, and 0 with a connection or an errno without

_PR_SET_CHILD_SUBREAPER = 36
_CANNOT_START = 127
_EXEC_ERRORS = "cannot start {}: {}"


class Relay:
    """The channel to the switch, the connections being made, and the release's process."""

    def __init__(self, channel: socket.socket, port: int, command: list[str]) -> None:
        self.channel = channel
        self.port = port
        self.waker, wake = socket.socketpair()
        self.waker.setblocking(False)
        wake.setblocking(False)
        self._wake = wake
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.app = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        signal.signal(signal.SIGTERM, lambda *_: self.terminate(5.0))
        self.kill_at = float("inf")
        self.selector = selectors.DefaultSelector()
        self.selector.register(channel, selectors.EVENT_READ)
        self.selector.register(self.waker, selectors.EVENT_READ)

    def run(self) -> int:
        """Serve until the release ends or the switch is gone; its exit code, 128 + n for signal n."""
        while self.app.poll() is None:
            left = self.kill_at - time.monotonic()
            if left <= 0:
                break
            for key, _ in self.selector.select(timeout=min(left, 3600.0)):
                if key.fileobj is self.channel:
                    if not self._serve():
                        return 0
                elif key.fileobj is self.waker:
                    with contextlib.suppress(BlockingIOError):
                        self.waker.recv(4096)
                else:
                    self._answer(key.fileobj, key.data)  # type: ignore[arg-type]
        code = self.app.poll()
        if code is None:
            return 128 + signal.SIGKILL
        return code if code >= 0 else 128 - code

    def terminate(self, grace_s: float) -> None:
        """Ask the release to end; `run` returns when it did or the time is over."""
        self.kill_at = min(self.kill_at, time.monotonic() + grace_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.app.pid, signal.SIGTERM)

    def _serve(self) -> bool:
        """One message of the switch; False when there is no switch any more."""
        try:
            message = self.channel.recv(64)
        except OSError:
            return False
        if len(message) == CONNECT.size:
            self._connect(message)
        elif len(message) == TERMINATE.size:
            self.terminate(TERMINATE.unpack(message)[0] / 1000)
        return bool(message)

    def _connect(self, number: bytes) -> None:
        # Not blocking: a release that does not accept must not hold up the others.
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        code = connection.connect_ex(("127.0.0.1", self.port))
        if code == errno.EINPROGRESS:
            self.selector.register(connection, selectors.EVENT_WRITE, number)
        else:
            self._send(connection, number, code)

    def _answer(self, connection: socket.socket, number: bytes) -> None:
        self.selector.unregister(connection)
        self._send(connection, number, connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _send(self, connection: socket.socket, number: bytes, code: int) -> None:
        message = ANSWER.pack(CONNECT.unpack(number)[0], code)
        with connection, contextlib.suppress(OSError):
            socket.send_fds(self.channel, [message], [] if code else [connection.fileno()])


def end_everything(within_s: float = 5.0) -> None:
    """SIGKILL to every process below this one; where nothing isolates, daemons that a release forked stay below it."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        below = _descendants()
        for pid in below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        if not below:
            return
        time.sleep(0.01)


def _descendants() -> set[int]:
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - this process starts often; pathlib is slow to import
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                fields = file.read().rpartition(b")")[2].split()
                if fields[0] != b"Z":
                    parents[int(name)] = int(fields[1])
    below: set[int] = set()
    grown = {os.getpid()}
    while grown:
        grown = {pid for pid, parent in parents.items() if parent in grown and pid not in below}
        below |= grown
    return below


def main(arguments: list[str]) -> int:
    """The exit code of the release; 127 where it cannot be started."""
    channel = socket.socket(fileno=int(arguments[0]))
    channel.set_inheritable(False)
    command = arguments[2:]
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        relay = Relay(channel, int(arguments[1]), command)
    except OSError as error:
        print(_EXEC_ERRORS.format(command[0], error.strerror or error), file=sys.stderr, flush=True)  # noqa: T201 - the release's log
        return _CANNOT_START
    try:
        return relay.run()
    finally:
        end_everything()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
