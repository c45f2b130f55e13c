"""The pipelines that Taxiway ships, each a working example."""

from __future__ import annotations

from pathlib import Path

import taxiway
from taxiway.errors import OperatorError

__all__ = ["policy_file", "shipped"]


def shipped() -> dict[str, Path]:
    """Every shipped pipeline by its name: in a wheel beside the code, in a checkout the repository's own `pipelines/`."""
    package = Path(taxiway.__file__).resolve().parent
    for folder in (package / "examples", package.parents[1] / "pipelines"):
        if found := {path.stem: path for path in sorted(folder.glob("*.yaml"))}:
            return found
    raise OperatorError("this installation has no examples", hint="install Taxiway again, from its wheel or a checkout")


def policy_file(example: Path, policy: str) -> Path | None:
    """The shipped file of a policy that an example stands on; None where it has none."""
    path = example.parent / "policies" / f"{policy}.yaml"
    return path if path.is_file() else None
