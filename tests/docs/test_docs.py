"""What the documents say, held against the code: specs compile, commands exist, links lead somewhere, tables are current."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from taxiway.agents import registry
from taxiway.cli import app
from taxiway.compiler.check import check
from taxiway.manifest import Manifest

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/*/README.md")])
COMMAND: Any = typer.main.get_command(app)

_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```[ ]*$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_SPAN = re.compile(r"(?<!`)`(taxiway [^`\n]+)`(?!`)")
_VARIABLE = re.compile(r"[\"'](TAXIWAY_[A-Z_]+)[\"']|f\"(TAXIWAY_[A-Z_]+)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document: its info string, its text, and where it stands."""

    path: Path
    line: int
    info: str
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def blocks(path: Path) -> Iterator[Block]:
    text = path.read_text()
    for found in _FENCE.finditer(text):
        yield Block(path, text.count("\n", 0, found.start()) + 1, found[1].strip(), found[2])


def prose(path: Path) -> str:
    return _FENCE.sub("", path.read_text())


BLOCKS = [block for path in DOCS for block in blocks(path)]
YAML = [block for block in BLOCKS if block.info.split(" ")[0] in ("yaml", "yml")]
PIPELINES = [b for b in YAML if b.info == "yaml" and re.search(r"^pipeline:", b.text, re.MULTILINE)]
POLICIES = [b for b in YAML if b.info == "yaml" and b not in PIPELINES and re.search(r"^policy:", b.text, re.MULTILINE)]
TEMPLATES = [b for b in YAML if b.info == "yaml" and b.text.startswith("templates:")]


# --- YAML -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", YAML, ids=str)
def test_yaml_says_what_it_is(block: Block) -> None:
    assert block in (*PIPELINES, *POLICIES, *TEMPLATES) or block.info in ("yaml fragment", "yaml manifest", "yaml other")
    assert isinstance(yaml.safe_load(block.text), dict | list)


@pytest.mark.parametrize("block", [*PIPELINES, *POLICIES, *TEMPLATES], ids=str)
def test_pipelines_policies_and_templates_pass_the_check(block: Block, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "pipelines" / "policies", tmp_path / "policies")
    for number, policy in enumerate(b for b in POLICIES if b.path == block.path):
        name = yaml.safe_load(policy.text)["policy"]
        # A document's own `default` stands in the place of the repository's.
        (tmp_path / "policies" / f"{name}.yaml").unlink(missing_ok=True)
        (tmp_path / "policies" / f"{number}.yaml").write_text(policy.text)
    (tmp_path / "templates").mkdir()
    for number, template in enumerate(b for b in TEMPLATES if b.path == block.path):
        (tmp_path / "templates" / f"{number}.yaml").write_text(template.text)
    if block in PIPELINES:
        (tmp_path / "pipeline.yaml").write_text(block.text)
    checked = check([tmp_path], registry(), date(2026, 1, 1))
    assert [str(p) for p in (*checked.problems, *checked.warnings)] == []


def test_dag_factory_side_by_side() -> None:
    """The two files of docs/coming-from.md say the same; the first was loaded with dag-factory 1.1."""
    page = [b for b in YAML if b.path.name == "coming-from.md"]
    (theirs,) = [yaml.safe_load(b.text)["library_checks"] for b in page if "operator:" in b.text]
    (ours,) = [p for b in page if b in PIPELINES and (p := yaml.safe_load(b.text))["pipeline"] == "library_checks"]
    assert (theirs["schedule"], theirs["tags"], theirs["max_active_runs"]) == (ours["schedule"], ours["tags"], ours["limits"]["runs"])
    defaults, retries = theirs["default_args"], ours["defaults"]["retries"]
    assert (defaults["owner"], defaults["retries"] + 1) == (ours["owner"], retries["attempts"])
    assert f"{defaults['retry_delay']['seconds']}s" == retries["first"]
    assert [task["task_id"] for task in theirs["tasks"]] == list(ours["stages"])
    assert [task.get("dependencies", []) for task in theirs["tasks"]] == [[], ["check"]]
    assert "--cov-fail-under=85" in theirs["tasks"][0]["bash_command"]
    assert ours["stages"]["check"]["gates"] == ["coverage.line >= 85"]
    assert all(ours["params"]["repository"]["default"] in task["bash_command"] for task in theirs["tasks"])


def test_the_readme_shows_no_other_pipeline_than_the_shipped_one() -> None:
    (block,) = [b for b in PIPELINES if b.path == ROOT / "README.md"]
    shown, shipped = yaml.safe_load(block.text), yaml.safe_load((ROOT / "pipelines" / "web_service.yaml").read_text())
    assert {**shipped, **shown, "params": 0, "stages": 0} == {**shipped, "params": 0, "stages": 0}
    assert list(shown["stages"]) == list(shipped["stages"])
    for name, param in shown["params"].items():
        assert param.items() <= shipped["params"][name].items()
    for name, stage in shown["stages"].items():
        whole = shipped["stages"][name]
        blocking = [gate for gate in whole.get("gates", []) if isinstance(gate, str)]
        assert {**whole, **stage, "gates": stage.get("gates", [])} == {**whole, "gates": blocking}, name


