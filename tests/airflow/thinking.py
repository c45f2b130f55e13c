"""What the scripted model of the session answers: by the scenario that the project's README names, and by what it is asked.

Runs side by side share the model, so an answer follows from the request alone: the scenario, the kind of work (`build`, or the
number of the repair), and how many answers the conversation has already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from taxiway.testing import Turn, use

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


def project(scenario: str) -> dict[str, str]:
    """The files of a project whose README names the scenario."""
    return {**FILES, "README.md": f"# wordy\n\nscenario: {scenario}\n"}


def put(path: str, text: str) -> Turn:
    return use("write", path=path, content=text)


def built(test: str = f"{TEST}::test_count", summary: str = "Count the words of a text") -> Turn:
    return use("hand_in", summary=summary, requirements=[{"requirement": "It does what is asked", "tests": [test]}], not_done=[])


def repaired(summary: str) -> Turn:
    return use("hand_in", cause="The count was of characters.", summary=summary)


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
SCENARIOS: Mapping[str, Mapping[str, Sequence[Turn]]] = {
    "at once": {"build": [use("read", path=CODE), put(CODE, GOOD) + put(TEST, TESTS), built()]},
    "a bug": {
        "build": [
            put(CODE, FILES[CODE].replace('split(" ")', "split()")) + put("tests/test_spaces.py", SPACES),
            built("tests/test_spaces.py::test_spaces", "Take several spaces for one"),
        ]
    },
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
    "": {"build": [built("tests/test_app.py::test_it_greets_by_name", "Leave the template as it is")]},
}
NOTHING = use("hand_in", summary="Do nothing", cause="Nobody knows.")


def answer(request: Mapping[str, Any]) -> Turn:
    """The next word on a request."""
    known = "\n".join(block["text"] for block in request["system"])
    asked = request["messages"][0]["content"][0]["text"]
    scenario = match[1] if (match := re.search(r"^scenario: (.+)$", known, re.MULTILINE)) else ""
    kind = match[1] if (match := re.search(r"This is (repair \d)", asked)) else "build"
    said = sum(message["role"] == "assistant" for message in request["messages"])
    script = SCENARIOS[scenario].get(kind, [])
    return script[said] if said < len(script) else NOTHING
