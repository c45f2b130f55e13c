"""Which tests a checkout holds, read from its sources: nothing of it runs."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["known_tests", "missing"]


def known_tests(checkout: Path) -> Mapping[str, str]:
    """Every test by its id (`tests/test_app.py::test_it`, `...::TestApp::test_it`), with its code as a tree, to compare."""
    found: dict[str, str] = {}
    for path in sorted(checkout.rglob("*.py")):
        if path.is_symlink() or not path.is_file() or b"def test" not in (source := path.read_bytes()):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):  # of the project's sources, such as odd escapes
                tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # no test of a file that cannot be read will run
        found |= _of(tree.body, path.relative_to(checkout).as_posix())
    return found


def missing(named: list[str], there: Mapping[str, str]) -> list[str]:
    """The ids that no test of the checkout has. The parameters of a parametrized test (`[...]`) do not count."""
    return [test for test in named if test.split("[")[0] not in there]


def _of(body: list[ast.stmt], prefix: str) -> dict[str, str]:
    return dict(_each(body, prefix))


def _each(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield f"{prefix}::{node.name}", ast.dump(node)
        elif isinstance(node, ast.ClassDef):
            yield from _each(node.body, f"{prefix}::{node.name}")
