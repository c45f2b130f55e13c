"""Which of a project's files name its dependencies, and which of those its tests need. Read as data, with the reason for each choice."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from taxiway.errors import ProjectError
from taxiway.project.files import as_dict, as_list, exists, read_ini, read_text, read_toml
from taxiway.project.metadata import Metadata

__all__ = ["find_dependencies"]

_FOR_TESTS = ("test", "tests", "testing", "unittest", "unit-tests", "pytest")
_FOR_DEVELOPMENT = ("dev", "develop", "development")
_TEST_FILES = (
    *("requirements/test.txt", "requirements/tests.txt", "requirements/testing.txt", "requirements-test.txt", "requirements-tests.txt"),
    *("requirements-testing.txt", "requirements_test.txt", "requirements_tests.txt", "test-requirements.txt", "test_requirements.txt"),
    *("tests/requirements.txt", "test/requirements.txt", "requirements/dev.txt", "requirements-dev.txt", "requirements_dev.txt"),
    *("dev-requirements.txt", "dev_requirements.txt", "requirements/development.txt"),
)
_MAIN_FILES = ("requirements.txt", "requirements/base.txt", "requirements/main.txt", "requirements/prod.txt", "requirements/production.txt")


def find_dependencies(checkout: Path, metadata: Metadata | None) -> tuple[dict[str, Any], list[str]]:
    """The manifest's `install` with the reasons for what is in it; raise ProjectError where only a build would tell."""
    install, reasons = _own(checkout, metadata)
    for find in (_extras, _groups, _files, _hints):
        # Extras and groups are the author's word, and both may be needed; the rest is guessed from less.
        if find in (_files, _hints) and (install.get("extras") or install.get("groups")):
            break
        more, why = find(checkout, metadata)
        if not more:
            continue
        if any(set(values) - set(install.get(name, [])) for name, values in more.items()):
            reasons.append(why)
        install |= {name: list(dict.fromkeys([*install.get(name, []), *values])) for name, values in more.items()}
        if find is _files:
            break
    else:
        if not install.get("packages"):
            reasons.append("no file names what the tests need: they get only the pytest of Taxiway's tools")
    return install, reasons


def _own(checkout: Path, metadata: Metadata | None) -> tuple[dict[str, Any], list[str]]:
    file = next((f for f in _MAIN_FILES if exists(checkout, f)), "")
    if metadata is not None and metadata.name and "dependencies" not in metadata.computed:
        lock = _lock(checkout, metadata)
        why = (
            f"{lock}: dependencies from the lock"
            if lock
            else f"{metadata.file}: {len(metadata.dependencies)} dependencies of {metadata.name}"
        )
        if file and not metadata.dependencies:
            return {"from": lock or metadata.file, "requirements": [file]}, [
                why,
                f"{file}: further dependencies, as {metadata.file} names none",
            ]
        return {"from": lock or metadata.file}, [why]
    if file:
        return {"requirements": [file]}, [f"{file}: dependencies"]
    if metadata is not None and "dependencies" in metadata.computed:
        raise ProjectError(
            f"{metadata.file} computes its dependencies, and Taxiway runs no code of a project to learn them",
            hint='write them into a .taxiway.yaml:\n    name: my-project\n    install: {packages: ["httpx>=0.28", pytest]}',
        )
    if metadata is not None:
        return {"from": metadata.file}, [f"{metadata.file}: names no project, only what tools need"]
    return {}, []


def _lock(checkout: Path, metadata: Metadata) -> str:
    return next((n for n in ("uv.lock", "poetry.lock") if metadata.file == "pyproject.toml" and exists(checkout, n)), "")


def _chosen(names: Mapping[str, Any]) -> list[str]:
    """Those for tests; those for development where there are none."""
    for wanted in (_FOR_TESTS, _FOR_DEVELOPMENT):
        if found := [n for n in names if n in wanted]:
            return found
    return []


