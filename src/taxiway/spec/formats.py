"""Problems as text, JSON and SARIF."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from taxiway import __version__
from taxiway.errors import Problem

__all__ = ["Checked", "as_json", "as_sarif", "as_text"]


@dataclass(frozen=True)
class Checked:
    """What checking `files` files found."""

    files: int
    problems: Sequence[Problem]
    warnings: Sequence[Problem] = ()


def as_text(checked: Checked) -> str:
    """Each problem with its caret, then one line that sums up."""
    parts = [str(p) for p in checked.problems]
    parts += [str(w).replace(": error: ", ": warning: ", 1) for w in checked.warnings]
    broken = len({p.at.path for p in checked.problems})
    files = f"{checked.files} file{'s' * (checked.files != 1)}"
    found = f"{len(checked.problems)} error{'s' * (len(checked.problems) != 1)} in {broken} of {files}"
    summary = found if checked.problems else f"{files} checked, no errors"
    if checked.warnings:
        summary += f", {len(checked.warnings)} warning{'s' * (len(checked.warnings) != 1)}"
    return "\n".join([*parts, summary])


def as_json(checked: Checked) -> str:
    """An object with `files` and `problems`."""
    rows = [
        {
            "path": p.at.path,
            "line": p.at.line,
            "column": p.at.column,
            "severity": severity,
            "rule": p.rule,
            "problem": p.problem,
            "hint": p.hint,
        }
        for severity, p in _all(checked)
    ]
    return json.dumps({"files": checked.files, "problems": rows}, indent=2)


def as_sarif(checked: Checked) -> str:
    """SARIF 2.1.0, as code hosts read it."""
    found = _all(checked)
    results = [
        {
            "ruleId": p.rule,
            "level": severity,
            "message": {"text": f"{p.problem}; {p.hint}" if p.hint else p.problem},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": quote(p.at.path)},
                        "region": {"startLine": p.at.line, "startColumn": p.at.column},
                    }
                }
            ],
        }
        for severity, p in found
    ]
    rules = [{"id": rule} for rule in sorted({p.rule for _, p in found})]
    driver = {"name": "taxiway", "version": __version__, "rules": rules}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}, indent=2)


def _all(checked: Checked) -> list[tuple[str, Problem]]:
    return [("error", p) for p in checked.problems] + [("warning", w) for w in checked.warnings]
