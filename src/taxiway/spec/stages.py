"""What one stage says, held against its agent, the policy, the params and the stages that run before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import nodes as ast
from pydantic import ValidationError

from taxiway.agents.base import Agent
from taxiway.spec import templates
from taxiway.spec.matrix import Cell, cells_of
from taxiway.spec.models import ParamSpec, Policy, StageSpec
from taxiway.spec.reading import explain
from taxiway.spec.source import Node, Report
from taxiway.spec.templates import Reference, TemplateProblem
from taxiway.spec.values import Threshold, contradict, implies, read_gate
from taxiway.spec.words import did_you_mean, show

__all__ = [
    "Scope",
    "axis_inputs",
    "check_axes",
    "check_condition",
    "check_contradictions",
    "check_floor",
    "check_inputs",
    "check_metrics",
    "check_template",
    "filled_inputs",
    "read_gates",
    "template_stages",
]


@dataclass(frozen=True)
class Scope:
    """What the expressions of one stage may name: `before` are the agents of the stages that run before it, by stage;
    `others` are all stages of the file; `matrix` are the stage's own axes, `cells` the names of those of each stage that
    has a matrix. None for what is broken and cannot be judged."""

    stage: str
    params: Mapping[str, ParamSpec]
    before: Mapping[str, Agent | None]
    others: Iterable[str]
    broken_params: bool = False
    matrix: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    cells: Mapping[str, Sequence[str]] = field(default_factory=dict)


def read_gates(raw: Iterable[Any], node: Node, report: Report) -> list[tuple[Threshold, Node]]:
    """The gates of a list and where they stand, reporting those that are none."""
    found = []
    for index, gate in enumerate(raw):
        at = node.find([index])
        try:
            found.append((read_gate(gate), at))
        except ValueError as error:
            report.add(at, str(error.args[0]), rule="bad-gate", hint=error.args[1] if len(error.args) > 1 else "")
    return found


def check_metrics(gates: Iterable[tuple[Threshold, Node]], agent: Agent, report: Report) -> None:
    """Report gates on metrics that the agent does not declare."""
    for gate, at in gates:
        if gate.metric not in agent.metrics:
            problem = (
                f"agent {show(agent.name)} measures no {show(gate.metric)}"
                if agent.metrics
                else f"agent {show(agent.name)} measures nothing"
            )
            hint = did_you_mean(gate.metric, agent.metrics, otherwise="" if agent.metrics else "remove its gates")
            report.add(at, problem, rule="unknown-metric", hint=hint)


def check_floor(
    gates: Iterable[tuple[Threshold, Node]], agent: Agent, policy: Policy | None, report: Report, given: Mapping[str, Any] | None = None
) -> None:
    """Report gates that would let through what the agent's default gates (for a stage's `with`) or the policy do not."""
    floor = [(read_gate(text), f"the default of agent {show(agent.name)}:") for text in agent.default_gates(given)]
    if policy:
        floor += [(gate, f"policy {show(policy.name)}:") for gate in policy.gates.get(agent.name, ())]
    for gate, at in gates:
        for wall, whose in floor:
            if gate.blocking and wall.blocking and contradict(gate, wall):
                hint = "the stage could never pass; mend the threshold"
                report.add(at, f"no value passes `{gate}` and {whose} `{wall}`", rule="contradiction", hint=hint)
                break
            weaker = implies(wall, gate) and not implies(gate, wall)
            freed = implies(wall, gate) and wall.blocking and not gate.blocking
            if weaker or freed:
                what = "is weaker than" if weaker else "does not block as does"
                hint = "a pipeline may only be stricter; remove the gate, or ask the policy's owner for a waiver"
                report.add(at, f"`{gate}` {what} {whose} `{wall}`", rule="loosens-policy", hint=hint)
                break


def check_inputs(data: dict[str, Any], agent: Agent, stage: Node, report: Report, scope: Scope, *, conditional: bool) -> None:
    """Report templates that name what is not there, and values that the agent does not take."""
    node = stage.get("with") or stage
    found = _templates(data)
    for path, text in found:
        at = node.find(path)
        try:
            for reference in templates.template(text):
                _check_reference(reference, at, report, scope)
        except TemplateProblem as problem:
            report.add(at, problem.problem, rule=problem.rule, hint=problem.hint)
    known = {} if conditional else {f"params.{n}": p.default for n, p in scope.params.items() if "default" in p.model_fields_set}
    for cell in cells_of(scope.matrix) or (Cell("", {}),):
        # A cell that `when` skips may hold what the agent does not take, so only what needs no matrix is judged then.
        own = {} if conditional else {f"matrix.{axis}": value for axis, value in cell.values.items()}
        whole = {**axis_inputs(cell.values, agent, data), **data}
        filled, open_ = _fill(whole, known | own) if found or scope.matrix else (whole, set())
        try:
            agent.inputs.model_validate(filled)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                if not _depends(tuple(detail["loc"]), detail["type"], open_):
                    by_axis = bool(detail["loc"]) and detail["loc"][0] in scope.matrix and detail["loc"][0] not in data
                    explain(detail, stage.find(["matrix"]) if by_axis else node, report, model=agent.inputs)


def _depends(loc: tuple[str | int, ...], kind: str, open_: Iterable[tuple[str | int, ...]]) -> bool:
    """Whether a fault may go away once the templates at `open_` are rendered."""
    return any(loc[: len(path)] == path or (loc and path[: len(loc)] == loc and kind != "extra_forbidden") for path in open_)


def axis_inputs(values: Mapping[str, Any], agent: Agent, given: Mapping[str, Any]) -> dict[str, Any]:
    """The axes that are inputs of the agent by their name, unless `with` says something of its own."""
    known = {info.alias or name for name, info in agent.inputs.model_fields.items()}
    return {axis: value for axis, value in values.items() if axis in known and axis not in given}


def check_contradictions(gates: Sequence[tuple[Threshold, Node]], report: Report) -> None:
    """Report a gate that nothing passes which passes one above it."""
    for index, (gate, at) in enumerate(gates):
        if wall := next((w for w, _ in gates[:index] if w.blocking and gate.blocking and contradict(gate, w)), None):
            hint = "the stage could never pass; remove one of them"
            report.add(at, f"no value passes `{gate}` and `{wall}`", rule="contradiction", hint=hint)


def check_template(gates: Sequence[tuple[Threshold, Node]], report: Report) -> None:
    """Report gates that would let through what the template below them does not: gates add up, so they would do nothing."""
    for index, (gate, at) in enumerate(gates):
        for wall, below in gates[:index]:
            if below.origin is None or below.origin == at.origin or not implies(wall, gate):
                continue
            if not implies(gate, wall) or (wall.blocking and not gate.blocking):
                hint = "a stage may only be stricter than its template; remove the gate, or extend another one"
                report.add(at, f"`{gate}` is weaker than template {show(below.origin.name)}: `{wall}`", rule="loosens-template", hint=hint)
                break


def filled_inputs(given: Mapping[str, Any], values: Mapping[str, Any], agent: Agent) -> dict[str, Any]:
    """The `with` of a cell as far as it is known before a run: every `{{ matrix.AXIS }}` replaced."""
    filled, _ = _fill({**axis_inputs(values, agent, given), **given}, {f"matrix.{axis}": value for axis, value in values.items()})
    return dict(filled)


def check_axes(stage: StageSpec, agent: Agent, node: Node, report: Report) -> None:
    """Report a matrix of an agent that does more than measure, and an axis that changes nothing."""
    if agent.effect != "measures":
        hint = "only stages that measure fan out: side by side, their changes would contradict each other"
        at = node.find(["matrix"], key=True)
        report.add(at, f"agent {show(agent.name)} {agent.effect}: its stage has no matrix", rule="bad-matrix", hint=hint)
        return
    used = {r.parts[1] for r in stage_references(stage.with_, stage.when) if r.parts[0] == "matrix" and len(r.parts) > 1}
    used |= axis_inputs(stage.matrix, agent, stage.with_).keys()
    for axis in stage.matrix.keys() - used:
        at = node.find(["matrix", axis], key=True)
        known = [info.alias or name for name, info in agent.inputs.model_fields.items()]
        hint = did_you_mean(
            axis, known, otherwise=f"write {{{{ matrix.{axis} }}}} into `with` or `when`, or name it like an input of the agent"
        )
        report.add(at, f"nothing uses the axis {show(axis)}", rule="bad-matrix", hint=hint)


def stage_references(data: Any, when: str | None) -> tuple[Reference, ...]:
    """Everything that the expressions of a stage name, in order; raise TemplateProblem where one cannot be read."""
    found = [reference for _, text in _templates(data) for reference in templates.template(text)]
    return (*found, *(templates.condition(when)[0] if when else ()))


def template_stages(data: Any, when: str | None, cells: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The stages, and the cells of those that have some, that the expressions of a stage name, in order."""
    paths = [r.parts[1:] for r in stage_references(data, when) if r.parts[0] == "stages"]
    return tuple(dict.fromkeys(".".join(path[:2]) if path[0] in cells else path[0] for path in paths))


