"""What a repair may not do: change what judges it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from taxiway.agents.tools import PROTECTED
from taxiway.errors import ProjectError
from taxiway.manifest import read_inside

__all__ = ["JUDGES", "looks_away", "new_blind_spots", "pins_of_judges", "snapshot"]

JUDGES: tuple[str, ...] = (
    *PROTECTED,
    # Tests, and what decides which of them run and how.
    *(
        "test_*.py",
        "*/test_*.py",
        "*_test.py",
        "test.py",
        "*/test.py",
        "tests.py",
        "*/tests.py",
        "tests/*",
        "*/tests/*",
        "test/*",
        "*/test/*",
        "testing/*",
        "e2e/*",
        "*/e2e/*",
    ),
    *("conftest.py", "*/conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", "noxfile.py"),
    *("sitecustomize.py", "usercustomize.py", "*/sitecustomize.py", "*/usercustomize.py", "*.pth", "*.pyi"),
    *("sitecustomize/*", "usercustomize/*", "*/sitecustomize/*", "*/usercustomize/*"),
    # An installed distribution, as Python sees it, whose plugins pytest loads.
    *("*.dist-info/*", "*.egg-info/*"),
    # Settings of the tools that measure, and of the project as a whole.
    *("pyproject.toml", "*/pyproject.toml", "setup.cfg", "*/setup.cfg", "setup.py", ".coveragerc", ".coveragerc.toml"),
    *("ruff.toml", ".ruff.toml", "*/ruff.toml", "*/.ruff.toml", "mypy.ini", "*/mypy.ini", ".mypy.ini", "*/.mypy.ini"),
    *(".bandit", ".secrets.baseline", ".flake8", ".pylintrc", "pylintrc", "pyrightconfig.json", ".pre-commit-config.yaml", ".style.yapf"),
    *(".gitignore", "*/.gitignore", ".ignore", "*/.ignore"),
)
"""Patterns of paths (lower case) that a repair may change only where the pipeline names them."""

_LOOK_AWAY = re.compile(
    r"#\s*noqa|#\s*(?:ruff|flake8)\s*:|#\s*type:\s*ignore|#\s*mypy:|#\s*pyright:|pragma[:\s]?\s*no\s*(?:cover|branch)|#\s*nosec|"
    r"pragma:\s*(?:allow|white)list|#\s*(?:fmt|yapf|isort):|#\s*pylint:|#lizard|"
    # A file in another encoding may hold all of these without showing them.
    r"\A(?:[^\n]*\n)?[ \t\f]*#[^\n]*?coding[:=][ \t]*(?!utf-?8|ascii|latin|iso-?8859|cp125)\w|"
    r"\bpytest\s*\.\s*(?:skip|xfail|importorskip|exit)\b|\bmark\s*\.\s*(?:skip|skipif|xfail)\b|\bunittest\s*\.\s*skip|\bSkipTest\b|"
    r"\bno_type_check(?:_decorator)?\b|\bPYTEST_(?:CURRENT_TEST|VERSION|ADDOPTS|PLUGINS)\b|(?-i:\bTAXIWAY_\w+|\bCOV(?:ERAGE|_CORE)_[A-Z]+)|"
    # Whether a runner is loaded or called, or something traces.
    r"[\"']_?pytest[\"']\s*(?:not\s+)?in\b|\bsys\s*\.\s*(?:modules|argv|orig_argv)\b[^\n]{0,80}pytest|pytest[^\n]{0,80}\bsys\s*\.\s*modules\b|"
    r"\bmodules\s*\.\s*get\s*\(\s*[\"']_?pytest|\bfind_spec\s*\(\s*[\"']_?pytest|\bgettrace\b|\bsys\s*\.\s*monitoring\b",
    re.IGNORECASE,
)
_PINS = (".txt", ".in", ".lock")
_JUDGE_PINNED = re.compile(
    r"^[ \t]*(?:name[ \t]*=[ \t]*)?[\"']?(?:ruff|mypy|bandit|black|coverage|pluggy|pytest(?:[-_.]\w+)*)(?![-\w.])"
    r"[^\n]*(?:\nversion[^\n]*)?",
    re.IGNORECASE | re.MULTILINE,
)
_PYTHON = (".py", ".pyw")
_MOST = 1 << 30


def looks_away(text: str) -> int:
    """How often a text asks a tool to look away, leaves a test, or asks whether it is being tested."""
    return sum(1 for _ in _LOOK_AWAY.finditer(text))


def snapshot(checkout: Path) -> Mapping[str, int]:
    """Path -> `looks_away`, of the Python files of a checkout."""
    found = {}
    for path in sorted(checkout.rglob("*")):
        if path.suffix.lower() in _PYTHON and path.is_file():
            name = path.relative_to(checkout).as_posix()
            # A link is read where it leads, for tools do: but not out of the checkout.
            with suppress(ProjectError):
                found[name] = looks_away(read_inside(checkout, name, limit=_MOST).decode("utf-8", "replace"))
    return found


def new_blind_spots(before: Mapping[str, int], after: Mapping[str, int], changed: Iterable[str]) -> Sequence[str]:
    """The changed files that ask tools to look away more often than before, and how often."""
    grown = [(path, after.get(path, 0) - before.get(path, 0)) for path in sorted(set(changed))]
    return [f"{path} ({more} more)" for path, more in grown if more > 0]


def pins_of_judges(checkout: Path) -> Mapping[str, Sequence[str]]:
    """Path -> the lines of requirement and lock files by which a project chooses the versions, and plugins, of what measures it."""
    found = {}
    for path in sorted(checkout.rglob("*")):
        if path.suffix.lower() in _PINS and path.is_file():
            name = path.relative_to(checkout).as_posix()
            with suppress(ProjectError):
                found[name] = sorted(_JUDGE_PINNED.findall(read_inside(checkout, name, limit=_MOST).decode("utf-8", "replace")))
    return found
