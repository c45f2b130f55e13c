"""Check, offline, that constraints.txt is in step with pyproject.toml: everything direct is pinned in its range, with hashes."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

WRITE_ANEW = (
    ".venv/bin/uv pip compile pyproject.toml --group dev --group build --universal --python-version 3.11 "
    "--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header -q -o constraints.txt"
)
_HASHED = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def direct(pyproject: Path) -> Iterator[Requirement]:
    """Every requirement that pyproject.toml names: the package's, its groups', the build's."""
    data = tomllib.loads(pyproject.read_text())
    groups = data.get("dependency-groups", {}).values()
    for text in [*data["project"].get("dependencies", []), *data["build-system"]["requires"], *(t for g in groups for t in g)]:
        yield Requirement(text)


def faults(pyproject: Path, constraints: Path) -> Iterator[str]:
    """What is wrong, one line each."""
    pins: dict[str, list[str]] = {}
    for entry in constraints.read_text().replace("\\\n", " ").splitlines():
        requirement, *hashes = re.split(r"\s+(?=--)", entry.strip())
        if not requirement or requirement.startswith("#"):
            continue
        try:
            pin = Requirement(requirement)
        except InvalidRequirement:
            yield f"{constraints.name}: only pinned packages may stand here, not {requirement!r}"
            continue
        pinned = re.fullmatch(r"==([^*,]+)", str(pin.specifier))
        if pinned is None or pin.url:
            yield f"{constraints.name}: {pin.name} is not pinned to one version"
            continue
        if not hashes or not all(_HASHED.fullmatch(h.strip()) for h in hashes):
            yield f"{constraints.name}: {pin.name} has no sha256 hashes"
        pins.setdefault(canonicalize_name(pin.name), []).append(pinned[1])
    for wanted in direct(pyproject):
        versions = pins.get(canonicalize_name(wanted.name), [])
        if not versions:
            yield f"{pyproject.name}: {wanted.name} is not pinned in {constraints.name}"
        for version in versions:
            if not wanted.specifier.contains(version, prereleases=True):
                yield f"{pyproject.name}: {wanted} does not allow the pinned {version}"


def main() -> int:
    """Print the faults; 1 if there are any."""
    root = Path(__file__).resolve().parent.parent
    found = list(faults(root / "pyproject.toml", root / "constraints.txt"))
    for fault in found:
        print(fault)
    if found:
        print(f"write it anew: {WRITE_ANEW}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
