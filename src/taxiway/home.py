"""Where Taxiway keeps its things on this machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from taxiway.errors import OperatorError

__all__ = ["HOME_VARIABLE", "Home", "find_home"]

HOME_VARIABLE = "TAXIWAY_HOME"


@dataclass(frozen=True)
class Home:
    """The Taxiway home: one folder, all of it deletable when nothing runs. Folders are made by who writes to them."""

    path: Path

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME of the embedded Airflow."""
        return self.path / "airflow"

    @property
    def artifacts(self) -> Path:
        """Reports, logs, and the bundle's snapshots."""
        return self.path / "artifacts"

    @property
    def checkouts(self) -> Path:
        """Fresh checkouts of running attempts; empty when nothing runs."""
        return self.path / "checkouts"

    @property
    def environments(self) -> Path:
        """Installed environments by key."""
        return self.path / "environments"

    @property
    def ledger(self) -> Path:
        """The SQLite file behind leases and recorded changes."""
        return self.path / "ledger.db"

    @property
    def plans(self) -> Path:
        """Compiled plans by content, for an Airflow without the bundle."""
        return self.path / "cache" / "plans"

    @property
    def repositories(self) -> Path:
        """Bare repositories: new ones of runs, and mirrors of remote ones."""
        return self.path / "repositories"

    @property
    def services(self) -> Path:
        """One folder a service of target `local`."""
        return self.path / "services"

    @property
    def sockets(self) -> Path:
        """A short folder for unix sockets (their paths end at 107 bytes), private to this user and this home."""
        digest = hashlib.sha256(os.fsencode(self.path.resolve())).hexdigest()[:12]
        return Path(f"/tmp/taxiway-{os.getuid()}") / digest  # noqa: S108 - made with mode 0700 by who uses it, owner checked


def find_home(start: Path, environ: Mapping[str, str]) -> Home:
    """`TAXIWAY_HOME`, or `.taxiway` beside the nearest `pipelines/` at or above `start`; raise OperatorError if there is neither, or
    something else than a folder is there."""
    if named := environ.get(HOME_VARIABLE):
        return _folder(Path(named).expanduser().resolve())
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "pipelines").is_dir():
            return _folder(folder / ".taxiway")
    raise OperatorError(
        f"no pipelines/ folder at or above {start}",
        hint=f"change to your project's folder, make one with `mkdir pipelines`, or set {HOME_VARIABLE}",
    )


def _folder(path: Path) -> Home:
    if path.exists() and not path.is_dir():
        raise OperatorError(f"{path} is not a folder", hint=f"Taxiway keeps its things there: move it away, or set {HOME_VARIABLE}")
    return Home(path)
