"""The error of a module that stands for a spec that cannot be used. Kept apart: it is all that such a module imports."""

from __future__ import annotations

__all__ = ["SpecRefused"]


class SpecRefused(Exception):
    """Holds the whole text for people; starts on a line of its own, below Python's traceback."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"
