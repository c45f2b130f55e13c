"""Projects without a `.taxiway.yaml`: their tests find them as if they were installed, and what cannot be tested is said."""

from __future__ import annotations

from projects import Bench

FINDER = "import sys\n\n\nclass Finder:\n    def find_spec(self, *_: object) -> None: ...\n\n\n"
PYPROJECT = """\
[project]
name = "Thing-Maker"
description = "Makes things."
dynamic = ["version"]
[project.scripts]
make-thing = "thing_maker.program:main"
[project.entry-points.pytest11]
thing = "thing_maker.plugin"
[tool.setuptools_scm]
version_file = "thing_maker/_version.py"
"""
INSTALLED = {
    "pyproject.toml": PYPROJECT,
    "setup.py": "raise SystemExit('nobody runs this')\n",
    "thing_maker/__init__.py": "from thing_maker._version import version\n",
    "thing_maker/program.py": "def main() -> int:\n    print('made')\n    return 3\n",
    "thing_maker/plugin.py": "import pytest\n\n\n@pytest.fixture\ndef thing() -> str:\n    return 'thing'\n",
    "thing_maker/tests/test_installed.py": """\
import importlib.metadata
import subprocess

import thing_maker


def test_metadata() -> None:
    assert importlib.metadata.version("thing-maker") == thing_maker.version
    assert importlib.metadata.metadata("thing-maker")["Summary"] == "Makes things."


def test_entry_points() -> None:
    (point,) = importlib.metadata.entry_points(group="console_scripts", name="make-thing")
    assert point.load()() == 3


def test_script() -> None:
    done = subprocess.run(["make-thing"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("made\\n", 3)


def test_plugin(thing: str) -> None:
    assert thing == "thing"
""",
}


def test_a_project_is_tested_as_if_it_were_installed(bench: Bench) -> None:
    result = bench.validate(INSTALLED, checks=["tests"])
    assert result.metrics["tests.passed"] == 4, (bench.scratch / "reports" / "tests.log").read_text()
    assert result.metrics["tests.failed"] == 0
    assert result.metrics["tests.deselected"] == 0
    report = (bench.scratch / "reports" / "report.md").read_text()
    assert "flat layout, package thing_maker" in report
    assert "thing_maker/_version.py: made for the tests" in report


def test_tests_of_what_pytest_is_built_on_measure_nothing(bench: Bench) -> None:
    files = {
        "pyproject.toml": '[project]\nname = "iniconfig"\nversion = "9"\n',
        "src/iniconfig/__init__.py": "class IniConfig:\n    wrong = True\n",
        "tests/test_it.py": "import iniconfig\n\n\ndef test_it() -> None:\n    assert iniconfig.IniConfig\n",
    }
    result = bench.validate(files, checks=["tests"])
    assert "pytest itself is built on iniconfig" in result.unmeasured["tests.passed"]


def test_compiled_modules_are_not_built_and_that_is_said(bench: Bench) -> None:
    files = {
        "pyproject.toml": '[project]\nname = "fast"\nversion = "1"\n[build-system]\nbuild-backend = "maturin"\n',
        "src/fast/__init__.py": "from fast._native import go\n",
        "tests/test_it.py": "import fast\n\n\ndef test_it() -> None:\n    assert fast.go()\n",
    }
    result = bench.validate(files, checks=["tests"])
    assert "builds with maturin, which Taxiway does not build" in result.unmeasured["tests.passed"]


def test_a_test_may_replace_the_table_of_modules_for_itself(bench: Bench) -> None:
    files = {
        "pyproject.toml": '[project]\nname = "late"\nversion = "1"\n',
        "late.py": FINDER + "sys.meta_path.append(Finder())\n",
        "test_late.py": "import sys\n\nimport late\nimport pytest\n\n\ndef test_it(monkeypatch: pytest.MonkeyPatch) -> None:\n"
        "    monkeypatch.setattr(sys, 'modules', {})\n    assert late.Finder()\n",
    }
    result = bench.validate(files, checks=["tests"])
    assert result.metrics["tests.passed"] == 1, result.unmeasured


def test_an_error_without_words_is_a_failed_test(bench: Bench) -> None:
    files = {
        "pyproject.toml": '[project]\nname = "mute"\nversion = "1"\n',
        "mute.py": "class Mute(Exception):\n    def __str__(self) -> str:\n        raise self\n",
        "test_mute.py": "import mute\n\n\ndef test_it() -> None:\n    raise mute.Mute\n",
    }
    result = bench.validate(files, checks=["tests"])
    assert result.metrics["tests.failed"] == 1, result.unmeasured


def test_a_finder_before_pythons_own_interferes(bench: Bench) -> None:
    files = {
        "pyproject.toml": '[project]\nname = "early"\nversion = "1"\n',
        "early.py": FINDER + "sys.meta_path.insert(0, Finder())\n",
        "test_early.py": "import early\n\n\ndef test_it() -> None:\n    assert early.Finder()\n",
    }
    result = bench.validate(files, checks=["tests"])
    assert "Finder rewrites what is imported" in result.unmeasured["tests.passed"]
