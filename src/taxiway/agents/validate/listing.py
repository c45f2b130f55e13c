"""The tests that a project's files define, read from their source: what pytest collects must account for all of them."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from taxiway.agents.validate.files import Layout, is_test_name, python_files
from taxiway.errors import ProjectError
from taxiway.manifest import read_inside

__all__ = ["Definition", "defined_tests", "definitions", "parse"]

_SKIPPED_FOLDERS = ("node_modules", ".venv", "venv")


@dataclass(frozen=True)
class Definition:
    """A test function or method: `key` is file, classes and name; `first` and `last` are the lines of its body that
    leave a trace when it runs (0 where nothing in it does). `plain` says that no decorator may make another function of it."""

    key: tuple[str, ...]
    first: int
    last: int
    plain: bool = True


def defined_tests(checkout: Path, layout: Layout) -> tuple[list[Definition], list[str]]:
    """All tests by pytest's default names, strays outside the tests folders included, and the files that do not parse.
    Browser tests are the e2e agent's to run and to count."""
    paths = []
    for path in python_files(checkout, suffixes=(".py",)):
        if not is_test_name(path) or (set(path.split("/")[:-1]) & set(_SKIPPED_FOLDERS)) or layout.in_browser_tests(path):
            continue
        # A module of the program may be called test_something; it is a test only where it stands among tests.
        if layout.is_source(path) and not layout.is_test(path) and not path.split("/")[-1].startswith("test_"):
            continue
        paths.append(path)
    return definitions(checkout, paths)


def definitions(checkout: Path, paths: Iterable[str]) -> tuple[list[Definition], list[str]]:
    """The tests of these files, and the files that do not parse."""
    found: list[Definition] = []
    broken: list[str] = []
    for path in paths:
        tree = parse(checkout, path)
        if tree is None:
            broken.append(path)
        else:
            found.extend(_tests(tree.body, (path,)))
    return found, broken


def parse(checkout: Path, path: str) -> ast.Module | None:
    """The syntax tree, None where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(read_inside(checkout, path, limit=4_000_000))
        except (ProjectError, SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _tests(body: Iterable[ast.stmt], key: tuple[str, ...], *, plain: bool = True) -> Iterator[Definition]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("test") and not _is_fixture(node):
                yield Definition((*key, node.name), *_lines(node), plain and _is_plain(node))
        elif isinstance(node, ast.ClassDef):
            if _is_test_class(node):
                yield from _tests(node.body, (*key, node.name), plain=plain and _is_plain(node))
        else:
            yield from _tests(_inner(node), key, plain=plain)


def _inner(node: ast.stmt) -> Iterator[ast.stmt]:
    """Statements in the branches of a compound statement, except what runs only as a program."""
    if isinstance(node, ast.If) and "__name__" in {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}:
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            yield from child.body


def _is_test_class(node: ast.ClassDef) -> bool:
    return node.name.startswith("Test") or any(_name(base).endswith("TestCase") for base in node.bases)


def _is_plain(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Whether it has no decorator but marks and Python's own for methods."""
    return all(ast.unparse(d).startswith(("pytest.mark.", "mark.", "staticmethod", "classmethod")) for d in node.decorator_list)


def _is_fixture(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(_name(d.func if isinstance(d, ast.Call) else d) in ("fixture", "property") for d in node.decorator_list)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[int, int]:
    silent = (ast.Global, ast.Nonlocal, ast.Pass)
    for statement in node.body:
        constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not constant and not isinstance(statement, silent):
            return statement.lineno, node.end_lineno or statement.lineno
    return 0, 0
