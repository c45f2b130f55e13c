"""One validation: the checks side by side, their numbers, reports and one line that sums them up."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from taxiway.agents.base import StageAttempt
from taxiway.agents.validate.check import Context, Measured, NotMeasured
from taxiway.agents.validate.checks import CHECKS
from taxiway.agents.validate.infrastructure import began_with, changed_infrastructure, changed_tests
from taxiway.agents.validate.report import Report, write
from taxiway.agents.validate.servers import hide
from taxiway.agents.validate.toolset import LEAST, choose
from taxiway.errors import Cancelled, ProjectError
from taxiway.ports import Environment, Ports
from taxiway.project import read_project
from taxiway.records import Result

if TYPE_CHECKING:
    from taxiway.agents.validate import ValidateInput

__all__ = ["validate"]

_LOGGED = 20
_INFRASTRUCTURE, _TESTS = "changes.test_infrastructure", "changes.tests"


def validate(inputs: ValidateInput, ports: Ports, stage: StageAttempt) -> Result:
    """Measure the checkout; every declared metric of the chosen checks is measured or says why it is not."""
    project = read_project(stage.checkout)
    for reason in project.reasons:
        stage.log.info("found: %s", reason)
    tools = ports.environments.tools(stage.stop)
    checks: list[str] = list(dict.fromkeys(inputs.checks))
    named = dict.fromkeys(tool for name in checks for tool in CHECKS[name].tools)
    # A tool's version may be the project's to choose, and it is the same one whatever else is checked.
    installs = any(CHECKS[name].needs_environment for name in checks) or not LEAST.keys().isdisjoint(named)
    environment, why = _environment(ports, stage) if installs else (None, "")
    toolset = choose(named, tools, environment, lambda name, version: ports.environments.tool(name, version, stage.stop))
    for tool in toolset.values():
        stage.log.info("tool: %s %s (%s) %s", tool.name, tool.version or "missing", tool.source, tool.why)
    with tempfile.TemporaryDirectory(prefix="taxiway-validate-", ignore_cleanup_errors=True) as work:
        context = Context(
            checkout=stage.checkout,
            project=project,
            strict=inputs.strict,
            sandbox=ports.sandbox,
            tools=tools,
            toolset=toolset,
            environment=environment,
            work=Path(work),
            reports=stage.reports,
            stop=stage.stop,
            log=stage.log,
            licences=inputs.licences,
            advisories=ports.advisories,
            servers=ports.servers,
        )
        found = _side_by_side(context, checks, why)
        if "tests" in checks:
            found["changes"] = _changes(ports, context)
        result = _result(context, stage.commit, {"project": Measured(notes=list(project.reasons))} | found)
        return hide(context.hidden, stage.reports, result)


def _environment(ports: Ports, stage: StageAttempt) -> tuple[Environment | None, str]:
    try:
        return ports.environments.project(stage.checkout, stage.stop), ""
    except ProjectError as error:
        return None, f"the project's environment could not be installed: {error.problem}"


def _side_by_side(context: Context, checks: list[str], why: str) -> dict[str, Measured]:
    with ThreadPoolExecutor(len(checks), thread_name_prefix="check") as pool:
        futures = {name: pool.submit(_one, context, name, why) for name in checks}
    # All have ended here: they share one clock and one way to be stopped.
    _raise_first(list(futures.values()))
    return {name: future.result() for name, future in futures.items()}


def _raise_first(futures: list[Future[Measured]]) -> None:
    errors = [e for f in futures if (e := f.exception()) is not None]
    if errors:
        raise next((e for e in errors if isinstance(e, Cancelled)), errors[0])


def _one(context: Context, name: str, why: str) -> Measured:
    check = CHECKS[name]
    metrics = list(check.metrics)
    began = time.monotonic()
    try:
        if why and check.needs_environment:
            raise NotMeasured(why)
        measured: Measured = resolve_name(f"taxiway.agents.validate.{check.function}")(context)
    except NotMeasured as error:
        measured = Measured()
        measured.missing(metrics, str(error))
    measured.missing(metrics, "the check gave no number")
    for metric, reason in measured.unmeasured.items():
        context.log.warning("%s was not measured: %s", metric, _line(reason))
    for note in measured.notes:
        context.log.info("%s: %s", name, _line(note))
    for f in measured.findings[:_LOGGED]:
        context.log.info("%s: %s:%d: %s: %s", name, _line(f.path) or "-", f.line, f.rule, _line(f.message))
    if len(measured.findings) > _LOGGED:
        context.log.info("%s: and %d more findings: see report.md", name, len(measured.findings) - _LOGGED)
    context.log.info("%s took %.1f s", name, time.monotonic() - began)
    return measured


def _changes(ports: Ports, context: Context) -> Measured:
    measured, before = Measured(), context.folder("start")
    try:
        began_with(ports.workspace, before)
    except NotMeasured as why:
        measured.missing([_INFRASTRUCTURE, _TESTS], str(why))
        return measured
    infrastructure, tests = changed_infrastructure(before, context.checkout), changed_tests(before, context.checkout)
    measured.metrics |= {_INFRASTRUCTURE: len(infrastructure), _TESTS: len(tests)}
    measured.notes = [f"{path}: decides how tests run, and this run changed it" for path in infrastructure]
    measured.notes += [f"{name}: stood in the tests when the run began, and this run changed it" for name in tests[:_LOGGED]]
    measured.notes += [f"and {more} more like that"] if (more := len(tests) - _LOGGED) > 0 else []
    return measured


def _result(context: Context, commit: str, found: Mapping[str, Measured]) -> Result:
    metrics = {name: float(value) for m in found.values() for name, value in m.metrics.items()}
    unmeasured = {name: _line(why) for m in found.values() for name, why in m.unmeasured.items() if name not in metrics}
    summary = _summary(metrics, unmeasured, list(found))
    tools = {name: [context.chosen(tool) for tool in CHECKS[name].tools] if name in CHECKS else [] for name in found}
    write(context, Report(commit, summary, metrics, unmeasured, found, tools))
    return Result(metrics=metrics, unmeasured=unmeasured, summary=summary)


def _line(text: str) -> str:
    # Names of files may be no text at all, and neither a log nor XCom takes half a character.
    plain = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    return plain if len(plain) <= 300 else plain[:299] + "\N{HORIZONTAL ELLIPSIS}"  # noqa: PLR2004 - results stay small


def _summary(metrics: Mapping[str, float], unmeasured: Mapping[str, str], checks: list[str]) -> str:
    parts = [
        text.format(metrics[metric], s="" if metrics[metric] == 1 else "s", ies="y" if metrics[metric] == 1 else "ies")
        for check in CHECKS.values()
        if check.name in checks
        for metric, text in check.summary.items()
        if metric in metrics and (metrics[metric] or metric not in check.quiet)
    ]
    # Code without a branch has its lines measured all the same.
    known = {name.partition(".")[0] for name in metrics}
    missing = sorted({name if (group := name.partition(".")[0]) in known else group for name in unmeasured})
    return ", ".join(parts + ([f"not measured: {', '.join(missing)}"] if missing else []))
