"""Whether a text can be read as what its file's name says that it is. Nothing in it is run."""

from __future__ import annotations

import ast
import json
import tomllib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import yaml

__all__ = ["unreadable"]

_MOST = 1_000_000


def unreadable(path: str, text: str) -> str:
    """Why a file with this text is no Python, JSON, YAML or TOML, in one line; "" where it is, or where the name says none of them."""
    read = _READERS.get(PurePosixPath(path).suffix.lower())
    if read is None:
        return ""
    if len(text) > _MOST:
        return f"it has more than {_MOST} characters"
    try:
        read(text)
    except (SyntaxError, ValueError, yaml.YAMLError, RecursionError, MemoryError) as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    return ""


def _yaml(text: str) -> None:
    # Composed, not constructed: tags of other programs are no mistakes, and aliases are not multiplied.
    for _ in yaml.compose_all(text, Loader=yaml.SafeLoader):
        pass


_READERS: dict[str, Callable[[str], Any]] = {
    ".py": ast.parse,
    ".pyi": ast.parse,
    ".json": json.loads,
    ".yaml": _yaml,
    ".yml": _yaml,
    ".toml": tomllib.loads,
}
