from __future__ import annotations

import pytest

from taxiway.cli.params import read_params
from taxiway.errors import InputError

DECLARED = {
    "name": {"type": "string", "default": "greeter"},
    "count": {"type": "integer", "default": 1},
    "ratio": {"type": "number", "default": 1.0},
    "deploy": {"type": "boolean", "default": True},
    "regions": {"type": "array", "default": []},
    "labels": {"type": "object", "default": {}},
    "note": {"type": ["string", "null"], "default": None},
    "size": {"enum": ["small", 2], "default": "small"},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("name=shop", "shop"),
        ("name=007", "007"),
        ("name=true", "true"),
        ("name=", ""),
        ("name=a=b", "a=b"),
        ("name={{ x }}", "{{ x }}"),
        ("count=3", 3),
        ("count=-3", -3),
        ("ratio=0.5", 0.5),
        ("ratio=2", 2),
        ("deploy=false", False),
        ("deploy=no", False),
        ("regions=[a, b]", ["a", "b"]),
        ("labels={a: 1}", {"a": 1}),
        ("note=", None),
        ("note=x", "x"),
        ("size=2", 2),
        ("size=small", "small"),
    ],
)
def test_reads(text, value):
    found = read_params([text], DECLARED)
    assert list(found.values()) == [value]
    assert type(next(iter(found.values()))) is type(value)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["name"], "no value"),
        (["=x"], "no value"),
        ([""], "no value"),
        (["nme=x"], r"no such param(.|\n)*did you mean name"),
        (["other=x"], "declares no such param"),
        (["name=a", "name=b"], "given twice"),
        (["count=many"], "no integer"),
        (["count=true"], "no integer"),
        (["count=1.5"], "no integer"),
        (["count="], "no integer"),
        (["deploy=1"], "no boolean"),
        (["regions=a"], "no array"),
        (["regions=[a"], "cannot be read as YAML"),
        (["labels=!!python/object:os.system {}"], "cannot be read as YAML"),
        (["count=\0"], "cannot be read as YAML"),
        (["size=large"], "choose from small, 2"),
    ],
)
def test_refuses(given, problem):
    with pytest.raises(InputError, match=problem):
        read_params(given, DECLARED)


def test_a_param_without_default_is_needed():
    with pytest.raises(InputError, match="without a value: a, b"):
        read_params([], {"a": {"type": "string"}, "b": {}})
    assert read_params(["a=1", "b=2"], {"a": {"type": "string"}, "b": {}}) == {"a": "1", "b": "2"}
