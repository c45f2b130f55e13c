"""Projects that want to pass without being good: for each, at least one gate must not pass."""

# ruff: noqa: E501 - each project stands on one line, as in a table
from __future__ import annotations

import importlib.util
import marshal
import sys
from pathlib import Path

import pytest
from projects import CODE, HONEST, MANIFEST, TEST, Bench, failing, write

BAD = TEST + "\n\ndef test_wrong() -> None:\n    assert double(2) == 5\n"
FAILING = HONEST | {"tests/test_tiny.py": BAD}
HALF = HONEST | {"src/tiny/more.py": "def more(n: int) -> int:\n" + "".join(f"    n += {i}\n" for i in range(9)) + "    return n\n"}
UNUSED = HONEST | {"src/tiny/bad.py": "import os\n"}
WRONG = HONEST | {"src/tiny/bad.py": 'def f() -> int:\n    return "x"\n'}


def hook(code: str, files: dict[str, str] = FAILING) -> dict[str, str]:
    return files | {"tests/conftest.py": "import pytest\n" + code}


def ini(text: str, files: dict[str, str] = FAILING) -> dict[str, str]:
    return files | {"pytest.ini": "[pytest]\n" + text + "\n"}


# What a conftest.py has to do besides, so that JUnit and the exit code agree with the record.
CALM = """
@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    report.outcome, report.longrepr = 'passed', None
    return report
"""
WATCH = """
def pytest_configure(config):
    for p in config.pluginmanager.get_plugins():
        if type(p).__name__ == 'Hooks':
            w = next(c.cell_contents for c in p.pytest_runtest_makereport.__func__.__closure__ if hasattr(c.cell_contents, '_outcome'))
"""

SWALLOW = """
import functools

def calm(f):
    @functools.wraps(f)
    def g(*a, **k):
        try:
            f(*a, **k)
        except AssertionError:
            pass
    return g

"""
OWN = """
class F(pytest.Function):
    def runtest(self):
        try:
            super().runtest()
        except AssertionError:
            pass

"""
BORROW = """
import sys
PLACE = sys.prefix + '/lib/python3/site-packages/evil/x.py'
TEXT = 'def runtest(self):\\n    try:\\n        self.obj()\\n    except AssertionError:\\n        pass\\n'
{}
pytest.Function.runtest = runtest
"""

