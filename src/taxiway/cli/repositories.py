"""Whether the repository of a run can be used, as far as that shows from here: told before the run starts, not at its last stage."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from taxiway.agents import Agent
from taxiway.cli.filled import defaults_of, filled, runs
from taxiway.compiler.plan import Plan, PlannedStage
from taxiway.errors import InputError
from taxiway.integrations.git_folder import CHECKED_OUT, checked_out, no_repository
from taxiway.integrations.git_url import parse_url

__all__ = ["check_repository"]


def check_repository(plan: Plan, params: Mapping[str, Any], agents: Mapping[str, Agent]) -> None:
    """Raise InputError for an address that is none, a folder of this machine that is no repository, and one whose checked out branch
    a stage is going to push to."""
    values = defaults_of(plan) | dict(params)
    url = values.get("repository")
    if not isinstance(url, str) or not url or "repository" not in plan.params:
        return
    if parse_url(url).scheme != "file":
        return
    folder = Path(unquote(url.removeprefix("file://localhost").removeprefix("file://")))
    if problem := no_repository(folder):
        hint = f"for what is there: git -C {shlex.quote(str(folder))} init, and commit it; to begin a new repository leave the param out"
        raise InputError(f"{url} {problem}", hint=hint if folder.exists() else "check the path; to begin a new one leave the param out")
    taken = checked_out(folder)
    for stage in filled(plan, values).stages if taken else ():
        branch = _pushed(stage, agents[stage.agent])
        if branch in taken and runs(stage, values):
            problem = f"stage {stage.id} pushes to branch {branch} of {url}, which is checked out there: git refuses that"
            raise InputError(problem, hint=CHECKED_OUT)


def _pushed(stage: PlannedStage, agent: Agent) -> str:
    """The branch that the stage moves itself; "" where it moves none, or a forge does."""
    field = agent.inputs.model_fields.get("into")
    if stage.effect != "merges" or field is None or stage.inputs.get("mode", "push") != "push":
        return ""
    return str(stage.inputs.get("into", field.default))
