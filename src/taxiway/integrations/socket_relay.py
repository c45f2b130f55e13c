"""One TCP address, offered at a unix socket: what sees the socket reaches that address and no other."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from taxiway.errors import OperatorError

__all__ = ["Relay"]

_MOST = 128
_CONNECT_S = 10.0


class Relay:
    """A context manager; `socket` is alone in a folder of its own. At most 128 connections at once, more are closed.

    Bytes are copied here. A connected socket handed over would be a way out: its holder may connect it anew, and it stays in
    the network that it was made in.
    """

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._ended = False

    def __enter__(self) -> Self:
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="taxiway-relay-"))
            self.socket = self._folder / "socket"
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self.socket))
            self._listener.listen(_MOST)
        except OSError as error:
            raise OperatorError(
                f"cannot offer a socket to the sandbox: {error}", hint="free space on its disk, or set a shorter TMPDIR"
            ) from error
        threading.Thread(target=self._serve, name="relay", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            self._ended = True
            for connection in (self._listener, *self._open):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _serve(self) -> None:
        with suppress(OSError):  # the end
            while True:
                near, _ = self._listener.accept()
                if self._keep(near):
                    threading.Thread(target=self._connect, args=(near,), name="relay", daemon=True).start()

    def _keep(self, connection: socket.socket) -> bool:
        with self._lock:
            if not self._ended and len(self._open) < 2 * _MOST:
                self._open.add(connection)
                return True
        connection.close()
        return False

    def _connect(self, near: socket.socket) -> None:
        pair = [near]
        try:
            far = socket.create_connection(self._address, timeout=_CONNECT_S)
            far.settimeout(None)
            if self._keep(far):
                pair.append(far)
                back = threading.Thread(target=_pass_on, args=(far, near), name="relay", daemon=True)
                back.start()
                _pass_on(near, far)
                back.join()
        except OSError:
            pass  # who connected sees its connection end
        finally:
            with self._lock:
                self._open.difference_update(pair)
            for connection in pair:
                connection.close()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