def check_condition(text: str, at: Node, report: Report, scope: Scope) -> None:
    """Report a `when` that is no condition, names what is not there, or is neither true nor false."""
    try:
        found, expression = templates.condition(text)
        for reference in found:
            _check_reference(reference, at, report, scope)
        for compared in expression.find_all(ast.Compare) if not isinstance(expression, ast.Compare) else [expression]:
            _check_compare(compared, at, report, scope)
        if not _may_be_boolean(expression, scope):
            hint = "compare it with something, as in `params.name != ''` or `stages.validate.metrics.coverage.line > 90`"
            report.add(at, "the condition is neither true nor false", rule="bad-condition", hint=hint)
    except TemplateProblem as problem:
        report.add(at, problem.problem, rule=problem.rule, hint=problem.hint)


def _templates(data: Any) -> list[tuple[tuple[str | int, ...], str]]:
    found: list[tuple[tuple[str | int, ...], str]] = []
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), data)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [((*path, key), item) for key, item in reversed(value.items())]
        elif isinstance(value, list):
            waiting += [((*path, i), item) for i, item in reversed(list(enumerate(value)))]
        elif templates.is_template(value):
            found.append((path, value))
    return found


def _fill(value: Any, known: Mapping[str, Any], path: tuple[str | int, ...] = ()) -> tuple[Any, set[tuple[str | int, ...]]]:
    """The value with `{{ name }}` replaced by what is known under that name, and the places of templates that stay open."""
    if isinstance(value, dict):
        parts = {key: _fill(item, known, (*path, key)) for key, item in value.items()}
        return {key: item for key, (item, _) in parts.items()}, set[tuple[str | int, ...]]().union(*(o for _, o in parts.values()))
    if isinstance(value, list):
        items = [_fill(item, known, (*path, i)) for i, item in enumerate(value)]
        return [item for item, _ in items], set[tuple[str | int, ...]]().union(*(o for _, o in items))
    if not templates.is_template(value):
        return value, set()
    whole = templates.only_expression(value)
    return (known[whole], set()) if whole is not None and whole in known else (value, {path})


