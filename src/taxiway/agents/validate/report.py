"""One report of a whole validation, three times: JSON for programs, Markdown for people, SARIF for code hosts and editors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from taxiway.agents.validate.check import Context, Measured
from taxiway.agents.validate.finding import Finding
from taxiway.agents.validate.sarif import Notice, sarif
from taxiway.agents.validate.toolset import TAXIWAY, Tool

__all__ = ["FORMAT", "Report", "write"]

FORMAT = 1
"""Of report.json; a change that a reader must know of counts it up."""

_FINDINGS_A_CHECK = 2000
_SHOWN_A_CHECK = 50
_NOTES_A_CHECK = 50
_MESSAGE = 1000
_ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Report:
    """What one validation of `commit` came to: `checks` in their order with what each found, `tools` by check, in the order of
    their importance, `unmeasured` metric -> why."""

    commit: str
    summary: str
    metrics: Mapping[str, float]
    unmeasured: Mapping[str, str]
    checks: Mapping[str, Measured]
    tools: Mapping[str, Sequence[Tool]]


def write(context: Context, report: Report) -> None:
    """Put report.json, report.md and report.sarif where people find them."""
    findings = {name: _bounded(measured.findings) for name, measured in report.checks.items()}
    context.keep("report.json", json.dumps(_data(report, findings), indent=1) + "\n")
    context.keep("report.md", _markdown(report, findings))
    context.keep("report.sarif", json.dumps(_sarif(report, findings), indent=1) + "\n")


def _bounded(findings: Sequence[Finding]) -> list[Finding]:
    """The first of them, what weighs most before the rest; the tools' own reports beside this one hold all."""
    ordered = sorted(findings, key=lambda f: (f.suppressed, _ORDER[f.severity], f.path, f.line, f.column, f.rule))
    return [replace(f, message=_cut(_line(f.message), _MESSAGE)) for f in ordered[:_FINDINGS_A_CHECK]]


def _left_out(report: Report, findings: Mapping[str, list[Finding]]) -> dict[str, int]:
    found = {name: len(report.checks[name].findings) - len(kept) for name, kept in findings.items()}
    return {name: more for name, more in found.items() if more}


# --- for programs ---------------------------------------------------------------------------------


def _data(report: Report, findings: Mapping[str, list[Finding]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "commit": report.commit,
        "summary": report.summary,
        "checks": list(report.checks),
        "tools": [{"name": t.name, "version": t.version, "source": t.source, "why": t.why} for t in _tools(report)],
        "metrics": dict(report.metrics),
        "unmeasured": dict(report.unmeasured),
        "notes": {name: measured.notes for name, measured in report.checks.items() if measured.notes},
        "findings": [asdict(f) for kept in findings.values() for f in kept],
        "left_out": _left_out(report, findings),
    }


def _tools(report: Report) -> list[Tool]:
    return list({tool.name: tool for tools in report.tools.values() for tool in tools}.values())


def _sarif(report: Report, findings: Mapping[str, list[Finding]]) -> dict[str, Any]:
    every = [f for kept in findings.values() for f in kept]
    tools = {tool.name: tool.version for tool in _tools(report)}
    left_out, notices = _left_out(report, findings), dict[str, list[Notice]]()
    for check, measured in report.checks.items():
        said: list[Notice] = [
            ("error", f"{m} was not measured: {report.unmeasured[m]}") for m in measured.unmeasured if m in report.unmeasured
        ]
        if check in left_out:
            said.append(("warning", f"{left_out[check]} findings of {check} are left out"))
        if said:
            notices.setdefault(report.tools[check][0].name if report.tools.get(check) else TAXIWAY, []).extend(said)
    used = {f.tool for f in every} | set(notices)
    return sarif(tools | dict.fromkeys(sorted(used - set(tools)), ""), every, notices)


# --- for people -----------------------------------------------------------------------------------


def _markdown(report: Report, findings: Mapping[str, list[Finding]]) -> str:
    rows = [f"| {name} | {value:g} |" for name, value in sorted(report.metrics.items())]
    rows += [f"| {name} | not measured: {_cell(why)} |" for name, why in sorted(report.unmeasured.items())]
    lines = ["# Validation", "", _cell(report.summary), "", f"Commit {report.commit or 'none'}.", ""]
    lines += ["| metric | measured |", "|---|---|", *rows, ""]
    lines += ["| tool | version | chosen by |", "|---|---|---|", *(_tool_row(tool) for tool in _tools(report))]
    for name, measured in report.checks.items():
        if measured.findings or measured.notes:
            lines += ["", f"## {name}", "", *_section(measured, findings[name])]
    return "\n".join(lines) + "\n"


def _tool_row(tool: Tool) -> str:
    return f"| {tool.name} | {tool.version or 'missing'} | {tool.source}{': ' + _cell(tool.why) if tool.why else ''} |"


def _section(measured: Measured, findings: list[Finding]) -> Iterable[str]:
    if findings:
        rules = Counter(f.rule for f in findings).most_common(5)
        counted = "1 finding:" if len(measured.findings) == 1 else f"{len(measured.findings)} findings, most of them"
        yield f"{counted} {', '.join(f'{_cell(rule)} ({count})' for rule, count in rules)}."
        yield ""
    for f in findings[:_SHOWN_A_CHECK]:
        place = ":".join(str(part) for part in (f.path, f.line, f.column) if part)
        where = f"`{_cell(place)}` " if place else ""
        yield f"- {where}{_cell(f.rule)}: {_cell(_cut(f.message, 300))}{' (suppressed)' if f.suppressed else ''}"
    if (more := len(measured.findings) - min(len(findings), _SHOWN_A_CHECK)) > 0:
        yield f"- and {more} more"
    for note in measured.notes[:_NOTES_A_CHECK]:
        yield f"- {_cell(note)}"
    if (more := len(measured.notes) - _NOTES_A_CHECK) > 0:
        yield f"- and {more} more notes"


def _line(text: str) -> str:
    return " ".join(text.split())


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
