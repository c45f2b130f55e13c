"""What the scaffold agent generates passes every check at its strictest, and nothing that is there is ever touched."""

from __future__ import annotations

import ast
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from html import escape
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import yaml
from pydantic import ValidationError
from uv import find_uv_bin

from taxiway.agents.base import StageAttempt
from taxiway.agents.scaffold import AGENT, ScaffoldInput
from taxiway.agents.scaffold.template import TEMPLATES, fill, library_package, package_name
from taxiway.errors import Cancelled, ProjectError
from taxiway.integrations.requirements import read_requirements
from taxiway.manifest import read_manifest
from taxiway.ports import Environment
from taxiway.project import read_project
from taxiway.records import Result
from taxiway.stop import Stop

HOSTILE_TEXT = 'It\'s "{{ 7 * 7 }}" {% raw %} ${name} <script>alert(1)</script> \\n # : – ü 😀'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    return folder


def scaffold(
    checkout: Path, name: str = "greeter", description: str = "", stop: Stop | None = None, template: Any = "python-service"
) -> Result:
    attempt = StageAttempt(
        pipeline="web_service",
        run="run-1",
        name="scaffold",
        attempt=1,
        commit="",
        checkout=checkout,
        reports=checkout.parent / "reports",
        results={},
        stop=stop or Stop(),
        log=logging.getLogger("test"),
        verify=lambda _: (),
    )
    return AGENT.run(ScaffoldInput(template=template, name=name, description=description), None, attempt)  # a template needs no port


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


# --- what is generated ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What requirements-dev.txt pins, installed as the manifest asks: by hash, wheels only."""
    path = tmp_path_factory.mktemp("scaffold-environment") / "venv"
    requirements = TEMPLATES / "python-service" / "project" / "requirements-dev.txt"
    uv = find_uv_bin()
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, path], check=True, timeout=120)
    install = [uv, "pip", "install", "--quiet", "--python", path / "bin" / "python", "--require-hashes", "--only-binary", ":all:"]
    subprocess.run([*install, "-r", requirements], check=True, timeout=300)
    return Environment(path=path, key="", cached=False)