@pytest.mark.parametrize("block", [b for b in YAML if b.info == "yaml manifest"], ids=str)
def test_manifests_are_read(block: Block) -> None:
    Manifest.model_validate(yaml.safe_load(block.text))


# --- commands -------------------------------------------------------------------------------------


def faults(words: list[str]) -> str:
    """What is wrong with the words after `taxiway`; "" where the command would take them."""
    command, rest = COMMAND, list(words)
    while rest and (inner := getattr(command, "commands", {})):
        word = rest.pop(0)
        known = {o for p in command.params for o in p.opts} | {"--help", "-h"}
        if word not in (known if word.startswith("-") else inner):
            return f"no {'option' if word.startswith('-') else 'command'} {word}"
        command = inner.get(word, command)
    return options_and_arguments(command, rest)


def options_and_arguments(command: Any, words: list[str]) -> str:
    options = {name: p for p in command.params if p.param_type_name == "option" for name in p.opts}
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    given, rest = 0, iter([w for w in words if w not in ("--help", "-h")])
    for word in rest:
        name, equals, _ = word.partition("=")
        if not word.startswith("-"):
            given += 1
        elif name not in options:
            return f"no option {name}"
        elif not options[name].is_flag and not equals and next(rest, None) is None:
            return f"{name} needs a value"
    if given > len(arguments) and all(p.nargs != -1 for p in arguments):
        return f"{given} arguments, takes {len(arguments)}"
    return "an argument is missing" if given < sum(p.required for p in arguments) else ""


def commands(line: str) -> Iterator[list[str]]:
    """The words after every `taxiway` that a line of a shell session starts."""
    words: list[str] = []
    if "taxiway " not in line:  # of another program, or what one answered
        return
    for word in [*shlex.split(line.removeprefix("$ "), comments=True), "&&"]:
        if word not in ("&&", "||", ";", "|"):
            words.append(word)
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words and words[0] in ("taxiway", ".venv/bin/taxiway"):
            yield words[1:]
        words = []


CONSOLES = ("console", "console live", "console shown")
SHOWN = [
    (f"{b}: {line}", words)
    for b in BLOCKS
    if b.info in CONSOLES
    for line in b.text.replace("\\\n", " ").splitlines()
    for words in commands(line)
]
NAMED = [(f"{p.relative_to(ROOT)}: {span}", shlex.split(span)[1:]) for p in DOCS for span in _SPAN.findall(prose(p))]


@pytest.mark.parametrize(("where", "words"), SHOWN, ids=[where for where, _ in SHOWN])
def test_commands_shown_exist(where: str, words: list[str]) -> None:
    assert faults(words) == "", where


# Blocks that nobody runs, by their page and first words, and why.
UNRUN = {
    ("README.md", "make run"): "a whole run on a machine as set-up leaves it; its pipeline is run by tests/airflow/test_web_service.py",
    (
        "CONTRIBUTING.md",
        ".venv/bin/uv pip compile pyproject.toml",
    ): "pins what the index offers today; scripts/check_constraints.py checks it",
    ("pipelines.md", "taxiway run feature"): "needs a repository and a model; tests/airflow/test_thinking.py runs both pipelines",
    ("CONTRIBUTING.md", ".venv/bin/uv pip compile src/taxiway/integrations/tools.in"): "the same, for the tools",
    ("testing-pipelines.md", "taxiway test"): "installs a test runner; tests/cli/test_trials.py runs the command on smaller cases",
    ("testing-pipelines.md", "taxiway run"): "starts two Airflows; tests/stage/test_replay.py records and replays a stage",
}


def test_blocks_of_commands_say_who_runs_them() -> None:
    assert {b.info for b in BLOCKS if b.info.startswith("console")} <= {*CONSOLES}
    unrun = [b for b in BLOCKS if b.info == "console shown"]
    for block in unrun:
        assert any(block.path.name == page and block.text.startswith(words) for page, words in UNRUN), f"{block}: why does nobody run it?"
    assert len(unrun) == len(UNRUN)


def test_blocks_of_other_languages_are_run_somewhere() -> None:
    """By tests/airflow/test_docs_live.py (sh, ini) and tests/docs/test_writing_agents.py; text is what a program answered."""
    known = {"sh", "ini", "text", *CONSOLES, *(b.info for b in YAML)}
    assert [str(b) for b in BLOCKS if b.info not in known and " file=" not in b.info] == []
    assert [b.path.name for b in BLOCKS if b.info in ("sh", "ini")] == ["operating.md", "operating.md"]


