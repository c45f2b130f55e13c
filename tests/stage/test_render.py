import pytest

from taxiway.errors import InputError
from taxiway.records import Result
from taxiway.render import decide, render, stage_scope

SCOPE = {
    "params": {"name": "greeter", "deploy": True, "count": 3, "list": ["a", 1], "items": "own", "text": "{{ params.name }}"},
    "stages": stage_scope(
        {
            "validate": Result(
                commit="a" * 40, metrics={"coverage.line": 91.5, "tests.total": 12}, outputs={"url": "http://127.0.0.1:1", "keys": 2}
            )
        }
    ),
    "run": {"id": "manual-1", "pipeline": "p", "attempt": 1},
}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("plain", "plain"),
        ("{{ params.count }}", 3),
        ("{{params.count}}", 3),
        ("{{- params.count -}}", 3),
        ("{{ params.deploy }}", True),
        ("{{ params.list }}", ["a", 1]),
        ("{{ params.name | upper }}", "GREETER"),
        ("{{ params.count }} of {{ params.count }}", "3 of 3"),
        (" {{ params.count }}", " 3"),
        ("{{ '}}' }}", "}}"),
        ("{# c #}{{ params.count }}", "3"),
        ("{{ stages.validate.metrics.coverage.line }}", 91.5),
        ("{{ stages.validate.outputs.url }}/x", "http://127.0.0.1:1/x"),
        ("{{ stages.validate.outputs.keys }}", 2),
        ("{{ params.items }}", "own"),
        ("{% if params.deploy %}yes{% endif %}", "yes"),
        ("{{ params.text }}", "{{ params.name }}"),
        (7, 7),
        (None, None),
        ({"a": ["{{ params.count }}", {"b": "{{ run.id }}"}]}, {"a": [3, {"b": "manual-1"}]}),
    ],
    ids=str,
)
def test_render(template, value):
    rendered = render(template, SCOPE)
    assert rendered == value
    assert type(rendered) is type(value)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ params.nmae }}", "nmae"),
        ("{{ stages.deploy.outputs.url }}", "deploy"),
        ("{{ stages.validate.metrics.coverage.branch }}", "branch"),
        ("{{ conn.secret }}", "conn"),
        ("{{ var.value.x }} text", "var"),
        ("{{ params.name.__class__ }}", "__class__"),
        ("{{ params.__class__.__mro__ }}", "__class__"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "__class__"),
        ("{{ params.values() }}", "values"),
        ("{{ 'a' * 10000000000 }}", "*"),
        ("{{ 9 ** 9999999 }}", "**"),
        ("x{{ 'a' * 10000000000 }}", "*"),
        ("{{ range(99999999) }}", "range"),
        ("{{ range(3) }}", "range"),
        ("{{ [params.nope] }}", "StrictUndefined"),
        ("{{ 1 / 0 }}", "division"),
        ("{{ }}", "Expected"),
        ("{{ params.name", ""),
        ("{% include '/etc/passwd' %}", ""),
    ],
)
def test_render_refuses(template, says):
    with pytest.raises(InputError) as caught:
        render({"name": template}, SCOPE)
    assert says in str(caught.value)


def test_the_error_names_the_place():
    with pytest.raises(InputError, match=r"with\.a\[1\]"):
        render({"a": ["x", "{{ params.nope }}"]}, SCOPE)


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("params.deploy", True),
        ("not params.deploy", False),
        ("stages.validate.metrics.coverage.line > 90", True),
        ("params.count == 3 and params.name in ['a']", False),
        ("stages.validate.outcome == 'success'", True),
    ],
)
def test_when(expression, answer):
    assert decide(expression, SCOPE) is answer


@pytest.mark.parametrize(
    "expression", ["params.count", "params.name", "'false'", "none", "params.nope", "stages.validate.metrics.lint.errors == 0", "[]"]
)
def test_when_is_strictly_boolean(expression):
    with pytest.raises(InputError):
        decide(expression, SCOPE)
