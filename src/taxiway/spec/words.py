"""Values, numbers and near names as messages say them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "number", "show"]


def show(value: object) -> str:
    """A value as it can stand in a message: short, on one line, with nothing that moves a terminal's cursor."""
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 - about half a line
    return "'" + text.encode("unicode_escape").decode() + "'" if not text.isprintable() else f"'{text}'"


def number(value: float) -> str:
    """A number as a person reads it, and a spec may write it: `0.5`, `5000`, `10_000_000`."""
    if value != int(value):
        return f"{value:g}"
    whole = int(value)
    if abs(whole) < 10**5:
        return str(whole)
    return f"{whole:_}" if abs(whole) < 10**18 else f"a number of {len(str(abs(whole)))} digits"


def did_you_mean(word: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """A hint with the known word that is nearest, or with all of them where none is near."""
    names = sorted(known)
    if near := difflib.get_close_matches(word[:100], names, n=1, cutoff=0.6):
        return f"did you mean {near[0]!r}?"
    return otherwise or (f"known: {', '.join(names)}" if names else "nothing of the kind is known here; remove it")
