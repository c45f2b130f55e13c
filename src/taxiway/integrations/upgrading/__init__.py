"""Package managers that write a project's pins anew, each in a sandbox whose only way out leads to the packages' own index."""

from __future__ import annotations

import os
from collections.abc import Mapping

from taxiway.integrations.upgrading.npm import NpmUpgrades
from taxiway.integrations.upgrading.pip import PipUpgrades
from taxiway.integrations.upgrading.uv import UvUpgrades
from taxiway.ports import PackageManager

__all__ = ["package_managers"]


def package_managers(environ: Mapping[str, str] | None = None) -> dict[str, PackageManager]:
    """All that there are, by the name that a pipeline gives them; `environ` holds the machine's settings."""
    settings = dict(os.environ if environ is None else environ)
    return {"pip": PipUpgrades(settings), "uv": UvUpgrades(settings), "npm": NpmUpgrades(settings)}
