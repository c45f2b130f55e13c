"""coverage: which lines of the sources the tests ran, by Taxiway's own settings, with no line and no file left out."""

from __future__ import annotations

import ast
import configparser
import re
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxiway.agents.validate.check import Context, Measured, NotMeasured, count, load_json, read_report
from taxiway.agents.validate.files import Layout, python_files
from taxiway.agents.validate.listing import parse
from taxiway.errors import ProjectError
from taxiway.manifest import read_inside
from taxiway.ports import Command

__all__ = ["RCFILE", "Coverage", "measure", "report"]

RCFILE = """\
[run]
branch = true
source = .
relative_files = true
concurrency = thread
plugins =
[report]
include_namespace_packages = true
ignore_errors = true
exclude_lines =
    (?!)
partial_branches =
    (?!)
"""
_PRAGMA = r"#\s*(pragma|PRAGMA)[:\s]?\s*(no|NO)\s*(cover|COVER)"
_PRAGMA_TEXT = re.compile(rb"#\s*pragma[:\s]?\s*no\s*cover", re.IGNORECASE)
_TIMEOUT_S = 120.0
_PATTERNS = 100


@dataclass(frozen=True)
class Coverage:
    """coverage's own JSON report, by file."""

    files: dict[str, dict[str, Any]]

    def lines(self, path: str, kind: str) -> set[int]:
        """Line numbers of a file: `executed_lines`, `missing_lines` or `excluded_lines`."""
        found = self.files.get(path, {}).get(kind, [])
        return {n for n in found if isinstance(n, int)} if isinstance(found, list) else set()

    def ran(self, path: str, first: int, last: int) -> bool:
        """Whether any line in a range ran."""
        return any(first <= n <= last for n in self.lines(path, "executed_lines"))


def report(context: Context, folder: Path) -> Coverage:
    """What coverage makes of the data, against the files as they were committed, by Taxiway's tools alone."""
    _must_not_reach_in(context)
    # The report is made in a folder of its own: what the tests left running must not reach it.
    place = context.folder("coverage")
    (place / "data").write_bytes(read_report(folder, "coverage-data"))
    return _json(context, place, "coverage", RCFILE)


def _json(context: Context, place: Path, name: str, settings: str) -> Coverage:
    (place / f"{name}rc").write_text(settings)
    argv = (
        *(str(context.tools.python.absolute()), "-I", "-m", "coverage", "json", "-q"),
        *(f"--rcfile={{reports}}/{name}rc", "--data-file={reports}/data", "-o", f"{{reports}}/{name}.json"),
    )
    context.tool("coverage")
    context.run(Command(argv, context.checkout, place, timeout_s=_TIMEOUT_S), "coverage", codes=(0,))
    content = read_report(place, f"{name}.json")
    data = load_json(content, "coverage")
    files = data.get("files") if isinstance(data, dict) else None
    if not isinstance(files, dict) or not all(isinstance(f, dict) and isinstance(f.get("summary"), dict) for f in files.values()):
        raise NotMeasured("the report of coverage names no files")
    if name == "coverage":
        context.keep("coverage.json", content)
    return Coverage({path.removeprefix("./"): f for path, f in files.items()})


def measure(context: Context, coverage: Coverage, layout: Layout, measured: Measured) -> None:
    """Lines and branches over every file of the sources, and over every other file that the tests imported as if it
    were one: a manifest that leaves out a folder does not leave it out here."""
    totals = {"num_statements": 0, "covered_lines": 0, "num_branches": 0, "covered_branches": 0}
    counted = [p for p in python_files(context.checkout, suffixes=(".py", ".pyw")) if _counts(p, layout, coverage)]
    for path in counted:
        summary = coverage.files[path]["summary"] if path in coverage.files else {"num_statements": _statements(context.checkout, path)}
        for name in totals:
            totals[name] += count({name: 0} | summary, name, "coverage")
    if not totals["num_statements"]:
        raise NotMeasured(f"there is no code under {', '.join(layout.code)}")
    measured.metrics["coverage.line"] = _percent(totals["covered_lines"], totals["num_statements"])
    if totals["num_branches"]:
        measured.metrics["coverage.branch"] = _percent(totals["covered_branches"], totals["num_branches"])
    else:
        measured.missing(["coverage.branch"], "the code has no branch")
    try:
        measured.metrics["coverage.excluded"] = _excluded(context, coverage, counted)
    except NotMeasured as why:
        measured.missing(["coverage.excluded"], str(why))


