"""The repository's own rules: what make, CI and the checks hold on to."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
HOST = "https://" + "py" + "pi.org/simple"
HASH = "--hash=sha256:" + "0" * 64


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


constraints, tree = script("check_constraints"), script("check_tree")


# --- constraints ----------------------------------------------------------------------------------


def test_constraints_are_in_step() -> None:
    assert list(constraints.faults(ROOT / "pyproject.toml", ROOT / "constraints.txt")) == []


@pytest.mark.parametrize(
    ("pinned", "fault"),
    [
        (f"one==1.5 {HASH}\n", None),
        (f"One==1.5 \\\n    {HASH} \\\n    {HASH}\n", None),
        (f"one==1.5 ; python_version < '3.12' {HASH}\none==1.6 ; python_version >= '3.12' {HASH}\n", None),
        ("", "pyproject.toml: one is not pinned in constraints.txt"),
        (f"one==2.0 {HASH}\n", "pyproject.toml: one<2,>=1 does not allow the pinned 2.0"),
        ("one==1.5\n", "constraints.txt: one has no sha256 hashes"),
        ("one==1.5 --hash=md5:abc\n", "constraints.txt: one has no sha256 hashes"),
        (f"one==1.5 {HASH}\ntwo>=1 {HASH}\n", "constraints.txt: two is not pinned to one version"),
        (f"one==1.5 {HASH}\ntwo==1.* {HASH}\n", "constraints.txt: two is not pinned to one version"),
        (f"--index-url {HOST}\none==1.5 {HASH}\n", f"constraints.txt: only pinned packages may stand here, not '--index-url {HOST}'"),
        (f"one==1.5 {HASH}\n./local\n", "constraints.txt: only pinned packages may stand here, not './local'"),
    ],
)
def test_constraints_check_finds(tmp_path: Path, pinned: str, fault: str | None) -> None:
    (tmp_path / "pyproject.toml").write_text('[build-system]\nrequires = []\n[project]\ndependencies = ["one>=1,<2"]\n')
    (tmp_path / "constraints.txt").write_text(pinned)
    assert list(constraints.faults(tmp_path / "pyproject.toml", tmp_path / "constraints.txt")) == ([fault] if fault else [])


def test_every_kind_of_dependency_counts(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["b"]\n[project]\ndependencies = ["a"]\n[dependency-groups]\ndev = ["d"]\nbuild = ["e"]\n'
    )
    assert [r.name for r in constraints.direct(tmp_path / "pyproject.toml")] == ["a", "b", "d", "e"]


# --- what may not stand in the tree ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"see {HOST}", True),
        ("https://files." + "python" + "hosted.org/packages/x.whl", True),
        ("registry." + "npm" + "js.org", True),
        ("--index" + "-url https://internal.example/simple", True),
        ("--extra-index" + "-url=https://internal.example/simple", True),
        ("uv pip compile --no-emit-index-url", False),
        ('a test that refuses "--index-url https://evil.example"', False),
        ("the package index of this machine", False),
        ("https://docs.astral.sh/uv/", False),
    ],
)
def test_tree_check_finds_registries(tmp_path: Path, text: str, found: bool) -> None:
    file = tmp_path / "file.md"
    file.write_text(f"first\n{text}\n")
    lines = list(tree.faults(tmp_path, [file], [("host", tree.REGISTRIES)]))
    assert [line.split(": ")[0] for line in lines] == (["file.md:2"] if found else [])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/srv/checkouts/taxiway/src/x.py", True),
        ("/srv/checkouts/taxiway", True),
        ("/srv/checkouts/taxiway-other", False),
        ("/home/ada/.config", True),
        ("/home/airflow/.local", False),
        ("/Users/" + "ada/code", True),
        ("/usr/bin/python3", False),
        ("/tmp/taxiway-1000", False),
    ],
)
def test_tree_check_finds_places_of_a_machine(text: str, found: bool) -> None:
    pattern = tree.machine_places(Path("/srv/checkouts/taxiway"), Path("/home/ada"))
    assert bool(pattern.search(text)) is found


def test_a_container_in_a_top_folder_is_no_machine() -> None:
    assert not tree.machine_places(Path("/app"), Path("/root")).search("WORKDIR /app; cd /root")


def test_tree_check_passes_over_what_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(b"\x89PNG\xff" + HOST.encode())
    assert list(tree.faults(tmp_path, [file], [("host", tree.REGISTRIES)])) == []


# --- files that must agree with each other --------------------------------------------------------


@pytest.mark.parametrize("path", [".ci/run", "scripts/setup.sh", "scripts/check.sh"])
def test_scripts_run(path: str) -> None:
    first = (ROOT / path).read_text().splitlines()[0]
    shell = first.removeprefix("#!").removeprefix("/usr/bin/env ")
    assert os.access(ROOT / path, os.X_OK)
    subprocess.run([shell, "-n", path], cwd=ROOT, check=True, timeout=10)


@pytest.mark.parametrize("target", ["setup", "run", "up", "test", "check", "format", "clean", "help"])
def test_make_knows(target: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", target], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert target in ("setup", "clean", "help") or "scripts/setup.sh" in done.stdout
    listed = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert re.search(rf"^  make {target} +\S", listed.stdout, re.MULTILINE)


def test_hooks_are_local_and_check_what_make_check_checks() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {r["repo"] for r in repos} == {"local"}
    hooks = [h for r in repos for h in r["hooks"]]
    assert {h["language"] for h in hooks} == {"system"}
    checked = re.findall(r"^check (\w+) ", (ROOT / "scripts" / "check.sh").read_text(), re.MULTILINE)
    assert [h["id"] for h in hooks] == checked


def test_every_exception_from_the_linter_has_a_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    ignored = re.search(r"^ignore = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)[1]
    names = re.findall(r'^  "(\w+)",(.*)$', ignored, re.MULTILINE)
    assert len(names) == len(tomllib.loads(text)["tool"]["ruff"]["lint"]["ignore"])
    assert [name for name, reason in names if "#" not in reason] == []


def test_decisions_are_one_page_each() -> None:
    adrs = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert [int(p.name[:4]) for p in adrs] == list(range(len(adrs)))
    for path in adrs:
        lines = path.read_text().splitlines()
        assert len(lines) <= 60, path.name
        assert [x for x in lines if x.startswith("## ")] == ["## Context", "## Decision", "## Consequences"], path.name
