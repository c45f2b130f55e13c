"""`setup.py` read as data: its syntax tree, and of that only what stands there literally. It is never run."""

from __future__ import annotations

import ast
import warnings
from typing import Any

__all__ = ["setup_arguments"]

_WANTED = {"name", "version", "install_requires", "extras_require", "tests_require", "entry_points", "package_dir", "use_scm_version"}


class _Unknown(Exception):
    """The value is computed."""


def setup_arguments(text: bytes) -> tuple[dict[str, Any], list[str]]:
    """The literal arguments of `setup(...)` that matter, and the names of those that are computed; raise ValueError or
    SyntaxError for what is no Python. `ext_modules` is only told as there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(text)
    names = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found: dict[str, Any] = {}
    computed: list[str] = []
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or ast.unparse(call.func).rsplit(".", 1)[-1] != "setup":
            continue
        for keyword in call.keywords:
            if keyword.arg in ("ext_modules", "cffi_modules", "rust_extensions"):
                found["compiled"] = True
            elif keyword.arg in _WANTED:
                try:
                    found[keyword.arg] = _value(keyword.value, names, 0)
                except _Unknown:
                    computed.append(keyword.arg)
    return found, computed


def _value(node: ast.expr, names: dict[str, ast.expr], depth: int) -> Any:
    """A literal, names that stand for literals, and sums of lists."""
    if depth > 20:  # noqa: PLR2004 - a name may stand for itself
        raise _Unknown
    if isinstance(node, ast.Name) and node.id in names:
        return _value(names[node.id], names, depth + 1)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _value(node.left, names, depth + 1), _value(node.right, names, depth + 1)
        if type(left) is not type(right) or not isinstance(left, list | str | tuple):
            raise _Unknown
        return left + right
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item, names, depth + 1) for item in node.elts]
    if isinstance(node, ast.Dict) and all(node.keys):
        return {str(_value(k, names, depth + 1)): _value(v, names, depth + 1) for k, v in zip(node.keys, node.values, strict=True) if k}
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise _Unknown from error
