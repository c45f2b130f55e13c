"""Which files that decide how tests run a run has changed, and which tests that were there."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from taxiway.agents.validate.check import NotMeasured
from taxiway.agents.validate.files import Layout, is_test_name, list_files
from taxiway.agents.validate.listing import parse
from taxiway.errors import ProjectError, TaxiwayError
from taxiway.manifest import MANIFEST, read_inside
from taxiway.ports import Workspace
from taxiway.project import read_project

__all__ = ["began_with", "changed_infrastructure", "changed_tests"]

_NAMES = {
    *("conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", "setup.cfg", "noxfile.py"),
    *(
        ".coveragerc",
        ".coveragerc.toml",
        "sitecustomize.py",
        "usercustomize.py",
        "ruff.toml",
        ".ruff.toml",
        "mypy.ini",
        ".mypy.ini",
        MANIFEST,
    ),
}
_TABLES = ("pytest", "coverage", "ruff", "mypy")


def began_with(workspace: Workspace, into: Path) -> None:
    """Check out the commit where the run began; raise NotMeasured where it cannot be read."""
    try:
        workspace.checkout(workspace.start(), into)
    except TaxiwayError as error:
        if error.retryable:
            raise
        raise NotMeasured(f"the commit that the run started from cannot be read: {error.problem}") from error


def changed_infrastructure(before: Path, checkout: Path) -> list[str]:
    """Those that the run began with and that now differ or are gone; what is new judges only what is new."""
    watched = [p for p in list_files(before) if PurePosixPath(p).name in _NAMES or p == "pyproject.toml"]
    return [p for p in watched if _content(before, p) != _content(checkout, p)]


def changed_tests(before: Path, checkout: Path) -> list[str]:
    """What test files held when the run began, and no longer hold like that: tests and what they stand on (helpers, values,
    imports), by file and name, and other files of tests as a whole. New tests beside them, comments and layout change nothing."""
    layout = _layout(before, checkout)
    found = []
    for path in list_files(before):
        if not (is_test_name(path) or layout.in_tests(path) or layout.is_test(path) or layout.in_browser_tests(path)):
            continue
        was, now = parse(before, path), parse(checkout, path)
        if was is None or now is None or not path.endswith(".py"):
            found += [path] if _content(before, path) != _content(checkout, path) else []
            continue
        gone = Counter(_parts(was.body)) - Counter(_parts(now.body))
        found += sorted(f"{path}::{name}" for (name, _), count in gone.items() for _ in range(count))
    return found


def _layout(before: Path, checkout: Path) -> Layout:
    try:
        return Layout(read_project(before).manifest)
    except ProjectError:  # it began as no project, or as a broken one
        return Layout(read_project(checkout).manifest)


def _parts(body: Iterable[ast.stmt], within: str = "") -> Iterator[tuple[str, str]]:
    """Each definition, import and other statement by its name, with what it says; of a class what it says and its parts."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            place = f"{'.' * node.level}{node.module or ''}" if isinstance(node, ast.ImportFrom) else ""
            yield from ((f"{within}import {place} {alias.name}".replace("  ", " "), alias.asname or "") for alias in node.names)
        elif isinstance(node, ast.ClassDef):
            head = ast.ClassDef(node.name, node.bases, node.keywords, [], node.decorator_list)
            yield f"{within}{node.name}", ast.dump(head)
            yield from _parts(node.body, f"{within}{node.name}::")
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            said = ast.dump(node)
            name = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else ast.unparse(node).partition("\n")[0][:60]
            yield f"{within}{name}", said


def _content(root: Path, path: str) -> Any:
    """What of a file decides: of pyproject.toml only the tools' tables."""
    try:
        content = read_inside(root, path)
    except ProjectError:
        return None
    if path == "pyproject.toml":
        with suppress(ValueError, RecursionError, AttributeError):
            tools = tomllib.loads(content.decode()).get("tool", {})
            return {name: tools.get(name) for name in _TABLES}
    return content
