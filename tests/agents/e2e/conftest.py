from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from taxiway.home import Home
from taxiway.integrations.browsers import find_browsers
from taxiway.integrations.environments import UvEnvironments
from taxiway.stop import Stop

sys.path.insert(0, str(Path(__file__).parent))

from apps import GOOD, Bench, Installed, ports, write


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    if "chromium" not in find_browsers(os.environ):
        pytest.skip("no Chromium: apt-get install chromium")
    root = tmp_path_factory.mktemp("environments")
    environments = UvEnvironments(Home(root / "home"), trusted=True)
    checkout = write(root / "checkout", GOOD)
    return Installed(environments.project(checkout, Stop()), environments.browser_tools(Stop()))


@pytest.fixture
def bench(installed: Installed, tmp_path: Path) -> Bench:
    return Bench(ports(installed), tmp_path)


@pytest.fixture(scope="module")
def one_bench(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(ports(installed), tmp_path_factory.mktemp("run"))
