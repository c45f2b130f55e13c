"""What a template or condition names, found without running it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.sandbox import SandboxedEnvironment

from taxiway.spec.words import did_you_mean, show

__all__ = [
    "RUN_FIELDS",
    "STAGE_FIELDS",
    "Reference",
    "TemplateProblem",
    "condition",
    "is_template",
    "only_expression",
    "references",
    "template",
]

RUN_FIELDS = ("attempt", "id", "pipeline", "started")
STAGE_FIELDS = ("commit", "metrics", "outcome", "outputs")

_ENVIRONMENT = SandboxedEnvironment()
_MOST = 10_000
# What calls, loops or loads is left out: a spec holds settings, not programs. `**` and repeated text can fill the memory.
_ALLOWED = (
    nodes.Add,
    nodes.And,
    nodes.Compare,
    nodes.Concat,
    nodes.CondExpr,
    nodes.Const,
    nodes.Dict,
    nodes.Div,
    nodes.Filter,
    nodes.FloorDiv,
    nodes.Getattr,
    nodes.Getitem,
    nodes.If,
    nodes.Keyword,
    nodes.List,
    nodes.Mod,
    nodes.Mul,
    nodes.Name,
    nodes.Neg,
    nodes.Not,
    nodes.Operand,
    nodes.Or,
    nodes.Output,
    nodes.Pair,
    nodes.Pos,
    nodes.Slice,
    nodes.Sub,
    nodes.Template,
    nodes.TemplateData,
    nodes.Test,
    nodes.Tuple,
)
_FILTERS = frozenset(
    {
        "abs",
        "default",
        "d",
        "first",
        "float",
        "int",
        "join",
        "last",
        "length",
        "lower",
        "max",
        "min",
        "replace",
        "round",
        "sort",
        "string",
        "sum",
        "tojson",
        "trim",
        "truncate",
        "unique",
        "upper",
        "urlencode",
    }
)
_TESTS = frozenset(
    {
        "boolean",
        "defined",
        "divisibleby",
        "eq",
        "equalto",
        "even",
        "false",
        "float",
        "ge",
        "gt",
        "greaterthan",
        "in",
        "integer",
        "le",
        "lessthan",
        "lower",
        "lt",
        "mapping",
        "ne",
        "none",
        "number",
        "odd",
        "sequence",
        "string",
        "true",
        "undefined",
        "upper",
    }
)


class TemplateProblem(Exception):
    """A text that is no template or condition, with a rule and a hint."""

    def __init__(self, problem: str, *, rule: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem, self.rule, self.hint = problem, rule, hint


@dataclass(frozen=True)
class Reference:
    """A chain of names such as `("stages", "validate", "metrics", "coverage", "line")`."""

    parts: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.parts)


def is_template(value: object) -> bool:
    """Whether a value is a text that will be rendered."""
    return isinstance(value, str) and ("{{" in value or "{%" in value or "{#" in value)


@lru_cache(4096)  # a pipeline says `{{ params.name }}` many times
def template(text: str) -> tuple[Reference, ...]:
    """The names in a template, in order; raise TemplateProblem where it is none."""
    return _references(_parse(text))


def condition(text: str) -> tuple[tuple[Reference, ...], nodes.Expr]:
    """The names in a `when` and its expression; raise TemplateProblem where it is none."""
    if is_template(text):
        raise TemplateProblem("a condition stands without braces", rule="bad-template", hint="write `when: params.deploy`")
    tree = _parse("{{ (" + text + "\n) }}")
    body = tree.body
    inner = body[0].nodes if len(body) == 1 and isinstance(body[0], nodes.Output) else []
    if len(inner) != 1 or isinstance(inner[0], nodes.TemplateData | nodes.Tuple):
        raise TemplateProblem("a condition is one expression", rule="bad-template", hint="join conditions with `and` or `or`")
    return _references(tree), inner[0]


def references(text: str) -> set[str]:
    """The dotted paths that a template names; raise TemplateProblem where it is none."""
    return {str(reference) for reference in template(text)}


def only_expression(text: str) -> str | None:
    """The dotted path if the text is exactly `{{ path }}`, else None."""
    try:
        body = _parse(text).body
    except TemplateProblem:
        return None
    if len(body) == 1 and isinstance(body[0], nodes.Output) and len(body[0].nodes) == 1:
        chain = _chain(body[0].nodes[0])
        return ".".join(chain) if chain else None
    return None


@lru_cache(maxsize=256)  # each is looked at three or four times while a file is checked
def _parse(text: str) -> nodes.Template:
    if len(text) > _MOST:
        raise TemplateProblem(f"the template is over {_MOST} characters", rule="bad-template", hint="a spec holds settings, not documents")
    try:
        tree = _ENVIRONMENT.parse(text)
    except TemplateError as error:
        hint = "expressions look like {{ params.name }}; quote a literal brace as {{ '{{' }}"
        raise TemplateProblem(f"the template cannot be read: {error.message or 'bad syntax'}", rule="bad-template", hint=hint) from error
    except (RecursionError, ValueError, OverflowError, MemoryError) as error:
        raise TemplateProblem("the template cannot be read", rule="bad-template", hint="simplify it") from error
    for node in _walk(tree):
        _check(node)
    return tree


def _walk(tree: nodes.Node) -> Iterator[nodes.Node]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(list(node.iter_child_nodes())))


def _check(node: nodes.Node) -> None:
    if not isinstance(node, _ALLOWED):
        word = type(node).__name__.lower()
        hint = "use expressions, filters such as `| upper`, and if; nothing is called, repeated or loaded"
        raise TemplateProblem(f"{show(word)} is not allowed in a template", rule="bad-template", hint=hint)
    if isinstance(node, nodes.Filter | nodes.Test):
        known = _FILTERS if isinstance(node, nodes.Filter) else _TESTS
        if node.name not in known:
            kind = "filter" if isinstance(node, nodes.Filter) else "test"
            raise TemplateProblem(f"unknown {kind} {show(node.name)}", rule="bad-template", hint=did_you_mean(node.name, known))
    if isinstance(node, nodes.Mul) and any(
        isinstance(side, nodes.Const) and isinstance(side.value, str) for side in (node.left, node.right)
    ):
        raise TemplateProblem("a text cannot be multiplied", rule="bad-template", hint="write it out")


def _chain(node: Any) -> tuple[str, ...] | None:
    """The names of `a.b['c.d']`; None where it does not start with a name or has a computed part."""
    parts: list[str] = []
    while not isinstance(node, nodes.Name):
        if isinstance(node, nodes.Getattr):
            parts.append(node.attr)
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str | int):
            parts.append(str(node.arg.value))
        else:
            return None
        node = node.node
    return (node.name, *reversed(parts))


def _references(tree: nodes.Node) -> tuple[Reference, ...]:
    found: dict[Reference, None] = {}
    inner: set[int] = set()
    for node in _walk(tree):
        if id(node) in inner or not isinstance(node, nodes.Name | nodes.Getattr | nodes.Getitem):
            continue
        chain = _chain(node)
        if chain is None:
            if _root(node) == "stages":
                hint = "name the stage and the field, as in stages.validate.metrics.coverage.line"
                raise TemplateProblem("a stage's field is chosen by an expression", rule="bad-template", hint=hint)
            continue
        found.setdefault(Reference(chain))
        below: Any = node
        while not isinstance(below, nodes.Name):
            below = below.node
            inner.add(id(below))
    return tuple(found)


def _root(node: Any) -> str:
    while isinstance(node, nodes.Getattr | nodes.Getitem):
        node = node.node
    return node.name if isinstance(node, nodes.Name) else ""
