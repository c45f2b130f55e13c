"""Tools in the versions that a project pins, from this machine's index: they judge, and the report says so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from projects import Bench, Installed

from taxiway.agents.validate.toolset import LEAST
from taxiway.errors import ProjectError, TransientError
from taxiway.home import Home
from taxiway.integrations.environments import UvEnvironments
from taxiway.ports import Cancellation, Environment
from taxiway.stop import Stop

# Before 24.1 black left such a function on two lines.
CODE = "def nothing() -> None:\n    ...\n\n\nassert True\n"
PYPROJECT = '[project]\nname = "tiny"\nversion = "1.0"\n[dependency-groups]\ndev = [{}]\n[tool.black]\n'


@dataclass(frozen=True)
class Pinning(Installed):
    """Taxiway's own tools as they are there already; what a project pins, from the index."""

    index: UvEnvironments

    def project(self, checkout: Path, stop: Cancellation) -> Environment:
        return self.index.project(checkout, stop)

    def tool(self, name: str, version: str, stop: Cancellation) -> Environment:
        return self.index.tool(name, version, stop)


@pytest.fixture
def pinning(bench: Bench, installed: Installed, tmp_path: Path) -> Bench:
    """A bench whose projects get what they pin."""
    index = UvEnvironments(Home(tmp_path / "home"), trusted=True)
    try:
        for name in ("black", "bandit"):
            index.tool(name, LEAST[name], Stop())
    except (ProjectError, TransientError) as error:
        pytest.skip(f"the oldest black and bandit cannot be had: connect a package index ({error.problem.splitlines()[0]})")
    return bench.with_environments(Pinning(installed.environment, installed.pinned, index))


def tools(bench: Bench) -> dict[str, tuple[str, str]]:
    report = json.loads((bench.scratch / "reports" / "report.json").read_text())
    return {t["name"]: (t["version"], t["source"]) for t in report["tools"] if t["name"] in ("black", "bandit")}


def test_the_oldest_black_and_bandit_that_a_project_may_pin(pinning: Bench) -> None:
    pins = ", ".join(f'"{name}=={LEAST[name]}"' for name in ("black", "bandit"))
    result = pinning.validate({"pyproject.toml": PYPROJECT.format(pins), "tiny.py": CODE}, checks=["format", "security"])
    assert result.unmeasured == {}
    assert tools(pinning) == {name: (LEAST[name], "project") for name in ("black", "bandit")}
    assert (result.metrics["format.errors"], result.metrics["security.low"]) == (0, 1)


def test_without_a_pin_they_are_taxiways(bench: Bench) -> None:
    result = bench.validate({"pyproject.toml": PYPROJECT.format(""), "tiny.py": CODE}, checks=["format", "security"])
    assert {source for _, source in tools(bench).values()} == {"taxiway"}
    assert (result.metrics["format.errors"], result.metrics["security.low"]) == (1, 1)
