"""Which files that decide how tests run a run has changed."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from taxiway.agents.validate.check import NotMeasured
from taxiway.agents.validate.files import list_files
from taxiway.errors import ProjectError, TaxiwayError
from taxiway.manifest import MANIFEST, read_inside
from taxiway.ports import Workspace

__all__ = ["changed_infrastructure"]

_NAMES = {
    *("conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", "setup.cfg", "noxfile.py"),
    *(
        ".coveragerc",
        ".coveragerc.toml",
        "sitecustomize.py",
        "usercustomize.py",
        "ruff.toml",
        ".ruff.toml",
        "mypy.ini",
        ".mypy.ini",
        MANIFEST,
    ),
}
_TABLES = ("pytest", "coverage", "ruff", "mypy")


def changed_infrastructure(workspace: Workspace, checkout: Path, into: Path) -> list[str]:
    """Those that the commit where the run began already held and that now differ or are gone; what is new judges only
    what is new. Raise NotMeasured where that commit cannot be read."""
    try:
        workspace.checkout(workspace.start(), into)
    except TaxiwayError as error:
        if error.retryable:
            raise
        raise NotMeasured(f"the commit that the run started from cannot be read: {error.problem}") from error
    watched = [p for p in list_files(into) if PurePosixPath(p).name in _NAMES or p == "pyproject.toml"]
    return [p for p in watched if _content(into, p) != _content(checkout, p)]


def _content(root: Path, path: str) -> Any:
    """What of a file decides: of pyproject.toml only the tools' tables."""
    try:
        content = read_inside(root, path)
    except ProjectError:
        return None
    if path == "pyproject.toml":
        with suppress(ValueError, RecursionError, AttributeError):
            tools = tomllib.loads(content.decode()).get("tool", {})
            return {name: tools.get(name) for name in _TABLES}
    return content
