"""Removing trees so that nobody ever sees half of one."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["leftovers", "size_of", "vanish"]

_GONE = ".gone-"


def size_of(place: Path) -> int:
    """Bytes of all files in it; links are not followed. Raises FileNotFoundError where it is gone."""
    if not place.is_dir() or place.is_symlink():
        return place.lstat().st_size
    total = 0
    for folder, _, names in os.walk(place):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 - tens of thousands of files
    return total


def vanish(place: Path) -> None:
    """Remove a file or a tree, read-only parts too: in one step for those who look, whatever is killed when."""
    gone = place.with_name(f"{_GONE}{secrets.token_hex(8)}")
    place.rename(gone)
    _remove(gone)


def leftovers(folder: Path) -> None:
    """Finish what a killed `vanish` began in a folder."""
    for place in folder.glob(f"{_GONE}*"):
        _remove(place)


def _remove(place: Path) -> None:
    if not place.is_dir() or place.is_symlink():
        place.unlink(missing_ok=True)
        return

    def allow(act: Callable[[str], object], path: str, _: object) -> None:
        with suppress(OSError):
            Path(path).parent.chmod(0o700)
            if not Path(path).is_symlink():  # chmod would follow it out of the tree
                Path(path).chmod(0o700)
            act(path)

    shutil.rmtree(place, onerror=allow)
    if place.exists():
        raise OSError(f"cannot remove {place}")