def _counts(path: str, layout: Layout, coverage: Coverage) -> bool:
    if layout.is_source(path):
        return True
    ours = layout.is_test(path) or layout.in_tests(path)
    return not ours and bool(coverage.lines(path, "executed_lines"))


def _percent(part: int, whole: int) -> float:
    # Rounded down: 79.996 has not reached 80.
    return int(10_000 * min(part, whole) / whole) / 100


def _statements(checkout: Path, path: str) -> int:
    tree = parse(checkout, path)
    if tree is None:
        raise NotMeasured(f"{path} cannot be parsed")
    return len({n.lineno for n in ast.walk(tree) if isinstance(n, ast.stmt) and not _is_docstring(n)})


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _must_not_reach_in(context: Context) -> None:
    for path in python_files(context.checkout, suffixes=(".py", ".pyw")):
        with suppress(ProjectError):
            if b"coverage" not in read_inside(context.checkout, path, limit=4_000_000):
                continue
            tree = parse(context.checkout, path)
            for line in _reaches(tree) if tree else ():
                raise NotMeasured(f"{path}:{line} reaches for the measurement: no code of the project may import coverage")


def _reaches(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        elif isinstance(node, ast.Call | ast.Subscript):
            # By name: through importlib, or out of the modules that are loaded.
            inner = node.args if isinstance(node, ast.Call) else [node.slice]
            loads = ("import" in ast.unparse(node.func)) if isinstance(node, ast.Call) else ast.unparse(node.value).endswith("modules")
            names = [a.value for a in inner if loads and isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if any(n.split(".")[0] == "coverage" for n in names):
            yield getattr(node, "lineno", 0)


# --- what the project wanted left out ---


def _excluded(context: Context, coverage: Coverage, counted: list[str]) -> int:
    """Statements that the project's comments or settings would have left out."""
    patterns, omit = _wishes(context.checkout)
    if not patterns and not omit and not any(_has_pragma(context.checkout, p) for p in counted):
        return 0
    # In a group, as a line that begins with a hash would be a comment.
    lists = {"exclude_lines": [f"(?:{p})" for p in (_PRAGMA, *patterns)], "omit": omit}
    extra = "".join(f"{name} =\n" + "".join(f"    {v.replace('$', '$$')}\n" for v in values) for name, values in lists.items() if values)
    settings = RCFILE.replace("exclude_lines =\n    (?!)\n", extra)
    wished = _json(context, context.work / "coverage", "wished", settings)
    total = 0
    for path in counted:
        statements = coverage.lines(path, "executed_lines") | coverage.lines(path, "missing_lines")
        total += len(wished.lines(path, "excluded_lines") & statements) if path in wished.files else len(statements)
    return total


def _has_pragma(checkout: Path, path: str) -> bool:
    with suppress(ProjectError):
        return bool(_PRAGMA_TEXT.search(read_inside(checkout, path, limit=4_000_000)))
    return False


def _wishes(checkout: Path) -> tuple[list[str], list[str]]:
    patterns: list[str] = []
    omit: list[str] = []
    for table in _tables(checkout):
        patterns += [p for name in ("exclude_lines", "exclude_also") for p in _values(table.get(name)) if _compiles(p)]
        omit += _values(table.get("omit"))
    return patterns[:_PATTERNS], omit[:_PATTERNS]


def _tables(checkout: Path) -> Iterator[dict[str, Any]]:
    """The `run` and `report` tables of every file that may configure coverage."""
    for name, prefix in ((".coveragerc", ""), ("setup.cfg", "coverage:"), ("tox.ini", "coverage:")):
        with suppress(ProjectError, ValueError, configparser.Error):
            parser = configparser.ConfigParser(interpolation=None, strict=False)
            parser.read_string(read_inside(checkout, name).decode())
            yield from (dict(parser.items(prefix + s)) for s in ("run", "report") if parser.has_section(prefix + s))
    with suppress(ProjectError, ValueError, RecursionError, AttributeError):
        table = tomllib.loads(read_inside(checkout, "pyproject.toml").decode()).get("tool", {}).get("coverage", {})
        yield from (t for t in (table.get("run"), table.get("report")) if isinstance(t, dict))


def _values(value: object) -> list[str]:
    found = value if isinstance(value, list) else str(value or "").splitlines()
    words = [str(v).strip() for v in found]
    return [w for w in words if w and "\n" not in w and "\r" not in w]


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
