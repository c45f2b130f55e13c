"""A project in a folder, and update_dependencies at work on it with the real package managers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from taxiway.agents.base import StageAttempt
from taxiway.agents.update_dependencies import AGENT, UpdateInput
from taxiway.integrations.upgrading import package_managers
from taxiway.ports import Ports
from taxiway.records import Result
from taxiway.stop import Stop


def updater(folder: Path, settings: Mapping[str, str]) -> Callable[..., Result]:
    """Runs the agent on a project of these files, with these settings of the machine; `.checkout` is where the project is."""
    checkout = folder / "checkout"

    def run(files: Mapping[str, str], *, environ: Mapping[str, str] = {}, stop: Stop | None = None, **inputs: Any) -> Result:
        for path, text in files.items():
            (checkout / path).parent.mkdir(parents=True, exist_ok=True)
            (checkout / path).write_text(text)
        nothing: Any = None
        upgrades = package_managers({**settings, **environ})
        ports = Ports(nothing, nothing, nothing, nothing, nothing, {}, upgrades=upgrades)
        log = logging.getLogger("test")
        stage = StageAttempt("p", "r", "update", 1, "c" * 40, checkout, folder, {}, stop or Stop(), log, lambda _: ())
        return AGENT.run(UpdateInput.model_validate(inputs), ports, stage)

    run.checkout = checkout  # type: ignore[attr-defined]
    return run
