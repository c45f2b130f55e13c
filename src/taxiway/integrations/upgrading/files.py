"""Files of a checkout that nobody vouches for."""

from __future__ import annotations

import shutil
from pathlib import Path

from taxiway.manifest import read_inside

__all__ = ["copy_of", "is_plain", "text_of"]

_MOST = 32 << 20


def is_plain(checkout: Path, path: str) -> bool:
    """Whether it is a file of the checkout itself: no link, nor below one."""
    place = checkout / path
    return place.is_file() and not place.is_symlink() and not any((checkout / p).is_symlink() for p in Path(path).parents)


def text_of(checkout: Path, path: str) -> str:
    """Its text; raise ProjectError where it cannot be read."""
    return read_inside(checkout, path, limit=_MOST).decode("utf-8", errors="replace")


def copy_of(checkout: Path, place: Path) -> Path:
    """`place`, with all that the checkout has: links stay links, wherever they lead."""
    shutil.copytree(checkout, place, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    return place
