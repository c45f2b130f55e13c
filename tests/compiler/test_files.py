"""Files and folders to plans."""

import os
from datetime import date
from pathlib import Path

import pytest

from taxiway.agents import registry
from taxiway.compiler import Plan, compile_file, compile_folder
from taxiway.compiler.check import check
from taxiway.errors import SpecError

AGENTS = registry()
SPEC = "pipeline: {}\nstages:\n  v: {{agent: validate}}\n"


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def test_a_broken_file_leaves_its_neighbours(tmp_path):
    write(
        tmp_path,
        {
            "a.yaml": SPEC.format("a"),
            "b.yaml": "pipeline: [",
            "c.yml": SPEC.format("c"),
            "d.YAML": SPEC.format("d"),
            ".hidden.yaml": "x",
            "note.txt": "x",
        },
    )
    found = compile_folder(tmp_path, AGENTS)
    assert [p.name for p in found] == ["a.yaml", "b.yaml", "c.yml", "d.YAML"]
    assert [isinstance(p, Plan) for p in found.values()] == [True, False, True, True]


def test_the_second_file_with_an_id_is_refused(tmp_path):
    write(tmp_path, {"a.yaml": SPEC.format("same"), "b.yaml": "# note\n" + SPEC.format("same")})
    first, second = compile_folder(tmp_path, AGENTS).values()
    assert isinstance(first, Plan)
    assert str(second).startswith(f"{tmp_path / 'b.yaml'}:2:1: error: the pipeline id 'same' is taken")


@pytest.mark.parametrize(
    ("files", "rules"),
    [
        ({"policies/default.yaml": "policy: ["}, ["yaml", "duplicate-pipeline"]),
        ({"b.yaml": SPEC.format("same").replace("validate", "validat")}, ["unknown-agent", "duplicate-pipeline"]),
        ({"b.yaml": b"pipeline: same\nowner: \xff\n"}, ["not-utf-8", "duplicate-pipeline"]),
    ],
    ids=["policy", "agent", "bytes"],
)
def test_what_else_is_wrong_hides_no_second_id(tmp_path, files, rules):
    write(tmp_path, {"a.yaml": SPEC.format("same"), "b.yaml": SPEC.format("same")} | files)
    found = check([tmp_path], AGENTS, date(2026, 1, 1)).problems
    assert {p.rule for p in found if p.at.path.endswith("b.yaml") or "policies" in p.at.path} == set(rules)
    if not any("policies" in name for name in files):
        assert {p.rule for p in compile_folder(tmp_path, AGENTS)[tmp_path / "b.yaml"].problems} == set(rules)


def test_a_file_that_is_too_large_says_so(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"#" * 3_000_000)
    with pytest.raises(SpecError, match="the file has more than 1048576 bytes"):
        compile_file(tmp_path / "a.yaml", AGENTS)


def test_a_broken_policy_takes_down_what_may_stand_on_it(tmp_path):
    write(
        tmp_path,
        {
            "a.yaml": SPEC.format("a"),
            "b.yaml": "policy: strict\n" + SPEC.format("b"),
            "c.yaml": "policy: other\n" + SPEC.format("c"),
            "policies/default.yaml": "policy: default\ngates: {validate: [coverage.line => 3]}\n",
            "policies/other.yaml": "policy: other\n",
        },
    )
    a, b, c = compile_folder(tmp_path, AGENTS).values()
    assert [p.rule for p in a.problems] == ["bad-gate"]
    assert [p.rule for p in b.problems] == ["unknown-policy", "bad-gate"]
    assert isinstance(c, Plan)


@pytest.mark.parametrize("file", ["strict.yaml", "floor.yml"])
def test_the_name_of_a_broken_policy_is_not_unknown(tmp_path, file):
    content = "gates: {ghost: []}\npolicy: 'strict'  # the floor\n"
    write(tmp_path, {"a.yaml": "policy: strict\n" + SPEC.format("a"), f"policies/{file}": content})
    (found,) = compile_folder(tmp_path, AGENTS).values()
    assert [p.rule for p in found.problems] == ["unknown-agent"]


@pytest.mark.parametrize("kind", ["file", "loop", "folder called default.yaml"])
def test_a_floor_that_cannot_be_read_is_no_missing_floor(tmp_path, kind):
    write(tmp_path, {"a.yaml": SPEC.format("a")})
    policies = tmp_path / "policies"
    if kind == "file":
        policies.write_text("")
    elif kind == "loop":
        policies.symlink_to(policies)
    else:
        (policies / "default.yaml").mkdir(parents=True)
    (found,) = compile_folder(tmp_path, AGENTS).values()
    assert isinstance(found, SpecError)
    assert [p.rule for p in found.problems] == ["unreadable"]


def test_the_second_policy_with_a_name_is_refused(tmp_path):
    write(tmp_path, {"a.yaml": SPEC.format("a"), "policies/one.yaml": "policy: x\n", "policies/two.yaml": "policy: x\n"})
    (found,) = compile_folder(tmp_path, AGENTS).values()
    assert [p.rule for p in found.problems] == ["duplicate-policy"]


@pytest.mark.parametrize("kind", ["missing", "fifo", "folder"])
def test_what_is_no_file_is_refused(tmp_path, kind):
    path = tmp_path / "p.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(SpecError, match=r"p\.yaml:1:1"):
        compile_file(path, AGENTS)


def test_a_folder_that_is_not_there_has_no_pipelines(tmp_path):
    assert compile_folder(tmp_path / "nothing", AGENTS) == {}


def test_only_what_was_asked_for_is_checked(tmp_path):
    write(
        tmp_path,
        {
            "a.yaml": SPEC.format("a") + "policy: one\n",
            "b.yaml": "pipeline: b\nghost: 1\n" + SPEC.format("b").partition("\n")[2],
            "policies/one.yaml": "policy: one\n",
            "policies/two.yaml": "policy: two\nghost: 1\n",
            "templates/x.yaml": "templates: {x: {agnt: validate}}\n",
        },
    )

    def wrong(*names):
        found = check([tmp_path / name for name in names], AGENTS, date(2026, 1, 1))
        return sorted({Path(p.at.path).name for p in found.problems}), found.files

    assert wrong("a.yaml") == ([], 1)
    assert wrong("policies/one.yaml", "a.yaml") == ([], 2)
    assert wrong("policies/two.yaml") == (["two.yaml"], 1)
    assert wrong("policies") == (["two.yaml"], 2)
    assert wrong("templates") == (["x.yaml"], 1)
    assert wrong("") == (["b.yaml", "two.yaml", "x.yaml"], 5)
