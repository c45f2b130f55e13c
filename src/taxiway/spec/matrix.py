"""The cells of a stage with a matrix: known while checking, so that the graph in the UI shows them before a run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from taxiway.spec.source import Node, Report
from taxiway.spec.templates import is_template
from taxiway.spec.values import refuse
from taxiway.spec.words import show

__all__ = ["MOST_CELLS", "AxisValue", "Cell", "cells_of", "check_matrix"]

MOST_CELLS = 50
_NAME_LENGTH = 60


def _axis_value(value: Any) -> Any:
    if isinstance(value, float):
        hint = "quote it; without quotes 3.10 is the number 3.1"
        raise refuse("bad-matrix", f"{value!r} cannot be told from other spellings of the number", hint)
    if not isinstance(value, str | int) or value == "":
        raise refuse("bad-matrix", "a matrix holds texts, whole numbers, true and false", "write one value for each entry")
    if is_template(value):
        hint = "write the values out: the cells are tasks of the DAG, known before a run starts"
        raise refuse("bad-matrix", f"{show(value)} would only be known in a run", hint)
    return value


AxisValue = Annotated[Any, AfterValidator(_axis_value), WithJsonSchema({"type": ["string", "integer", "boolean"], "minLength": 1})]
"""One value of an axis, its type kept."""


@dataclass(frozen=True)
class Cell:
    """One combination of a matrix: its name, a word that can stand in expressions, and the value of each axis."""

    name: str
    values: Mapping[str, Any]


def cells_of(matrix: Mapping[str, Sequence[Any]]) -> tuple[Cell, ...]:
    """Every combination, the last axis turning fastest; () without a matrix. At most one more than is allowed."""
    if not matrix:
        return ()
    cells: dict[str, Cell] = {}
    for chosen in itertools.islice(itertools.product(*matrix.values()), MOST_CELLS + 1):
        values = dict(zip(matrix, chosen, strict=True))
        words = "_".join(_word(axis, value) for axis, value in values.items())[:_NAME_LENGTH].strip("_")
        name = next(n for n in itertools.chain([words], (f"{words}_{i}" for i in itertools.count(2))) if n not in cells)
        cells[name] = Cell(name, values)
    return tuple(cells.values())


def _word(axis: str, value: Any) -> str:
    """The value as a word; behind its axis where alone it would be no name, or would say nothing."""
    word = re.sub(r"[^a-z0-9]+", "_", str(value).lower()).strip("_")
    plain = isinstance(value, str) and re.match(r"[a-z]", word)
    return word if plain else f"{axis}_{word}".rstrip("_")


def check_matrix(matrix: Mapping[str, Sequence[Any]], node: Node, report: Report) -> None:
    """Report a value that stands twice in its axis, and a matrix of too many cells."""
    for axis, values in matrix.items():
        seen: list[tuple[type, Any]] = []
        for index, value in enumerate(values):
            if (type(value), value) in seen:
                hint = "every value makes cells of its own; remove it"
                report.add(node.find([axis, index]), f"{show(str(value))} stands in {show(axis)} already", rule="bad-matrix", hint=hint)
            seen.append((type(value), value))
    total = 1
    for values in matrix.values():
        total *= len(values)
    if total > MOST_CELLS:
        hint = f"{MOST_CELLS} are the most; drop values, or split the stage"
        report.add(node, f"the matrix has {total} cells, and each is a task", rule="bad-matrix", hint=hint)
