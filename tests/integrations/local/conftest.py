from __future__ import annotations

import sys
from pathlib import Path

import pytest

from taxiway.home import Home
from taxiway.integrations import bubblewrap

sys.path.insert(0, str(Path(__file__).parent))

from conftest_local import Local


@pytest.fixture
def local(tmp_path):
    made = Local(Home(tmp_path / "home"), tmp_path, isolate=False)
    yield made
    made.close()


@pytest.fixture
def isolated(tmp_path):
    if reason := bubblewrap.available():
        pytest.skip(reason)
    made = Local(Home(tmp_path / "home"), tmp_path, isolate=True)
    yield made
    made.close()
