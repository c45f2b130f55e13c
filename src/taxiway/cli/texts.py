"""Help texts."""

from __future__ import annotations

import inspect
import re

__all__ = ["flowing"]


def flowing(text: str) -> str:
    """A docstring with its paragraphs unbroken, and its examples (indented) line by line."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", inspect.cleandoc(text))
