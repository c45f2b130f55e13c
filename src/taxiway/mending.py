"""What a failed measurement leaves for the repair after it, and what a repair may not make worse."""

from __future__ import annotations

from pathlib import Path

from taxiway import gates as gate
from taxiway.errors import GateFailed, TaxiwayError
from taxiway.records import Reading, Result
from taxiway.tries import Mending

__all__ = ["EVIDENCE", "KEPT_TESTS", "evidence_text", "lost_tests", "reports_text"]

EVIDENCE = 40_000
"""Characters of what is handed from one try to the next."""
KEPT_TESTS = {"tests.total": ">=", "tests.skipped": "<=", "tests.xfailed": "<=", "e2e.total": ">="}
"""What a repair may not make worse: a test that it deletes or skips counts as failed."""


def evidence_text(error: TaxiwayError, reports: Path) -> str:
    """What went wrong, for who mends it: the error, the gates as a table, and what the attempt reported; bounded in length."""
    gates = f"\n\n{gate.table(error.readings)}" if isinstance(error, GateFailed) else ""
    return f"{error.problem}{gates}\n\n{reports_text(reports, EVIDENCE)}"


def reports_text(reports: Path, most: int) -> str:
    """The reports that people read, each with its name, until `most` characters are full."""
    found = []
    for path in sorted(p for p in reports.rglob("*.md") if p.is_file() and not p.is_symlink()):
        text = path.read_text(encoding="utf-8", errors="replace")
        found.append(f"--- {path.relative_to(reports).as_posix()}\n{text[:most]}")
        most -= min(len(text), most)
    return "\n".join(found)


def lost_tests(mended: Mending | None, result: Result) -> tuple[Reading, ...]:
    """Failed readings for tests that a repair deleted or skips; the first measurement says how many there were."""
    lost = []
    for name, was in mended.baseline.items() if mended else ():
        now = result.metrics.get(name)
        if now is None or (now < was if KEPT_TESTS[name] == ">=" else now > was):
            note = "before the repairs; a test that a repair deletes or skips counts as failed"
            lost.append(Reading(metric=name, wanted=f"{KEPT_TESTS[name]} {was:g}", measured=now, passed=False, note=note))
    return tuple(lost)
