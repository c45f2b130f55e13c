"""Services that runs deploy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from taxiway.ports.keeping import Lease
from taxiway.ports.running import Cancellation, Environment

__all__ = ["Health", "Release", "ServiceStatus", "Target"]


@dataclass(frozen=True)
class Health:
    """When a release counts as healthy: `needed` answers of 2xx in a row on `path`, within `within_s`."""

    path: str = "/healthz"
    within_s: float = 60.0
    every_s: float = 0.2
    needed: int = 3
    timeout_s: float = 5.0


@dataclass(frozen=True)
class Release:
    """One version of a service. `id` is derived from the commit; the rest says how to start it."""

    id: str
    service: str
    commit: str
    start: tuple[str, ...]
    port: int
    health: Health
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ServiceStatus:
    """What a target knows of a service. `live` is the release that gets the requests."""

    service: str
    url: str
    live: Release | None
    state: Literal["running", "starting", "unhealthy", "stopped"]
    since: float = 0.0
    restarts: int = 0
    pid: int | None = None


class Target(Protocol):
    """Where services run."""

    def status(self, service: str) -> ServiceStatus | None:
        """What runs now; None where the service was never deployed."""

    def deploy(
        self,
        release: Release,
        *,
        files: Path,
        environment: Environment | None,
        strategy: Literal["blue-green", "recreate"],
        drain_s: float,
        lease: Lease,
        stop: Cancellation,
        say: Callable[[str], None],
    ) -> ServiceStatus:
        """Make `release` live and healthy, keeping what it needs to bring it back later. Already live and healthy is
        success. On failure (ProjectError) the release is stopped; with blue-green what was live stays live throughout."""

    def restore(self, service: str, release: str, *, lease: Lease, stop: Cancellation, say: Callable[[str], None]) -> ServiceStatus:
        """Make an earlier release (by id) live and healthy again; "" means: the service was not there before, stop it."""
