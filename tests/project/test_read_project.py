"""What is found in projects that Taxiway did not make, file by file, and why."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from taxiway.errors import ProjectError
from taxiway.integrations.requirements import Requirements, read_requirements
from taxiway.manifest import Manifest, read_manifest
from taxiway.project import Project, as_yaml, read_project

CODE = "src/thing/__init__.py"
TEST = "tests/test_thing.py"
PEP621 = '[project]\nname = "Thing"\nversion = "1.2"\n'
DYNAMIC = '[project]\nname = "thing"\ndynamic = ["version"]\n'
X1 = '[project]\nname = "x1"\ndynamic = ["dependencies"]\n'
POETRY = """\
[tool.poetry]
name = "x1"
version = "1"
[tool.poetry.dependencies]
python = "^3.11"
httpx = {version = "^0.28", extras = ["http2"]}
six = {version = "*", optional = true}
[tool.poetry.extras]
old = ["six"]
[tool.poetry.group.test.dependencies]
pytest = "~8.1"
"""
SETUP_CFG = """\
[metadata]
name = x1
[options]
install_requires =
  trio
  six; python_version < '3'
[options.extras_require]
test = pytest
"""
UV_LOCK = """\
version = 1
[[package]]
name = "thing"
version = "1.2"
source = { editable = "." }
[[package]]
name = "httpx"
version = "0.28.1"
source = { registry = "https://index.example.com/simple" }
wheels = [{ url = "https://index.example.com/httpx.whl", hash = "sha256:%s" }]
[[package]]
name = "numpy"
version = "1.26.0"
source = { registry = "https://index.example.com/simple" }
resolution-markers = ["python_full_version < '3.12'"]
[[package]]
name = "numpy"
version = "2.0.0"
source = { registry = "https://index.example.com/simple" }
resolution-markers = ["python_full_version >= '3.12'"]
[[package]]
name = "forked"
version = "1"
source = { registry = "https://index.example.com/simple" }
[[package]]
name = "forked"
version = "2"
source = { registry = "https://index.example.com/simple" }
[[package]]
name = "inhouse"
version = "3"
source = { git = "https://git.example.com/inhouse" }
""" % ("0" * 64)


def project(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root


def found(root: Path, files: dict[str, str]) -> tuple[Project, Requirements]:
    checkout = project(root, files)
    read = read_project(checkout)
    return read, read_requirements(checkout, read.manifest.install)


@pytest.mark.parametrize(
    ("files", "lines", "reason"),
    [
        ({"pyproject.toml": PEP621 + 'dependencies = ["httpx>=0.28"]\n'}, ["httpx>=0.28"], "pyproject.toml: 1 dependencies of Thing"),
        (
            {
                "pyproject.toml": PEP621
                + '[project.optional-dependencies]\ntests = ["pytest", "thing[fast]"]\nfast = ["orjson"]\ndocs = ["sphinx"]\n'
            },
            ["pytest", "orjson"],
            "pyproject.toml: extra tests: test dependencies",
        ),
        (
            {
                "pyproject.toml": PEP621
                + '[dependency-groups]\ntest = ["pytest", {include-group = "more"}]\nmore = ["trio"]\ndev = ["sphinx"]\n'
            },
            ["pytest", "trio"],
            "pyproject.toml: dependency group test: test dependencies",
        ),
        (
            {"pyproject.toml": PEP621 + '[dependency-groups]\ndev = ["ruff"]\n'},
            ["ruff"],
            "pyproject.toml: dependency group dev: test dependencies",
        ),
        ({"pyproject.toml": PEP621 + '[tool.uv]\ndev-dependencies = ["trio"]\n'}, ["trio"], "dependency group dev"),
        (
            {"pyproject.toml": PEP621 + '[tool.hatch.envs.test]\ndependencies = ["trio"]\n'},
            ["trio"],
            "pyproject.toml: test dependencies (trio)",
        ),
        (
            {
                "pyproject.toml": X1 + '[tool.setuptools.dynamic]\ndependencies = {file = "deps.in"}\n',
                "deps.in": "trio # fast\n-r other\n",
            },
            ["trio"],
            "1 dependencies of x1",
        ),
        (
            {
                "pyproject.toml": X1,
                "setup.py": "from setuptools import setup\nDEPS = ['trio']\nsetup(install_requires=DEPS + ['six'])\n",
            },
            ["trio", "six"],
            "pyproject.toml: 2 dependencies of x1",
        ),
        (
            {"pyproject.toml": POETRY},
            ["httpx[http2]<0.29,>=0.28", "pytest<8.2,>=8.1"],
            "pyproject.toml: dependency group test: test dependencies",
        ),
        (
            {"setup.cfg": SETUP_CFG},
            ["trio", 'six; python_version < "3"', "pytest"],
            "setup.cfg: extra test: test dependencies",
        ),
        (
            {"setup.py": "import setuptools\nsetuptools.setup(name='x1', install_requires=['trio'], tests_require=['nose'])\n"},
            ["trio", "nose"],
            "setup.py: 1 dependencies of x1",
        ),
        (
            {"requirements.txt": "trio\n", "requirements/test.txt": "-r ../requirements.txt\npytest\n"},
            ["trio", "pytest"],
            "requirements/test.txt: test dependencies",
        ),
        ({"pyproject.toml": PEP621, "requirements-dev.txt": "-e .[fast]\npytest\n"}, None, ""),
        (
            {
                "pyproject.toml": PEP621 + 'dependencies = ["six"]\n',
                "requirements-dev.txt": "-e .\n-c pins.txt\npytest\n",
                "pins.txt": "pytest==8\n",
            },
            ["pytest", "six"],
            "requirements-dev.txt: test dependencies",
        ),
        (
            {
                "pyproject.toml": PEP621,
                "tox.ini": "[testenv]\ndeps =\n  pytest>=7\n  py311: trio\n  -r nothing.txt\n  other @ https://example.com/x.whl\n",
            },
            ["pytest>=7", "trio"],
            "tox.ini: test dependencies (pytest>=7, trio)",
        ),
        (
            {
                "pyproject.toml": PEP621,
                "noxfile.py": "def tests(session):\n    session.install('.', 'trio', '-r', 'x.txt')\n    raise SystemExit(1)\n",
            },
            ["trio"],
            "noxfile.py: test dependencies (trio)",
        ),
        ({"pyproject.toml": PEP621}, [], "no file names what the tests need"),
    ],
    ids=[
        "pep621",
        "extra of itself",
        "groups",
        "dev group",
        "uv dev",
        "hatch env",
        "dynamic file",
        "setup.py beside",
        "poetry",
        "setup.cfg",
        "setup.py",
        "requirements",
        "unknown extra",
        "itself",
        "tox",
        "nox",
        "nothing",
    ],
)
def test_dependencies(tmp_path: Path, files: dict[str, str], lines: list[str] | None, reason: str) -> None:
    files = {CODE: "", TEST: "", **files}
    if lines is None:
        with pytest.raises(ProjectError, match="has no extra 'fast'"):
            found(tmp_path, files)
        return
    read, requirements = found(tmp_path, files)
    assert list(requirements.lines) == lines
    assert reason in "\n".join(read.reasons)


def test_a_lock_says_versions_and_hashes(tmp_path: Path) -> None:
    files = {CODE: "", "uv.lock": UV_LOCK, "pyproject.toml": PEP621 + 'dependencies = ["httpx"]\n[dependency-groups]\ndev = ["numpy"]\n'}
    read, requirements = found(tmp_path, files)
    assert read.manifest.install.source == "uv.lock"
    assert requirements.lines == ("httpx", "numpy")
    assert requirements.constraints == (
        f"httpx==0.28.1 --hash=sha256:{'0' * 64}",
        'numpy==1.26.0; python_full_version < "3.12"',
        'numpy==2.0.0; python_full_version >= "3.12"',
    )


def test_poetrys_lock_too(tmp_path: Path) -> None:
    lock = '[[package]]\nname = "Trio"\nversion = "0.30"\nfiles = [{file = "x.whl", hash = "sha256:%s"}]\n' % ("1" * 64)
    poetry = '[tool.poetry]\nname = "x1"\nversion = "1"\n[tool.poetry.dependencies]\ntrio = ">=0.2,<0.3 || >0.29"\n'
    _, requirements = found(tmp_path, {CODE: "", "poetry.lock": lock, "pyproject.toml": poetry})
    assert requirements.lines == ("trio",)
    assert requirements.constraints == (f"trio==0.30 --hash=sha256:{'1' * 64}",)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"README.md": "words"}, "no Python project that Taxiway knows"),
        ({"pyproject.toml": "[project\n"}, "pyproject.toml is not valid TOML"),
        ({"pyproject.toml": PEP621 + 'dependencies = ["a b c"]\n'}, "'a b c' is not a requirement"),
        ({"pyproject.toml": PEP621 + 'dependencies = ["a @ https://example.com/a.whl"]\n'}, "not a package of the index"),
        ({"pyproject.toml": PEP621 + 'dependencies = ["inhouse"]\n', "uv.lock": UV_LOCK}, "'inhouse' comes from a git"),
        (
            {"pyproject.toml": PEP621 + 'dependencies = ["mine"]\n[tool.uv.sources]\nmine = {workspace = true}\n'},
            "'mine' comes from a workspace",
        ),
        ({"pyproject.toml": PEP621, "uv.lock": "version = 1\n"}, "uv.lock names no packages"),
        (
            {"pyproject.toml": PEP621 + '[dependency-groups]\na = [{include-group = "b"}]\nb = [{include-group = "a"}]\ntest = []\n'},
            "Cyclic",
        ),
        (
            {"setup.py": "from setuptools import setup\nsetup(name='x1', install_requires=open('r').read().split())\n"},
            "computes its dependencies",
        ),
        ({"setup.py": "def broken(:\n"}, "setup.py is not valid Python"),
        ({"setup.cfg": "[metadata\n"}, "setup.cfg cannot be read"),
        ({"pyproject.toml": '[tool.poetry]\nname = "x1"\n[tool.poetry.dependencies]\nsix = "^^1"\n'}, "[tool.poetry] six = '^^1'"),
        ({"pyproject.toml": '[tool.poetry]\nname = "x1"\n[tool.poetry.dependencies]\nsix = {path = "../six"}\n', "x.py": ""}, None),
        ({".taxiway.yaml": "name: thing\ninstall: {from: uv.lock}\n", "pyproject.toml": PEP621}, "there is no uv.lock"),
        ({".taxiway.yaml": "name: thing\ninstall: {groups: [test]}\n"}, "extras and groups need `from`"),
        (
            {".taxiway.yaml": "name: thing\ninstall: {from: pyproject.toml, groups: [test]}\n", "pyproject.toml": PEP621},
            "has no dependency group 'test'",
        ),
        ({".taxiway.yaml": "name: thing\ninstall: {packages: ['--index-url=x']}\n"}, "option --index-url=x is not taken"),
        ({"pyproject.toml": PEP621 + '[tool.pytest.ini_options]\ntestpaths = ["../other"]\n'}, "outside of the project"),
    ],
)
def test_what_cannot_be_settled_says_what_to_write(tmp_path: Path, files: dict[str, str], problem: str | None) -> None:
    if problem is None:  # what nobody asked to install is no error: the package is simply not among the requirements
        assert found(tmp_path, files)[1].lines == ()
        return
    with pytest.raises(ProjectError) as raised:
        found(tmp_path, files)
    assert problem in str(raised.value)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("files", "sources", "packages", "tests"),
    [
        ([CODE, TEST], ["src"], [], ["tests"]),
        (["thing/__init__.py", "thing/tests/test_a.py", "docs/conf.py", "setup.py"], ["."], ["thing"], ["thing/tests"]),
        (["thing/__init__.py", "other/__init__.py", "test/test_a.py"], ["."], ["thing"], ["test"]),
        (["thing.py", "test_thing.py", "setup.py", "noxfile.py"], ["."], ["thing.py"], ["test_thing.py"]),
        (["lib/thing/__init__.py", "testing/test_a.py"], ["lib"], [], ["testing"]),
        (["thing/core/__init__.py", TEST], ["."], ["thing"], ["tests"]),
        (["source/thing/__init__.py", "checks/test_a.py"], ["source"], [], ["checks"]),
    ],
    ids=["src", "tests inside", "two packages", "modules", "lib", "namespace", "declared"],
)
def test_layouts(tmp_path: Path, files: list[str], sources: list[str], packages: list[str], tests: list[str]) -> None:
    more = (
        '[tool.setuptools.packages.find]\nwhere = ["source"]\n[tool.pytest.ini_options]\ntestpaths = "check*"\n'
        if "checks/test_a.py" in files
        else ""
    )
    found = read_project(project(tmp_path, {"pyproject.toml": PEP621 + more, **dict.fromkeys(files, "")})).manifest.test
    assert (found.sources, found.packages, found.paths) == (sources, packages, tests)


@pytest.mark.parametrize(
    ("files", "version", "generated"),
    [
        ({"pyproject.toml": PEP621}, "1.2", []),
        (
            {
                "pyproject.toml": DYNAMIC + '[tool.hatch.version]\npath = "src/thing/about.py"\n',
                "src/thing/about.py": "__version__ = '2.0'\n",
            },
            "2.0",
            [],
        ),
        (
            {
                "pyproject.toml": DYNAMIC + '[tool.setuptools.dynamic]\nversion = {attr = "thing.v.NUMBERS"}\n',
                "src/thing/v.py": "NUMBERS = (3, 1)\n",
            },
            "3.1",
            [],
        ),
        ({"setup.cfg": "[metadata]\nname = thing\nversion = file: VERSION\n", "VERSION": "4.0\n"}, "4.0", []),
        ({"pyproject.toml": DYNAMIC, CODE: '__version__: str = "5"\n'}, "5", []),
        (
            {"pyproject.toml": DYNAMIC + '[tool.setuptools_scm]\nversion_file = "src/thing/_version.py"\n'},
            "0.0.0",
            ["src/thing/_version.py"],
        ),
        (
            {"pyproject.toml": DYNAMIC + '[tool.hatch.build.hooks.vcs]\nversion-file = "../evil.py"\n'},
            "0.0.0",
            [],
        ),
    ],
    ids=["static", "hatch path", "attribute", "file", "in the package", "from git, written by the build", "outside"],
)
def test_versions(tmp_path: Path, files: dict[str, str], version: str, generated: list[str]) -> None:
    distribution = read_project(project(tmp_path, {CODE: "", **files})).distribution
    assert distribution is not None
    assert distribution.version == version
    assert list(distribution.generated) == generated
    assert f"Version: {version}\n" in distribution.metadata()[f"thing-{version}.dist-info/METADATA"]


def test_the_manifest_wins_and_detection_completes_it(tmp_path: Path) -> None:
    files = {
        ".taxiway.yaml": "name: mine\ntest: {paths: [checks]}\nstart: [python, -m, thing]\n",
        "pyproject.toml": PEP621 + 'dependencies = ["six"]\n',
        "src/thing/__init__.py": "",
        TEST: "",
    }
    manifest = read_project(project(tmp_path, files)).manifest
    assert (manifest.name, manifest.test.paths, manifest.test.sources) == ("mine", ["checks"], ["src"])
    assert manifest.install.source == "pyproject.toml"


def test_a_manifest_that_says_what_to_install_is_not_added_to(tmp_path: Path) -> None:
    files = {".taxiway.yaml": "name: mine\ninstall: {requirements: []}\n", "pyproject.toml": PEP621 + 'dependencies = ["six"]\n'}
    assert found(tmp_path, files)[1].lines == ()


def test_a_manifest_alone_is_enough(tmp_path: Path) -> None:
    manifest = read_project(project(tmp_path, {".taxiway.yaml": "name: tiny\n"})).manifest
    assert manifest == Manifest(name="tiny")


def test_what_was_found_can_be_written_down(tmp_path: Path) -> None:
    files = {"pyproject.toml": PEP621 + '[dependency-groups]\ntest = ["pytest"]\n', "thing/__init__.py": "", TEST: ""}
    read = read_project(project(tmp_path, files))
    written: Any = yaml.safe_load(as_yaml(read.manifest))
    assert written == {
        "name": "thing",
        "install": {"from": "pyproject.toml", "groups": ["test"]},
        "test": {"sources": ["."], "packages": ["thing"]},
    }
    project(tmp_path, {".taxiway.yaml": as_yaml(read.manifest)})
    assert read_project(tmp_path).manifest == read.manifest


@pytest.mark.parametrize("backend", ["maturin", "scikit_build_core.build", "mesonpy"])
def test_compiled_projects_are_called_so(tmp_path: Path, backend: str) -> None:
    read = read_project(project(tmp_path, {CODE: "", "pyproject.toml": PEP621 + f'[build-system]\nbuild-backend = "{backend}"\n'}))
    assert "builds with" in read.compiled
    assert "not built" in read.reasons[-1]


def test_nothing_of_the_project_runs(tmp_path: Path) -> None:
    bad = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    files = {
        "setup.py": bad + "from setuptools import setup\nsetup(name='thing')\n",
        "noxfile.py": bad,
        "thing/__init__.py": bad,
        "conftest.py": bad,
    }
    found(tmp_path, files)
    assert not (tmp_path / "ran").exists()


def test_links_out_of_the_project_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.toml"
    secret.write_text(PEP621)
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "pyproject.toml").symlink_to(secret)
    (checkout / "src").symlink_to("/usr")
    with pytest.raises(ProjectError, match="no Python project"):
        read_project(checkout)


@pytest.mark.parametrize(
    ("files", "reasons"),
    [
        ({"pyproject.toml": PEP621 + 'dependencies = ["psycopg[binary]>=3"]\n'}, ["psycopg: tests that need a postgres get one"]),
        (
            {"pyproject.toml": PEP621 + '[dependency-groups]\ntest = ["asyncpg", "Redis >= 5; python_version > \'3\'"]\n'},
            ["asyncpg: tests that need a postgres", "redis: tests that need a redis get one by test: {services: [redis]} in .taxiway.yaml"],
        ),
        ({"requirements.txt": "# psycopg2\nredislite\npsycopg2_binary==2.9 \\\n  --hash=sha256:x\n"}, ["psycopg2-binary: tests that need"]),
        ({"pyproject.toml": PEP621 + 'dependencies = ["redis-om", "six"]\n'}, []),
        (
            {"pyproject.toml": PEP621 + 'dependencies = ["redis"]\n', ".taxiway.yaml": "name: x1\ntest: {services: [redis]}\n"},
            [".taxiway.yaml: tests run beside redis, as REDIS_URL"],
        ),
    ],
    ids=["dependency", "group", "file", "others", "declared"],
)
def test_servers_that_the_tests_may_need_are_told_and_not_declared(tmp_path: Path, files: dict[str, str], reasons: list[str]) -> None:
    read = read_project(project(tmp_path, files))
    told = [r for r in read.reasons if "tests that need" in r or "beside" in r]
    assert len(told) == len(reasons), told
    assert all(reason in text for reason, text in zip(reasons, told, strict=True)), told
    assert bool(read.manifest.test.services) == (".taxiway.yaml" in files)


@pytest.mark.parametrize(
    ("services", "problem"),
    [
        ("[mysql]", "server: Input should be 'postgres' or 'redis'"),
        ("[postgres, postgres]", "postgres stands there twice"),
        ("[{server: postgres, env: URL}, {server: redis, env: URL}]", "stands there twice"),
        ("[{postgres: {env: URL}}]", "postgres: Extra inputs are not permitted"),
        ("[{server: postgres, image: x}]", "image: Extra inputs are not permitted"),
        ("[{server: redis, env: PYTHONPATH}]", "is taken"),
        ("[{server: redis, env: LD_PRELOAD}]", "is taken"),
        ("[{server: redis, env: not a name}]", "should match pattern"),
        ('[{server: postgres, version: "x"}]', "should be a valid integer"),
        ("[{server: postgres, version: 0}]", "greater than or equal to 1"),
        ("[{}]", "server: Field required"),
        ("[7]", "services.0"),
        ("postgres", "should be a valid list"),
    ],
)
def test_services_that_cannot_be(tmp_path: Path, services: str, problem: str) -> None:
    with pytest.raises(ProjectError, match=re.escape(problem)):
        read_project(project(tmp_path, {".taxiway.yaml": f"name: x1\ntest: {{services: {services}}}\n"}))


def test_services_are_written_down_as_they_were_read(tmp_path: Path) -> None:
    text = "name: x1\ntest: {services: [postgres, {server: redis, env: CACHE, version: 7}]}\n"
    manifest = read_project(project(tmp_path, {".taxiway.yaml": text})).manifest
    assert [(s.server, s.variable, s.version) for s in manifest.test.services] == [
        ("postgres", "DATABASE_URL", None),
        ("redis", "CACHE", 7),
    ]
    assert Manifest.model_validate(yaml.safe_load(as_yaml(manifest))) == manifest


@pytest.mark.parametrize(
    ("field", "most", "value"),
    [
        ("health", 201, "/{}"),
        ("test.paths", 200, "{}"),
        ("install.extras", 61, "{}"),
    ],
)
def test_texts_of_a_manifest_have_a_longest(tmp_path: Path, field: str, most: int, value: str) -> None:
    section, _, name = field.rpartition(".")

    def read(length: int) -> object:
        text = value.format("a" * (length - len(value.format(""))))
        inner = {name: text if not section else [text]} | ({"from": "pyproject.toml"} if section == "install" else {})
        (tmp_path / ".taxiway.yaml").write_text(json.dumps({"name": "greeter"} | ({section: inner} if section else inner)))
        return read_manifest(tmp_path)

    read(most)
    with pytest.raises(ProjectError, match=f"{field}.*at most {most}"):
        read(most + 1)
