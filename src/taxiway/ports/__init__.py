"""Where Taxiway's world begins: one Protocol for each thing that an agent can reach.

Agents get all of it as arguments; the classes behind these Protocols live in `taxiway.integrations`
and are put together only where a run begins (`taxiway_airflow.connections`, `taxiway.cli`, tests).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from taxiway.ports.code import SOURCE_TRAILER, Conflict, Favor, Hunk, Merge, Resolution, Resolve, Strategy, TornFile, Workspace
from taxiway.ports.forges import Forge, PullRequest, Readiness
from taxiway.ports.keeping import ArtifactStore, Change, ChangeState, Lease, Ledger, RunRecord, Spending, SpendingState
from taxiway.ports.models import Model, Models, Reply, Usage
from taxiway.ports.packages import Advisories, Audit, Level, PackageManager, Pinned, Pins, Severity, Upgraded, Vulnerability
from taxiway.ports.running import Browser, Cancellation, Command, CommandResult, Ending, Environment, Environments, Sandbox, Server, Servers
from taxiway.ports.services import Health, Release, ServiceStatus, Target

__all__ = [
    "SOURCE_TRAILER",
    "Advisories",
    "ArtifactStore",
    "Audit",
    "Browser",
    "Cancellation",
    "Change",
    "ChangeState",
    "Command",
    "CommandResult",
    "Conflict",
    "Ending",
    "Environment",
    "Environments",
    "Favor",
    "Forge",
    "Health",
    "Hunk",
    "Lease",
    "Ledger",
    "Level",
    "Merge",
    "Model",
    "Models",
    "PackageManager",
    "Pinned",
    "Pins",
    "Ports",
    "PullRequest",
    "Readiness",
    "Release",
    "Reply",
    "Resolution",
    "Resolve",
    "RunRecord",
    "Sandbox",
    "Server",
    "Servers",
    "ServiceStatus",
    "Severity",
    "Spending",
    "SpendingState",
    "Strategy",
    "Target",
    "TornFile",
    "Upgraded",
    "Usage",
    "Vulnerability",
    "Workspace",
]


@dataclass(frozen=True)
class Ports:
    """All that an agent can reach. `trusted` says that the policy trusts this run's code and no model writes any of it; `forge` has
    its pull requests; `secrets` are what no prompt and no trace may hold."""

    sandbox: Sandbox
    environments: Environments
    workspace: Workspace
    artifacts: ArtifactStore
    ledger: Ledger
    targets: Mapping[str, Target]
    advisories: Advisories | None = None
    trusted: bool = False
    browsers: Mapping[str, Browser] = field(default_factory=dict)
    models: Models | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)
    servers: Servers | None = None
    forge: Forge | None = None
    upgrades: Mapping[str, PackageManager] = field(default_factory=dict)
