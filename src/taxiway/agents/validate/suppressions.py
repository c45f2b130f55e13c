"""What in a project's code tells a type checker to look away, taken out of a copy or, where it cannot be, counted."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from taxiway.agents.validate.files import list_files
from taxiway.errors import ProjectError
from taxiway.manifest import read_inside
from taxiway.ports import Environment

__all__ = ["Exposed", "drop_shadow_stubs", "expose"]

_IGNORE = re.compile(r"type:\s*ignore")
_DIRECTIVE = re.compile(rb"^# mypy: ", re.MULTILINE)
_NEVER = {"TYPE_CHECKING", "MYPY"}


@dataclass
class Exposed:
    """How many files were rewritten, and what stays hidden from the checker."""

    rewritten: int = 0
    hidden: list[str] = field(default_factory=list)


def expose(root: Path, files: Iterable[str]) -> Exposed:
    """Rewrite files of a copy so that no comment and no decorator hides an error; lines keep their numbers."""
    done = Exposed()
    for path in files:
        try:
            before = read_inside(root, path, limit=4_000_000)
        except ProjectError as error:
            done.hidden.append(f"{path}: {error.problem}")
            continue
        after = _DIRECTIVE.sub(b"# mypi: ", before)
        after = _without_ignores(after)
        tree = _parse(after)
        if tree is not None:
            after = _without_decorators(after, tree)
            done.hidden.extend(f"{path}:{line}: hidden from type checkers" for line in _unseen(tree))
        if after != before:
            done.rewritten += 1
            (root / path).unlink()
            (root / path).write_bytes(after)
    return done


def _parse(source: bytes) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _without_ignores(source: bytes) -> bytes:
    if b"ignore" not in source:
        return source
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        lines = io.StringIO(source.decode(encoding), newline="").readlines()
        for token in list(tokenize.tokenize(io.BytesIO(source).readline)):
            if token.type == tokenize.COMMENT and _IGNORE.search(token.string):
                row, column = token.start
                line = lines[row - 1]
                lines[row - 1] = line[:column] + _IGNORE.sub("type-ignored", line[column:])
        return "".join(lines).encode(encoding)
    except (SyntaxError, ValueError, LookupError, tokenize.TokenError, IndexError):
        # It does not parse, so the checker will say so; until then no comment may hide a thing.
        return re.sub(rb"(#[^\r\n]*?)type:\s*ignore", rb"\1type-ignored", source)


def _without_decorators(source: bytes, tree: ast.Module) -> bytes:
    names = {"no_type_check"} | {
        a.asname for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names if a.name == "no_type_check" and a.asname
    }
    lines = source.splitlines(keepends=True)
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            named = decorator.id if isinstance(decorator, ast.Name) else decorator.attr if isinstance(decorator, ast.Attribute) else ""
            if named in names and decorator.lineno == decorator.end_lineno and decorator.lineno <= len(lines):
                line = lines[decorator.lineno - 1]
                lines[decorator.lineno - 1] = line[len(line.rstrip(b"\r\n")) :]
    return b"".join(lines)


_WORKS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Return, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith)
_LEAVES = (ast.Raise, ast.Return, ast.Continue, ast.Break)


def _unseen(tree: ast.Module) -> Iterator[int]:
    """Lines with functions, classes and what works in branches that a type checker takes for unreachable, and lines after which it
    takes everything for that. Assignments there are an honest idiom (`else: Thing = Any`)."""
    tests = {id(n) for node in ast.walk(tree) if isinstance(node, ast.If) for n in ast.walk(node.test)}
    for node in ast.walk(tree):
        if isinstance(node, ast.If):
            truth = _truth(node.test)
            skipped, taken = {True: (node.orelse, node.body), False: (node.body, node.orelse), None: ([], [])}[truth]
            yield from (line for statement in skipped for line in _working(statement))
            if _names_checker(node.test):
                yield from (s.lineno for s in taken if _leaves(s))
        elif (isinstance(node, ast.Assert) and _names_checker(node.test) and _truth(node.test) is False) or (
            isinstance(node, ast.BoolOp) and id(node) not in tests and any(map(_names_checker, node.values[:-1]))
        ):
            yield node.lineno


def _working(node: ast.AST) -> Iterator[int]:
    if isinstance(node, _WORKS):
        yield node.lineno
    else:
        yield from (line for child in ast.iter_child_nodes(node) for line in _working(child))


def _leaves(statement: ast.stmt) -> bool:
    """Whether nothing after it runs, as far as a type checker may believe: a function may say that it never returns."""
    called = statement.value.func if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) else None
    return isinstance(statement, _LEAVES) or (called is not None and _name(called) != "reveal_type")


def _truth(node: ast.expr) -> bool | None:
    """What a type checker takes a condition for; None where it depends."""
    if isinstance(node, ast.Constant):
        return bool(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = _truth(node.operand)
        return None if inner is None else not inner
    if isinstance(node, ast.BoolOp):
        decides = isinstance(node.op, ast.Or)
        parts = [_truth(value) for value in node.values]
        return decides if decides in parts else None if None in parts else not decides
    return True if _name(node) in _NEVER else None


def _names_checker(node: ast.AST) -> bool:
    return any(_name(n) in _NEVER for n in ast.walk(node))


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def drop_shadow_stubs(root: Path, environment: Environment) -> list[str]:
    """Remove from a copy the stubs that would be checked instead of code: beside their own module, or in the
    place of one of Python or of an installed package. Return what was removed, and why."""
    notes = []
    installed = {p.name for place in environment.path.glob("lib/python3*/site-packages") for p in place.iterdir()}
    for path in [p for p in list_files(root) if p.endswith(".pyi")]:
        place = PurePosixPath(path)
        names = {place.stem, *place.parts[:-1]}
        beside = (root / place.with_suffix(".py")).exists()
        if beside or names & sys.stdlib_module_names or names & installed - {"src", "tests"}:
            (root / path).unlink()
            notes.append(f"{path}: stands in the place of {'its own module' if beside else 'a module of Python or of a package'}")
    return notes
