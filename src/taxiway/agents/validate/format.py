"""format: which files the project's formatter, ruff or black, would change; in the project's style, but for every file."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from taxiway.agents.validate.check import Context, Measured, NotMeasured, load_json, tail
from taxiway.agents.validate.files import copy_project
from taxiway.agents.validate.finding import Finding, project_path
from taxiway.agents.validate.listed import listed
from taxiway.errors import ProjectError
from taxiway.manifest import read_inside
from taxiway.ports import Command, CommandResult

__all__ = ["check_format"]

_TIMEOUT_S = 300.0
_STYLE: Mapping[str, type | tuple[type, ...]] = {
    "line-length": int,
    "indent-width": int,
    "target-version": str,
    "preview": bool,
    "format.quote-style": str,
    "format.indent-style": str,
    "format.skip-magic-trailing-comma": bool,
    "format.line-ending": str,
    "format.docstring-code-format": bool,
    "format.docstring-code-line-length": (int, str),
    "format.preview": bool,
}
"""The settings of ruff that say how code looks. None of them leaves a file or a line out."""
_BLACK_FLAGS = ("skip-string-normalization", "skip-magic-trailing-comma", "preview", "unstable")
_BLACK = re.compile(r"""["']black(?:\[[^\]"']*\])?\s*[=<>~!;"']|^black\s*=""", re.MULTILINE)
# The files come from a list: there may be more of them than fit into an argument vector.
_RUN_BLACK = """\
import sys
files = open(sys.argv[1], encoding="utf-8", errors="surrogateescape").read().split("\\n")[:-1]
sys.argv = ["black", *sys.argv[2:], *files]
from black import patched_main
patched_main()
"""
_OFF = re.compile(rb"\b(?:fmt(?=:\s*(?:off|on|skip)\b)|yapf(?=:\s*(?:disable|enable)\b))")
_COUNTS = re.compile(r"(\d+) files? would (be reformatted|be left unchanged|fail to reformat)")


def check_format(context: Context) -> Measured:
    """Count files; those that a comment (`fmt: off`, `fmt: skip`) keeps from being changed count and, again, as suppressed."""
    project = _read_project(context.checkout)
    name, arguments = _formatter(context, project)
    context.tool(name)
    folder = context.folder("format")
    suffixes = (".py", ".pyw", ".pyi", ".ipynb") if name == "ruff" else (".py", ".pyw", ".pyi")
    files = listed(context, folder, suffixes=suffixes)
    run = _ruff if name == "ruff" else _black
    as_written = run(context, context.checkout, folder, files, arguments)
    everything = set(as_written)
    if hidden := [f for f in files if _OFF.search(_content(context, f))]:
        copy = context.folder("format-exposed")
        copy_project(context.checkout, copy)
        for path in hidden:
            content = _content(context, path)
            (copy / path).unlink()
            # As long as before: where a line is broken must not change.
            (copy / path).write_bytes(_OFF.sub(lambda m: m[0][:-1] + b"x", content))
        everything |= run(context, copy, folder, files, arguments)
    findings = [
        Finding("format", name, "unformatted", f"{name} would change it", path, suppressed=path not in as_written)
        for path in sorted(everything)
    ]
    context.keep("format.json", json.dumps({"formatter": name, "settings": arguments, "files": sorted(everything)}, indent=1))
    suppressed = len(everything - as_written)
    return Measured({"format.files": len(files), "format.errors": len(everything), "format.suppressed": suppressed}, findings=findings)


# --- what the project says about its style ---


def _read_project(checkout: Path) -> dict[str, Any]:
    """Its pyproject.toml, with the settings of a ruff.toml in their place."""
    project = _toml(checkout, "pyproject.toml")
    tool = project.setdefault("tool", {})
    if not isinstance(tool, dict):
        raise NotMeasured("pyproject.toml: `tool` is no table")
    for name in ("ruff.toml", ".ruff.toml"):
        if (checkout / name).exists():
            tool["ruff"] = _toml(checkout, name)
    return project


def _toml(checkout: Path, name: str) -> dict[str, Any]:
    if not (checkout / name).exists():
        return {}
    try:
        return tomllib.loads(read_inside(checkout, name).decode())
    except (ProjectError, ValueError, RecursionError) as error:
        raise NotMeasured(f"{name} cannot be read: {tail(str(error))}") from error


def _formatter(context: Context, project: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The formatter that the project names, else ruff, and its arguments."""
    tool, checkout = project["tool"], context.checkout
    ruff = _table(tool, "ruff")
    if "yapf" in tool or (checkout / ".style.yapf").exists():
        raise NotMeasured("the project is formatted by yapf, which Taxiway does not run")
    if "format" not in ruff and ("black" in tool or (not ruff and _names_black(context))):
        return "black", _black_arguments(_table(tool, "black"))
    flat = {**ruff, **{f"format.{name}": value for name, value in _table(ruff, "format").items()}}
    arguments = []
    for name, kind in _STYLE.items():
        value = flat.get(name)
        if isinstance(value, kind) and (not isinstance(value, bool) or kind is bool):
            arguments.append(f"--config={name}={json.dumps(value)}")
    if "target-version" not in ruff and (
        oldest := re.search(r">=\s*3\.(\d{1,2})\b", str(_table(project, "project").get("requires-python")))
    ):
        arguments.append(f"--target-version=py3{max(7, min(14, int(oldest[1])))}")
    return "ruff", arguments