def _check_reference(reference: Reference, at: Node, report: Report, scope: Scope) -> None:
    root, *rest = reference.parts
    names = ("params", "stages", "run", *(["matrix"] if scope.matrix else []))
    if root not in names:
        hint = did_you_mean(root, names, otherwise=f"{', '.join(names[:-1])} and {names[-1]} are known; quote texts")
        hint = "this stage has no `matrix:`" if root == "matrix" else hint
        report.add(at, f"unknown name {show(root)}", rule="unknown-name", hint=hint)
    elif not rest:
        report.add(at, f"{show(root)} needs a name after it", rule="unknown-name", hint=f"write {root}.NAME")
    elif root == "params":
        if rest[0] not in scope.params and not scope.broken_params:
            hint = did_you_mean(rest[0], scope.params, otherwise="" if scope.params else "add it under `params:`")
            report.add(at, f"unknown param {show(rest[0])}", rule="unknown-param", hint=hint)
    elif root == "matrix":
        if rest[0] not in scope.matrix:
            report.add(at, f"unknown axis {show(rest[0])}", rule="unknown-axis", hint=did_you_mean(rest[0], scope.matrix))
        elif len(rest) > 1:
            report.add(at, f"{show(str(reference))} goes below a value", rule="unknown-name", hint=f"write matrix.{rest[0]}")
    elif root == "run":
        if rest[0] not in templates.RUN_FIELDS or len(rest) > 1:
            report.add(at, f"unknown name {show(str(reference))}", rule="unknown-name", hint=did_you_mean(rest[0], templates.RUN_FIELDS))
    else:
        _check_stage(reference, rest, at, report, scope)


