"""What the scripted model of the session answers: by the scenario that the project's README names, and by what it is asked.

Runs side by side share the model, so an answer follows from the request alone: the scenario, the kind of work (`build`, the number
of the repair, or the agent's name), and how many answers the conversation has already. What the world does while a scenario's model
thinks, such as somebody's push, is the test's to say: `Claude.meanwhile`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taxiway.stage import run_key
from taxiway.testing import ScriptedClaude, Turn, use

CODE, TEST = "src/wordy/__init__.py", "tests/test_count.py"
FILES = {
    "pyproject.toml": '[project]\nname = "wordy"\nversion = "1.0"\nrequires-python = ">=3.11"\n',
    CODE: 'def words(text: str) -> list[str]:\n    return text.split(" ")\n',
    "tests/test_words.py": 'from wordy import words\n\n\ndef test_words() -> None:\n    assert words("a b") == ["a", "b"]\n',
}
GOOD = FILES[CODE] + "\n\ndef count(text: str) -> int:\n    return len(words(text))\n"
BAD = GOOD.replace("len(words(text))", "len(text)")
WORSE = GOOD.replace("len(words(text))", "undefined(text)")
TESTS = 'from wordy import count\n\n\ndef test_count() -> None:\n    assert count("a b") == 2\n'
SPACES = 'from wordy import words\n\n\ndef test_spaces() -> None:\n    assert words("a  b") == ["a", "b"]\n'


def project(scenario: str, files: Mapping[str, str] = FILES) -> dict[str, str]:
    """The files of a project whose README names the scenario."""
    return {**files, "README.md": f"# wordy\n\nscenario: {scenario}\n"}


def git(place: Path, *words: str) -> str:
    own = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]
    return subprocess.run(["git", "-C", str(place), *own, *words], check=True, capture_output=True, text=True).stdout.strip()


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def repository(folder: Path, scenario: str, files: Mapping[str, str] = FILES) -> Path:
    """A bare repository, as a server has it, with the project of a scenario on its branch `main`."""
    write(folder / "work", project(scenario, files))
    git(folder, "init", "-q", "-b", "main", "work")
    git(folder / "work", "add", "-A")
    git(folder / "work", "commit", "-qm", "Split words")
    git(folder, "clone", "-q", "--bare", "work", "origin.git")
    return folder / "origin.git"


def push(origin: Path, files: Mapping[str, str], message: str) -> str:
    """What somebody else brings to `main`; the commit."""
    work = origin.parent / "work"
    write(work, files)
    git(work, "add", "-A")
    git(work, "commit", "-qm", message)
    git(work, "push", "-q", str(origin), "main")
    return git(work, "rev-parse", "main")


def stages(done: Any) -> dict[str, str]:
    """The states of the stages alone."""
    return {name: state for name, state in done.states().items() if name != "outcome"}


def artifacts(airflow: Any, done: Any, stage: str, attempt: int = 1) -> dict[str, Path]:
    """The reports of one try, by name."""
    (folder,) = airflow.home.artifacts.glob(f"{done.run.dag}/{run_key(done.run.dag, done.run.id)}/{stage}/{attempt}")
    return {p.name: p for p in folder.iterdir()}


def put(path: str, text: str) -> Turn:
    return use("write", path=path, content=text)


def built(test: str = f"{TEST}::test_count", summary: str = "Count the words of a text") -> Turn:
    return use("hand_in", summary=summary, requirements=[{"requirement": "It does what is asked", "tests": [test]}], not_done=[])


def repaired(summary: str) -> Turn:
    return use("hand_in", cause="The count was of characters.", summary=summary)


OTHERS = FILES[CODE] + "\n\ndef first(text: str) -> str:\n    return words(text)[0]\n"
OTHERS_TEST = 'from wordy import first\n\n\ndef test_first() -> None:\n    assert first("a b") == "a"\n'
"""What somebody else adds in the same place, with a test."""
WRONG = FILES[CODE].replace('split(" ")', 'split(",")')
BECAUSE = "The text is split at commas."
CAUSE = {"file": CODE, "line": 2, "text": 'return text.split(",")'}
EVIDENCE = "taxiway-evidence/validate"
SAID = {"file": f"{EVIDENCE}/attempt.log", "line": 1, "text": "GateFailed"}
INVENTED = {"file": f"{EVIDENCE}/report.md", "line": 1, "text": "ConnectionError: the database is gone"}
LINK, VACUOUS = "e2e/test_link.py", "e2e/test_vacuous.py"
LINK_TEST = """from playwright.sync_api import Page, expect


def test_link(page: Page) -> None:
    page.goto("/")
    page.get_by_role("link", name="Other").click()
    expect(page.get_by_role("heading")).to_have_text("Other", timeout=2000)
"""
VACUOUS_TEST = """from playwright.sync_api import Page


def test_vacuous(page: Page) -> None:
    page.goto("/")
    assert page.title()