def tool(environment: Environment, checkout: Path, *argv: str) -> str:
    done = subprocess.run(
        [environment.python, "-m", *argv], cwd=checkout, capture_output=True, text=True, timeout=120, check=False, env={"LANG": "C.UTF-8"}
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# Not the project's own settings: what the validate agent holds it against, with nothing that the project could switch off.
STRICT = ("--isolated", "--select", "ALL", "--target-version", "py311", "--no-cache")
IGNORED = (
    "--ignore",
    "COM812,CPY,D203,D213,ISC001",
    "--per-file-ignores",
    ",".join(f"{folder}/**:{rule}" for folder in ("e2e", "tests") for rule in ("INP001", "PLR2004", "S101")),
)

NAMES = [
    pytest.param("greeter", id="plain"),
    pytest.param("my-web-app-2", id="dashes"),
    pytest.param("a23456789-123456789-123456789-123456789-", id="longest, with a dash at the end"),
    pytest.param("json", id="as a standard module"),
    pytest.param("class", id="as a keyword"),
    pytest.param("fastapi", id="as a dependency"),
    pytest.param("true", id="as a YAML word"),
]


TEMPLATE_NAMES = [template.name for template in sorted(TEMPLATES.iterdir()) if template.is_dir()]


EVERY_NAME = [pytest.param(*name.values, "python-service", id=name.id) for name in NAMES]


@pytest.mark.parametrize(("name", "template"), [*EVERY_NAME, ("shortener", "python-library"), ("json", "python-library")])
def test_passes_format_lint_and_complexity(checkout: Path, environment: Environment, name: str, template: str) -> None:
    scaffold(checkout, name, HOSTILE_TEXT, template=template)
    tool(environment, checkout, "ruff", "format", "--isolated", "--no-cache", "--check", ".")
    tool(environment, checkout, "ruff", "check", *STRICT, *IGNORED, ".")
    tool(environment, checkout, "ruff", "check", "--isolated", "--no-cache", "--select", "C901", ".")
    assert read_manifest(checkout).name == name
    assert not [path for path, text in tree(checkout).items() if path.endswith(".py") and (b"noqa" in text or b"type: ignore" in text)]


@pytest.mark.parametrize("template", TEMPLATE_NAMES)
def test_passes_types_and_tests_with_full_coverage(checkout: Path, environment: Environment, template: str) -> None:
    scaffold(checkout, "json", HOSTILE_TEXT, template=template)
    tool(environment, checkout, "mypy", "--strict", "--cache-dir", os.devnull, "src", "tests")
    tool(environment, checkout, "coverage", "run", "-m", "pytest", "-p", "no:cacheprovider")
    tool(environment, checkout, "coverage", "report", "--fail-under=100")


@pytest.mark.parametrize("template", TEMPLATE_NAMES)
def test_passes_with_the_settings_that_it_brings(checkout: Path, environment: Environment, template: str) -> None:
    scaffold(checkout, template=template)
    tool(environment, checkout, "ruff", "format", "--check", ".")
    tool(environment, checkout, "ruff", "check", ".")
    tool(environment, checkout, "mypy")


def test_starts_as_its_manifest_says(checkout: Path, environment: Environment) -> None:
    scaffold(checkout, "hello", HOSTILE_TEXT)
    manifest = read_manifest(checkout)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [a.replace("{port}", str(port)) for a in manifest.start]
    argv[0] = str(environment.path / "bin" / argv[0])
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(argv, cwd=checkout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as service:
        try:
            assert wait_for(url + manifest.health) == '{"status":"ok"}'
            page = wait_for(f"{url}/?name={quote('<Ada> & Bob')}")
        finally:
            service.terminate()
    assert service.returncode in (0, -signal.SIGTERM)
    assert "<h1>Hello, &lt;Ada&gt; &amp; Bob!</h1>" in page
    assert f"<p>{escape(HOSTILE_TEXT)}</p>" in page


def wait_for(url: str, within_s: float = 20) -> str:
    end = time.monotonic() + within_s
    while True:
        try:
            with urlopen(url, timeout=5) as response:
                return response.read().decode()
        except URLError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def test_result_and_manifest(checkout: Path) -> None:
    result = scaffold(checkout, "my-web-app")
    assert result.outcome == "success"
    there = len(tree(checkout))
    none = {"degraded": False, "requirements": 0, "covered": 0}
    assert result.outputs == {"name": "my-web-app", "files": there, "added": there, **none}
    assert result.summary.endswith("(template alone)")
    assert not result.metrics
    manifest = read_manifest(checkout)
    assert manifest.name == "my-web-app"
    assert manifest.health == "/healthz"
    assert "{port}" in manifest.start
    assert all((checkout / path).is_file() for path in manifest.install.requirements)
    assert (checkout / "src" / "my_web_app_service" / "app.py").is_file()


def test_a_library_installs_what_its_manifest_says_and_does_not_start(checkout: Path) -> None:
    scaffold(checkout, "shortener", template="python-library")
    project = read_project(checkout)
    assert project.manifest == read_manifest(checkout)
    assert project.distribution is not None
    assert (project.distribution.name, project.manifest.start) == ("shortener", [])
    assert read_requirements(checkout, project.manifest.install).hashed
    assert (checkout / "src" / "shortener" / "py.typed").is_file()


@pytest.mark.parametrize(
    ("name", "package"),
    [("shortener", "shortener"), ("json", "json_library"), ("class", "class_library"), ("pytest", "pytest_library"), ("a-b-", "a_b")],
)
def test_library_package(name: str, package: str) -> None:
    assert library_package(name) == package


def test_the_description_stays_as_it_is_written(checkout: Path) -> None:
    scaffold(checkout, description=HOSTILE_TEXT)
    assert yaml.safe_load((checkout / ".copier-answers.yml").read_text())["description"] == HOSTILE_TEXT
    assert f"\n{HOSTILE_TEXT}\n" in (checkout / "README.md").read_text()


def test_the_answers_name_no_place_of_this_machine(checkout: Path) -> None:
    scaffold(checkout)
    assert not [path for path, content in tree(checkout).items() if bytes(TEMPLATES) in content]


def test_requirements_are_pinned_with_hashes_and_name_no_index() -> None:
    files = fill("python-service", "greeter", "")
    for path, content in files.items():
        if path.name.startswith("requirements") and path.suffix == ".txt":
            lines = content.decode().splitlines()
            assert all(line.startswith("    --hash=sha256:") or "==" in line for line in lines)
            assert not [line for line in lines if "://" in line]


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("greeter", "greeter_service"),
        ("a-b-c", "a_b_c_service"),
        ("a-", "a_service"),
        ("greeter-service", "greeter_service"),
        ("import", "import_service"),
    ],
)
def test_package_name(name: str, package: str) -> None:
    assert package_name(name) == package
    ast.parse(f"import {package}")