def _check_stage(reference: Reference, rest: list[str], at: Node, report: Report, scope: Scope) -> None:
    name, *path = rest
    cells = scope.cells.get(name, ())
    if cells and name in scope.before and (not path or path[0] not in cells):
        hint = did_you_mean(path[0] if path else "", cells, otherwise=f"name one of its cells: {', '.join(cells)}")
        report.add(at, f"stage {show(name)} has cells, and {show(str(reference))} names none", rule="unknown-cell", hint=hint)
        return
    prefix, path = (f"{name}.{path[0]}", path[1:]) if cells and path else (name, path)
    if name not in scope.others:
        report.add(at, f"unknown stage {show(name)}", rule="unknown-stage", hint=did_you_mean(name, scope.before))
    elif name not in scope.before:
        hint = f"only stages that it follows have results; add {name} to its needs"
        what = "is the stage itself" if name == scope.stage else f"does not run before {show(scope.stage)}"
        report.add(at, f"stage {show(name)} {what}", rule="not-before", hint=hint)
    elif not path or path[0] not in templates.STAGE_FIELDS:
        hint = did_you_mean(path[0] if path else "", templates.STAGE_FIELDS)
        report.add(at, f"{show(str(reference))} is no field of a stage's result", rule="unknown-name", hint=hint)
    elif agent := scope.before[name]:
        known: Iterable[str] = agent.metrics if path[0] == "metrics" else agent.outputs
        if path[0] in ("metrics", "outputs") and ".".join(path[1:]) not in known:
            what = f"{path[0].removesuffix('s')} {show('.'.join(path[1:]))}"
            hint = did_you_mean(".".join(path[1:]), known, otherwise="" if list(known) else f"it has no {path[0]}")
            report.add(at, f"agent {show(agent.name)} of stage {show(name)} has no {what}", rule="unknown-metric", hint=hint)
        elif path[0] in ("commit", "outcome") and len(path) > 1:
            report.add(at, f"{show(str(reference))} goes below a text", rule="unknown-name", hint=f"write stages.{prefix}.{path[0]}")


def _check_compare(node: ast.Compare, at: Node, report: Report, scope: Scope) -> None:
    """Report two sides that are never of one type: the comparison would fail, or always be the same."""
    kinds = [_kind(side, scope) for side in (node.expr, *(operand.expr for operand in node.ops))]
    if all(operand.op not in ("in", "notin") for operand in node.ops) and len({kind for kind in kinds if kind}) > 1:
        problem = f"the condition compares {' with '.join(kind or 'something' for kind in kinds)}"
        report.add(at, problem, rule="bad-condition", hint="quote texts and nothing else: params.name == 'x', params.count > 3")


def _kind(node: ast.Node, scope: Scope) -> str:
    """`a text`, `a number`, `true or false`; "" where nobody knows before a run."""
    if isinstance(node, ast.Const):
        return _kind_of(node.value)
    if not isinstance(node, ast.Getattr | ast.Getitem):
        return ""
    root, _, rest = (templates.only_expression("{{ " + _text_of(node) + " }}") or "").partition(".")
    if root == "params" and rest in scope.params:
        return {"string": "a text", "integer": "a number", "number": "a number", "boolean": "true or false"}.get(
            scope.params[rest].type, ""
        )
    if root == "matrix" and rest in scope.matrix:
        kinds = {_kind_of(value) for value in scope.matrix[rest]}
        return kinds.pop() if len(kinds) == 1 else ""
    return "a number" if root == "stages" and ".metrics." in rest else ""


def _kind_of(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "a text" if isinstance(value, str) else "a number" if isinstance(value, int | float) else ""


def _may_be_boolean(node: ast.Node, scope: Scope) -> bool:
    if isinstance(node, ast.Const):
        return isinstance(node.value, bool)
    if isinstance(node, ast.And | ast.Or):
        return _may_be_boolean(node.left, scope) and _may_be_boolean(node.right, scope)
    if isinstance(node, ast.CondExpr):
        return _may_be_boolean(node.expr1, scope) and (node.expr2 is None or _may_be_boolean(node.expr2, scope))
    if isinstance(node, ast.Getattr | ast.Getitem):
        return _names_boolean(node, scope)
    return isinstance(node, ast.Compare | ast.Not | ast.Test | ast.Filter)


def _names_boolean(node: ast.Getattr | ast.Getitem, scope: Scope) -> bool:
    path = templates.only_expression("{{ " + _text_of(node) + " }}") or ""
    root, _, rest = path.partition(".")
    if root == "params" and rest in scope.params:
        return scope.params[rest].type == "boolean"
    if root == "matrix":
        return all(isinstance(value, bool) for value in scope.matrix.get(rest, [True]))
    if root == "stages":
        return ".outputs." in path
    return root != "run"


def _text_of(node: ast.Node) -> str:
    if isinstance(node, ast.Getattr):
        return f"{_text_of(node.node)}.{node.attr}"
    return node.name if isinstance(node, ast.Name) else "x"