@pytest.mark.parametrize("path", [p for p in DOCS if any(b.path == p and b.info == "console" for b in BLOCKS)], ids=lambda p: p.name)
def test_commands_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's commands, one after the other, in a project with the page's pipelines; what needs an Airflow is in tests/airflow."""
    project(path, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("TAXIWAY_HOME", str(tmp_path / "home"))
    for block in [b for b in BLOCKS if b.path == path and b.info == "console"]:
        for line in block.text.replace("\\\n", " ").splitlines():
            for words in commands(line):
                done = CliRunner().invoke(app, words)
                assert done.exit_code == (1 if "exits 1" in line else 0), f"{block}: {line}\n{done.output}"


def project(path: Path, folder: Path) -> None:
    """What a reader of the page has: its pipelines and policies, where it says that they are, and a project of their own beside."""
    (folder.parent / "my-library" / "my_library").mkdir(parents=True)
    (folder.parent / "my-library" / "my_library" / "__init__.py").write_text("")
    (folder.parent / "my-library" / "pyproject.toml").write_text('[project]\nname = "my-library"\nversion = "1.0"\n')
    shutil.copytree(ROOT / "pipelines" / "policies", folder / "pipelines" / "policies")
    for block in [b for b in (*PIPELINES, *POLICIES) if b.path == path]:
        data = yaml.safe_load(block.text)
        place = f"{data['pipeline']}.yaml" if block in PIPELINES else f"policies/{data['policy']}.yaml"
        (folder / "pipelines" / place).write_text(block.text)
    (folder / "pipelines" / "templates").mkdir()
    for number, template in enumerate(b for b in TEMPLATES if b.path == path):
        (folder / "pipelines" / "templates" / f"{number}.yaml").write_text(template.text)


@pytest.mark.parametrize(("where", "words"), NAMED, ids=[where for where, _ in NAMED])
def test_commands_named_exist(where: str, words: list[str]) -> None:
    # In running text a command may be named without its arguments and values.
    fault = faults(words)
    assert not fault or fault.endswith(("is missing", "needs a value", " COMMAND")), where


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("check pipelines", ""),
        ("check", "an argument is missing"),
        ("check pipelines --format=json", ""),
        ("check --fromat json pipelines", "no option --fromat"),
        ("services stop greeter", ""),
        ("services halt", "no command halt"),
        ("up now", "1 arguments, takes 0"),
        ("run web_service --param", "--param needs a value"),
        ("--debug run web_service", ""),
        ("--verbose run web_service", "no option --verbose"),
    ],
)
def test_a_wrong_command_is_seen(line: str, fault: str) -> None:
    assert faults(line.split()) == fault


# --- links and facts ------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as code hosts make them."""
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#+ +(.+?)\s*$", prose(path), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found[plain] = found.get(plain, -1) + 1
        names.add(plain if not found[plain] else f"{plain}-{found[plain]}")
    return names


@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for link in _LINK.findall(prose(path)):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = unquote(link).partition("#")
        target = (path.parent / place).resolve() if place else path
        if not target.exists() or (anchor and (target.suffix != ".md" or anchor not in anchors(target))):
            broken.append(link)
    assert broken == []


def test_the_documents_are_linked_from_each_other() -> None:
    """From the pages in the root and the guide every document can be reached."""
    reached, todo = set(), [*ROOT.glob("*.md"), ROOT / "docs" / "pipelines.md"]
    while todo:
        path = todo.pop()
        if path in reached:
            continue
        reached.add(path)
        found = [(path.parent / unquote(link.partition("#")[0])).resolve() for link in _LINK.findall(prose(path)) if ":" not in link]
        for place in found:
            todo += sorted(place.glob("*.md")) if place.is_dir() else [place] if place.suffix == ".md" else []
    assert [str(p.relative_to(ROOT)) for p in DOCS if p not in reached] == []


def test_paths_of_tests_that_are_named_exist() -> None:
    named = {(p, name) for p in DOCS for name in re.findall(r"`(tests/[\w/]+\.py)`", p.read_text())}
    assert [f"{p.name}: {name}" for p, name in sorted(named) if not (ROOT / name).is_file()] == []


def test_reference_is_current() -> None:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.PLACE.read_text()
    assert module.filled(text) == text
    assert set(module.PARTS) == set(re.findall(r"<!-- generated: ([\w-]+) -->", text))


def test_every_variable_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference.md").read_text()
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "operators").rglob("*.py")]
    read = {a or b for path in sources for a, b in _VARIABLE.findall(path.read_text())}
    # What one process of ours gives to another is nobody's setting; a name that ends in _ is completed in place.
    settings = {name for name in read if not name.startswith("TAXIWAY_GIT_")}
    assert settings
    assert sorted(name for name in settings if name not in text) == []