TESTS = {
    "failing": FAILING,
    "addopts -k": ini("addopts = -k double"),
    "addopts --deselect": ini("addopts = --deselect tests/test_tiny.py::test_wrong"),
    "addopts --ignore": ini("addopts = --ignore=tests/test_tiny.py"),
    "addopts --collect-only": ini("addopts = --co"),
    "addopts -m": ini(
        "addopts = -m 'not slow'\nmarkers = slow",
        FAILING
        | {
            "tests/test_tiny.py": BAD.replace("def test_wrong", "@pytest.mark.slow\ndef test_wrong").replace(
                "from tiny", "import pytest\nfrom tiny"
            )
        },
    ),
    "addopts in pyproject": FAILING | {"pyproject.toml": "[tool.pytest.ini_options]\naddopts = ['-k', 'double']\n"},
    "addopts in setup.cfg": FAILING | {"setup.cfg": "[tool:pytest]\naddopts = -k double\n"},
    "addopts in tox.ini": FAILING | {"tox.ini": "[pytest]\naddopts = -x --maxfail=1 -k double\n"},
    "python_functions": ini("python_functions = test_d*"),
    "python_files": ini("python_files = check_*.py"),
    "norecursedirs": ini("norecursedirs = sub", HONEST | {"tests/sub/test_bad.py": BAD}),
    "config in tests": FAILING | {"tests/pytest.ini": "[pytest]\naddopts = -k double\n"},
    "manifest names a part": HONEST
    | {".taxiway.yaml": MANIFEST + "test: {paths: [tests/good]}\n", "tests/good/test_a.py": TEST, "tests/test_tiny.py": BAD},
    "collect_ignore": hook("collect_ignore = ['test_bad.py']", HONEST | {"tests/test_bad.py": BAD}),
    "modifyitems": hook("def pytest_collection_modifyitems(items):\n    items[:] = items[:2]\n"),
    "modifyitems drops one case": hook(
        "def pytest_collection_modifyitems(items):\n    items[:] = [i for i in items if '[3]' not in i.nodeid]\n",
        HONEST
        | {
            "tests/test_tiny.py": "import pytest\nfrom tiny import double\n\n@pytest.mark.parametrize('n', [1, -2, 3])\ndef test_n(n: int) -> None:\n    assert double(n) == 2 * n and n != 3\n"
        },
    ),
    "ignore_collect": hook(
        "def pytest_ignore_collect(collection_path):\n    return True if 'bad' in collection_path.name else None\n",
        HONEST | {"tests/test_bad.py": BAD},
    ),
    "makeitem": hook("def pytest_pycollect_makeitem(name):\n    return [] if name == 'test_wrong' else None\n"),
    "__test__": HONEST
    | {"tests/test_bad.py": "class TestBad:\n    __test__ = False\n\n    def test_wrong(self) -> None:\n        assert 1 == 2\n"},
    "class with __init__": HONEST
    | {
        "tests/test_bad.py": "class TestBad:\n    def __init__(self) -> None:\n        pass\n\n    def test_wrong(self) -> None:\n        assert 1 == 2\n"
    },
    "deleted": FAILING | {"tests/test_tiny.py": BAD + "\n\ndel test_wrong\n"},
    "replaced by name": FAILING | {"tests/test_tiny.py": BAD + "\n\ndef test_wrong() -> None:\n    assert True\n"},
    "replaced by lambda": FAILING | {"tests/test_tiny.py": BAD + "\n\ntest_wrong = lambda: None\n"},
    "defined in a dead branch": HONEST
    | {"tests/test_tiny.py": TEST + "\n\nif False:\n    def test_wrong() -> None:\n        assert 1 == 2\n"},
    "swallowing decorator": FAILING
    | {"tests/test_tiny.py": BAD.replace("def test_wrong", "def swallow(f):\n    return lambda: None\n\n\n@swallow\ndef test_wrong")},
    "exit at import": HONEST | {"tests/test_bad.py": "import sys\nsys.exit(0)\n"},
    "_exit at import": HONEST | {"tests/conftest.py": "import os\nos._exit(0)\n"},
    "_exit in a test": HONEST
    | {"tests/test_zz.py": "import os\n\ndef test_a() -> None:\n    os._exit(0)\n\ndef test_wrong() -> None:\n    assert 0\n"},
    "_exit in conftest with forged reports": HONEST
    | {
        "tests/conftest.py": (
            "import glob, os, sys\n"
            'xml = \'<testsuites><testsuite tests="1" failures="0" errors="0"><testcase classname="tests.test_tiny" name="test_double"/></testsuite></testsuites>\'\n'
            "for place in glob.glob('/reports') + glob.glob('/tmp/taxiway-validate-*/tests'):\n"
            "    open(place + '/junit.xml', 'w').write(xml)\n"
            "    open(place + '/events', 'a').write('[\"end\", {\"code\": 0, \"digests\": {}}]\\t00\\n')\n"
            "os._exit(0)\n"
        )
    },
    "pytest.exit": hook("def pytest_runtest_setup(item):\n    pytest.exit('enough', returncode=0)\n"),
    "exit status": hook("@pytest.hookimpl(trylast=True)\ndef pytest_sessionfinish(session):\n    session.exitstatus = 0\n"),
    "makereport": hook(
        "@pytest.hookimpl(wrapper=True)\ndef pytest_runtest_makereport(item, call):\n    report = yield\n    report.outcome = 'passed'\n    report.longrepr = None\n    return report\n"
    ),
    "makereport without the error": hook(
        "@pytest.hookimpl(wrapper=True, tryfirst=True)\ndef pytest_runtest_makereport(item, call):\n    call.excinfo = None\n    return (yield)\n"
    ),
    "makereport as xfail": hook(
        "@pytest.hookimpl(wrapper=True)\ndef pytest_runtest_makereport(item, call):\n    report = yield\n    if report.failed:\n        report.outcome, report.wasxfail = 'skipped', 'known'\n    return report\n"
    ),
    "logreport": hook("@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_logreport(report):\n    report.outcome = 'passed'\n"),
    "pyfunc_call": hook("@pytest.hookimpl(tryfirst=True)\ndef pytest_pyfunc_call(pyfuncitem):\n    return True\n"),
    "runtest_call swallows": hook(
        "@pytest.hookimpl(wrapper=True)\ndef pytest_runtest_call(item):\n    try:\n        return (yield)\n    except AssertionError:\n        return None\n"
    ),
    "runtest_protocol": hook("def pytest_runtest_protocol(item):\n    return True\n"),
    "item.obj": hook("def pytest_collection_modifyitems(items):\n    for i in items:\n        i.obj = lambda: None\n"),
    "item.obj swallows": hook(
        "def calm(f):\n    def g():\n        try:\n            f()\n        except AssertionError:\n            pass\n    return g\n\ndef pytest_collection_modifyitems(items):\n    for i in items:\n        i.obj = calm(i.obj)\n"
    ),
    "item.runtest": hook("def pytest_collection_modifyitems(items):\n    for i in items:\n        i.runtest = lambda: None\n"),
    "Function.runtest": hook("pytest.Function.runtest = lambda self: None\n"),
    "pytest.fail": hook(
        "pytest.fail = print\n", HONEST | {"tests/test_bad.py": "import pytest\n\ndef test_a() -> None:\n    pytest.fail('no')\n"}
    ),
    "pytest.raises": hook(
        "import contextlib\npytest.raises = contextlib.suppress\n",
        HONEST | {"tests/test_bad.py": "import pytest\n\ndef test_a() -> None:\n    with pytest.raises(ValueError):\n        pass\n"},
    ),
    "another pytest": HONEST | {"tests/conftest.py": "import sys, types\nsys.modules['pytest'] = types.ModuleType('pytest')\n"},
    "TestCase": HONEST
    | {
        "tests/conftest.py": "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\n",
        "tests/test_bad.py": "import unittest\n\nclass Bad(unittest.TestCase):\n    def test_a(self) -> None:\n        self.assertEqual(1, 2)\n",
    },
    "xfail from conftest": hook(
        "def pytest_collection_modifyitems(items):\n    for i in items:\n        i.add_marker(pytest.mark.xfail)\n"
    ),
    "skip from conftest": hook("def pytest_collection_modifyitems(items):\n    items[2].add_marker(pytest.mark.skip)\n"),
    "skip in a hook": hook("def pytest_runtest_setup(item):\n    if 'wrong' in item.name:\n        pytest.skip('later')\n"),
    "all skipped": HONEST | {"tests/test_tiny.py": "import pytest\npytestmark = pytest.mark.skip\n" + TEST},
    "all xfail": HONEST
    | {"tests/test_tiny.py": "import pytest\npytestmark = pytest.mark.xfail\n" + BAD.replace("== 4", "== 5").replace("== -4", "== 5")},
    "no test": HONEST | {"tests/test_tiny.py": "x = 1\n"},
    "no tests folder": {k: v for k, v in HONEST.items() if "tests" not in k},
    "maxfail": hook(
        "def pytest_configure(config):\n    config.option.maxfail = 1\n",
        HONEST | {"tests/test_a.py": "def test_a() -> None:\n    assert 0\n"},
    ),
    "shadowed tools": FAILING
    | dict.fromkeys(("pytest.py", "src/pytest.py", "src/coverage.py", "tests/pytest.py"), "def main(*a, **k):\n    return 0\n"),
    "sitecustomize": FAILING | {"sitecustomize.py": "import os\nos._exit(0)\n", "src/sitecustomize.py": "import os\nos._exit(0)\n"},
    "does not import": HONEST | {"tests/test_bad.py": "import nothing_like_it\n\n\ndef test_a() -> None:\n    assert True\n"},
    "does not parse": HONEST | {"tests/test_bad.py": "def test_a(:\n"},
    "test in an honest file's neighbour folder": HONEST | {"tests_old/test_bad.py": BAD},
    "import hook": hook(
        "import sys\n\nclass Finder:\n    @staticmethod\n    def find_spec(name, path=None, target=None):\n        return None\n\nsys.meta_path.insert(0, Finder())\n",
        HONEST,
    ),
    "skip before the watch": hook(
        "@pytest.hookimpl(tryfirst=True)\ndef pytest_itemcollected(item):\n    if 'wrong' in item.name:\n        item.add_marker(pytest.mark.skip)\n"
    ),
    "item.obj before the watch": hook(
        SWALLOW + "@pytest.hookimpl(tryfirst=True)\ndef pytest_itemcollected(item):\n    item.obj = calm(item.obj)\n"
    ),
    "item.obj outside of the watch": hook(
        SWALLOW
        + "@pytest.hookimpl(wrapper=True, tryfirst=True)\ndef pytest_itemcollected(item):\n    item.obj = calm(item.obj)\n    return (yield)\n"
    ),
    "item.obj wrapped": hook(SWALLOW + "def pytest_collection_modifyitems(items):\n    for i in items:\n        i.obj = calm(i.obj)\n"),
    "item.obj in a fixture": hook(
        SWALLOW + "@pytest.fixture(autouse=True)\ndef x(request):\n    request.node.obj = calm(request.node.obj)\n"
    ),
    "function of the module": hook(
        SWALLOW
        + "def pytest_pycollect_makeitem(collector, name, obj):\n    if name.startswith('test_'):\n        setattr(collector.obj, name, calm(obj))\n        return [pytest.Function.from_parent(collector, name=name)]\n"
    ),
    "own kind of function": hook(
        OWN
        + "def pytest_pycollect_makeitem(collector, name, obj):\n    if name.startswith('test_'):\n        return [F.from_parent(collector, name=name)]\n"
    ),
    "another kind of function": hook(OWN + "def pytest_collection_modifyitems(items):\n    for i in items:\n        i.__class__ = F\n"),
    "own kind of item": hook(
        "class I(pytest.Item):\n    def runtest(self):\n        try:\n            getattr(self.parent.obj, self.name)()\n        except AssertionError:\n            pass\n\n"
        "def pytest_pycollect_makeitem(collector, name, obj):\n    if name.startswith('test_'):\n        return [I.from_parent(collector, name=name)]\n"
    ),
    "code by the name of a package": hook(BORROW.format("exec(compile(TEXT, PLACE, 'exec'))")),
    "code renamed to one of a package": hook(BORROW.format("exec(TEXT)\nruntest.__code__ = runtest.__code__.replace(co_filename=PLACE)")),
    "watch by the name of the program": hook("import __main__\n__main__.Watch._outcome = lambda *a: 'passed'\n" + CALM),
    "class of the watch": hook(WATCH + "            type(w)._outcome = lambda *a: 'passed'\n" + CALM),
    "watch": hook(WATCH + "            w._outcome = lambda *a: 'passed'\n" + CALM),
    "its check": hook(
        WATCH + "            type(w).check = lambda *a: None\n            type(w)._tell = lambda *a: None\n"
        "            pytest.Function.runtest = lambda self: None\n"
    ),
    "sources rewritten": HONEST
    | {
        "src/tiny/__init__.py": CODE.replace("number + number", "number + 7"),
        "tests/conftest.py": "from pathlib import Path\np = Path(__file__).parent.parent / 'src/tiny/__init__.py'\np.write_text(p.read_text().replace('number + 7', 'number + number'))\n",
    },
    "teardown fails": HONEST
    | {"tests/conftest.py": "import pytest\n\n@pytest.fixture(autouse=True)\ndef broken():\n    yield\n    raise RuntimeError\n"},
}


