"""deploy: makes a commit a running service, and writes down what was live before it acts."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StringConstraints

from taxiway.agents.base import Agent, AgentInput, Later, Metric, StageAttempt
from taxiway.errors import NotTrusted, OperatorError, ProjectError, TaxiwayError
from taxiway.ports import Change, Environment, Health, Lease, Ports, Release, ServiceStatus, Target
from taxiway.records import Result

if TYPE_CHECKING:
    from taxiway.manifest import Manifest
    from taxiway.project import Project

__all__ = ["AGENT", "RELEASE_ID", "DeployInput"]

RELEASE_ID = 12
"""Characters of the commit that name a release."""

_DRAIN_S = 30.0
_INSTALLED = ".taxiway-installed"


class DeployInput(AgentInput):
    """Where and how to deploy."""

    target: Annotated[Literal["local"], Later(("ecs",))] = Field(
        default="local", description="local: a supervised process on this machine's loopback"
    )
    service: Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9-]{1,39})?$")] = Field(
        default="", description="Name of the service; empty takes the project's own, where the policy trusts the project"
    )
    strategy: Literal["blue-green", "recreate"] = Field(
        default="blue-green", description="blue-green: start beside, switch, drain, stop; recreate: stop, then start"
    )
    health: Annotated[str, StringConstraints(pattern=r"^(/[\w./~%-]*)?$", max_length=201)] = Field(
        default="", description="Path that answers 2xx when the service is healthy; empty takes the project's own"
    )


def run(inputs: DeployInput, ports: Ports, stage: StageAttempt) -> Result:
    """Record what is live, then make the commit live."""
    from taxiway.project import read_project  # noqa: PLC0415 - the declaration is read while specs are compiled

    target = ports.targets.get(inputs.target)
    if target is None:
        raise OperatorError(f"target {inputs.target!r} is not set up here", hint="run the stage where the target is")
    project = read_project(stage.checkout)
    manifest = project.manifest
    if not inputs.service and not ports.trusted:
        # It could name, and so replace, anybody's service.
        raise NotTrusted(
            f"the project calls its service {manifest.name!r}, and the policy does not trust the project",
            hint=f"name the service in the pipeline: with: {{service: {manifest.name}}}",
        )
    release = _release(inputs, manifest, stage.commit, _as_installed(project, stage.checkout))
    environment = ports.environments.project(stage.checkout, stage.stop)
    holder = f"{stage.run}/{stage.name}"
    key = f"deploy:{inputs.target}:{release.service}"
    with ports.ledger.lease(key, holder=holder, attempt=stage.attempt, stop=stage.stop) as lease:
        status, seconds = _deploy(inputs, ports, stage, target, release, environment, lease)
    return Result(
        metrics={"deploy.seconds": round(seconds, 3)},
        outputs={
            "url": status.url,
            "service": release.service,
            "release": release.id,
            "target": inputs.target,
            "health": release.health.path,
        },
        summary=f"{release.service} {release.id[:7]} is live at {status.url}",
    )


def _as_installed(project: Project, checkout: Path) -> str:
    """The search path by which the release finds its code, and itself as a distribution: many programs ask for their own version."""
    path = [f"{{project}}/{source}" for source in project.manifest.test.sources]
    if project.distribution is not None:
        project.distribution.write_generated(checkout)
        if not os.path.lexists(checkout / _INSTALLED):
            project.distribution.write_metadata(checkout / _INSTALLED)
            path.append(f"{{project}}/{_INSTALLED}")
    return ":".join(path)


def _release(inputs: DeployInput, manifest: Manifest, commit: str, path: str) -> Release:
    from taxiway.manifest import MANIFEST  # noqa: PLC0415 - as above

    if not manifest.start:
        raise ProjectError(f"{MANIFEST} does not say how the service starts", hint='write start: [python, -m, ..., "{port}"]')
    return Release(
        id=commit[:RELEASE_ID],
        service=inputs.service or manifest.name,
        commit=commit,
        start=tuple(manifest.start),
        port=manifest.port,
        health=Health(path=inputs.health or manifest.health),
        env={"PYTHONPATH": path},
    )


def _deploy(  # noqa: PLR0917 - what one deployment needs
    inputs: DeployInput,
    ports: Ports,
    stage: StageAttempt,
    target: Target,
    release: Release,
    environment: Environment,
    lease: Lease,
) -> tuple[ServiceStatus, float]:
    """Write down, act, write down how it ended; with the seconds that the act took."""
    before = target.status(release.service)
    change = Change(
        run=stage.run,
        stage=stage.name,
        kind="deploy",
        key=f"{inputs.target}:{release.service}",
        before=_live(before),
        after={"release": release.id, "commit": release.commit},
    )
    _close_replaced(ports, change, lease)
    change = ports.ledger.intend(change, lease)
    began = time.monotonic()
    try:
        status = target.deploy(
            release,
            files=stage.checkout,
            environment=environment,
            strategy=inputs.strategy,
            drain_s=_DRAIN_S,
            lease=lease,
            stop=stage.stop,
            say=stage.log.info,
        )
    except TaxiwayError:
        # What deploy could not tell is left "intended": recover looks at it again.
        with contextlib.suppress(TaxiwayError):
            _settle_failure(ports, target, release.service, change, lease)
        raise
    seconds = time.monotonic() - began
    ports.ledger.settle(change, "done", {**change.after, "url": status.url}, lease)
    return status, seconds


def _live(status: ServiceStatus | None) -> dict[str, str]:
    return {"release": status.live.id if status and status.live else "", "url": status.url if status else ""}


def _close_replaced(ports: Ports, change: Change, lease: Lease) -> None:
    """Close what an earlier try of this stage wrote down where another run has deployed since: that is what lives now, and what a
    recovery has to bring back."""
    now = change.before["release"]
    for earlier in ports.ledger.changes(change.run):
        mine = (earlier.stage, earlier.kind, earlier.key) == (change.stage, change.kind, change.key) and earlier.state != "undone"
        if mine and now not in ("", earlier.before["release"], earlier.after["release"]):
            ports.ledger.settle(earlier, "undone", {**earlier.after, "undone": f"release {now} replaced it"}, lease)


def _settle_failure(ports: Ports, target: Target, service: str, change: Change, lease: Lease) -> None:
    """Where the target says that what was live still is, there is nothing to undo."""
    now = target.status(service)
    same = _live(now)["release"] == change.before["release"]
    well = now is None or now.live is None or now.state in ("running", "stopped")
    if same and well:
        ports.ledger.settle(change, "undone", {**change.after, "live": change.before["release"]}, lease)


AGENT = Agent(
    name="deploy",
    summary="Makes the commit a running, healthy service.",
    inputs=DeployInput,
    run=run,
    metrics={"deploy.seconds": Metric("from the first act to healthy and live", "s")},
    effect="deploys",
    touches="switches the service on target {target} ({strategy})",
    outputs=("url", "service", "release", "target", "health"),
)
