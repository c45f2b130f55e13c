"""Honest projects pass, and their numbers are right."""

# ruff: noqa: E501 - each project stands on one line, as in a table
from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from projects import CODE, HONEST, MANIFEST, TEST, Bench, failing, write

from taxiway.agents.base import StageAttempt
from taxiway.agents.scaffold import AGENT as SCAFFOLD
from taxiway.agents.scaffold import ScaffoldInput
from taxiway.agents.validate.infrastructure import changed_tests
from taxiway.home import Home
from taxiway.integrations.environments import UvEnvironments
from taxiway.stop import Stop


def test_an_honest_project_passes(bench: Bench) -> None:
    result = bench.validate(HONEST, before=HONEST)
    assert failing(result) == {}, result
    assert result.unmeasured == {}
    assert result.metrics["coverage.line"] == 100
    assert result.metrics["changes.test_infrastructure"] == 0
    assert result.summary == "2 tests passed, 100.0 % of lines, 0 lint findings, 0 type errors, 0 high security findings, 0 secrets"
    summary = json.loads((bench.scratch / "reports/report.json").read_text())
    assert summary["metrics"] == result.metrics
    assert {"lint.json", "types.jsonl", "junit.xml", "coverage.json", "report.md", "report.sarif"} <= {
        p.name for p in (bench.scratch / "reports").iterdir()
    }


def test_one_is_no_plural(bench: Bench) -> None:
    files = {**HONEST, "tests/test_tiny.py": "def test_one():\n    assert 1 + 1 == 2\n", "src/tiny/more.py": "import os\n"}
    said = bench.validate(files, checks=["tests", "lint"]).summary
    assert said.startswith("1 test passed, ")
    assert ", 1 lint finding" in said
    assert "findings" not in said


def test_code_without_a_branch_has_its_lines_measured(bench: Bench) -> None:
    plain = CODE.replace("    if number < 0:\n        return -double(-number)\n", "")
    result = bench.validate({**HONEST, "src/tiny/__init__.py": plain}, checks=["tests"])
    assert result.unmeasured == {"coverage.branch": "the code has no branch"}
    assert result.summary == "2 tests passed, 100.0 % of lines, not measured: coverage.branch"


def test_code_is_read_compiled_and_run_by_tests_as_it_is(bench: Bench) -> None:
    test = """\
import ast
import multiprocessing
import runpy
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src/tiny/__init__.py"


def work() -> None:
    from tiny import double

    assert double(1) == 2


def test_decorators_of_python_make_code_anew() -> None:
    from tiny.more import once

    assert list(once()) == [1]


def test_source() -> None:
    exec(compile(SOURCE.read_text(), str(SOURCE), "exec"), {})
    exec(compile(ast.parse("x = 1"), "__init__.py", "exec"), {})
    ast.parse(SOURCE.read_bytes(), str(SOURCE))
    assert runpy.run_path(str(SOURCE))["double"](1) == 2


def test_processes() -> None:
    for method in ("fork", "spawn"):
        process = multiprocessing.get_context(method).Process(target=work)
        process.start()
        process.join()
        assert process.exitcode == 0
"""
    more = "import types\nfrom collections.abc import Iterator\n\n\n@types.coroutine\ndef once() -> Iterator[int]:\n    yield 1\n"
    result = bench.validate(HONEST | {"tests/test_code.py": test, "src/tiny/more.py": more}, checks=["tests"])
    assert failing(result, "tests coverage") == {}, result


def test_what_types_are_checked_by_idiom(bench: Bench) -> None:
    code = """\
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or os.environ.get("DOCS"):
    from collections.abc import Sequence

if TYPE_CHECKING:
    import json
    Thing = dict[str, Any]

    def made() -> int: ...
else:
    Thing = Any
    try:
        import json
    except ImportError:
        json = None


def first(of: "Sequence[int]", thing: Any) -> int:
    if TYPE_CHECKING:
        assert isinstance(thing, int)
    return thing if json and False else of[0]
"""
    result = bench.validate(HONEST | {"src/tiny/more.py": code}, checks=["types"])
    assert failing(result, "types") == {}, result.model_dump()


