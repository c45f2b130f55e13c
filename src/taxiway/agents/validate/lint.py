"""lint: ruff with Taxiway's rules over every Python file, once as written and once with all suppressions off."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from taxiway.agents.validate.check import Context, Measured, NotMeasured, load_json, tail
from taxiway.agents.validate.files import Layout, python_files
from taxiway.agents.validate.finding import Finding, project_path, whole
from taxiway.errors import ProjectError
from taxiway.manifest import read_inside
from taxiway.ports import Command

__all__ = ["lint"]

_TIMEOUT_S = 120.0

FINDS_BUGS = "E4,E7,E9,F,B,ASYNC,PLE,S102,S307,S602,S605"
STRICT_IGNORES = ("D", "COM812", "ISC001", "CPY001", "D203", "D213")
"""Not asked for at the strictest: docstrings, what fights a formatter, and a copyright line in every file."""
TEST_IGNORES = ("ANN", "INP001", "PLR2004", "S101")
"""Tests assert on plain values, are no packages, and their functions return nothing."""

_ISORT = re.compile(r"#\s*(?:ruff:\s*)?isort:\s*(?:skip_file|skip|off)\b")
_VERSIONS = range(11, 15)


def lint(context: Context) -> Measured:
    """Count findings; those that the code suppresses count as findings and, again, as suppressed."""
    ruff = context.tool("ruff")
    files = python_files(context.checkout, suffixes=(".py", ".pyw", ".pyi", ".ipynb"))
    if not files:
        raise NotMeasured("there is no Python file to lint")
    folder = context.folder("lint")
    # A leading ./ keeps a file named like an option from being one.
    (folder / "files").write_text("".join(f"./{f}\n" for f in files if "\n" not in f), "utf-8", "surrogateescape")
    arguments = [ruff, "check", "--isolated", "--no-cache", "--no-respect-gitignore", *_settings(context)]
    read = _command(context, [*arguments, "--show-files", "@{reports}/files"], folder, codes=(0,)).splitlines()
    everything = _findings(context, [*arguments, "--output-format=json", "--ignore-noqa", "@{reports}/files"], folder)
    as_written = _findings(context, [*arguments, "--output-format=json", "@{reports}/files"], folder)
    context.keep("lint.json", json.dumps(everything, indent=1))
    if len(read) < len(files):
        raise NotMeasured(f"ruff read {len(read)} of {len(files)} files")
    # `--ignore-noqa` also ends what ruff only reports about suppressions, so the two are compared one by one.
    shown = set(map(_key, as_written))
    found = {_key(f): _finding(context, f, suppressed=_key(f) not in shown) for f in (*everything, *as_written)}
    findings = [*found.values(), *(_unsorted(context, files) if context.strict else ())]
    metrics = {"lint.files": len(read), "lint.errors": len(findings), "lint.suppressed": sum(f.suppressed for f in findings)}
    return Measured(dict(metrics), findings=findings)


def _finding(context: Context, data: dict[str, Any], *, suppressed: bool) -> Finding:
    place = data.get("location")
    row, column = (place.get("row"), place.get("column")) if isinstance(place, dict) else (0, 0)
    path = project_path(str(data["filename"]), context.checkout)
    rule = str(data.get("code") or "syntax")
    return Finding("lint", "ruff", rule, str(data.get("message")), path, whole(row), whole(column), suppressed=suppressed)


def _settings(context: Context) -> list[str]:
    project = _own_settings(context.checkout)
    layout = Layout(context.manifest)
    settings = ["--target-version", f"py3{project['minor']}", "--line-length", str(project["line-length"])]
    settings += ["--config", f"src={json.dumps([*layout.sources, '.'])}"]
    if not context.strict:
        return [*settings, "--select", FINDS_BUGS]
    settings += ["--select", "ALL", "--ignore", ",".join(STRICT_IGNORES)]
    folders = [p for p in layout.tests if layout.in_tests(p)] + [p for p in layout.browser_tests if layout.in_browser_tests(p)]
    relaxed = {f"{path}/**": list(TEST_IGNORES) for path in folders}
    table = ",".join(f"{json.dumps(path)}={json.dumps(codes)}" for path, codes in relaxed.items())
    return [*settings, "--config", f"lint.per-file-ignores={{{table}}}"]


def _own_settings(checkout: Path) -> dict[str, int]:
    """The two settings that are the project's to choose, within bounds: they switch nothing off."""
    minor, length = _VERSIONS[0], 120
    for name in ("ruff.toml", ".ruff.toml", "pyproject.toml"):
        with suppress(ProjectError, ValueError, RecursionError):
            data: Any = tomllib.loads(read_inside(checkout, name).decode())
            if name == "pyproject.toml":
                wanted = re.search(r">=\s*3\.(\d{1,3})", str(data.get("project", {}).get("requires-python", "")))
                minor = max(_VERSIONS[0], min(_VERSIONS[-1], int(wanted[1]))) if wanted else minor
                data = data.get("tool", {}).get("ruff", {})
            wished = data.get("line-length") if isinstance(data, dict) else None
            length = max(60, min(160, wished)) if isinstance(wished, int) and not isinstance(wished, bool) else length
    return {"minor": minor, "line-length": length}


def _command(context: Context, argv: list[str], folder: Path, *, codes: tuple[int, ...]) -> str:
    tools = context.chosen("ruff").environment
    result = context.run(
        Command(tuple(argv), context.checkout, folder, tools=tools, timeout_s=_TIMEOUT_S, output_limit=60_000_000), "ruff", codes=codes
    )
    if result.truncated:
        raise NotMeasured("ruff found more than can be read")
    return result.stdout


def _findings(context: Context, argv: list[str], folder: Path) -> list[dict[str, Any]]:
    text = _command(context, argv, folder, codes=(0, 1))
    data = load_json(text, "ruff")
    if not isinstance(data, list) or not all(isinstance(d, dict) and isinstance(d.get("filename"), str) for d in data):
        raise NotMeasured(f"the report of ruff is not a list of findings: {tail(text[:200])}")
    return data


def _key(finding: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(finding.get(name)) for name in ("filename", "cell", "location", "code", "message"))


def _unsorted(context: Context, files: list[str]) -> Iterator[Finding]:
    """Comments that switch off import sorting, which ruff honours even when it ignores `noqa`."""
    for path in files:
        with suppress(ProjectError):
            text = read_inside(context.checkout, path).decode(errors="replace")
            for match in _ISORT.finditer(text):
                line = text.count("\n", 0, match.start()) + 1
                yield Finding("lint", "ruff", "I001", f"{match[0]}: switches import sorting off", path, line, suppressed=True)
