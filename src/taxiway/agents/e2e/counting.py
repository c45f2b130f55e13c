"""From records to numbers: tests by how they ended, pages by what axe found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from taxiway.agents.e2e.rounds import Round
from taxiway.agents.validate.check import Context, Measured, tail
from taxiway.agents.validate.files import Layout, is_test_name, python_files
from taxiway.agents.validate.listing import definitions
from taxiway.agents.validate.record import Record

__all__ = ["A11Y", "E2E", "count_pages", "count_tests"]

E2E = (
    *("e2e.total", "e2e.passed", "e2e.failed", "e2e.flaky", "e2e.skipped", "e2e.xfailed", "e2e.deselected", "e2e.browsed"),
    *("e2e.console_errors", "e2e.failed_requests"),
)
A11Y = ("a11y.critical", "a11y.serious", "a11y.moderate", "a11y.minor")
_SHOWN = 20


def count_pages(first: Round, pages: Sequence[str], measured: Measured) -> None:
    """Violations by impact, one a rule and page; not measured unless every listed page was looked at."""
    if not pages:
        measured.missing(A11Y, "no page is listed in `pages`")
        return
    found = first.look.get("pages")
    if not found:
        measured.missing(A11Y, first.why or "no page was looked at")
        return
    if troubles := [f"{p['path']}: {p['problem']}" for p in found if p["problem"]]:
        measured.missing(A11Y, "; ".join(troubles))
        return
    violations = [(p["path"], v) for p in found for v in p["violations"]]
    impacts = Counter(v["impact"] for _, v in violations)
    measured.metrics |= {f"a11y.{name}": impacts[name] for name in ("critical", "moderate", "minor")}
    measured.metrics["a11y.serious"] = impacts["serious"] + impacts["critical"]
    measured.notes += [f"{path}: {v['impact']}: {v['help']} ({v['id']}, {v['count']} times)" for path, v in violations][:_SHOWN]


def count_tests(context: Context, first: Round, later: Sequence[Round], flaky: set[str], measured: Measured) -> list[dict[str, Any]]:
    """Numbers of all rounds together, and each test with its outcome in every round."""
    record = first.record or Record()
    rounds = [record, *(r.record for r in later if r.record)]
    layout = Layout(context.manifest)
    files = [p for p in python_files(context.checkout, suffixes=(".py",)) if is_test_name(p) and layout.in_browser_tests(p)]
    defined, unreadable = definitions(context.checkout, files)
    passed, failed, xfailed = (record.count(o) for o in ("passed", "failed", "xfailed"))
    good = {i for i, o in record.outcomes.items() if o == "passed"} | flaky
    loaded = {data["test"] for r in rounds for kind, data in r.others if kind == "loaded"}
    missed = [i for i in record.keys if record.outcomes.get(i, "off") == "off"]
    known = set(record.keys.values())
    foreign = {record.keys[i] for i in record.foreign}
    off = [d for d in defined if d.key not in known or (d.plain and d.key in foreign)]
    missed += ["::".join(d.key) for d in off if d.key[0] not in {*record.skipped_files, *record.broken}]
    events = Counter(kind for kind, _ in record.others)
    measured.metrics |= {
        "e2e.total": passed + failed + xfailed,
        "e2e.passed": passed,
        "e2e.failed": failed - len(flaky) + len(record.broken) + len(set(unreadable) - set(record.broken)),
        "e2e.flaky": len(flaky),
        "e2e.skipped": record.count("skipped") + sum(d.key[0] in record.skipped_files for d in defined),
        "e2e.xfailed": xfailed,
        "e2e.deselected": len(missed),
        "e2e.browsed": len(good & loaded),
        "e2e.console_errors": events["console"],
        "e2e.failed_requests": events["request"],
    }
    measured.notes += [f"{i}: {'flaky: ' if i in flaky else ''}{record.texts[i]}" for i, o in record.outcomes.items() if o == "failed"][
        :_SHOWN
    ]
    measured.notes += [f"{i}: {tail(text)}" for i, text in record.broken.items()][:_SHOWN]
    measured.notes += [f"{name}: defined, and did not run" for name in missed[:_SHOWN]]
    measured.notes += [f"{data['test']}: {kind}: {data['text']}" for kind, data in record.others if kind in ("console", "request")][:_SHOWN]
    return [
        {
            "test": i,
            "outcome": "flaky" if i in flaky else outcome,
            "rounds": [r.outcomes[i] for r in rounds if i in r.outcomes],
            "loaded": i in loaded,
            "error": record.texts.get(i, ""),
            "pages_said": [data["text"] for kind, data in record.others if kind in ("console", "request") and data["test"] == i][:_SHOWN],
        }
        for i, outcome in sorted(record.outcomes.items())
    ]
