"""uv at work on a project's pins, in a sandbox that reaches the package index alone: a project's files say much to a resolver."""

from __future__ import annotations

import os
import re
import socket
import tempfile
import venv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from taxiway.errors import NotTrusted
from taxiway.home import Home
from taxiway.integrations import bubblewrap
from taxiway.integrations.indexes import uv_binary
from taxiway.integrations.installing import BASE, DOOR, PORT, check_uv
from taxiway.integrations.sandbox import run_isolated
from taxiway.manifest import read_inside
from taxiway.ports import Cancellation, Command, Environment

__all__ = ["UvUpgrades"]

_INSIDE = "/upgrade"
_MOST = 4 << 20
_TIMEOUT_S = 600.0
_COMMAND = re.compile(r"^#    (\S.*)$", re.MULTILINE)


@dataclass(frozen=True)
class UvUpgrades:
    """Implements `ports.Upgrades` with `uv pip compile`. Nothing is built: of what has no wheel no version is taken."""

    home: Home
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)

    def pins(self, checkout: Path, source: str, pinned: str, *, bounds: Sequence[str], stop: Cancellation) -> str:
        """See `ports.Upgrades`."""
        # Half a second to import, and most stages upgrade nothing.
        from taxiway.integrations.egress import egress, read_sources  # noqa: PLC0415

        if lacking := bubblewrap.available():
            raise NotTrusted(f"a project's requirements are resolved with isolation alone: {lacking}", hint="install bubblewrap")
        old = read_inside(checkout, pinned, limit=_MOST).decode("utf-8", errors="replace")
        # What is fetched for code that is not trusted is never what trusted code gets.
        cache = self.home.path / "cache" / "uv-untrusted"
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        sources = read_sources(self.environ)
        with tempfile.TemporaryDirectory(prefix="taxiway-upgrade-") as folder, egress(sources) as (proxy, door):
            place = Path(folder, "out")
            place.mkdir()
            (place / "pins.txt").write_text(old, encoding="utf-8")
            venv.EnvBuilder(symlinks=True).create(Path(folder, "env"))
            environment = Environment(Path(folder, "env"), "", cached=False)
            told = sources.uv_environment(BASE, proxy.timeout_s) | {"UV_CACHE_DIR": f"{_INSIDE}/cache"}
            extra = (
                (place, f"{_INSIDE}/out", True),
                (cache, f"{_INSIDE}/cache", True),
                (Path(uv_binary()), f"{_INSIDE}/uv", False),
                (DOOR, f"{_INSIDE}/door.py", False),
            )
            layout = bubblewrap.Layout(checkout, environment=environment, extra=extra, env=told)
            result = run_isolated(
                Command(
                    _through_the_door(environment, door, _compile(source, old, bounds)), checkout, timeout_s=_TIMEOUT_S, memory_mb=4096
                ),
                layout,
                stop,
                hand=(door,),
            )
            notes = [f"{address}: {why}" for address, why in proxy.notes.items()]
            check_uv(replace(result, stderr="\n".join([sources.named(result.stderr, BASE).strip(), *notes])))
            return read_inside(place, "pins.txt", limit=_MOST).decode("utf-8", errors="replace")


def _through_the_door(environment: Environment, door: socket.socket, argv: Iterator[str]) -> tuple[str, ...]:
    return (str(environment.python), "-I", "-S", f"{_INSIDE}/door.py", str(door.fileno()), str(PORT), *argv)


def _compile(source: str, old: str, bounds: Sequence[str]) -> Iterator[str]:
    """The command, in the form that the old pins were written in."""
    yield from (f"{_INSIDE}/uv", "pip", "compile", source, "--output-file", f"{_INSIDE}/out/pins.txt", "--quiet", "--color", "never")
    yield from ("--only-binary", ":all:", "--no-emit-index-url", "--no-emit-find-links")
    for bound in bounds:
        yield from ("--upgrade-package", bound)
    yield from ["--generate-hashes"] if "--hash=" in old else []
    yield from ["--universal"] if re.search(r"^[^#\n]*;", old, re.MULTILINE) else []
    yield from [] if "# via" in old else ["--no-annotate"]
    yield from ["--custom-compile-command", said[1]] if (said := _COMMAND.search(old)) else ["--no-header"]
