"""Database servers of this machine that tests of projects can use: its own programs, started anew for each run of tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from taxiway.errors import OperatorError
from taxiway.ports import Cancellation, Server

__all__ = ["LocalServers"]

Name = Literal["postgres", "redis"]

_PACKAGES = {"postgres": "postgresql", "redis": "redis-server"}
_SERVER = {"postgres": "postgres", "redis": "redis-server"}
_NEEDED = {"postgres": ("postgres", "initdb"), "redis": ("redis-server",)}
_VERSION = re.compile(r"(?:PostgreSQL\) |v=)(\d+)")


@dataclass(frozen=True)
class LocalServers:
    """The search path comes from `environ`. Distributions keep the programs of each Postgres in a folder of its own, off the
    path: `packaged` are patterns of these."""

    environ: Mapping[str, str]
    packaged: tuple[str, ...] = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")

    @contextmanager
    def lend(self, name: Name, version: int | None, stop: Cancellation) -> Iterator[Server]:
        """Programs to start; raise OperatorError where this machine does not have them in this major version."""
        stop.check()
        found = self.find(name)
        chosen = next((s for s in found if version in (None, s.version)), None)
        if chosen is None:
            wanted = f"{name} {version}" if version else name
            have = ", ".join(str(s.version) for s in found)
            package = f"postgresql-{version}" if name == "postgres" and version else _PACKAGES[name]
            raise OperatorError(
                f"the tests need {wanted}, and this machine has {f'only {have}' if have else 'none'}",
                hint=f"install it (`apt-get install {package}`)",
            )
        yield chosen

    def find(self, name: Name) -> list[Server]:
        """Every one of these that this machine has, the newest first."""
        folders = dict.fromkeys(f for f in self._folders(name) if all(os.access(f / p, os.X_OK) for p in _NEEDED[name]))
        found = [Server(name, version, f, _visible(name, f)) for f in folders if (version := _version(f / _SERVER[name]))]
        return sorted(found, key=lambda s: s.version, reverse=True)

    def _folders(self, name: Name) -> Iterator[Path]:
        if (place := shutil.which(_SERVER[name], path=self.environ.get("PATH", os.defpath))) is not None:
            yield Path(place).resolve().parent
        for pattern in self.packaged if name == "postgres" else ():
            yield from (p.resolve() for p in Path("/").glob(pattern.removeprefix("/")))


def _visible(name: Name, programs: Path) -> tuple[Path, ...]:
    """What they need to see beside the system: themselves, and for Postgres what is installed beside it."""
    if programs.is_relative_to("/usr"):
        return ()
    beside = ("lib", "lib64", "share") if name == "postgres" else ()
    return (programs, *(p for n in beside if (p := programs.parent / n).is_dir()))


def _version(program: Path) -> int:
    """Its major version; 0 where it does not run."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return 0
    match = _VERSION.search(said.stdout)
    return int(match[1]) if match else 0
