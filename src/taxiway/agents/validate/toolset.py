"""Which tools check a project: the versions that it declares where they can be had, else Taxiway's pinned set; and who they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.version import Version

from taxiway import __version__
from taxiway.agents.validate.packages import Installed, installed, sole_version
from taxiway.errors import ProjectError, TransientError
from taxiway.ports import Environment

__all__ = ["LEAST", "TAXIWAY", "Tool", "Toolset", "choose", "pytest_site"]

LEAST: Mapping[str, str] = {"ruff": "0.9.0", "mypy": "1.15.0", "bandit": "1.8.0", "black": "23.1.0"}
"""Tools whose version a project chooses, and the oldest that understands what Taxiway asks of it."""

TAXIWAY = "taxiway"
_IN_TESTS = ("pytest", "coverage")


@dataclass(frozen=True)
class Tool:
    """A tool and where its version came from; `why` says what a reader would wonder about."""

    name: str
    version: str
    source: Literal["project", "taxiway"]
    environment: Environment
    why: str = ""


Toolset = Mapping[str, Tool]


def choose(names: Iterable[str], own: Environment, project: Environment | None, provide: Callable[[str, str], Environment]) -> Toolset:
    """One Tool for each name; `provide` installs one in a version, and raises ProjectError or TransientError where it cannot.

    Of a project only the version is taken, as it is installed in its environment from the index: the tool itself is
    installed by Taxiway into an environment that nothing of the project reaches. pytest and coverage are the exception:
    they run where the tests run.
    """
    pinned = installed(own.path)
    declared = installed(project.path) if project else []
    chosen = {}
    for name in names:
        if name in _IN_TESTS:
            chosen[name] = _in_tests(name, own, project, pinned, declared)
        elif name == TAXIWAY:
            chosen[name] = Tool(name, __version__, "taxiway", own)
        else:
            chosen[name] = _choose(name, own, pinned, declared, provide)
    return chosen


def _choose(
    name: str, own: Environment, pinned: list[Installed], declared: list[Installed], provide: Callable[[str, str], Environment]
) -> Tool:
    ours = sole_version(pinned, name)
    if name not in LEAST or all(p.name != name for p in declared):
        return Tool(name, ours, "taxiway", own)
    theirs = sole_version(declared, name)
    if not theirs:
        return Tool(name, ours, "taxiway", own, "the project's own does not come from the index")
    if theirs == ours:
        return Tool(name, ours, "project", own)
    if Version(theirs) < Version(LEAST[name]):
        return Tool(name, ours, "taxiway", own, f"the project's {theirs} is older than {LEAST[name]}, the oldest that can be used")
    try:
        return Tool(name, theirs, "project", provide(name, theirs))
    except (ProjectError, TransientError) as error:
        return Tool(name, ours, "taxiway", own, f"the project's {theirs} could not be installed: {error.problem.splitlines()[0][:200]}")


def _in_tests(name: str, own: Environment, project: Environment | None, pinned: list[Installed], declared: list[Installed]) -> Tool:
    ours = sole_version(pinned, name)
    if project is None:
        return Tool(name, ours, "taxiway", own)
    site, first = pytest_site(project, own)
    if not site:
        return Tool(name, sole_version(declared, name), "project", project)
    if first:
        return Tool(name, ours, "taxiway", own, "the project's own does not come from the index")
    # Where only one of the two is missing, the project's comes first on the path.
    theirs = sole_version(declared, name)
    return Tool(name, theirs, "project", project) if theirs else Tool(name, ours, "taxiway", own)


def pytest_site(environment: Environment, tools: Environment) -> tuple[str, bool]:
    """Taxiway's packages to import pytest and coverage from where the project's environment lacks either ("" where it has
    both), and whether they go first: a package from a file or an address is not the published
    pytest."""
    places = _places(environment)
    needed = ("pytest", "_pytest", "pluggy", "coverage")
    direct = any(True for p in places for name in ("pytest", "pluggy", "coverage") for _ in p.glob(f"{name}-*.dist-info/direct_url.json"))
    if not direct and all(any((p / name).is_dir() for p in places) for name in needed):
        return "", False
    return str(next(iter(_places(tools)), "nowhere")), direct


def _places(environment: Environment) -> list[Path]:
    return sorted(environment.path.absolute().glob("lib/python3*/site-packages"))
