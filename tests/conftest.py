"""What holds for all tests."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

import taxiway
import taxiway_airflow

sys.path.insert(0, str(Path(__file__).parent))

from left_behind import Watch

WATCH = pytest.StashKey[Watch]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--installed", action="store_true", help="refuse to run unless taxiway comes from an installed wheel")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[WATCH] = Watch()
    if not config.getoption("--installed"):
        return
    site_packages = Path(sysconfig.get_paths()["purelib"]).resolve()
    for package in (taxiway, taxiway_airflow):
        place = Path(package.__file__).resolve()
        if not place.is_relative_to(site_packages):
            raise pytest.UsageError(f"--installed: {package.__name__} comes from {place}, not from {site_packages}")


@pytest.fixture(scope="session", autouse=True)
def _watched(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is left of an interrupted session is ended, wherever below its folder it lies."""
    pytestconfig.stash[WATCH].below(tmp_path_factory.getbasetemp())


class OneAirflow(LoadScopeScheduling):
    """Gives all of tests/airflow, which shares one Airflow of the session, to one worker, all tests that share the installed
    browser tools to one worker too, and every other test to whom is free."""

    # Not xdist's own groups: pytest 9 does not show them the test ids that they are written into.
    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in ("tests/airflow/", "tests/agents/e2e/") if nodeid.startswith(folder)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> OneAirflow:
    return OneAirflow(config, log)
