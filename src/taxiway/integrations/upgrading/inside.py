"""One command of uv in a sandbox that reaches the machine's package indexes alone, and what their pages said."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from taxiway.errors import NotTrusted
from taxiway.integrations import bubblewrap
from taxiway.integrations.egress import IndexProxy, Serving, Sources, serving
from taxiway.integrations.egress.pages import Link
from taxiway.integrations.indexes import uv_binary
from taxiway.integrations.installing import BASE, DOOR, PORT
from taxiway.integrations.sandbox import run_isolated
from taxiway.integrations.upgrading.changelogs import from_metadata
from taxiway.integrations.upgrading.files import copy_of
from taxiway.integrations.upgrading.levels import wheel_of
from taxiway.ports import Cancellation, Command, CommandResult, Environment, Pins

__all__ = ["INSIDE", "UvInside", "check_isolation", "through_the_door", "uv_inside"]

INSIDE = "/upgrade"
_TIMEOUT_S = 600.0
_LINKS = 100
_LINKS_S = 20.0


def check_isolation() -> None:
    """Raise NotTrusted where this machine cannot isolate."""
    if lacking := bubblewrap.available():
        raise NotTrusted(f"a project's requirements are resolved with isolation alone: {lacking}", hint="install bubblewrap")


def through_the_door(python: Path, door: socket.socket, argv: Sequence[str]) -> tuple[str, ...]:
    """`argv`, begun by the program that listens in there and hands the socket out."""
    return (str(python), "-I", "-S", f"{INSIDE}/door.py", str(door.fileno()), str(PORT), *argv)


@dataclass(frozen=True)
class UvInside:
    """What uv is run with; `folder` is its own, shown writable at `/upgrade/out`, `checkout` what it sees as the project, and may write
    where it is `writable`."""

    folder: Path
    proxy: IndexProxy
    sources: Sources
    checkout: Path
    writable: bool
    _cache: Path
    _serving: Serving
    _door: socket.socket
    _environment: Environment
    _stop: Cancellation

    def run(self, *argv: str, env: Mapping[str, str]) -> CommandResult:
        """Run uv with these arguments, once. The result's words name indexes, not the proxy."""
        told = self.sources.uv_environment(BASE, self.proxy.timeout_s) | {"UV_CACHE_DIR": f"{INSIDE}/cache"} | dict(env)
        extra = (
            (self.folder, f"{INSIDE}/out", True),
            (self._cache, f"{INSIDE}/cache", True),
            (Path(uv_binary()), f"{INSIDE}/uv", False),
            (DOOR, f"{INSIDE}/door.py", False),
        )
        layout = bubblewrap.Layout(self.checkout, writable=self.writable, environment=self._environment, extra=extra, env=told)
        full = through_the_door(self._environment.python, self._door, (f"{INSIDE}/uv", *argv))
        command = Command(full, self.checkout, timeout_s=_TIMEOUT_S, memory_mb=4096)
        result = run_isolated(command, layout, self._stop, hand=(self._door,))
        notes = [f"{address}: {why}" for address, why in self.proxy.notes.items()]
        return replace(result, stderr="\n".join([self.sources.named(result.stderr, BASE).strip(), *notes]))

    @property
    def python(self) -> str:
        """The interpreter, as seen inside."""
        return str(self._environment.python)

    def pages(self) -> dict[str, Sequence[Link]]:
        """What the indexes have of each project that uv asked for, the pages of all of them joined."""
        found: dict[str, list[Link]] = {}
        for (_, project), links in self.proxy.pages.items():
            found.setdefault(project, []).extend(links)
        return dict(found)

    def changelogs(self, before: Pins, after: Pins) -> dict[str, str]:
        """The addresses that packages which changed name, by name. What does not answer soon has none."""
        wanted = [
            (name, versions[0]) for name, versions in after.items() if len(versions) == 1 and before.get(name) not in (None, versions)
        ]
        return self._serving.ask(self._links(wanted[:_LINKS]), within_s=_LINKS_S + 1, stop=self._stop) or {}

    async def _links(self, wanted: Sequence[tuple[str, str]]) -> dict[str, str]:
        found: dict[str, str] = {}

        async def one(name: str, version: str) -> None:
            for source in self.sources.indexes:
                if link := wheel_of(self.proxy.pages.get((source.path, name), ()), version):
                    found[name] = from_metadata(await self.proxy.metadata(source, link))
                    return

        tasks = [asyncio.ensure_future(one(*each)) for each in wanted]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_LINKS_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return {name: address for name, address in found.items() if address}


@contextmanager
def uv_inside(checkout: Path, sources: Sources, stop: Cancellation, *, copied: bool = False) -> Iterator[UvInside]:
    """Everything for one command on a checkout, or on a copy of it that may be written; raise NotTrusted where this machine cannot
    isolate."""
    check_isolation()
    proxy = IndexProxy(sources)
    with tempfile.TemporaryDirectory(prefix="taxiway-upgrade-") as folder, serving(proxy) as (thread, door):
        place, cache = Path(folder, "out"), Path(folder, "cache")
        place.mkdir()
        # Of its own: where a project's metadata is dynamic uv asks its build backend, and what code wrote there is nothing for others.
        cache.mkdir()
        venv.EnvBuilder(symlinks=True).create(Path(folder, "env"))
        environment = Environment(Path(folder, "env"), "", cached=False)
        shown = copy_of(checkout, Path(folder, "project")) if copied else checkout
        yield UvInside(place, proxy, sources, shown, copied, cache, thread, door, environment, stop)
