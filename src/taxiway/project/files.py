"""What the detection reads of a checkout: whole files, as data, with errors that name the file."""

from __future__ import annotations

import configparser
import tomllib
from pathlib import Path
from typing import Any

from taxiway.errors import ProjectError
from taxiway.manifest import read_inside

__all__ = ["as_dict", "as_list", "exists", "read_ini", "read_text", "read_toml"]


def exists(checkout: Path, path: str) -> bool:
    """Whether it is a plain file of the checkout itself."""
    place = checkout / path
    return place.is_file() and not place.is_symlink()


def read_text(checkout: Path, path: str) -> str:
    """A file as text; raise ProjectError where it cannot be read or is not UTF-8."""
    try:
        return read_inside(checkout, path, limit=20_000_000).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProjectError(f"{path} is not UTF-8: {error}", hint="save it as UTF-8") from error


def read_toml(checkout: Path, path: str) -> dict[str, Any]:
    """A TOML file, {} where there is none; raise ProjectError where it is none."""
    if not exists(checkout, path):
        return {}
    try:
        return tomllib.loads(read_text(checkout, path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ProjectError(f"{path} is not valid TOML: {error}", hint="no tool can read it as it is") from error


def read_ini(checkout: Path, path: str) -> configparser.RawConfigParser:
    """An INI file, empty where there is none; raise ProjectError where it is none."""
    parser = configparser.RawConfigParser(strict=False)
    if exists(checkout, path):
        try:
            parser.read_string(read_text(checkout, path))
        except configparser.Error as error:
            raise ProjectError(f"{path} cannot be read: {' '.join(str(error).split())}", hint="no tool can read it as it is") from error
    return parser


def as_dict(value: object) -> dict[str, Any]:
    """The value where it is a table, else an empty one: what a project's file holds may be of any type."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[str]:
    """The texts in a list, or the lines of a text."""
    found = value if isinstance(value, list | tuple) else str(value or "").splitlines()
    return [item.strip() for item in found if isinstance(item, str) and item.strip()]
