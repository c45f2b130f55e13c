"""What a repair may not do to what judges it: held against the tools themselves where they can be asked."""

from __future__ import annotations

import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from taxiway.agents.guard import JUDGES, looks_away, new_blind_spots, snapshot

RUFF = Path(sys.executable).with_name("ruff")
COMMENTS = [
    *("noqa", "NOQA: F401", "noqa : F401", "noqa:F401 because", "x # noqa"),
    *("ruff: noqa", "ruff : noqa", "RUFF:noqa:F401", "flake8: noqa", "flake8 : noqa"),
    *("ruff: disable[F401]", "ruff : disable[F401]", "ruff: ignore[F401]", "ruff:file-ignore[F401]", "ruff: file-ignore [F401]"),
]


@pytest.mark.parametrize("comment", COMMENTS)
@pytest.mark.parametrize("mark", ["#", "# ", "##", "# # ", "#\u00a0"])
def test_what_ruff_is_silent_for_is_seen(tmp_path, comment, mark):
    for text in (f"import os  {mark}{comment}\n", f"{mark}{comment}\nimport os\n"):
        (tmp_path / "a.py").write_text(text)
        command = [str(RUFF), "check", "--isolated", "--no-cache", "--select=F401", "a.py"]
        silent = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
        assert looks_away(text) > 0 or not silent, text


SEEN = {
    # coverage.py: `#\s*(pragma|PRAGMA)[:\s]?\s*(no|NO)\s*(cover|COVER)`.
    "coverage without a colon": "x = 1  # pragma no cover",
    "coverage in one word": "x = 1  #PRAGMA:NOCOVER",
    "a branch": "if x:  # pragma no branch",
    "an old allow list": "key = 'x'  # pragma: whitelist secret",
    "the runner is loaded": "if 'pytest' in sys.modules:",
    "the runner is not loaded": 'if "pytest" not in sys.modules:',
    "its inside is loaded": "if '_pytest' in modules:",
    "got from the modules": "modules.get('pytest')",
    "searched for": "any(m.startswith('pytest') for m in sys.modules)",
    "by its command": "if sys.argv[0].endswith('pytest'):",
    "found": "importlib.util.find_spec('pytest')",
    "its variable": "os.environ.get('PYTEST_VERSION')",
    "who measures": "if sys.gettrace():",
    "who measures, imported": "from sys import gettrace as g",
    "who measures since 3.12": "sys.monitoring.get_tool(1)",
    "coverage's variable": "os.environ.get('COVERAGE_RUN')",
    "written in escapes": "# -*- coding: unicode_escape -*-",
    "written in utf-7": "# vim: set fileencoding=utf-7 :",
    "types by another decorator": "from typing import no_type_check_decorator",
    "type ignored": "x = 1  #type:\tignore",
}
UNSEEN = [
    "# the tests run by pytest",
    "extras = ['pytest']",
    "# -*- coding: utf-8 -*-",
    "# -*- coding: latin-1 -*-",
    "encoding = 'utf-7'",
    "trace = logger.trace",
    "argv = sys.argv[1:]",
    "no = cover",
    "modules['json'] in sys.modules",
    "ruff = 'a collar'",
    "coverage_of = taxiway_home",
    "x = 1\ny = 2\n# the Transfer-Encoding: chunked",
]


@pytest.mark.parametrize("text", SEEN.values(), ids=SEEN)
def test_who_looks_away_or_asks_whether_it_is_tested(text):
    assert looks_away(f"first\n{text}\n") > 0
    assert looks_away(text) > 0


@pytest.mark.parametrize("text", UNSEEN)
def test_what_honest_code_says(text):
    assert looks_away(f"{text}\n") == 0


PROTECTED = [
    *("tests.py", "shop/tests.py", "test.py", "Tests/Test_A.py", "CONFTEST.py", "src/shop/conftest.py"),
    *("sitecustomize/__init__.py", "src/sitecustomize.py", "src/usercustomize/x.py", "a.pth", "src/a.pth"),
    # What pytest finds on the path it loads as a plugin.
    *("evil.dist-info/entry_points.txt", "src/evil.dist-info/METADATA", "evil.egg-info/entry_points.txt"),
    *(".ignore", "src/.ignore", "src/.gitignore", "src/mypy.ini", "sub/setup.cfg", "pyrightconfig.json"),
    # Where other forges and services look for what they run with secrets.
    *(".gitlab/ci/build.yml", ".gitea/workflows/x.yml", ".forgejo/workflows/x.yml", ".woodpecker.yml", ".woodpecker/x.yml"),
    *("azure-pipelines.yml", "bitbucket-pipelines.yml", ".travis.yml", ".buildkite/pipeline.yml", ".drone.yml", "appveyor.yml"),
]
FREE = ["src/shop/app.py", "src/latest.py", "src/contest.py", "README.md", "src/information.txt", "src/ignore.py", "docs/testing.md"]


@pytest.mark.parametrize("path", PROTECTED)
def test_what_judges_is_protected(path):
    assert any(fnmatchcase(path.lower(), pattern.lower()) for pattern in JUDGES)


@pytest.mark.parametrize("path", FREE)
def test_what_is_judged_is_not(path):
    assert not any(fnmatchcase(path.lower(), pattern.lower()) for pattern in JUDGES)


def test_only_more_of_it_counts_and_only_where_it_was_changed(tmp_path):
    (tmp_path / "old.py").write_text("x = 1  # noqa\n")
    (tmp_path / "other.py").write_text("x = 1\n")
    (tmp_path / "link.py").symlink_to("other.py")
    before = snapshot(tmp_path)
    (tmp_path / "old.py").write_text("x = 2  # noqa\n")
    (tmp_path / "other.py").write_text("x = 1  # noqa\ny = 2  # type: ignore\n")
    (tmp_path / "new.PYW").write_text("x = 1  # noqa\n")
    assert new_blind_spots(before, snapshot(tmp_path), ["old.py"]) == []
    assert new_blind_spots(before, snapshot(tmp_path), ["old.py", "other.py", "new.PYW"]) == ["new.PYW (1 more)", "other.py (2 more)"]