@pytest.mark.parametrize("files", TESTS.values(), ids=TESTS.keys())
def test_tests(bench: Bench, files: dict[str, str]) -> None:
    result = bench.validate(files, checks=["tests"])
    assert any(gate.startswith("tests.") for gate in failing(result, "tests coverage")), result


FORGE = """
from pathlib import Path
for p in (Path(__file__).parent.parent / 'src').rglob('*.py'):
    for code in ('\\n' * n + 'x = 1' for n in range(40)):
        exec({}, {})
"""

COVERAGE = {
    "half": HALF,
    "omit": HALF | {".coveragerc": "[run]\nomit = */more.py\n"},
    "exclude_lines": HALF | {"pyproject.toml": "[tool.coverage.report]\nexclude_also = ['n \\+=']\nomit = ['*more*']\n"},
    "pragma": HALF | {"src/tiny/more.py": HALF["src/tiny/more.py"].replace("int:", "int:  # pragma: no cover", 1)},
    "never imported": HONEST | {"src/other/never.py": HALF["src/tiny/more.py"]},
    "file that is no module name": HONEST | {"src/tiny/not-a-name.py": HALF["src/tiny/more.py"]},
    "other sources": HALF | {".taxiway.yaml": MANIFEST + "test: {sources: [src/tiny/small, src]}\n", "src/tiny/small/__init__.py": ""},
    "sources elsewhere": HONEST
    | {
        ".taxiway.yaml": MANIFEST + "test: {sources: [src]}\n",
        "app/__init__.py": HALF["src/tiny/more.py"],
        "tests/test_app.py": "import sys\n\nsys.path.insert(0, '.')\nimport app\n\n\ndef test_app() -> None:\n    assert app\n",
    },
    "sources called tests": HALF | {".taxiway.yaml": MANIFEST + "test: {paths: [tests, src/tiny]}\n"},
    "reaches for coverage": HALF
    | {"tests/test_cover.py": "import coverage\n\n\ndef test_a() -> None:\n    coverage.Coverage.current().exclude('.*')\n"},
    "loads coverage by name": HALF
    | {"tests/test_cover.py": "import sys\n\n\ndef test_a() -> None:\n    assert sys.modules.get('coverage')\n"},
    "own data file": HALF | {".coverage": "SQLite format 3", "coverage.json": "{}", "junit.xml": "<testsuite/>"},
    "lines of the name of a source": HALF | {"tests/conftest.py": FORGE.format("compile(code, str(p), 'exec')", "{}")},
    "lines of the name of a source, renamed": HALF
    | {"tests/conftest.py": FORGE.format("compile(code, 's', 'exec').replace(co_filename=str(p))", "{}")},
    "lines whose globals name a source": HALF
    | {"tests/conftest.py": FORGE.format("compile(code, 'x/' + p.name, 'exec')", "{'__file__': str(p)}")},
    "trace switched off": HALF | {"tests/conftest.py": "import sys\nsys.settrace(None)\n"},
    "no code": {".taxiway.yaml": MANIFEST, "src/tiny/__init__.py": "", "tests/test_a.py": "def test_a() -> None:\n    assert True\n"},
}