"""


def merged(confidence: float) -> Turn:
    """Both functions, as what the conflict becomes."""
    both = [text.removeprefix(FILES[CODE]).strip("\n") for text in (OTHERS, GOOD)]
    return use("hand_in", text="\n\n\n".join(both) + "\n", confidence=confidence, reason="Both functions are kept.")


def explained(*quotes: Mapping[str, Any]) -> Turn:
    """A diagnosis with these quotes."""
    return use("hand_in", root_cause=BECAUSE, evidence=list(quotes), suggested_fix="Split at spaces.", confidence=0.9)


def proven() -> Turn:
    """Both browser tests, each with what it says that it notices."""
    listed = [(LINK, "test_link", "route", "/other"), (VACUOUS, "test_vacuous", "element", "h1")]
    tests = [
        {"test": f"{path}::{name}", "requirement": "A link leads on.", "breaks": {"kind": kind, "target": target}}
        for path, name, kind, target in listed
    ]
    return use("hand_in", tests=tests)


KINDS = {
    "You resolve one conflict": "conflict",
    "You find out why stages": "diagnose",
    "You write browser tests": "write_e2e",
}
"""How an agent's system text begins -> the kind of work; others build."""
BUILD = [use("read", path=CODE), put(CODE, BAD) + put(TEST, TESTS), built()]
CHEATS = [
    put(TEST, "def test_count() -> None:\n    assert True\n") + use("delete", path=TEST),
    put("tests/conftest.py", "collect_ignore = ['test_count.py']\n")
    + put("pyproject.toml", "[tool.pytest.ini_options]\naddopts = '-k words'\n"),
    put(CODE, f"{BAD}import os  # noqa\n"),
    repaired("Look away"),
    put(CODE, f'{BAD}\n\nimport pytest\n\npytest.skip("no", allow_module_level=True)\n'),
    repaired("Skip"),
]
COUNTS = [put(CODE, GOOD) + put(TEST, TESTS), built()]
SCENARIOS: Mapping[str, Mapping[str, Sequence[Turn]]] = {
    "at once": {"build": [use("read", path=CODE), put(CODE, GOOD) + put(TEST, TESTS), built()]},
    "a bug": {
        "build": [
            put(CODE, FILES[CODE].replace('split(" ")', "split()")) + put("tests/test_spaces.py", SPACES),
            built("tests/test_spaces.py::test_spaces", "Take several spaces for one"),
        ]
    },
    "one repair": {"build": BUILD, "repair 1": [put(CODE, GOOD), repaired("Count words, not characters")]},
    "two repairs": {
        "build": BUILD,
        "repair 1": [put(CODE, WORSE), repaired("Count otherwise")],
        "repair 2": [put(CODE, GOOD), repaired("Count words, not characters")],
    },
    "cheats": {
        "build": BUILD,
        "repair 1": [*CHEATS, put(CODE, BAD + "\n"), repaired("Change nothing that counts")],
        "repair 2": [*CHEATS, put(CODE, WORSE), repaired("Change what does not help")],
    },
    "cheats, then works": {"build": BUILD, "repair 1": [*CHEATS, put(CODE, GOOD), repaired("Count words, not characters")]},
    "a waste": {"build": [use("read", path=CODE)] * 100},
    "a clash, and sure": {"build": COUNTS, "conflict": [merged(0.95)]},
    "a clash, and not sure": {"build": COUNTS, "conflict": [merged(0.5)]},
    "offered": {"build": COUNTS},
    "a failure": {"diagnose": [use("read", path=f"{EVIDENCE}/report.md"), explained(CAUSE, SAID, INVENTED)]},
    "one purse": {"diagnose": [explained()]},
    "browser tests": {"write_e2e": [put(LINK, LINK_TEST), put(VACUOUS, VACUOUS_TEST), proven()]},
    "": {"build": [built("tests/test_app.py::test_it_greets_by_name", "Leave the template as it is")]},
}
NOTHING = use("hand_in", summary="Do nothing", cause="Nobody knows.")


def scenario_of(request: Mapping[str, Any]) -> str:
    """The scenario that the project's README names."""
    known = "\n".join(block["text"] for block in request["system"])
    return match[1] if (match := re.search(r"^scenario: (.+)$", known, re.MULTILINE)) else ""


def answer(request: Mapping[str, Any]) -> Turn:
    """The next word on a request."""
    asked = request["messages"][0]["content"][0]["text"]
    kind = next((name for begin, name in KINDS.items() if request["system"][0]["text"].startswith(begin)), "build")
    kind = match[1] if (match := re.search(r"This is (repair \d)", asked)) else kind
    said = sum(message["role"] == "assistant" for message in request["messages"])
    script = SCENARIOS[scenario_of(request)].get(kind, [])
    return script[said] if said < len(script) else NOTHING


@dataclass
class Claude(ScriptedClaude):
    """Answers so. `meanwhile`: scenario -> what happens after each of its requests came and before it is answered; others go on."""

    meanwhile: dict[str, Callable[[], object]] = field(default_factory=dict)

    def answer(self, request: dict[str, Any]) -> Any:
        """As the script says."""
        said = super().answer(request)
        self.meanwhile.get(scenario_of(request), bool)()
        return said

    def asked(self, scenario: str) -> list[dict[str, Any]]:
        """The requests of a scenario, in the order of arrival."""
        return [r for r in list(self.requests) if scenario_of(r) == scenario]
