"""What a project configures for pytest: kept where it says how tests run, dropped where it says which."""

from __future__ import annotations

import configparser
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taxiway.errors import ProjectError
from taxiway.manifest import read_inside

__all__ = ["Options", "pytest_arguments", "read_options"]

_PLACES = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
_KEEP = re.compile(r"--(import-mode|asyncio-mode|anyio-mode|strict-markers|strict-config|strict|ds|dc|reuse-db|nomigrations)(=.*)?")
_WITH_VALUE = {"--import-mode", "--asyncio-mode", "--ds", "--dc", "-W"}
_DEFAULTS = {"python_files": "test_*.py *_test.py", "python_classes": "Test", "python_functions": "test"}


def pytest_arguments(file: str) -> tuple[str, ...]:
    """How pytest runs where it measures, with a configuration file of the project ("" for none): nothing that a project sets otherwise
    decides which tests run, or how they are counted."""
    return (
        *("-c", f"{{project}}/{file}" if file else "{reports}/pytest.ini", "--rootdir={project}", "--confcutdir={project}"),
        *("-q", "--tb=short", "--color=no", "-p", "no:cacheprovider"),
        *("--continue-on-collection-errors", "--junitxml={reports}/junit.xml"),
        *("-o", "addopts=", "-o", "testpaths=", "-o", "norecursedirs=.git"),
        *("-o", "junit_family=xunit2", "-o", "junit_duration_report=total"),
    )


@dataclass
class Options:
    """`file` is the configuration to use ("" for none), `arguments` what of `addopts` stays, `plugins` what it loads."""

    file: str = ""
    arguments: list[str] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def read_options(checkout: Path) -> Options:
    """The first configuration file that pytest would use in the project's root, with its selections taken out."""
    for name in _PLACES:
        table = _table(checkout, name)
        if table is not None:
            options = Options(file=name)
            _sort(_words(table.get("addopts", "")), options)
            for key, default in _DEFAULTS.items():
                # Wider is welcome, narrower is not: the defaults always stay.
                more = [w for w in _words(table.get(key, "")) if not w.startswith("-")]
                options.arguments += ["-o", f"{key}={' '.join(dict.fromkeys([*default.split(), *more]))}"]
            return options
    return Options()


def _table(checkout: Path, name: str) -> dict[str, Any] | None:
    if not (checkout / name).is_file():
        return None
    try:
        text = read_inside(checkout, name).decode()
        if name.endswith(".toml"):
            return _toml(tomllib.loads(text), name)
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read_string(text)
    except (ProjectError, ValueError, RecursionError, configparser.Error):
        # pytest itself will say what is wrong with it.
        return {}
    section = "tool:pytest" if name == "setup.cfg" else "pytest"
    if parser.has_section(section):
        return dict(parser.items(section))
    return {} if name in ("pytest.ini", ".pytest.ini") else None


def _toml(data: dict[str, Any], name: str) -> dict[str, Any] | None:
    found = data.get("tool", {}).get("pytest") if name == "pyproject.toml" else data.get("pytest", {})
    if not isinstance(found, dict):
        return None
    inner = found.get("ini_options", found)
    return inner if isinstance(inner, dict) else {}


def _words(value: Any) -> list[str]:
    if isinstance(value, list):
        return [str(v) for v in value]
    try:
        return shlex.split(str(value))
    except ValueError:
        return []


def _sort(words: list[str], options: Options) -> None:
    rest: Iterator[str] = iter(words)
    for word in rest:
        if word == "-p" or (word.startswith("-p") and not word.startswith("--")):
            name = next(rest, "") if word == "-p" else word[2:]
            (options.dropped if name.startswith("no:") else options.plugins).append(name)
        elif word == "-W" or _KEEP.fullmatch(word):
            options.arguments += [word, next(rest, "")] if word in _WITH_VALUE else [word]
        else:
            options.dropped.append(word)
