import ast
import re
import tokenize
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxiway.compiler.plan import Limits, Plan, PlannedPolicy
from taxiway_airflow.modules import broken_module, closed_module, module_name, pipeline_module, pipeline_of, source_of

BREAKS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\0", "\x1a", "\\\n", "\ufeff"]
NASTY = [
    b"coding: latin-1",
    b'"""',
    b"'''",
    b"\\",
    b"import os",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\x00",
    b"\r",
    b"{{ x }}",
    "\u202e".encode(),
]
specs = st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(NASTY), st.sampled_from([b.encode() for b in BREAKS]))).map(b"".join)
names = st.text(min_size=1, max_size=30).map(lambda text: f"{text}.yaml")
NAME = "shop.yaml"


def statements(module):
    tree = ast.parse(compile(module, "module", "exec", ast.PyCF_ONLY_AST, dont_inherit=True) and module)
    return [ast.unparse(s) for s in tree.body]


@given(spec=specs, name=names, text=st.text())
def test_a_good_module_holds_two_statements(plan_json, spec, name, text):
    plan = plan_json(text)
    module = pipeline_module(plan, name, spec)
    first, second = statements(module)
    assert first == "from taxiway_airflow.dag import build_dag"
    call = ast.parse(second).body[0].value
    assert (second.split("(")[0], ast.literal_eval(call.args[0])) == ("dag = build_dag", plan.to_json())
    assert (source_of(module), pipeline_of(module)) == (name, "shop")
    closed = closed_module(module)
    assert statements(closed)[1] == second[:-1] + ", closed=True)"
    assert (closed_module(closed), pipeline_of(closed)) == (closed, "shop")


@given(spec=specs, name=names, message=st.one_of(st.text(), st.text(st.characters(categories=["Cs", "Cc"]))))
def test_a_broken_module_holds_three(spec, name, message):
    module = broken_module(message, name, spec)
    first, second, third = statements(module)
    assert first == "from taxiway_airflow.broken import SpecRefused"
    shown = ast.literal_eval(ast.parse(second).body[0].value)
    assert third == "raise SpecRefused(MESSAGE) from None"
    shown.encode()
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", shown)


@pytest.fixture(scope="module")
def plan_json():
    policy = PlannedPolicy("default", (), False)
    return lambda text: Plan("shop", text, "me", (), {}, None, Limits(1, 1, 1.0), (), policy, "shop.yaml", "d", "0.1")


@pytest.mark.parametrize("line_break", BREAKS, ids=ascii)
def test_no_line_break_leaves_the_comment(line_break):
    spec = f"a: 1{line_break}raise SystemExit(1){line_break}#".encode()
    module = broken_module("x", NAME, spec)
    assert len(statements(module)) == 3
    assert not [t for t in tokenize.tokenize(BytesIO(module).readline) if t.string == "SystemExit"]


@pytest.mark.parametrize("name", ["coding=utf-7.yaml", "# coding: latin1.yaml", "vim: set fileencoding=cp037 :.yaml"])
def test_no_encoding_is_taken_from_a_name_or_spec(name):
    module = broken_module("x", name, f"# {name}".encode())
    assert tokenize.detect_encoding(BytesIO(module).readline)[0] == "utf-8"


def test_it_shows_the_yaml_and_airflows_words():
    module = broken_module("x", NAME, "pipeline: shop\n\ndescription: grün\n".encode())
    assert "\n# pipeline: shop\n#\n# description: grün\n".encode() in module
    assert b"airflow" in module
    assert b"dag" in module.lower()


def test_a_huge_spec_is_cut():
    assert len(broken_module("x", NAME, b"x" * 10_000_000)) < 300_000
    assert b"more bytes" in broken_module("x", NAME, b"x" * 10_000_000)


@pytest.mark.parametrize(
    ("name", "pipeline", "module"),
    [
        ("shop.yaml", "shop", r"shop\.py"),
        ("shop.yml", "shop", r"shop_yml-[0-9a-f]{16}\.py"),
        ("shop.yaml", "other", r"shop_yaml-[0-9a-f]{16}\.py"),
        ("a.b.yaml", "a", r"a_b_yaml-[0-9a-f]{16}\.py"),
        ("a_b.yaml", "a_b", r"a_b\.py"),
        ("../../x\n.yaml", "", r"x_yaml-[0-9a-f]{16}\.py"),
        ("ü.yaml", "", r"yaml-[0-9a-f]{16}\.py"),
        ("\udcff.yaml", "", r"yaml-[0-9a-f]{16}\.py"),
    ],
)
def test_names(name, pipeline, module):
    assert re.fullmatch(module, module_name(name, pipeline))


def test_different_specs_have_different_names():
    pairs = [(f"{stem}{end}", p) for stem in ("a.b", "a_b", "a-b", "A_b", "a b") for end in (".yaml", ".yml") for p in ("a_b", "", "x")]
    assert len({module_name(*pair) for pair in pairs}) == len(pairs)


@pytest.mark.parametrize("text", [b"", b"import os\n", b"# Written by Taxiway", b"\xff" * 2000])
def test_other_modules_have_no_source(text):
    assert source_of(text) is pipeline_of(text) is None
