"""The sandbox: a project's command with a clean environment, limits, bounded output and, where it can, isolation."""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from taxiway.errors import NotTrusted, OperatorError
from taxiway.integrations import bubblewrap
from taxiway.integrations.execution import Execution, start
from taxiway.ports import Cancellation, Command, CommandResult

__all__ = ["ProcessSandbox", "run_isolated"]

_SIGNALS = range(129, 160)
_PLACEHOLDER = re.compile(r"\{(project|reports|environment)\}")


@dataclass(frozen=True)
class ProcessSandbox:
    """Runs commands as processes of this machine: in bubblewrap where that works, else only code that is `trusted`.

    Memory and process limits are kept by a watchdog that looks ten times a second, so a tree can be over its limit for
    about that long.
    """

    trusted: bool
    isolate: Literal["auto", "never"] = "auto"

    @property
    def isolated(self) -> bool:
        """Whether commands see neither this machine's files nor its network."""
        return self.isolate == "auto" and bubblewrap.available() is None

    def run(self, command: Command, stop: Cancellation) -> CommandResult:
        """Run to the end, blocking the calling thread. A missing executable is exit code 127; raise as `stop.check` does
        when stopped (everything that was started is dead then), NotTrusted where the code may not run here, and
        OperatorError where the sandbox itself cannot start."""
        stop.check()
        isolated = self.isolated
        if not isolated and not self.trusted:
            reason = (self.isolate == "auto" and bubblewrap.available()) or "isolation is switched off"
            raise NotTrusted(
                f"this code is not trusted and would run without isolation: {reason}",
                hint="install bubblewrap; the policy may trust code that no model writes",
            )
        for folder in (command.checkout, command.reports):
            if folder is not None and not folder.is_dir():
                raise OperatorError(f"cannot run {command.argv[0]}: {folder} is not a folder", hint="clear the task to run the stage again")
        return _isolated(command, stop) if isolated else _plain(command, stop)


def _isolated(command: Command, stop: Cancellation) -> CommandResult:
    environment = command.environment.path.absolute() if command.environment else None
    places = _places(bubblewrap.PROJECT, bubblewrap.REPORTS if command.reports else None, environment)
    layout = bubblewrap.Layout(
        checkout=command.checkout,
        writable=command.writable,
        environment=command.environment,
        tools=command.tools,
        reports=command.reports,
        extra=tuple((place, str(place), False) for place in command.visible),
        env={name: _fill(value, places) for name, value in command.env.items()},
    )
    return run_isolated(replace(command, argv=tuple(_fill(a, places) for a in command.argv)), layout, stop)


def run_isolated(command: Command, layout: bubblewrap.Layout, stop: Cancellation, *, hand: Sequence[socket.socket] = ()) -> CommandResult:
    """Run `command.argv`, with its limits, in exactly this layout; errors are those of `ProcessSandbox.run`. The sockets of `hand`
    are the command's, under the same numbers, and closed here as soon as it has them."""
    # env(1) inside answers 127 for a missing program; bwrap's own answer would be 1, like a failed test.
    argv = bubblewrap.wrap(["/usr/bin/env", "--", *command.argv], layout)
    # bwrap writes the exit code there only if the command was started, so its own failures cannot be taken for the command's.
    reader, writer = os.pipe()
    bwrap = argv.index("--unshare-all")
    argv[bwrap:bwrap] = ["--json-status-fd", str(writer)]
    try:
        try:
            handles = [given.fileno() for given in hand]
            process = start("exec", argv, cwd=command.checkout, environ={}, keep=(writer, *handles))
        finally:
            os.close(writer)
            for given in hand:
                given.close()
        ending = Execution(process, command, own_processes=2).follow(stop)
        status = _read_status(reader)
    finally:
        os.close(reader)
    if status is None and ending.ended == "exited" and process.returncode >= 0:
        raise OperatorError(
            f"bubblewrap could not start {command.argv[0]}: {ending.stderr.strip()[-500:]}", hint="`taxiway doctor` tries it on its own"
        )
    code = process.returncode if status is None else status
    return replace(ending, exit_code=128 - code if code in _SIGNALS else code)


def _plain(command: Command, stop: Cancellation) -> CommandResult:
    environment = command.environment.path.absolute() if command.environment else None
    places = _places(command.checkout.absolute(), command.reports.absolute() if command.reports else None, environment)
    try:
        folder = tempfile.TemporaryDirectory(prefix="taxiway-", ignore_cleanup_errors=True)
    except OSError as error:
        raise OperatorError(f"cannot make a temporary folder: {error}", hint="free space on its disk, or set TMPDIR") from error
    with folder as home:
        environ = {"PATH": bubblewrap.search_path(command.environment, command.tools), "HOME": home, "TMPDIR": home, "LANG": "C.UTF-8"}
        environ |= {} if command.writable else {"PYTHONDONTWRITEBYTECODE": "1"}
        environ |= {name: _fill(value, places) for name, value in command.env.items()}
        process = start("supervise", [_fill(a, places) for a in command.argv], cwd=command.checkout, environ=environ)
        return Execution(process, command, own_processes=1).follow(stop)


def _places(project: object, reports: object, environment: object) -> Mapping[str, str]:
    found = {"project": project, "reports": reports, "environment": environment}
    return {name: str(place) for name, place in found.items() if place}


def _fill(text: str, places: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda m: places.get(m[1], m[0]), text)


def _read_status(fd: int) -> int | None:
    """The command's exit code from bwrap's JSON documents; None where it never started or bwrap was killed."""
    os.set_blocking(fd, False)
    with suppress(BlockingIOError):
        for line in os.read(fd, 65536).splitlines():
            if b"exit-code" in line:
                return int(json.loads(line)["exit-code"])
    return None