MANY = {
    "tests/conftest.py": "import pytest\n\n\n@pytest.fixture\ndef two() -> int:\n    return 2\n\n\n@pytest.hookimpl(wrapper=True)\ndef pytest_runtest_makereport(item, call):\n    report = yield\n    item.report = report\n    return report\n\n\ndef pytest_collection_modifyitems(items):\n    items.reverse()\n",
    "tests/unit/test_many.py": '''\
import sys
import unittest
from functools import wraps

import pytest
from tiny import double


@pytest.mark.parametrize("n", [1, 2, -3, "a"[:0], "\\x1b"], ids=repr)
def test_parametrised(n, two: int) -> None:
    assert double(two) == 4


class TestClass:
    def test_method(self, tmp_path) -> None:
        """Only a docstring before the body."""
        with pytest.raises(ZeroDivisionError):
            double(1) / 0

    class TestNested:
        def test_inner(self) -> None:
            assert double(-1) == -2


class Plain(unittest.TestCase):
    def test_case(self) -> None:
        for n in range(2):
            with self.subTest(n=n):
                self.assertEqual(double(n), 2 * n)

    @unittest.skip("later")
    def test_skipped_case(self) -> None:
        self.fail()


def twice(test):
    @wraps(test)
    def run():
        test()
        test()

    return run


@twice
def test_decorated() -> None:
    assert double(0) == 0


@pytest.mark.skipif(sys.version_info > (3,), reason="for Python 2")
def test_skipped() -> None:
    raise AssertionError


def test_skips_itself() -> None:
    pytest.skip("not here")


@pytest.mark.xfail(reason="known")
def test_known() -> None:
    assert double(1) == 3


@pytest.fixture
def test_client() -> int:
    return 1


def test_with_fixture(test_client: int) -> None:
    assert test_client
''',
    "tests/test_module.py": 'import pytest\n\npytest.importorskip("no_such_module_at_all")\n\n\ndef test_optional() -> None:\n    assert False\n',
    "pytest.ini": "[pytest]\naddopts = -ra --strict-markers -k nothing\npython_files = test_*.py check_*.py\n",
    "tests/check_more.py": "from tiny import double\n\n\ndef test_more() -> None:\n    assert double(3) == 6\n",
}


def test_all_ways_to_write_tests(bench: Bench) -> None:
    result = bench.validate({k: v for k, v in HONEST.items() if "test_tiny" not in k} | MANY, checks=["tests"])
    expected = {
        "tests.passed": 11,
        "tests.failed": 0,
        "tests.skipped": 4,
        "tests.xfailed": 1,
        "tests.total": 12,
        "tests.deselected": 0,
        "coverage.line": 100,
    }
    assert result.metrics | expected == result.metrics, result


def test_flat_layout_and_suppressions_are_counted(bench: Bench) -> None:
    files = {
        ".taxiway.yaml": MANIFEST + "test: {sources: [.]}\n",
        "tiny.py": CODE
        + "import os  # noqa: F401, E402\n\nx: int = ''  # type: ignore[assignment]\n\n\ndef never() -> None:  # pragma: no cover\n    return None\n",
        "tests/test_tiny.py": TEST,
    }
    result = bench.validate(files)
    expected = {"lint.errors": 2, "lint.suppressed": 2, "types.errors": 1, "types.suppressed": 1, "coverage.excluded": 2, "tests.failed": 0}
    assert result.metrics | expected == result.metrics, result
    assert result.metrics["coverage.line"] < 100


def test_changed_infrastructure_is_counted(bench: Bench) -> None:
    before = HONEST | {"tests/conftest.py": "x = 1\n", "pyproject.toml": "[project]\nname='a'\n", "tox.ini": "[pytest]\n"}
    after = before | {"tests/conftest.py": "x = 2\n", "pyproject.toml": "[project]\nname='b'\n", "tests/new/conftest.py": ""}
    result = bench.validate({k: v for k, v in after.items() if k != "tox.ini"}, before=before, checks=["tests"])
    assert result.metrics["changes.test_infrastructure"] == 2


BEGAN = """import pytest
from tiny import half

LIMIT = 4


def same(a: float, b: float) -> None:
    assert a == b


class TestHalf:
    def test_half(self) -> None:
        same(half(LIMIT), 2)

    @pytest.mark.parametrize("n", [2, 4])
    def test_each(self, n: int) -> None:
        assert half(n) * 2 == n
"""


