"""The servers that a project's tests need: started beside them in their sandbox, or reached from there."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from taxiway.agents.validate import inside_servers
from taxiway.agents.validate.check import Context, NotMeasured, read_report, tail
from taxiway.errors import OperatorError
from taxiway.manifest import Needed
from taxiway.ports import Command, CommandResult, Server
from taxiway.records import Result

__all__ = ["LOGS", "hide", "keep_logs", "run_beside_servers"]

LOGS = ("postgres.log", "redis.log")
"""What servers said, in the folder of reports of the command that they stood beside."""

_LEAST = 6
"""Characters of a secret: what is shorter is found in any text."""

_PORTS = {"postgres": 5432, "redis": 6379}


def run_beside_servers(context: Context, command: Command, what: str, *, codes: Sequence[int]) -> CommandResult:
    """As `Context.run`, with the servers that the manifest declares; raise NotMeasured also where one of them is missing or
    does not start, before any code of the project ran."""
    needed = context.manifest.test.services
    folder = command.reports
    if not needed or folder is None:
        return context.run(command, what, codes=codes)
    with ExitStack() as stack:
        try:
            lent = [stack.enter_context(_lend(context, n)) for n in needed]
        except OperatorError as error:
            raise NotMeasured(f"{error.problem}: {error.hint}") from error
        for server in lent:
            place = "elsewhere" if server.url else f"beside the tests ({server.programs})"
            context.log.info("%s: %s %d, %s", what, server.name, server.version, place)
            context.hidden.update(s for s in server.secrets if len(s) >= _LEAST)
        result = context.run(_wrapped(context, command, folder, needed, lent), what, codes=codes)
    if result.exit_code == inside_servers.NOT_STARTED and (folder / inside_servers.PROBLEM).exists():
        raise NotMeasured(
            f"a server of the tests did not start: {tail(read_report(folder, inside_servers.PROBLEM).decode(errors='replace'))}"
        )
    return replace(result, stdout=_without_text(context.hidden, result.stdout), stderr=_without_text(context.hidden, result.stderr))


def keep_logs(context: Context, folder: Path) -> None:
    """Put what the servers said where people find it."""
    for name in LOGS:
        with suppress(NotMeasured):
            context.keep(name, read_report(folder, name))


def hide(hidden: Collection[str], reports: Path, result: Result) -> Result:
    """The result without secrets that the tests were given; they are taken out of the reports, too, where these are text."""
    if not hidden:
        return result
    for place in reports.rglob("*"):
        if place.is_file() and not place.is_symlink():
            content = place.read_bytes()
            if (without := _without(hidden, content)) != content:
                place.write_bytes(without)
    unmeasured = {metric: _without_text(hidden, why) for metric, why in result.unmeasured.items()}
    return result.model_copy(update={"summary": _without_text(hidden, result.summary), "unmeasured": unmeasured})


def _without(hidden: Collection[str], content: bytes) -> bytes:
    for secret in sorted(hidden, key=len, reverse=True):
        content = content.replace(secret.encode(), b"[secret]")
    return content


def _without_text(hidden: Collection[str], text: str) -> str:
    return _without(hidden, text.encode(errors="surrogatepass")).decode(errors="surrogatepass")


def _lend(context: Context, needed: Needed) -> AbstractContextManager[Server]:
    if context.servers is None:
        raise NotMeasured(f"the tests need {needed.server}, and no servers are offered here")
    return context.servers.lend(needed.server, needed.version, context.stop)


def _wrapped(context: Context, command: Command, folder: Path, needed: Sequence[Needed], lent: Sequence[Server]) -> Command:
    """The command below the program that starts the servers."""
    isolated = context.sandbox.isolated
    settings = [
        {
            "name": server.name,
            "env": need.variable,
            # In a network of their own the usual ports are free, and nobody else is there to keep out.
            "port": _PORTS[server.name] if isolated else 0,
            "password": "" if isolated else secrets.token_hex(16),
            "programs": str(server.programs),
            "url": server.url,
            "socket": str(server.socket or ""),
        }
        for need, server in zip(needed, lent, strict=True)
    ]
    (folder / "servers.json").write_text(json.dumps(settings))
    (folder / "inside_servers.py").write_bytes(Path(inside_servers.__file__).read_bytes())
    python = (str(context.tools.python.absolute()), "-I", "-B", "{reports}/inside_servers.py", "{reports}/servers.json")
    sockets = [server.socket.parent for server in lent if server.socket]
    visible = (*command.visible, *(f for server in lent for f in server.folders), *sockets)
    return replace(command, argv=(*python, *command.argv), visible=visible)
