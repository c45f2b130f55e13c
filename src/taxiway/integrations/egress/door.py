"""Listens on the loopback of a sandbox, hands the listening socket out and becomes the command.

Runs in the sandbox by a bare interpreter: only the standard library, no import of Taxiway. The command inherits nothing but
its standard streams.

    python -I -S door.py CHANNEL_FD PORT COMMAND...
"""

from __future__ import annotations

import os
import socket
import sys

_BACKLOG = 128


def main(arguments: list[str]) -> None:
    """Never returns: the command takes this process over."""
    channel, port, *command = arguments
    with socket.socket(fileno=int(channel)) as out, socket.create_server(("127.0.0.1", int(port)), backlog=_BACKLOG) as listener:
        socket.send_fds(out, [b"listening"], [listener.fileno()])
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
