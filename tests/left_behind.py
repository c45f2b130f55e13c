"""Ends what a pytest process leaves when it is interrupted: a process of its own that waits for the end of that one, however it comes.

Fixtures take down what they started where pytest ends in order. After a SIGTERM or a SIGKILL, or where pytest-xdist gives up a worker, none
of them does. Everything is known by what only this pytest gave it: a mark in its environment, or a place below its temporary folder.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from pathlib import Path

MARK = "TAXIWAY_STARTED_BY_PYTEST"
_ASK_S = 10.0


class Watch:
    """Watches this process from now on."""

    def __init__(self) -> None:
        # Whatever is started from here on inherits it.
        os.environ[MARK] = mark = uuid.uuid4().hex
        command = [sys.executable, "-P", __file__, mark]
        # A session of its own: Ctrl-C goes to all of the terminal's. Its streams are nobody's: a reader of ours must see the end.
        null = subprocess.DEVNULL
        self._watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True)

    def below(self, folder: Path) -> None:
        """Say where this pytest keeps its files, and so what carries no mark, such as the daemon of a service."""
        assert self._watcher.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._watcher.stdin.write(f"{folder}\n".encode())
            self._watcher.stdin.flush()


def main(mark: str) -> None:
    """Wait for the end of who started this; where that was in order, nothing is left to do."""
    folder = "".join(sys.stdin).strip()
    _end_marked(mark)
    if folder:
        _end_services(Path(folder))


def _end_marked(mark: str) -> None:
    import psutil  # noqa: PLC0415 - not for the time of the tests

    def marked() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                    found.append(process)
        return found

    for process in (asked := marked()):
        with contextlib.suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(asked, _ASK_S)
    # Also what the first ones started while they ended.
    for process in marked():
        with contextlib.suppress(psutil.Error):
            process.kill()


def _end_services(folder: Path) -> None:
    """What a run deploys outlives all on purpose, and its daemon gets an environment of its own."""
    from taxiway.home import Home  # noqa: PLC0415
    from taxiway.integrations.local.client import Client  # noqa: PLC0415

    for lock in folder.rglob("services/*/daemon.lock"):
        Client(Home(lock.parents[2]), lock.parent.name).stop(rest=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