@pytest.mark.parametrize("files", COVERAGE.values(), ids=COVERAGE.keys())
def test_coverage(bench: Bench, files: dict[str, str]) -> None:
    result = bench.validate(files, checks=["tests"])
    assert set(failing(result, "tests coverage")) & {"coverage.line >= 80", "tests.deselected == 0", "tests.failed == 0"}, result


def test_bytecode_does_not_stand_in_for_its_source(bench: Bench, tmp_path: Path) -> None:
    """An unchecked .pyc beside a failing program would make it pass."""
    good = compile(CODE, "tiny", "exec")
    # PEP 552: flags 0b01 is a hash-based pyc that nobody checks against its source.
    content = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(good)
    checkout, reports, start = (tmp_path / n for n in ("c", "r", "s"))
    for place in (checkout, reports, start):
        place.mkdir()
    write(checkout, HONEST | {"src/tiny/__init__.py": CODE.replace("number + number", "0")})
    cache = checkout / "src/tiny/__pycache__" / f"__init__.{sys.implementation.cache_tag}.pyc"
    cache.parent.mkdir()
    cache.write_bytes(content)
    result = bench.run(checkout, reports, start, checks=["tests"])
    assert result.metrics["tests.failed"] == 2, result


LINT = {
    "finding": UNUSED,
    "noqa": HONEST | {"src/tiny/bad.py": "import os  # noqa: F401\n"},
    "file noqa": HONEST | {"src/tiny/bad.py": "# ruff: noqa\nimport os\n"},
    "flake8 noqa": HONEST | {"src/tiny/bad.py": "# flake8: noqa\nimport os\n"},
    "range": HONEST | {"src/tiny/bad.py": "# ruff: disable[F401]\nimport os\n# ruff: enable[F401]\n"},
    "ruff.toml": UNUSED | {"ruff.toml": "exclude = ['*.py']\n[lint]\nselect = []\n"},
    "nested ruff.toml": UNUSED | {"src/tiny/ruff.toml": "[lint]\nignore = ['ALL']\n"},
    "pyproject": UNUSED
    | {"pyproject.toml": "[tool.ruff]\nextend-exclude = ['src']\nforce-exclude = true\n[tool.ruff.lint.per-file-ignores]\n'*' = ['ALL']\n"},
    "gitignore": UNUSED | {".gitignore": "*.py\n"},
    "ignore file": UNUSED | {".ignore": "*\n", ".ruffignore": "*\n"},
    "usual folder": HONEST | {"build/bad.py": "import os\n", "node_modules/x.py": "import os\n"},
    "no suffix": HONEST | {"bin/program": "#!/usr/bin/env python3\nimport os\n"},
    "stub": HONEST | {"src/tiny/bad.pyi": "import os\nimport os\nx: undefined\n"},
    "syntax error": HONEST | {"src/tiny/bad.py": "def f(:\n"},
    "no python": {".taxiway.yaml": MANIFEST},
    "named like an option": HONEST | {"--exit-zero.py": "import os\n", "@x.py": "import os\n"},
    "notebook": HONEST
    | {
        "a.ipynb": '{"cells":[{"cell_type":"code","execution_count":null,"metadata":{},"outputs":[],"source":["import os"]}],"metadata":{},"nbformat":4,"nbformat_minor":5}'
    },
}