@pytest.mark.parametrize(
    ("was", "now", "changed"),
    [
        ("assert half(n) * 2 == n", "assert True", ["TestHalf::test_each"]),
        ("[2, 4]", "[]", ["TestHalf::test_each"]),
        ("    assert a == b", "    pass", ["same"]),
        ("LIMIT = 4", "LIMIT = half(0)", ["LIMIT = 4"]),
        ("from tiny import half", "from other import half", ["import tiny half"]),
        ("class TestHalf:", "class TestHalf(Base):", ["TestHalf"]),
        ("def test_half(", "def check_half(", ["TestHalf::test_half"]),
        (BEGAN, "", ["LIMIT = 4", "TestHalf", "TestHalf::test_each", "TestHalf::test_half", "import pytest", "import tiny half", "same"]),
        (BEGAN, "def broken(:", [""]),
        ("LIMIT = 4", "LIMIT = 4  # as the law says\n\n\ndef test_new() -> None:\n    same(1, 1)", []),
        ("import pytest\nfrom tiny import half", "import pytest\nfrom tiny import half, more", []),
        ("        same(half(LIMIT), 2)", "        same(\n            half(LIMIT), 2\n        )", []),
    ],
)
def test_tests_that_a_run_changed_are_told_from_new_ones(tmp_path: Path, was: str, now: str, changed: list[str]) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    write(
        before, {".taxiway.yaml": MANIFEST, "tests/test_half.py": BEGAN, "tests/data/half.json": "[2]", "src/tiny/__init__.py": "x = 1\n"}
    )
    write(after, {"tests/test_half.py": BEGAN.replace(was, now), "tests/data/half.json": "[2]", "src/tiny/__init__.py": "x = 2\n"})
    assert changed_tests(before, after) == [f"tests/test_half.py::{name}".removesuffix("::") for name in changed]


def test_changed_tests_and_their_data_are_counted(bench: Bench) -> None:
    before = HONEST | {"tests/data/half.json": "[2]"}
    after = before | {"tests/data/half.json": "[3]", "tests/test_new.py": "def test_new() -> None:\n    assert 1\n"}
    assert bench.validate(after, before=before, checks=["tests"]).metrics["changes.tests"] == 1
    assert "tests/data/half.json: stood in the tests when the run began" in (bench.scratch / "reports/report.md").read_text()


def test_what_is_scaffolded_passes_at_its_strictest(bench: Bench, tmp_path: Path) -> None:
    checkout, reports, start = (tmp_path / n for n in ("checkout", "reports", "start"))
    for place in (checkout, reports, start):
        place.mkdir()
    attempt = StageAttempt(
        pipeline="p",
        run="r",
        name="scaffold",
        attempt=1,
        commit="",
        checkout=checkout,
        reports=reports,
        results={},
        stop=Stop(),
        log=logging.getLogger("taxiway.test"),
        verify=lambda _: (),
    )
    SCAFFOLD.run(ScaffoldInput(name="greeter"), bench.ports, attempt)
    real = UvEnvironments(Home(tmp_path / "home"), trusted=True)
    checks = ["tests", "lint", "types", "format", "security", "secrets", "complexity", "duplication"]
    result = bench.with_environments(real).run(checkout, reports, start, timeout_s=300, strict=True, checks=checks)
    notes = (reports / "report.md").read_text()
    assert failing(result) == {}, notes + (reports / "types.jsonl").read_text() + (reports / "lint.json").read_text()
    assert result.metrics["coverage.line"] >= 90, notes
    assert [result.metrics[f"security.{level}"] for level in ("high", "medium", "low")] == [0, 0, 0], notes
    assert result.metrics["secrets.possible"] == 0, notes
    assert result.metrics["complexity.max"] <= 10, notes
    assert result.metrics["duplication.percent"] == 0, notes


@pytest.mark.parametrize("trusted", [False])
def test_a_project_may_bring_its_own_pytest(bench: Bench, tmp_path: Path, trusted: bool) -> None:
    files = HONEST | {".taxiway.yaml": MANIFEST + "install: {requirements: [requirements.txt]}\n", "requirements.txt": "pytest\nanyio\n"}
    files |= {"tests/test_async.py": "import pytest\n\n\n@pytest.mark.anyio\nasync def test_async() -> None:\n    assert True\n"}
    files |= {"tests/conftest.py": "import pytest\n\n\n@pytest.fixture\ndef anyio_backend() -> str:\n    return 'asyncio'\n"}
    result = bench.with_environments(UvEnvironments(Home(tmp_path / "home"), trusted=trusted)).validate(files, checks=["tests"])
    assert failing(result, "tests coverage") == {}, result
    assert result.metrics["tests.total"] == 3
