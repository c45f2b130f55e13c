"""The one report of a validation, in its three forms."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from taxiway.agents.validate.check import Context, Measured
from taxiway.agents.validate.finding import Finding, project_path
from taxiway.agents.validate.report import Report, write
from taxiway.agents.validate.toolset import Tool
from taxiway.ports import Environment

HERE = Environment(Path("/nowhere"), "k", cached=True)
RUFF = Tool("ruff", "0.17.6", "taxiway", HERE)
MYPY = Tool("mypy", "2.4.1", "project", HERE)
LINT = [
    Finding("lint", "ruff", "F401", "`os` imported but unused", "src/a b/#1.py", 3, 8),
    Finding("lint", "ruff", "F401", "`re` | <script>\nunused", "src/a.py", 1, suppressed=True),
    Finding("lint", "ruff", "E902", "", severity="warning"),
]


def report(**changes: Any) -> Report:
    base = Report(
        commit="c" * 40,
        summary="3 lint findings, not measured: types",
        metrics={"lint.errors": 3.0},
        unmeasured={"types.errors": "mypy crashed | badly"},
        checks={"lint": Measured(findings=LINT), "types": Measured(unmeasured={"types.errors": "mypy crashed | badly"})},
        tools={"lint": [RUFF], "types": [MYPY]},
    )
    return replace(base, **changes)


def written(tmp_path: Path, what: Report) -> tuple[dict[str, Any], str, dict[str, Any]]:
    nothing: Any = None
    log = logging.getLogger("t")
    context = Context(
        tmp_path,
        nothing,
        strict=False,
        sandbox=nothing,
        tools=HERE,
        toolset={},
        environment=None,
        work=tmp_path,
        reports=tmp_path,
        stop=nothing,
        log=log,
    )
    write(context, what)
    log = json.loads((tmp_path / "report.sarif").read_text())
    jsonschema.validate(log, SARIF)
    return json.loads((tmp_path / "report.json").read_text()), (tmp_path / "report.md").read_text(), log


def test_json_holds_all_that_was_found(tmp_path):
    data, _, _ = written(tmp_path, report())
    assert data["format"] == 1
    assert (data["commit"], data["checks"], data["metrics"]) == ("c" * 40, ["lint", "types"], {"lint.errors": 3.0})
    assert data["tools"][1] == {"name": "mypy", "version": "2.4.1", "source": "project", "why": ""}
    assert [f["rule"] for f in data["findings"]] == ["F401", "E902", "F401"]
    assert data["findings"][0] | {"line": 3, "column": 8, "suppressed": False, "path": "src/a b/#1.py"} == data["findings"][0]
    assert data["left_out"] == {}


def test_markdown_cannot_be_broken_by_what_it_tells(tmp_path):
    _, text, _ = written(tmp_path, report())
    assert "| types.errors | not measured: mypy crashed \\| badly |" in text
    assert "- `src/a.py:1` F401: 're' \\| &lt;script> unused (suppressed)" in text
    assert "| mypy | 2.4.1 | project |" in text


def test_sarif_marks_suppressions_and_what_was_not_measured(tmp_path):
    _, _, log = written(tmp_path, report())
    ruff, mypy = log["runs"]
    assert [r["suppressions"] for r in ruff["results"]] == [[], [], [{"kind": "inSource"}]]
    assert ruff["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"] == {
        "uri": "src/a%20b/%231.py",
        "uriBaseId": "%SRCROOT%",
    }
    assert "locations" not in ruff["results"][1]
    assert (ruff["invocations"][0]["executionSuccessful"], mypy["invocations"][0]["executionSuccessful"]) == (True, False)
    assert mypy["results"] == []


def test_size_is_bounded_and_what_is_left_out_is_counted(tmp_path):
    many = [Finding("lint", "ruff", "X1", "w" * 5000, f"src/{n}.py", n) for n in range(1, 5001)]
    data, text, log = written(tmp_path, report(checks={"lint": Measured(findings=many)}, unmeasured={}))
    assert (len(data["findings"]), data["left_out"]) == (2000, {"lint": 3000})
    assert text.count("\n- `") == 50
    assert "- and 4950 more" in text
    assert log["runs"][0]["invocations"][0] == {
        "executionSuccessful": True,
        "toolExecutionNotifications": [{"level": "warning", "message": {"text": "3000 findings of lint are left out"}}],
    }
    assert all((tmp_path / name).stat().st_size < 10_000_000 for name in ("report.json", "report.md", "report.sarif"))


@pytest.mark.parametrize(
    ("path", "expected"), [("/project/src/a.py", "src/a.py"), ("./src/a.py", "src/a.py"), ("{here}/src/a.py", "src/a.py"), ("a.py", "a.py")]
)
def test_paths_are_those_of_the_checkout(tmp_path, path, expected):
    assert project_path(path.format(here=tmp_path), tmp_path) == expected


def thing(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


TEXT = {"type": "string", "minLength": 1}
MESSAGE = thing(["text"], text=TEXT)
COUNT = {"type": "integer", "minimum": 1}
LEVEL = {"enum": ["none", "note", "warning", "error"]}
PLACE = thing(
    ["artifactLocation"],
    artifactLocation=thing(["uri"], uri={"type": "string", "pattern": "^[^/ #][^ #]*$"}, uriBaseId=TEXT),
    region=thing(["startLine"], startLine=COUNT, startColumn=COUNT),
)
RESULT = thing(
    ["message", "ruleId"],
    ruleId=TEXT,
    ruleIndex={"type": "integer", "minimum": 0},
    level=LEVEL,
    message=MESSAGE,
    properties={"type": "object"},
    suppressions={"type": "array", "uniqueItems": True, "items": thing(["kind"], kind={"enum": ["inSource", "external"]})},
    locations={"type": "array", "items": thing(["physicalLocation"], physicalLocation=PLACE)},
)
RULES = {"type": "array", "uniqueItems": True, "items": thing(["id"], id=TEXT)}
RUN = thing(
    ["tool"],
    tool=thing(["driver"], driver=thing(["name"], name=TEXT, version=TEXT, rules=RULES)),
    invocations={
        "type": "array",
        "items": thing(
            ["executionSuccessful"],
            executionSuccessful={"type": "boolean"},
            toolExecutionNotifications={"type": "array", "items": thing(["message"], level=LEVEL, message=MESSAGE)},
        ),
    },
    columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
    results={"type": "array", "items": RESULT},
)
SARIF = thing(
    ["version", "runs"],
    **{"$schema": {"type": "string", "format": "uri"}},
    version={"const": "2.1.0"},
    runs={"type": "array", "items": RUN},
)
"""The part of the SARIF 2.1.0 schema that Taxiway writes, closed: no package of an index ships the whole."""