@pytest.mark.parametrize("files", LINT.values(), ids=LINT.keys())
def test_lint(bench: Bench, files: dict[str, str]) -> None:
    result = bench.validate(files, checks=["lint"])
    assert failing(result, "lint"), result


HIDDEN = {
    "ignore": 'def f() -> int:\n    return "x"  # type: ignore\n',
    "ignore with a code": 'def f() -> int:\n    return "x"  # noqa  # type:ignore[return-value]\n',
    "file ignore": '# type: ignore\ndef f() -> int:\n    return "x"\n',
    "inline settings": '# mypy: ignore-errors\ndef f() -> int:\n    return "x"\n',
    "settings in a string": '"""\n# mypy: ignore-errors\n"""\ndef f() -> int:\n    return "x"\n',
    "no_type_check": 'from typing import no_type_check as calm\n\n@calm\ndef f() -> int:\n    return "x"\n',
    "typing.no_type_check": 'import typing\n\n@typing.no_type_check\ndef f() -> int:\n    return "x"\n',
    "not TYPE_CHECKING": 'from typing import TYPE_CHECKING\n\nif not TYPE_CHECKING:\n    def f() -> int:\n        return "x"\n',
    "else of TYPE_CHECKING": 'from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    f = None\nelse:\n    def f() -> int:\n        return "x"\n',
    "assert": 'from typing import TYPE_CHECKING\n\nassert not TYPE_CHECKING\n\n\ndef f() -> int:\n    return "x"\n',
    "raise": 'from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    raise ImportError\n\n\ndef f() -> int:\n    return "x"\n',
    "exit": 'import sys\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    sys.exit()\n\n\ndef f() -> int:\n    return "x"\n',
    "not TYPE_CHECKING and": 'from typing import TYPE_CHECKING\n\nif not TYPE_CHECKING and len("a"):\n    def f() -> int:\n        return "x"\n',
    "else of TYPE_CHECKING or": 'from typing import TYPE_CHECKING\n\nif TYPE_CHECKING or len("a"):\n    f = None\nelse:\n    def f() -> int:\n        return "x"\n',
    "return in a branch": 'from typing import TYPE_CHECKING\n\n\ndef f() -> int:\n    if not TYPE_CHECKING:\n        return "x"\n    return 1\n',
    "TYPE_CHECKING or": 'from typing import TYPE_CHECKING\n\n\ndef f() -> int:\n    return TYPE_CHECKING or "x"\n',
    "dead branch": 'if False:\n    def f() -> int:\n        return "x"\n',
    "no annotations": 'def f():\n    x: int = "x"\n    return x\n',
    "not ASCII": '# -*- coding: latin-1 -*-\nx: int = "x"  # \xfc type: ignore\n',
}


