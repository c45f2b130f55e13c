"""What can be told of a test without running it: rules that keep a test from judging itself. They help; what decides are the trials."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from taxiway.agents.validate.listing import parse

__all__ = ["faults", "imported"]

_LIBRARIES = frozenset(
    {
        "__future__",
        "collections",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "json",
        "math",
        "playwright",
        "pytest",
        "re",
        "typing",
        "urllib",
    }
)
_NOT_CALLED = frozenset(
    {"eval", "exec", "compile", "open", "__import__", "getattr", "setattr", "delattr", "globals", "locals", "vars", "breakpoint", "input"}
)
_SKIPS = frozenset({"skip", "skipif", "xfail", "importorskip", "exit", "only_browser", "skip_browser"})
_MACHINERY = frozenset(
    {
        *("route", "unroute", "unroute_all", "route_from_har", "route_web_socket", "add_init_script", "set_content", "new_cdp_session"),
        *("expose_function", "expose_binding", "add_script_tag", "evaluate", "evaluate_handle", "evaluate_all", "eval_on_selector"),
        *(
            "eval_on_selector_all",
            "dispatch_event",
            "launch",
            "launch_persistent_context",
            "connect",
            "connect_over_cdp",
            "remove_listener",
        ),
    }
)
_FIXTURES = frozenset(
    {
        *("page", "context", "browser", "browser_type", "browser_name", "browser_context_args", "browser_type_launch_args", "playwright"),
        *("base_url", "new_context", "launch_browser", "request", "connect_options", "pytestmark"),
    }
)


def imported(checkout: Path, path: str, beside: Collection[str]) -> set[str]:
    """Which of the modules `beside` (paths) a file imports, by the name of the file."""
    tree = parse(checkout, path)
    names = {name.split(".")[0] for name in _imports(tree)} if tree else set()
    return {p for p in beside if p != path and PurePosixPath(p).stem in names}


def faults(checkout: Path, path: str, beside: Collection[str]) -> str:
    """Why a file's tests are not tried, "" for none. `beside` are the other files that it may import."""
    tree = parse(checkout, path)
    if tree is None:
        return "is no valid Python"
    known = _LIBRARIES | {PurePosixPath(p).stem for p in beside}
    if foreign := sorted({n for n in _imports(tree) if n.split(".")[0] not in known or n.startswith("playwright._")}):
        return f"imports {', '.join(foreign)}"
    for node in ast.walk(tree):
        if why := _fault(node):
            return f"line {getattr(node, 'lineno', 0)} {why}"
    return next((f"{f.name} expects nothing" for f in _tests(tree) if not _expects(f)), "")


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module if node.module and not node.level else "." * node.level + (node.module or "")


def _fault(node: ast.AST) -> str:
    if isinstance(node, ast.AsyncFunctionDef):
        return "is asynchronous"
    if isinstance(node, ast.FunctionDef) and (node.name in _FIXTURES or node.name.startswith("pytest_")) and not _in_a_way_of_its_own(node):
        return f"takes the place of {node.name}"
    if isinstance(node, ast.Name):
        return _name(node)
    if isinstance(node, ast.Attribute):
        return _attribute(node)
    if isinstance(node, ast.alias) and node.name in _SKIPS:
        return f"imports {node.name}"
    return ""


def _in_a_way_of_its_own(node: ast.FunctionDef) -> bool:
    """A method or property of a page object may be called `page`; a fixture may not."""
    return bool(node.args.args) and node.args.args[0].arg == "self"


def _name(node: ast.Name) -> str:
    if node.id in _NOT_CALLED or node.id.startswith("__"):
        return f"uses {node.id}"
    if isinstance(node.ctx, ast.Store) and node.id in ("pytestmark", "pytest_plugins", "expect"):
        return f"sets {node.id}"
    return ""


def _attribute(node: ast.Attribute) -> str:
    if node.attr in _SKIPS:
        return f"skips: {node.attr}"
    if node.attr in _MACHINERY:
        return f"reaches into the browser: {node.attr}"
    own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    return f"uses {node.attr}" if node.attr.startswith("_" if not own else "__") else ""


def _tests(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            yield node


def _expects(function: ast.FunctionDef) -> bool:
    return any(
        isinstance(node, ast.Assert) or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "expect")
        for node in ast.walk(function)
    )