def _table(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _names_black(context: Context) -> bool:
    """Whether a pyproject.toml or a file of requirements names black."""
    with suppress(ProjectError):
        if _BLACK.search(read_inside(context.checkout, "pyproject.toml").decode(errors="replace")):
            return True
    for path in context.manifest.install.requirements:
        with suppress(ProjectError):
            if re.search(r"^black\b", read_inside(context.checkout, path).decode(errors="replace"), re.MULTILINE):
                return True
    return False


def _black_arguments(table: Mapping[str, Any]) -> list[str]:
    settings = {name.replace("_", "-"): value for name, value in table.items()}
    arguments = [f"--{name}" for name in _BLACK_FLAGS if settings.get(name) is True]
    length, targets = settings.get("line-length"), settings.get("target-version")
    if isinstance(length, int) and not isinstance(length, bool):
        arguments.append(f"--line-length={length}")
    if isinstance(targets, list):
        arguments += [f"--target-version={t}" for t in targets if isinstance(t, str)]
    return arguments


def _content(context: Context, path: str) -> bytes:
    try:
        return read_inside(context.checkout, path, limit=16_000_000)
    except ProjectError as error:
        raise NotMeasured(error.problem) from error


# --- the formatters ---


def _ruff(context: Context, project: Path, folder: Path, files: list[str], arguments: list[str]) -> set[str]:
    ruff, plain, tools = context.tool("ruff"), ("--isolated", "--no-cache", "--no-respect-gitignore"), context.chosen("ruff").environment
    argv: tuple[str, ...] = (ruff, "check", *plain, "--show-files", "@{reports}/files")
    read = context.run(Command(argv, project, folder, tools=tools), "ruff", codes=(0,)).stdout.splitlines()
    if len(read) < len(files):
        raise NotMeasured(f"ruff read {len(read)} of {len(files)} files")
    argv = (ruff, "format", "--check", *plain, *arguments, "@{reports}/files")
    command = Command(argv, project, folder, tools=tools, timeout_s=_TIMEOUT_S, output_limit=60_000_000)
    result = context.run(replace(command, argv=(*argv, "--output-format=json")), "ruff", codes=(0, 1, 2))
    if not result.stdout and "argument '--output-format" in result.stderr:
        return _older_ruff(context.run(command, "ruff", codes=(0, 1)), files)
    if not result.stdout:
        raise NotMeasured(f"ruff did not format with the project's settings: {tail(result.stderr, 200)}")
    data = load_json(result.stdout, "ruff")
    if result.truncated or not isinstance(data, list) or not all(isinstance(d, dict) and isinstance(d.get("filename"), str) for d in data):
        raise NotMeasured(f"the report of ruff is not a list of files: {tail(result.stderr)}")
    if bool(data) != bool(result.exit_code):
        raise NotMeasured(f"ruff's exit code {result.exit_code} and its {len(data)} files disagree: {tail(result.stderr)}")
    return {project_path(d["filename"], project) for d in data}


def _older_ruff(result: CommandResult, files: list[str]) -> set[str]:
    """What a ruff says that writes no JSON about formatting."""
    found = set(re.findall(r"^Would reformat: (?:\./)?(.+)$", result.stdout, re.MULTILINE))
    if bool(found) != bool(result.exit_code) or not found <= set(files):
        raise NotMeasured(f"the report of ruff is not a list of files: {tail(result.stdout)}")
    return found


def _black(context: Context, project: Path, folder: Path, files: list[str], arguments: list[str]) -> set[str]:
    tools = context.chosen("black").environment
    argv: tuple[str, ...] = (str(tools.python.absolute()), "-I", "-c", _RUN_BLACK, "{reports}/files")
    argv += ("--check", "--fast", "--config=/dev/null", "--workers=1", "--no-color", *arguments)
    cache = {"BLACK_CACHE_DIR": "{reports}/cache"}
    command = Command(argv, project, folder, tools=tools, timeout_s=_TIMEOUT_S, output_limit=20_000_000, env=cache)
    result = context.run(command, "black", codes=(0, 1, 123))
    text = result.stderr
    counts = {words: int(n) for n, words in _COUNTS.findall(text)}
    if result.truncated or sum(counts.values()) != len(files):
        raise NotMeasured(f"black read {sum(counts.values())} of {len(files)} files: {tail(text)}")
    unreadable = counts.get("fail to reformat", 0)
    if unreadable:
        raise NotMeasured(f"black could not read {unreadable} files: {tail(text)}")
    found = {project_path(m, project) for m in re.findall(r"^would reformat (.+)$", text, re.MULTILINE)}
    if len(found) != counts.get("be reformatted", 0):
        raise NotMeasured(f"black's list and its count disagree: {tail(text)}")
    return found
