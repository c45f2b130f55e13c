from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from taxiway.home import Home
from taxiway.integrations.environments import UvEnvironments
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.ports import Ports
from taxiway.stop import Stop

sys.path.insert(0, str(Path(__file__).parent))

from projects import HONEST, Bench, Installed, write


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    root = tmp_path_factory.mktemp("environments")
    environments = UvEnvironments(Home(root / "home"), trusted=True)
    checkout = write(root / "checkout", HONEST)
    return Installed(environments.project(checkout, Stop()), environments.tools(Stop()))


@pytest.fixture
def bench(installed: Installed, tmp_path: Path) -> Bench:
    nothing: Any = None
    ports = Ports(
        sandbox=ProcessSandbox(trusted=True),
        environments=installed,
        workspace=nothing,
        artifacts=nothing,
        ledger=nothing,
        targets={},
        trusted=True,
    )
    return Bench(ports, tmp_path)
