"""Stages of a pipeline in this process: the engine as it runs in a worker, without Airflow."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taxiway.agents import Agent, registry
from taxiway.compiler import compile_content, load_policies
from taxiway.home import Home
from taxiway.integrations.advisories import advisories
from taxiway.integrations.artifacts import DirectoryArtifacts
from taxiway.integrations.browsers import find_browsers
from taxiway.integrations.environments import UvEnvironments
from taxiway.integrations.git import GitWorkspace
from taxiway.integrations.ledger import SqliteLedger
from taxiway.integrations.local.target import LocalTarget
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.integrations.upgrading import package_managers
from taxiway.ports import Ports
from taxiway.records import Result
from taxiway.testing.playing import Asked, models_of, play

__all__ = ["make_repository", "reports_of", "run_stages"]

_RUN = "test"
_GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "init.defaultBranch=main")


def run_stages(
    pipeline: str,
    *,
    folder: Path,
    files: Mapping[str, str] | None = None,
    repository: str = "",
    params: Mapping[str, Any] | None = None,
    agents: Mapping[str, Agent] | None = None,
    trusted: bool = False,
    models: Asked | None = None,
) -> dict[str, Result]:
    """Run the stages of a pipeline (its YAML) one after the other, with their repairs and further tries, and return their Results.

    `folder` is an empty folder for all that comes to be; policies are read from its `policies/`. `files` (path -> text) are
    the project that the run starts from, `repository` (a git URL or a folder) is one that is there already; without them it starts
    from an empty repository. Browsers and the advisory service are those of this machine's settings. `agents` come on top of the
    installed ones. `trusted` lets the project's code run where there is no isolation, but for what a model may write. `models` is a
    ScriptedClaude that serves, or a folder of recorded answers; the policy says which agent asks which model. Stages with `recovers`
    are left out.

    Raises SpecError, and what the first failing stage raises (`taxiway.errors`): GateFailed for a gate that did not pass.
    """
    known = {**registry(), **(agents or {})}
    policies, broken = load_policies(folder / "policies", known)
    plan = compile_content(pipeline.encode(), "pipeline.yaml", known, policies, broken)
    home = Home(folder / "home")
    url = str(make_repository(folder / "project", files)) if files else repository
    started = datetime.now(UTC)
    trusted = trusted and not plan.written_by_models
    log = logging.getLogger("taxiway.testing")
    with models_of(models) as opened:
        ports = Ports(
            sandbox=ProcessSandbox(trusted=trusted),
            environments=UvEnvironments(home, trusted=trusted),
            workspace=GitWorkspace(home=home, pipeline=plan.pipeline, run=_RUN, url=url, credentials=None, started=started),
            artifacts=DirectoryArtifacts(home.artifacts),
            ledger=SqliteLedger(home.ledger),
            targets={"local": LocalTarget(home, trusted=trusted)},
            advisories=advisories(os.environ),
            trusted=trusted,
            browsers=find_browsers(os.environ),
            models=opened,
            upgrades=package_managers(),
        )
        played = play(plan, run=_RUN, params=params or {}, home=home, ports=ports, agents=known, started=started, log=log)
    for error in played.errors.values():
        raise error
    return dict(played.results)


def reports_of(folder: Path, name: str, attempt: int = 1) -> Path:
    """The reports that a stage's try left below `folder`, failed or not; FileNotFoundError where it left none."""
    found = next((folder / "home" / "artifacts").glob(f"*/{_RUN}/{name}/{attempt}"), None)
    if found is None:
        raise FileNotFoundError(f"try {attempt} of stage {name} left no reports in {folder}")
    return found


def make_repository(place: Path, files: Mapping[str, str | bytes]) -> Path:
    """A git repository of one commit with these files."""
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    # The branch that is checked out there is merged into, as in a bare repository.
    pushed = ["config", "receive.denyCurrentBranch", "ignore"]
    for command in (["init", "-q"], pushed, ["add", "-A"], ["commit", "-q", "-m", "The project."]):
        subprocess.run([*_GIT, *command], cwd=place, check=True, capture_output=True)
    return place
