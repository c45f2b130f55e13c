"""Where a project keeps its code and its tests: by what is there, and by what its packaging files say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from taxiway.errors import ProjectError
from taxiway.project.files import as_dict, as_list, exists, read_ini, read_toml

__all__ = ["Code", "find_code", "find_tests", "pytest_configuration"]

_TEST_FOLDERS = ("tests", "test", "testing")
_NOT_CODE = {
    *("test", "tests", "testing", "doc", "docs", "example", "examples", "benchmark", "benchmarks", "bench", "script", "scripts"),
    *(
        "tool",
        "tools",
        "build",
        "dist",
        "ci",
        "changelog",
        "changelog.d",
        "news",
        "newsfragments",
        "requirements",
        "tasks",
        "venv",
        "node_modules",
    ),
}
_NOT_MODULES = {"setup", "conftest", "noxfile", "tasks", "fabfile", "dodo", "versioneer", "runtests", "manage", "ez_setup"}
_PATH = re.compile(r"[\w./-]{1,200}")


@dataclass(frozen=True)
class Code:
    """`roots` is where imports start from, `packages` the code under test below them (empty: all of it); `why` says how it was found."""

    roots: tuple[str, ...]
    packages: tuple[str, ...]
    why: str


def find_code(checkout: Path, name: str) -> Code | None:
    """The code of the project called `name`; None where there is none that imports could start from."""
    for root, why in (*_declared(checkout), ("src", "src layout"), ("lib", "a lib folder with the code")):
        if root not in (".", "") and _has_code(checkout / root) and not (checkout / root / "__init__.py").exists():
            return Code((root,), (), why)
    packages = [p.name for p in _folders(checkout) if (p / "__init__.py").is_file()]
    own = [p for p in packages if _same(p, name)]
    if own or packages:
        return Code((".",), tuple(own or packages), f"flat layout, {'package' if own else 'packages'} {', '.join(own or packages)}")
    spaces = [p.name for p in _folders(checkout) if canonicalize_name(name).startswith(canonicalize_name(p.name)) and _has_code(p)]
    if name and spaces:
        return Code((".",), tuple(spaces), f"namespace package {', '.join(spaces)}")
    modules = [p.name for p in sorted(checkout.glob("*.py")) if p.is_file() and p.stem not in _NOT_MODULES and not _is_test(p.name)]
    own = [m for m in modules if _same(m.removesuffix(".py"), name)]
    return Code((".",), tuple(own or modules), f"single modules {', '.join(own or modules)}") if modules else None


def _same(folder: str, name: str) -> bool:
    wanted = str(canonicalize_name(name)) if name else ""
    found = str(canonicalize_name(folder))
    return bool(wanted) and (found == wanted or found == wanted.removeprefix("python-"))


def _folders(checkout: Path) -> Iterator[Path]:
    for place in sorted(checkout.iterdir()):
        plain = place.is_dir() and not place.is_symlink() and not place.name.startswith((".", "_"))
        if plain and place.name.lower() not in _NOT_CODE and place.name.isidentifier():
            yield place


def _has_code(folder: Path) -> bool:
    if not folder.is_dir() or folder.is_symlink():
        return False
    modules = (p for pattern in ("*.py", "*/__init__.py", "*/*.py", "*/*/__init__.py") for p in folder.glob(pattern))
    return any(p.is_file() for p in modules)


def _declared(checkout: Path) -> Iterator[tuple[str, str]]:
    """Folders that packaging files name as where packages are."""
    tool = as_dict(read_toml(checkout, "pyproject.toml").get("tool"))
    setuptools, poetry = as_dict(tool.get("setuptools")), as_dict(tool.get("poetry"))
    named = [as_dict(setuptools.get("package-dir")).get("")]
    named += as_list(as_dict(as_dict(setuptools.get("packages")).get("find")).get("where"))
    named += [as_dict(p).get("from") for p in poetry.get("packages") or [] if isinstance(poetry.get("packages"), list)]
    named.append(as_dict(as_dict(tool.get("pdm")).get("build")).get("package-dir"))
    named.append(as_dict(as_dict(tool.get("uv")).get("build-backend")).get("module-root"))
    wheel = as_dict(as_dict(as_dict(as_dict(tool.get("hatch")).get("build")).get("targets")).get("wheel"))
    named += [p.rpartition("/")[0] for p in as_list(wheel.get("packages"))]
    yield from ((p, f"pyproject.toml: packages are in {p}") for p in _plain(named))
    option = read_ini(checkout, "setup.cfg").get("options", "package_dir", fallback="")
    yield from (
        (p, f"setup.cfg: packages are in {p}")
        for p in _plain([line.partition("=")[2].strip() for line in option.splitlines() if "=" in line])
    )


def _plain(named: list[object]) -> list[str]:
    texts = [t.removeprefix("./").strip("/") for t in named if isinstance(t, str)]
    return [t for t in dict.fromkeys(texts) if _PATH.fullmatch(t) and ".." not in t.split("/")]


# --- tests ----------------------------------------------------------------------------------------


def find_tests(checkout: Path, code: Code | None) -> tuple[list[str], str]:
    """Folders and files of tests with how they were found; ([], "") where there are none."""
    for file, names in _testpaths(checkout):
        there = [p for p in _expanded(checkout, names) if _has_tests(checkout / p)]
        if there:
            return there, f"testpaths in {file}"
    if there := [p for p in _TEST_FOLDERS if _has_tests(checkout / p)]:
        return there, f"folder {' and '.join(there)}"
    inside = [p for root in (code.roots if code else ()) for p in _inside(checkout, root)]
    if inside:
        return inside[:20], "test folders inside the package"
    strays = [p.name for p in sorted(checkout.glob("*.py")) if _is_test(p.name) and p.is_file()]
    return strays[:20], "test files beside the code" if strays else ""


def _testpaths(checkout: Path) -> Iterator[tuple[str, list[str]]]:
    for name in ("pytest.toml", ".pytest.toml"):
        yield name, as_list(as_dict(read_toml(checkout, name).get("pytest")).get("testpaths"))
    yield "pytest.ini", read_ini(checkout, "pytest.ini").get("pytest", "testpaths", fallback="").split()
    table = as_dict(as_dict(read_toml(checkout, "pyproject.toml").get("tool")).get("pytest"))
    value = as_dict(table.get("ini_options", table)).get("testpaths")
    yield "pyproject.toml", value.split() if isinstance(value, str) else as_list(value)
    for name, section in (("tox.ini", "pytest"), ("setup.cfg", "tool:pytest")):
        yield name, read_ini(checkout, name).get(section, "testpaths", fallback="").split()


def _expanded(checkout: Path, names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names[:20]:
        if name.startswith("/") or ".." in name.split("/"):
            raise ProjectError(
                f"testpaths names {name}, which is outside of the project", hint="write test: {paths: [...]} into .taxiway.yaml"
            )
        places = [p.relative_to(checkout).as_posix() for p in sorted(checkout.glob(name.strip("/")))] if name.strip("./") else ["."]
        found += [p for p in places if _PATH.fullmatch(p)]
    return list(dict.fromkeys(found))[:20]


def _inside(checkout: Path, root: str) -> list[str]:
    start = checkout if root == "." else checkout / root
    places = [p for name in _TEST_FOLDERS for depth in ("*", "*/*", "*/*/*") for p in start.glob(f"{depth}/{name}")]
    return sorted({p.relative_to(checkout).as_posix() for p in places if not p.is_symlink() and _has_tests(p)})


def _has_tests(place: Path) -> bool:
    if place.is_file():
        return place.suffix == ".py"
    return place.is_dir() and not place.is_symlink() and any(_is_test(p.name) for p in place.rglob("*.py"))


def _is_test(name: str) -> bool:
    return (name.startswith("test_") or name.endswith("_test.py")) and name.endswith(".py")


def pytest_configuration(checkout: Path) -> str:
    """The file that configures pytest, "" without one."""
    files = (n for n in ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini") if exists(checkout, n))
    if "pytest" in as_dict(read_toml(checkout, "pyproject.toml").get("tool")):
        return "pyproject.toml"
    sections = (n for n, s in (("tox.ini", "pytest"), ("setup.cfg", "tool:pytest")) if read_ini(checkout, n).has_section(s))
    return next(iter((*files, *sections)), "")