def test_types_that_one_file_hides(bench: Bench) -> None:
    """All in one project, as mypy takes seconds; each must be found."""
    files = {f"src/tiny/{name.replace(' ', '_').replace('.', '_')}.py": text for name, text in HIDDEN.items()}
    result = bench.validate(HONEST | files, checks=["types"])
    reports = "".join((bench.scratch / "reports" / name).read_text() for name in ("types.jsonl", "report.json"))
    assert [f for f in files if f not in reports] == []
    assert result.metrics["types.errors"] == len(HIDDEN)
    assert result.metrics["types.suppressed"] == 15  # the others are errors as written, too


TYPES = {
    "settings": WRONG
    | {
        "mypy.ini": "[mypy]\nignore_errors = true\nexclude = .*\n",
        "setup.cfg": "[mypy]\nignore_errors = true\n",
        "pyproject.toml": "[tool.mypy]\nexclude = ['src']\n[[tool.mypy.overrides]]\nmodule = '*'\nignore_errors = true\n",
    },
    "own stub": WRONG | {"src/tiny/bad.pyi": "def f() -> int: ...\n"},
    "stub of the library": HONEST
    | {"src/json/__init__.pyi": "def dumps(x: object) -> int: ...\n", "src/tiny/bad.py": "import json\n\nx: int = json.dumps({})\n"},
    "syntax error": HONEST | {"src/tiny/bad.py": "def f(:\n"},
    "no python": {".taxiway.yaml": MANIFEST},
    "hidden folder": HONEST | {"src/.hidden/bad.py": 'x: int = "x"\n'},
}


@pytest.mark.parametrize("files", TYPES.values(), ids=TYPES.keys())
def test_types(bench: Bench, files: dict[str, str]) -> None:
    result = bench.validate(files, checks=["types"])
    assert failing(result, "types"), result


def test_a_package_of_the_tools_is_none_of_the_projects(bench: Bench) -> None:
    code = "import detect_secrets\n\n\ndef name() -> str:\n    return str(detect_secrets.__name__)\n"
    test = "from tiny.more import name\n\n\ndef test_name() -> None:\n    assert name()\n"
    result = bench.validate(HONEST | {"src/tiny/more.py": code, "tests/test_more.py": test}, checks=["tests", "types"])
    assert result.metrics["tests.failed"] >= 1
    assert result.metrics["types.errors"] >= 1, result
