"""security: bandit over every Python file, once with `nosec` ignored and, where there is any, once as written."""

from __future__ import annotations

import json
import posixpath
from pathlib import Path
from typing import Any

from taxiway.agents.validate.check import Context, Measured, NotMeasured, load_json
from taxiway.agents.validate.files import Layout
from taxiway.agents.validate.finding import Finding, Severity, project_path, whole
from taxiway.agents.validate.listed import listed
from taxiway.errors import ProjectError
from taxiway.manifest import read_inside
from taxiway.ports import Command

__all__ = ["security"]

_TIMEOUT_S = 600.0
# The files come from a list: there may be more of them than fit into an argument vector.
_RUN = """\
import sys
files = open(sys.argv[1], encoding="utf-8", errors="surrogateescape").read().split("\\n")[:-1]
sys.argv = ["bandit", *sys.argv[2:], *files]
from bandit.cli.main import main
main()
"""
_LEVELS = {"HIGH": "high", "MEDIUM": "medium", "LOW": "low"}
_SHOWN_AS: dict[str, Severity] = {"high": "error", "medium": "warning", "low": "note"}
_HOLDS_SECRET = ("B105", "B106", "B107")


def security(context: Context) -> Measured:
    """Count findings by severity, whatever their confidence; one without a severity counts as high. Those that the code
    suppresses count and, again, as suppressed. `assert` in a folder of tests is no finding."""
    context.tool("bandit")
    folder = context.folder("security")
    files = listed(context, folder)
    everything = _findings(context, folder, files, "--ignore-nosec")
    shown = everything
    if any(_has_nosec(context, f) for f in files):
        shown = _findings(context, folder, files)
    layout = Layout(context.manifest)
    visible = {_key(d) for d in shown}
    findings = [_finding(context, d, suppressed=_key(d) not in visible) for d in everything]
    findings = [f for f in findings if not (f.rule == "B101" and (layout.in_tests(f.path) or layout.in_browser_tests(f.path)))]
    context.keep("security.json", json.dumps([_record(d) for d in everything], indent=1))
    levels = {level: sum(f.severity == as_ for f in findings) for level, as_ in _SHOWN_AS.items()}
    metrics: dict[str, float] = {"security.files": len(files), **{f"security.{level}": n for level, n in levels.items()}}
    return Measured(metrics | {"security.suppressed": sum(f.suppressed for f in findings)}, findings=findings)


def _findings(context: Context, folder: Path, files: list[str], *options: str) -> list[dict[str, Any]]:
    (folder / "bandit.ini").write_text("[bandit]\n")
    tools = context.chosen("bandit").environment
    argv: tuple[str, ...] = (str(tools.python.absolute()), "-I", "-c", _RUN, "{reports}/files", "-q", "-f", "json")
    # An empty list of its own: else a folder named .tox or .git, and a `.bandit` file, would leave files out.
    argv += ("--ini", "{reports}/bandit.ini", "-x", "/none", *options)
    command = Command(argv, context.checkout, folder, tools=tools, timeout_s=_TIMEOUT_S, output_limit=60_000_000)
    result = context.run(command, "bandit", codes=(0, 1))
    if result.truncated:
        raise NotMeasured("bandit found more than can be read")
    data = load_json(result.stdout, "bandit")
    if not isinstance(data, dict) or not all(
        isinstance(data.get(k), t) for k, t in (("results", list), ("errors", list), ("metrics", dict))
    ):
        raise NotMeasured("the report of bandit has no results")
    for error in data["errors"]:
        raise NotMeasured(f"bandit could not read {_path(context, error.get('filename'))}: {error.get('reason')}")
    read = {_path(context, name) for name in data["metrics"]}
    if missing := set(files) - read:
        raise NotMeasured(f"bandit did not read {min(missing)}")
    if not all(isinstance(d, dict) and isinstance(d.get("filename"), str) for d in data["results"]):
        raise NotMeasured("the report of bandit is not a list of findings")
    return list(data["results"])


def _path(context: Context, name: object) -> str:
    # It writes a ./ before the one that the list has.
    return project_path(posixpath.normpath(str(name)), context.checkout)


def _has_nosec(context: Context, path: str) -> bool:
    try:
        return b"nosec" in read_inside(context.checkout, path, limit=4_000_000).lower()
    except ProjectError:
        return True


def _finding(context: Context, data: dict[str, Any], *, suppressed: bool) -> Finding:
    level = _LEVELS.get(str(data.get("issue_severity")), "high")
    text = f"{_text(data)} (severity {level}, confidence {str(data.get('issue_confidence')).lower()})"
    path = _path(context, data["filename"])
    return Finding(
        *("security", "bandit", str(data.get("test_id")), text, path),
        line=whole(data.get("line_number")),
        severity=_SHOWN_AS[level],
        suppressed=suppressed,
    )


def _text(data: dict[str, Any]) -> str:
    """What bandit says, without the password that it found."""
    text = str(data.get("issue_text"))
    return text.split(":", maxsplit=1)[0] if data.get("test_id") in _HOLDS_SECRET else text


def _record(data: dict[str, Any]) -> dict[str, Any]:
    names = ("filename", "line_number", "test_id", "test_name", "issue_severity", "issue_confidence", "more_info")
    return {name: data.get(name) for name in names} | {"issue_text": _text(data)}


def _key(data: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(data.get(name)) for name in ("filename", "line_number", "col_offset", "test_id", "issue_text"))
