"""A project as Taxiway takes it: what its `.taxiway.yaml` says, completed by what its own files say, with the reason for everything.

Files are read as data. Nothing of the project runs, and nothing is asked of an index.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name

from taxiway.errors import ProjectError
from taxiway.manifest import MANIFEST, Install, Manifest, Tests, read_manifest
from taxiway.project.dependencies import find_dependencies
from taxiway.project.distribution import UNKNOWN_VERSION, Distribution, find_distribution
from taxiway.project.layout import Code, find_code, find_tests, pytest_configuration
from taxiway.project.metadata import Metadata, read_metadata
from taxiway.project.servers import server_reasons

__all__ = ["Distribution", "Metadata", "Project", "as_yaml", "read_metadata", "read_project"]

_EXAMPLE = (
    "name: my-project\n    install: {requirements: [requirements.txt], packages: [pytest]}\n    test: {paths: [tests], sources: [src]}"
)


@dataclass(frozen=True)
class Project:
    """`manifest` is complete; `reasons` says of each part where it comes from, one line each; `compiled` says how the project
    builds compiled modules ("" for pure Python): those are not built."""

    manifest: Manifest
    reasons: tuple[str, ...]
    distribution: Distribution | None = None
    compiled: str = ""


def read_project(checkout: Path) -> Project:
    """What to install, what to test and how to start it. `.taxiway.yaml` wins; what it leaves out of `install` and `test` is
    found in the project's own files. Raise ProjectError for a file that cannot be read, or where nothing says what to do."""
    written = read_manifest(checkout) if os.path.lexists(checkout / MANIFEST) else None
    metadata = read_metadata(checkout)
    code = find_code(checkout, metadata.name if metadata else "")
    reasons = [f"{MANIFEST}: what it says wins"] if written else []
    install = _install(checkout, written, metadata, reasons)
    if written is None and metadata is None and not install.requirements:
        raise ProjectError(
            "this is no Python project that Taxiway knows: it has no pyproject.toml, setup.cfg, setup.py or requirements file",
            hint=f"write a {MANIFEST} into its root:\n    {_EXAMPLE}",
        )
    test = _test(checkout, written, code, reasons)
    reasons += server_reasons(checkout, metadata, install, test.services)
    name = _name(metadata.name if metadata else "")
    manifest = (written or Manifest(name=name)).model_copy(update={"install": install, "test": test})
    distribution = find_distribution(checkout, metadata, code)
    if distribution is not None:
        reasons.append(
            f"{distribution.name} {distribution.version}: version from {distribution.why}"
            if distribution.version != UNKNOWN_VERSION
            else f"{distribution.name} {UNKNOWN_VERSION}: {distribution.why}"
        )
        reasons += [f"{path}: made for the tests, as the build would" for path in distribution.generated]
    compiled = metadata.compiled if metadata else ""
    if compiled:
        reasons.append(f"{compiled}: compiled modules are not built, what needs them cannot be tested")
    return Project(manifest, tuple(reasons), distribution, compiled)


def as_yaml(manifest: Manifest) -> str:
    """A `.taxiway.yaml` that says the same."""
    data = manifest.model_dump(by_alias=True, exclude_defaults=True)
    return yaml.safe_dump({"name": manifest.name} | data, sort_keys=False, default_flow_style=None, width=120)


def _install(checkout: Path, written: Manifest | None, metadata: Metadata | None, reasons: list[str]) -> Install:
    if written is not None and "install" in written.model_fields_set:
        return written.install
    found, why = find_dependencies(checkout, metadata)
    if written is not None and not found:
        return written.install
    reasons += why
    return Install.model_validate(found)


def _test(checkout: Path, written: Manifest | None, code: Code | None, reasons: list[str]) -> Tests:
    said = written.test.model_fields_set if written else set()
    found: dict[str, Any] = {}
    if "sources" not in said and code is not None:
        found["sources"], reasons_of = list(code.roots), code.why
        found |= {"packages": list(code.packages)} if "packages" not in said else {}
        reasons.append(f"code: {reasons_of}")
    elif "sources" not in said:
        reasons.append("code: no package and no module was found; write test: {sources: [...]} into .taxiway.yaml")
    if "paths" not in said:
        paths, why = find_tests(checkout, code)
        found |= {"paths": paths} if paths else {}
        reasons.append(f"tests: {why}" if why else "tests: none were found; write test: {paths: [...]} into .taxiway.yaml")
    if file := pytest_configuration(checkout):
        reasons.append(f"pytest configured in {file}")
    kept = {name: getattr(written.test, name) for name in said} if written else {}
    return Tests.model_validate(found | kept)


def _name(name: str) -> str:
    plain = str(canonicalize_name(name)).replace(".", "-").strip("-")[:40] if name else ""
    return plain if len(plain) > 1 and plain[0].isalpha() and plain.isascii() else "project"
