"""types: mypy with Taxiway's settings, once with every suppression taken out of a copy and once as written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from taxiway.agents.validate.check import Context, Measured, NotMeasured, load_json, tail
from taxiway.agents.validate.files import Layout, python_files
from taxiway.agents.validate.finding import Finding, project_path, whole
from taxiway.agents.validate.suppressions import drop_shadow_stubs, expose
from taxiway.ports import Command

__all__ = ["types"]

_TIMEOUT_S = 600.0
_MISSING = re.compile(r'module named "([\w.]+)"')
_OURS = {"pytest", "_pytest", "pluggy", "coverage"}
_PLACE = re.compile(r"(.+?)(?::(\d+))?: ")
_LOOSE_IN_TESTS = {"no-untyped-def", "no-untyped-call", "untyped-decorator"}
"""At the strictest, test functions need no annotations: they return nothing and take fixtures."""


def types(context: Context) -> Measured:
    """Count errors; those that the code suppresses count as errors and, again, as suppressed."""
    context.tool("mypy")
    if context.environment is None:
        raise NotMeasured("the project's environment could not be installed")
    exposed = context.copy("types-exposed")
    notes = drop_shadow_stubs(exposed, context.environment)
    files = python_files(exposed)
    stubs = [f for f in python_files(exposed, suffixes=(".pyi",)) if f.endswith(".pyi")]
    if not files:
        raise NotMeasured("there is no Python file to check")
    changes = expose(exposed, files + stubs)
    without = _errors(context, exposed, [*files, *stubs], context.folder("types"))
    as_written = without
    if changes.rewritten:
        original = context.copy("types-original") if context.project.distribution else context.checkout
        present = [f for f in [*files, *stubs] if (original / f).is_file()]
        as_written = _errors(context, original, present, context.folder("types-as-written"))
    context.keep("types.jsonl", "".join(json.dumps(e) + "\n" for e in without))
    shown = {_key(e) for e in as_written}
    found = {_key(e): _finding(context, e, suppressed=_key(e) not in shown) for e in (*without, *as_written)}
    findings = [*found.values(), *(Finding("types", "mypy", "hidden", text, *_place(text), suppressed=True) for text in changes.hidden)]
    suppressed = sum(f.suppressed for f in findings) + len(notes)
    metrics = {"types.files": len(files) + len(stubs), "types.errors": len(findings), "types.suppressed": suppressed}
    return Measured(dict(metrics), notes=notes, findings=findings)


def _finding(context: Context, error: dict[str, Any], *, suppressed: bool) -> Finding:
    path, line, column = project_path(str(error["file"]), context.checkout), whole(error.get("line")), error.get("column")
    # mypy counts columns from 0, and -1 is a whole line.
    column = column + 1 if isinstance(column, int) and column >= 0 else 0
    return Finding("types", "mypy", str(error.get("code") or "error"), str(error.get("message")), path, line, column, suppressed=suppressed)


def _place(text: str) -> tuple[str, int]:
    """Path and line of `path:line: words`."""
    match = _PLACE.match(text)
    return (match[1], int(match[2] or 0)) if match else ("", 0)


def _errors(context: Context, project: Path, files: list[str], folder: Path) -> list[dict[str, Any]]:
    if context.environment is None:
        raise NotMeasured("the project's environment could not be installed")
    (folder / "files").write_text("".join(f"./{f}\n" for f in files if "\n" not in f), "utf-8", "surrogateescape")
    layout = Layout(context.manifest)
    flags = ["--config-file=", "--cache-dir={reports}/cache", "--output=json", "--no-error-summary", "--no-color-output"]
    flags += ["--namespace-packages", "--explicit-package-bases", "--check-untyped-defs", "--show-error-codes"]
    flags += ["--no-warn-unused-ignores"] if not context.strict else ["--strict"]
    # -I: neither the checkout nor a variable decides what `import mypy` finds.
    mypy = context.chosen("mypy").environment
    argv = (str(mypy.python.absolute()), "-I", "-m", "mypy", *flags)
    argv += ("--python-executable", str(context.environment.python.absolute()), "@{reports}/files")
    command = Command(
        argv,
        project,
        folder,
        context.environment,
        mypy,
        env={"MYPYPATH": ":".join(s for s in layout.sources if s != "." and (project / s).is_dir())},
        timeout_s=_TIMEOUT_S,
        output_limit=20_000_000,
    )
    result = context.run(command, "mypy", codes=(0, 1, 2))
    if result.truncated:
        raise NotMeasured("mypy found more than can be read")
    found = [load_json(line, "mypy") for line in result.stdout.splitlines() if line.strip().startswith("{")]
    if not all(isinstance(e, dict) and isinstance(e.get("file"), str) for e in found):
        raise NotMeasured("the report of mypy is not a list of errors")
    _must_be_whole(result.exit_code, found, result.stdout + result.stderr)
    return [e for e in found if e.get("severity") == "error" and _counts(e, context, layout, set(files))]


def _must_be_whole(code: int, found: list[dict[str, Any]], output: str) -> None:
    errors = [e for e in found if e.get("severity") == "error"]
    if code == 2:  # noqa: PLR2004 - mypy stopped before it had checked everything
        what = f"{errors[0]['file']}:{errors[0].get('line')}: {errors[0].get('message')}" if errors else tail(output)
        raise NotMeasured(f"mypy could not check the code: {what}")
    if bool(errors) != bool(code):
        raise NotMeasured(f"mypy's exit code {code} and its {len(errors)} errors disagree: {tail(output)}")


def _counts(error: dict[str, Any], context: Context, layout: Layout, files: set[str]) -> bool:
    """Whether an error is the project's: not for pytest that Taxiway brings, nor for a missing stub unless strict."""
    path, code = str(error["file"]).removeprefix("./"), str(error.get("code"))
    in_tests = layout.in_tests(path)
    in_browser_tests = layout.in_browser_tests(path)
    if path not in files or (code == "import-untyped" and not context.strict):
        return False
    if code == "import-not-found":
        missing = _MISSING.search(str(error.get("message")))
        name = missing[1].split(".")[0] if missing else ""
        # Browser tests run with Taxiway's Playwright, which is not here.
        ours = name in _OURS or (in_browser_tests and name == "playwright")
        return not ours and (in_tests or in_browser_tests or layout.is_source(path))
    return not ((in_tests or in_browser_tests) and code in _LOOSE_IN_TESTS)


def _key(error: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(error.get(name)) for name in ("file", "line", "code", "message"))
