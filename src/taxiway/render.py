"""Rendering of `with` and `when`: a Jinja sandbox that knows `params`, `stages`, `run` and `matrix`, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment

from taxiway.errors import InputError
from taxiway.records import Result

__all__ = ["decide", "render", "stage_scope"]

_LIMIT = 65_536
"""Characters of one rendered value: what a `with` holds is a setting, not a document."""


class _Sandbox(SandboxedEnvironment):
    """Data only: a name after a dot is a key of the mapping, never a method of Python's dict."""

    intercepted_binops = frozenset({"*", "**"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        # Repeating text or raising to powers is how a short template becomes a gigabyte.
        if operator == "**" or not all(isinstance(x, int | float) for x in (left, right)):
            raise SecurityError(f"{operator} works on no such values here")
        return super().call_binop(context, operator, left, right)


_ENVIRONMENT = _Sandbox(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)


def render(value: Any, scope: Mapping[str, Any], *, where: str = "with") -> Any:
    """`value` with every template in it replaced; a text that is exactly one `{{ expression }}` keeps the expression's type.

    Raises InputError naming the place (`with.name`) and the template.
    """
    if isinstance(value, Mapping):
        return {key: render(item, scope, where=f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [render(item, scope, where=f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, str) and ("{{" in value or "{%" in value or "{#" in value):
        return _render_text(value, scope, where)
    return value


def decide(expression: str, scope: Mapping[str, Any]) -> bool:
    """Whether `when` holds; raise InputError unless it is strictly true or false."""
    answer = _evaluate(expression, scope, "when")
    if not isinstance(answer, bool):
        raise InputError(
            f"when: `{expression}` is {answer!r}, which is neither true nor false", hint="compare it with something, as in `x > 0`"
        )
    return answer


def stage_scope(results: Mapping[str, Result]) -> dict[str, Any]:
    """What `stages` is in a template: outcome, commit, outputs, and metrics by their dotted names; below the names of
    its cells for a stage with a matrix."""
    return _nest(
        {
            name: {"outcome": r.outcome, "commit": r.commit, "outputs": dict(r.outputs), "metrics": _nest(r.metrics)}
            for name, r in results.items()
        }
    )


def _nest(dotted: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in sorted(dotted.items()):
        *folders, leaf = name.split(".")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = value
    return tree


def _render_text(text: str, scope: Mapping[str, Any], where: str) -> Any:
    try:
        body = _ENVIRONMENT.parse(text).body
    except TemplateError as error:
        raise InputError(f"{where}: `{text}` is no template: {error}") from error
    if len(body) == 1 and isinstance(body[0], nodes.Output) and _is_one_expression(body[0]) and text[:2] == "{{" and text[-2:] == "}}":
        return _evaluate(text[2:-2].strip("+-"), scope, where)
    try:
        rendered = _ENVIRONMENT.from_string(text).render(scope)
    except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError) as error:
        raise InputError(f"{where}: `{text}`: {error}", hint=_HINT) from error
    return _bounded(rendered, text, where)


def _is_one_expression(output: nodes.Output) -> bool:
    return len(output.nodes) == 1 and not isinstance(output.nodes[0], nodes.TemplateData)


def _evaluate(expression: str, scope: Mapping[str, Any], where: str) -> Any:
    try:
        value = _ENVIRONMENT.compile_expression(expression, undefined_to_none=False)(**scope)
        if isinstance(value, StrictUndefined):
            str(value)  # raises UndefinedError with the name
    except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError) as error:
        raise InputError(f"{where}: `{expression.strip()}`: {error}", hint=_HINT) from error
    return _bounded(value, expression, where)


def _bounded(value: Any, text: str, where: str) -> Any:
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _bounded(item, text, where)
    elif not isinstance(value, str | int | float | bool | None):
        raise InputError(
            f"{where}: `{text[:100]}` is a {type(value).__name__}, which is no setting", hint="give text, a number, a list or a mapping"
        )
    if isinstance(value, str) and len(value) > _LIMIT:
        raise InputError(f"{where}: `{text[:100]}` renders to {len(value)} characters; {_LIMIT} is the most")
    return value


_HINT = "a metric that was not measured has no value; params, stages.<id>.metrics/outputs/outcome/commit, run and matrix are known"
