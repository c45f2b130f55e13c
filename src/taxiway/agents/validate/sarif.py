"""The report in SARIF 2.1.0, the form that code hosts and editors read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from taxiway.agents.validate.finding import Finding

__all__ = ["SCHEMA", "Notice", "sarif"]

Notice = tuple[Literal["error", "warning"], str]

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(tools: Mapping[str, str], findings: Sequence[Finding], notices: Mapping[str, Sequence[Notice]]) -> dict[str, Any]:
    """A SARIF log with one run for each of `tools` (name -> version), also for one that found nothing.

    `notices` say of a tool what it should have measured and did not (error), or what is left out (warning): an empty list of
    results alone would look like a pass.
    """
    runs = [_run(name, version, [f for f in findings if f.tool == name], notices.get(name, ())) for name, version in tools.items()]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": runs}


def _run(name: str, version: str, findings: Sequence[Finding], notices: Iterable[Notice]) -> dict[str, Any]:
    rules = sorted({f.rule for f in findings})
    notifications = [{"level": level, "message": {"text": text}} for level, text in notices]
    failed = any(n["level"] == "error" for n in notifications)
    return {
        "tool": {"driver": {"name": name, **({"version": version} if version else {}), "rules": [{"id": rule} for rule in rules]}},
        "invocations": [{"executionSuccessful": not failed, "toolExecutionNotifications": notifications}],
        "columnKind": "unicodeCodePoints",
        "results": [_result(f, rules.index(f.rule)) for f in findings],
    }


def _result(finding: Finding, rule: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": rule,
        "level": finding.severity,
        "message": {"text": finding.message or finding.rule},
        "properties": {"check": finding.check},
        # Always there: a reader that sees results without it must take them for all, suppressed ones included.
        "suppressions": [{"kind": "inSource"}] if finding.suppressed else [],
    }
    if finding.path:
        place: dict[str, Any] = {"artifactLocation": {"uri": quote(finding.path, errors="surrogateescape"), "uriBaseId": "%SRCROOT%"}}
        if finding.line:
            place["region"] = {"startLine": finding.line, **({"startColumn": finding.column} if finding.column else {})}
        result["locations"] = [{"physicalLocation": place}]
    return result