def _extras(_: Path, metadata: Metadata | None) -> tuple[dict[str, list[str]], str]:
    found = _chosen(metadata.extras) if metadata else []
    # Extras for development often hold the linters and the documentation: groups for tests go before them.
    if metadata and found and found[0] in _FOR_DEVELOPMENT and set(_chosen(metadata.groups)) & set(_FOR_TESTS):
        found = []
    file = metadata.file if metadata else ""
    return ({"extras": found}, f"{file}: extra {', '.join(found)}: test dependencies") if found else ({}, "")


def _groups(_: Path, metadata: Metadata | None) -> tuple[dict[str, list[str]], str]:
    found = _chosen(metadata.groups) if metadata else []
    if metadata and found and found[0] in _FOR_DEVELOPMENT and set(_chosen(metadata.extras)) & set(_FOR_TESTS):
        found = []
    return ({"groups": found}, f"pyproject.toml: dependency group {', '.join(found)}: test dependencies") if found else ({}, "")


def _files(checkout: Path, _: Metadata | None) -> tuple[dict[str, list[str]], str]:
    found = [f for f in _TEST_FILES if exists(checkout, f)][:1]
    return ({"requirements": found}, f"{found[0]}: test dependencies") if found else ({}, "")


def _hints(checkout: Path, _: Metadata | None) -> tuple[dict[str, list[str]], str]:
    """What test runners' own files name: tox, hatch, nox. Parsed, never run."""
    for file, texts in (("tox.ini", _tox(checkout)), ("pyproject.toml", _environments(checkout)), ("noxfile.py", _nox(checkout))):
        packages = [r for text in texts if (r := _plain(text))]
        if packages:
            return {
                "packages": packages[:100]
            }, f"{file}: test dependencies ({', '.join(packages[:8])}{', ...' if len(packages) > 8 else ''})"  # noqa: PLR2004 - a line stays a line
    return {}, ""


def _plain(text: str) -> str:
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return ""
    return "" if requirement.url else str(requirement)


def _tox(checkout: Path) -> Iterator[str]:
    parsers = [read_ini(checkout, "tox.ini")]
    for parser in parsers:
        for section in ("testenv", "testenv:py", "testenv:tests"):
            for line in parser.get(section, "deps", fallback="").splitlines():
                factor, colon, rest = line.strip().rpartition(": ")
                yield rest if colon and re.fullmatch(r"[\w{},!.-]+", factor) else line.strip()
    table = read_toml(checkout, "tox.toml") or as_dict(as_dict(read_toml(checkout, "pyproject.toml").get("tool")).get("tox"))
    for base in (table.get("env_run_base"), as_dict(table.get("env")).get("testenv")):
        yield from as_list(as_dict(base).get("deps"))


def _environments(checkout: Path) -> Iterator[str]:
    hatch = as_dict(as_dict(as_dict(read_toml(checkout, "pyproject.toml").get("tool")).get("hatch")).get("envs"))
    for name in ("hatch-test", "test", "tests", "default"):
        table = as_dict(hatch.get(name))
        if found := [*as_list(table.get("dependencies")), *as_list(table.get("extra-dependencies"))]:
            yield from found
            return


def _nox(checkout: Path) -> Iterator[str]:
    """Literal arguments of `session.install` in sessions whose name says tests."""
    if not exists(checkout, "noxfile.py"):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(read_text(checkout, "noxfile.py"))
        except (SyntaxError, ValueError, RecursionError):
            return
    for function in (n for n in tree.body if isinstance(n, ast.FunctionDef) and "test" in n.name):
        for call in (n for n in ast.walk(function) if isinstance(n, ast.Call) and ast.unparse(n.func).endswith(".install")):
            words = [a.value if isinstance(a, ast.Constant) and isinstance(a.value, str) else "" for a in call.args]
            # What follows an option belongs to it.
            yield from (w for before, w in zip(["", *words], words, strict=False) if w[:1] not in ("", "-", ".") and before[:1] != "-")
