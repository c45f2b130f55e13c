"""What the checks read and rewrite, without running a tool."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import write

from taxiway.agents.validate.check import NotMeasured
from taxiway.agents.validate.files import Layout
from taxiway.agents.validate.junit import mangle, read_junit
from taxiway.agents.validate.listing import defined_tests
from taxiway.agents.validate.options import read_options
from taxiway.agents.validate.record import read_record
from taxiway.agents.validate.suppressions import expose
from taxiway.manifest import Manifest

SUITE = '<testsuites><testsuite tests="{}" failures="{}" errors="0">{}</testsuite></testsuites>'
CASE = '<testcase classname="a" name="b"/>'


def test_junit_is_read() -> None:
    bad = '<testcase classname="a" name="c"><failure/></testcase>'
    assert read_junit(SUITE.format(2, 1, CASE + bad).encode()) == {"a.b": "passed", "a.c": "failed"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<testsuites>",
        "<testsuites/>",
        SUITE.format(0, 0, CASE),
        SUITE.format("x", 0, CASE),
        SUITE.format(1, 1, CASE),
        '<!DOCTYPE a [<!ENTITY b "c">]>' + SUITE.format(1, 0, CASE),
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        SUITE.format(1, 0, CASE) * 2,
        "<a>" * 50 + "</a>" * 50,
        "<testsuite " * 3,
    ],
)
def test_junit_is_refused(text: str) -> None:
    with pytest.raises(NotMeasured):
        read_junit(text.encode())


@pytest.mark.parametrize(
    ("nodeid", "address"),
    [
        ("tests/test_a.py::test_b", "tests.test_a.test_b"),
        ("tests/test_a.py::TestC::test_b[a/b::c.py]", "tests.test_a.TestC.test_b[a/b::c.py]"),
        ("t.py::test_b[\x1b]", "t.test_b[#x1B]"),
    ],
)
def test_addresses_are_those_of_pytest(nodeid: str, address: str) -> None:
    assert mangle(nodeid) == address


@pytest.mark.parametrize("text", ["", "x", '["end", {"code": 0, "digests": {}}]\t00', "\t\n"])
def test_a_forged_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "events").write_text(text)
    with pytest.raises(NotMeasured):
        read_record(tmp_path, b"key")


def test_a_record_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events").symlink_to("/etc/passwd")
    with pytest.raises(NotMeasured):
        read_record(tmp_path, b"key")


@pytest.mark.parametrize(
    ("name", "text", "kept", "plugins"),
    [
        ("pytest.ini", "[pytest]\naddopts = -x --import-mode=importlib -p anyio -p no:x -k a", ["--import-mode=importlib"], ["anyio"]),
        ("pyproject.toml", '[tool.pytest.ini_options]\naddopts = ["--strict-markers", "--cov=src"]', ["--strict-markers"], []),
        ("pyproject.toml", '[tool.pytest]\naddopts = ["-m", "x"]', [], []),
        ("setup.cfg", "[tool:pytest]\naddopts = '", [], []),
        ("tox.ini", "[pytest]\naddopts = --asyncio-mode auto", ["--asyncio-mode", "auto"], []),
    ],
)
def test_options_that_select_are_dropped(tmp_path: Path, name: str, text: str, kept: list[str], plugins: list[str]) -> None:
    (tmp_path / name).write_text(text)
    options = read_options(tmp_path)
    assert options.file == name
    assert options.plugins == plugins
    assert options.arguments[: len(kept)] == kept
    assert len(options.arguments) == len(kept) + 6


@pytest.mark.parametrize("text", ["x = [", "\xff", "[tool]\npytest = 1", "a = " + "[" * 5000], ids=["toml", "utf-8", "no table", "deep"])
def test_broken_options_do_not_stop_the_check(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_bytes(text.encode("latin-1"))
    assert read_options(tmp_path).plugins == []


def test_every_suppression_of_types_is_taken_out(tmp_path: Path) -> None:
    source = 'a = 1  # x # type: ignore[b]\nb = "# type: ignore"\n# mypy: ignore-errors\nc = 2  # type: int\n'
    write(tmp_path, {"a.py": source, "broken.py": "x = (  # type:ignore\n"})
    done = expose(tmp_path, ["a.py", "broken.py"])
    assert done.rewritten == 2
    text = (tmp_path / "a.py").read_text()
    assert text.splitlines() == ["a = 1  # x # type-ignored[b]", 'b = "# type: ignore"', "# mypi: ignore-errors", "c = 2  # type: int"]
    assert "type:ignore" not in (tmp_path / "broken.py").read_text()


def test_definitions_are_found_where_pytest_looks_for_them(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "tests/test_a.py": (
                "def test_a(): x\nasync def test_b(): x\nclass TestC:\n def test_d(self): x\n def other(self): x\n"
                "class Plain:\n def test_no(self): x\nclass E(TestCase):\n def test_f(self): x\n"
                "try:\n def test_g(): x\nexcept E:\n def test_h(): x\nif __name__ == '__main__':\n def test_no(): x\n"
            ),
            "tests/helper.py": "def test_no(): x\n",
            "elsewhere/test_b.py": "def test_stray(): x\n",
            "node_modules/test_c.py": "def test_no(): x\n",
            "tests/test_broken.py": "def (",
        },
    )
    found, broken = defined_tests(tmp_path, Layout(Manifest(name="tiny")))
    names = ["test_stray", "test_a", "test_b", "TestC::test_d", "E::test_f", "test_g", "test_h"]
    assert ["::".join(d.key[1:]) for d in found] == names
    assert broken == ["tests/test_broken.py"]
