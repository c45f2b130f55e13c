"""What a service's daemon remembers over restarts, in `state.json`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from taxiway.errors import LeaseLost, OperatorError, ProjectError
from taxiway.ports import Environment, Health, Release
from taxiway.records import Model

__all__ = ["ERROR_STATUS", "KEPT", "LOCKED", "HealthSettings", "State", "StoredRelease", "read_state", "write_state"]

LOCKED = "locked"
"""What a daemon says that found another one at work."""

ERROR_STATUS = {LeaseLost: 409, ProjectError: 422, OperatorError: 507}
"""How errors cross the control socket."""

KEPT = 3
"""Releases whose files stay, the live and the previous one always among them."""


class HealthSettings(Model):
    """`ports.Health`, as it is stored."""

    path: str
    within_s: float
    every_s: float
    needed: int
    timeout_s: float


class StoredRelease(Model):
    """All that it takes to start a release: its settings, and where its environment is. Its files stand below its id."""

    id: str
    service: str
    commit: str
    start: tuple[str, ...]
    port: int
    health: HealthSettings
    env: dict[str, str]
    environment: str = ""
    environment_key: str = ""
    isolated: bool
    strategy: Literal["blue-green", "recreate"] = "blue-green"

    @classmethod
    def of(
        cls, release: Release, *, environment: Environment | None, isolated: bool, strategy: Literal["blue-green", "recreate"]
    ) -> StoredRelease:
        """Store a release."""
        return cls(
            id=release.id,
            service=release.service,
            commit=release.commit,
            start=release.start,
            port=release.port,
            health=HealthSettings(**vars(release.health)),
            env=dict(release.env),
            environment=str(environment.path) if environment else "",
            environment_key=environment.key if environment else "",
            isolated=isolated,
            strategy=strategy,
        )

    def release(self) -> Release:
        """What was stored."""
        return Release(
            id=self.id,
            service=self.service,
            commit=self.commit,
            start=self.start,
            port=self.port,
            health=Health(**self.health.model_dump()),
            env=self.env,
        )

    def same_as(self, other: StoredRelease) -> bool:
        """Whether both run the same; how they are switched does not matter."""
        return self.model_copy(update={"strategy": other.strategy}) == other


class State(Model):
    """The whole file. `releases` stand oldest first; `live` and `previous` are ids or ""; `stopped` is an operator's word."""

    format: Literal[1] = 1
    service: str
    port: int = 0
    fence: int = 0
    live: str = ""
    previous: str = ""
    stopped: bool = False
    since: float = 0.0
    releases: tuple[StoredRelease, ...] = ()

    def release(self, id_: str) -> StoredRelease | None:
        """The stored release of that id."""
        return next((r for r in self.releases if r.id == id_), None)

    def with_release(self, release: StoredRelease) -> State:
        """With this release as the newest one."""
        return self.model_copy(update={"releases": (*(r for r in self.releases if r.id != release.id), release)})

    def switched(self, release: StoredRelease, now: float) -> State:
        """With this release live and the older ones forgotten that nobody will bring back."""
        previous = self.live if self.live not in ("", release.id) else self.previous
        state = self.with_release(release).model_copy(update={"live": release.id, "previous": previous, "since": now, "stopped": False})
        needed = {release.id, previous}
        spare = [r.id for r in state.releases if r.id not in needed]
        keep = needed | set(spare[max(0, len(spare) - (KEPT - len(needed - {""}))) :])
        return state.model_copy(update={"releases": tuple(r for r in state.releases if r.id in keep)})


def read_state(folder: Path) -> State | None:
    """The state of the service in `folder`; None where it never had one. Raise OperatorError if it cannot be read."""
    place = folder / "state.json"
    try:
        return State.model_validate_json(place.read_bytes())
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return None
    except (ValidationError, OSError) as error:
        raise OperatorError(f"{place} cannot be read: {error}", hint=f"move {folder} away and deploy the service again") from error


def write_state(folder: Path, state: State) -> None:
    """Replace the state as a whole; raise OperatorError where the disk does not take it, and then the old one still stands."""
    place = folder / "state.json"
    fresh = folder / "state.json.new"
    try:
        with fresh.open("wb") as file:
            file.write(state.model_dump_json(indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(place)
    except OSError as error:
        raise OperatorError(
            f"cannot write {place}: {error.strerror or error}", hint="free disk space, or mend the folder's permissions"
        ) from error
