"""What was asked for and what shows it, as a page and as data."""

from __future__ import annotations

import json
from pathlib import Path

from taxiway.agents.scaffold.build import Built

__all__ = ["report", "report_degraded"]


def report(reports: Path, built: Built) -> None:
    """Write requirements.md and requirements.json. Texts are the model's own: the tests they name exist, no more is known of them here."""
    work = built.work
    data = {**work.model_dump(), "changed": list(built.changed), "altered_tests": list(built.altered)}
    (reports / "requirements.json").write_text(json.dumps(data, indent=2, ensure_ascii=False), encoding="utf-8", errors="replace")
    lines = [f"# {_line(work.summary)}", "", "| requirement | tests that show it, by the model's word |", "|---|---|"]
    lines += [f"| {_line(r.requirement)} | {', '.join(map(_line, r.tests)) or '**none**'} |" for r in work.requirements]
    for title, entries in (
        ("Not done", work.not_done),
        ("Tests that were there before and were changed", built.altered),
        ("Files that were changed", built.changed),
    ):
        lines += ["", f"## {title}", "", *([f"- {_line(entry)}" for entry in entries] or ["Nothing."])]
    _write(reports, "\n".join(lines))


def report_degraded(reports: Path, requirements: str, missing: str) -> None:
    """Write down that nothing of the requirements was built, and what to configure."""
    data = {"degraded": "no model", "configure": missing, "asked": requirements}
    (reports / "requirements.json").write_text(json.dumps(data, indent=2, ensure_ascii=False), encoding="utf-8", errors="replace")
    _write(reports, f"# Degraded: no model\n\nThe template alone was made; what was required was not built. To build it: {missing}")


def _write(reports: Path, text: str) -> None:
    (reports / "requirements.md").write_text(text + "\n", encoding="utf-8", errors="replace")


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
