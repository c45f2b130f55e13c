"""One attempt: rounds until every test passed or the retries are spent, then numbers, reports and one line that sums them up."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from taxiway.agents.base import StageAttempt
from taxiway.agents.e2e.artifacts import keep_round
from taxiway.agents.e2e.counting import A11Y, E2E, count_pages, count_tests
from taxiway.agents.e2e.rounds import Round, Setting, run_round
from taxiway.agents.monitor import seconds
from taxiway.agents.validate.check import Context, Measured, NotMeasured
from taxiway.agents.validate.files import Layout
from taxiway.agents.validate.servers import hide
from taxiway.errors import ProjectError
from taxiway.ports import Browser, Ports
from taxiway.project import read_project
from taxiway.records import Result

if TYPE_CHECKING:
    from taxiway.agents.e2e import E2eInput

__all__ = ["cell", "e2e", "one_line", "open_setting"]

_LINE = 300


def e2e(inputs: E2eInput, ports: Ports, stage: StageAttempt) -> Result:
    """Measure the checkout in a browser; every declared metric is measured or says why it is not."""
    measured = Measured()
    report: dict[str, object] = {"browser": inputs.browser}
    hidden: set[str] = set()
    try:
        with open_setting(inputs, ports, stage, hidden) as setting:
            _rounds(setting, measured, report)
    except NotMeasured as why:
        measured.missing([*E2E, *A11Y], str(why))
    for reason in dict.fromkeys(measured.unmeasured.values()):
        stage.log.warning("%s not measured: %s", ", ".join(m for m, why in measured.unmeasured.items() if why == reason), reason)
    for note in measured.notes:
        stage.log.info("e2e: %s", note)
    return hide(hidden, stage.reports, _result(stage, measured, report))


@contextmanager
def open_setting(inputs: E2eInput, ports: Ports, stage: StageAttempt, hidden: set[str]) -> Iterator[Setting]:
    """What the rounds need; raise NotMeasured where this project or this machine lacks it, before anything is installed."""
    project = read_project(stage.checkout)
    if not project.manifest.start:
        raise NotMeasured(".taxiway.yaml does not say how the app starts: write `start`")
    browser = _browser(inputs, ports)
    tools = ports.environments.browser_tools(stage.stop)
    try:
        environment = ports.environments.project(stage.checkout, stage.stop)
    except ProjectError as error:
        raise NotMeasured(f"the project's environment could not be installed: {error.problem}") from error
    with tempfile.TemporaryDirectory(prefix="taxiway-e2e-", ignore_cleanup_errors=True) as work:
        context = Context(
            checkout=stage.checkout,
            project=project,
            strict=False,
            sandbox=ports.sandbox,
            tools=tools,
            toolset={},
            environment=environment,
            work=Path(work),
            reports=stage.reports,
            stop=stage.stop,
            log=stage.log,
            servers=ports.servers,
            hidden=hidden,
        )
        yield Setting(context, inputs, browser, seconds(inputs.timeout))


def _browser(inputs: E2eInput, ports: Ports) -> Browser:
    found = ports.browsers.get(inputs.browser)
    if found is None:
        get = {"chromium": "install it (`apt-get install chromium`)"}.get(inputs.browser, f"`playwright install {inputs.browser}` gets it")
        raise NotMeasured(f"this machine has no {inputs.browser}: {get}")
    if inputs.video != "never" and not found.films:
        raise NotMeasured(
            "a video was asked for, and this machine has no ffmpeg: install it (`apt-get install ffmpeg`), or say video: never"
        )
    return found


def _rounds(setting: Setting, measured: Measured, report: dict[str, object]) -> None:
    context, inputs = setting.context, setting.inputs
    paths = [p for p in Layout(context.manifest).browser_tests if (context.checkout / p).exists()]
    first = _round(setting, 0, paths, inputs.pages) if paths else None
    if first is None:
        raise NotMeasured(f"there is no browser test: no {' and no '.join(Layout(context.manifest).browser_tests)}")
    report |= {"version": first.look.get("version", ""), "pages": first.look.get("pages", [])}
    count_pages(first, inputs.pages, measured)
    if first.record is None:
        measured.missing(E2E, first.why)
        return
    failed = {i for i, outcome in first.record.outcomes.items() if outcome == "failed"}
    flaky: set[str] = set()
    later = []
    for number in range(1, inputs.retries + 1):
        if not failed - flaky:
            break
        again = _round(setting, number, sorted(failed - flaky), ())
        later.append(again)
        if again.record is None:
            measured.notes.append(f"retry {number} was not measured: {again.why}")
        else:
            flaky |= {i for i in failed if again.record.outcomes.get(i) == "passed"}
    report["tests"] = count_tests(context, first, later, flaky, measured)


def _round(setting: Setting, number: int, tests: list[str], pages: list[str] | tuple[()]) -> Round:
    done = run_round(setting, number, tests, pages)
    keep_round(setting.context, done, f"retry-{number}" if number else "")
    return done


def _result(stage: StageAttempt, measured: Measured, report: Mapping[str, object]) -> Result:
    metrics = {name: float(value) for name, value in measured.metrics.items()}
    unmeasured = {name: one_line(why) for name, why in measured.unmeasured.items() if name not in metrics}
    summary = _summary(metrics, unmeasured)
    whole = {"summary": summary, **report, "metrics": metrics, "unmeasured": unmeasured, "notes": measured.notes}
    (stage.reports / "e2e.json").write_text(json.dumps(whole, indent=1))
    (stage.reports / "summary.md").write_text(_markdown(summary, metrics, unmeasured, measured.notes))
    return Result(metrics=metrics, unmeasured=unmeasured, summary=summary)


def one_line(text: str) -> str:
    """The text on one line, bounded."""
    plain = " ".join(text.split())
    return plain if len(plain) <= _LINE else plain[: _LINE - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _summary(metrics: Mapping[str, float], unmeasured: Mapping[str, str]) -> str:
    parts = [f"{_counted(metrics['e2e.passed'], 'browser test')} passed"] if "e2e.passed" in metrics else []
    for name, text in (("failed", "failed"), ("flaky", "flaky"), ("skipped", "skipped"), ("deselected", "did not run")):
        if value := metrics.get(f"e2e.{name}"):
            parts.append(f"{value:.0f} {text}")
    if "a11y.serious" in metrics:
        parts.append(_counted(metrics["a11y.serious"], "serious accessibility violation"))
    # What was not asked for is no news; what was, and could not be told, is.
    if missing := sorted({name.split(".")[0] for name in unmeasured if "no page is listed" not in unmeasured[name]}):
        parts.append(f"not measured: {', '.join(missing)} ({next(unmeasured[n] for n in unmeasured if n.split('.')[0] == missing[-1])})")
    return one_line(", ".join(parts))


def _counted(number: float, what: str) -> str:
    return f"{number:.0f} {what}{'' if number == 1 else 's'}"


def _markdown(summary: str, metrics: Mapping[str, float], unmeasured: Mapping[str, str], notes: list[str]) -> str:
    rows = [f"| {name} | {value:g} |" for name, value in sorted(metrics.items())]
    rows += [f"| {name} | not measured: {cell(why)} |" for name, why in sorted(unmeasured.items())]
    lines = ["# Browser tests", "", summary, "", "| metric | measured |", "|---|---|", *rows, *(["", "## Notes", ""] if notes else [])]
    return "\n".join([*lines, *(f"- {cell(note)}" for note in notes)]) + "\n"


def cell(text: str) -> str:
    """The text as a cell of a Markdown table, without markup of its own."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