@pytest.mark.parametrize(
    "given",
    [
        {"name": "-"},
        {"name": "../up"},
        {"name": "A"},
        {"name": "a" * 41},
        {"name": "greeter\n"},
        {"name": "greeter", "description": "bell \x07"},
        {"name": "greeter", "description": "\u202etxet desrever"},
        {"name": "greeter", "description": "x" * 501},
        {"name": "greeter", "template": "../../etc"},
        {},
        {"template": "none"},
        {"template": "none", "requirements": "  "},
        {"template": "none", "requirements": "Greet in German.", "name": "greeter"},
        {"template": "none", "requirements": "Greet in German.", "description": "A page."},
        {"name": "greeter", "bug": "It does not greet."},
        {"template": "none", "bug": "It does not greet.", "requirements": "Greet in German."},
    ],
    ids=repr,
)
def test_refuses_inputs(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        ScaffoldInput(**given)


def test_a_description_of_several_lines_becomes_one() -> None:
    assert ScaffoldInput(name="greeter", description=" One\n\ttwo \r\n three ").description == "One two three"


def test_a_persons_copier_settings_change_nothing(tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "settings.yml"
    settings.write_text("defaults: [this is not what copier takes")
    monkeypatch.setenv("COPIER_SETTINGS_PATH", str(settings))
    scaffold(checkout)


# --- never overwrites -----------------------------------------------------------------------------


def test_again_changes_nothing(checkout: Path) -> None:
    first = scaffold(checkout)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in checkout.rglob("*")}
    again = scaffold(checkout)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in checkout.rglob("*")} == before
    assert again.outputs == {**first.outputs, "added": 0}


def test_completes_what_is_half_there_and_keeps_other_files(checkout: Path) -> None:
    scaffold(checkout)
    whole = tree(checkout)
    (checkout / "README.md").unlink()
    (checkout / "src" / "own.py").write_text("own = 1\n")
    assert scaffold(checkout).outputs["added"] == 1
    assert tree(checkout) == {**whole, "src/own.py": b"own = 1\n"}


def test_names_every_file_in_the_way_and_touches_nothing(checkout: Path) -> None:
    (checkout / "tests").mkdir()
    (checkout / "tests" / "test_app.py").write_text("# theirs\n")
    (checkout / "README.md").write_text("# theirs\n")
    same = {str(path): content for path, content in fill("python-service", "greeter", "").items()}[".gitignore"]
    (checkout / ".gitignore").write_bytes(same)
    before = tree(checkout)
    with pytest.raises(ProjectError) as caught:
        scaffold(checkout)
    assert caught.value.problem.endswith("README.md, tests/test_app.py")
    assert tree(checkout) == before


def link(place: Path, to: Path) -> None:
    place.symlink_to(to)


def dangling(place: Path, to: Path) -> None:
    place.symlink_to(to / "nothing" / "here")


def pipe(place: Path, _: Path) -> None:
    os.mkfifo(place)


def plain(place: Path, _: Path) -> None:
    place.write_bytes(b"")


def folder(place: Path, _: Path) -> None:
    place.mkdir()


@pytest.mark.parametrize(
    ("path", "make", "named"),
    [
        ("src", link, "src"),
        ("src", dangling, "src"),
        ("src", plain, "src"),
        ("tests", pipe, "tests"),
        ("README.md", link, "README.md"),
        ("README.md", dangling, "README.md"),
        ("README.md", pipe, "README.md"),
        ("README.md", folder, "README.md"),
    ],
)
def test_a_hostile_checkout_leads_nowhere(tmp_path: Path, checkout: Path, path: str, make, named: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    make(checkout / path, outside)
    with pytest.raises(ProjectError, match=f": {named}\n"):
        scaffold(checkout)
    assert list(outside.iterdir()) == []
    assert [p.name for p in checkout.iterdir()] == [path]


def test_a_link_to_the_very_same_bytes_is_in_the_way(tmp_path: Path, checkout: Path) -> None:
    same = tmp_path / "README.md"
    scaffold(checkout)
    (checkout / "README.md").rename(same)
    (checkout / "README.md").symlink_to(same)
    with pytest.raises(ProjectError, match=r"README\.md"):
        scaffold(checkout)


def test_a_stopped_run_writes_nothing(checkout: Path) -> None:
    stop = Stop()
    stop.cancel()
    with pytest.raises(Cancelled):
        scaffold(checkout, stop=stop)
    assert list(checkout.iterdir()) == []
