"""One attempt: look at the app, let the model write, try what it wrote, delete what proves nothing, and say so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from taxiway.agents.base import StageAttempt
from taxiway.agents.e2e import E2eInput
from taxiway.agents.e2e.rounds import Setting
from taxiway.agents.e2e.work import cell, one_line, open_setting
from taxiway.agents.loop import Task
from taxiway.agents.mind import Mind, required
from taxiway.agents.project_map import project_map
from taxiway.agents.tools import ToolError, Tools
from taxiway.agents.validate.check import NotMeasured
from taxiway.agents.validate.files import Layout, is_test_name, list_files
from taxiway.agents.validate.listing import definitions
from taxiway.agents.validate.servers import hide
from taxiway.agents.write_e2e.asking import SYSTEM, Handed, accept, folder, request, veto
from taxiway.agents.write_e2e.reading import imported
from taxiway.agents.write_e2e.trials import Trials, readable, spread
from taxiway.ports import Ports
from taxiway.records import Result

if TYPE_CHECKING:
    from taxiway.agents.write_e2e import WriteE2eInput

__all__ = ["write_e2e"]

_METRICS = ("tests.proposed", "tests.kept", "tests.discarded")
_SHARE = 0.5
"""Of the stage's time, at most, for the model; the trials need the rest."""


def write_e2e(inputs: WriteE2eInput, ports: Ports, stage: StageAttempt) -> Result:
    """Add proven browser tests to the checkout; `Result.unmeasured` says why where the app or the browser let nothing be tried."""
    mind = required(stage.mind, stage.no_mind)
    hidden: set[str] = set()
    look = E2eInput(browser=inputs.browser, timeout=inputs.timeout, trace="never", screenshot="never")
    try:
        with open_setting(look, ports, stage, hidden) as setting:
            result = _Writing(inputs, setting, stage, mind).run()
    except NotMeasured as why:
        stage.log.warning("no browser test was written: %s", why)
        result = Result(unmeasured=dict.fromkeys(_METRICS, one_line(str(why))), summary=one_line(f"no browser test was written: {why}"))
    return hide(hidden, stage.reports, result)


class _Writing:
    """The steps, in their order, on one checkout."""

    def __init__(self, inputs: WriteE2eInput, setting: Setting, stage: StageAttempt, mind: Mind) -> None:
        self._inputs, self._stage, self._mind = inputs, stage, mind
        self._checkout, self._trials = stage.checkout, Trials(setting)
        self._place = folder(Layout(setting.context.manifest))
        if not self._place:
            raise NotMeasured("the project has no folder of its own for browser tests: name one in `e2e: {paths: [...]}`")
        there = frozenset(list_files(stage.checkout))
        self._beside = sorted(p for p in there if p.startswith(f"{self._place}/") and p.endswith(".py"))
        self._tools = Tools(
            stage.checkout, setting.context.sandbox, stage.stop, checks={"tests": self._check}, veto=veto(self._place, there)
        )

    def run(self) -> Result:
        survey = self._trials.survey(self._inputs.pages)
        if survey.why:
            raise NotMeasured(survey.why)
        handed = self._ask(survey.look["pages"])
        reasons = self._unreadable(handed)
        # What is not tried is not there while the others are: a file may change what its neighbours see.
        self._delete(handed, reasons)
        self._trials.judge(handed.tests, reasons)
        self._delete(handed, reasons)
        self._trials.confirm(handed.tests, reasons)
        self._delete(handed, reasons)
        return self._result(handed, reasons)

    def _ask(self, pages: Sequence[Mapping[str, Any]]) -> Handed:
        task = Task(
            system=SYSTEM,
            project=project_map(self._checkout),
            request=request(self._inputs.requirements, self._inputs.most, self._place, pages),
            answer=Handed,
            seconds=self._stage.stop.remaining_s() * _SHARE,
            accept=lambda handed: accept(handed, self._checkout, self._tools.changed, self._inputs.most),
        )
        return self._mind.work(task, self._tools, name="write_e2e").answer

    def _new(self) -> list[str]:
        """The new files that are there now."""
        return [p for p in sorted(self._tools.changed) if (self._checkout / p).is_file()]

    def _check(self) -> str:
        """The model's own look at its tests: they run on the app as it is."""
        new = self._new()
        unreadable = readable(self._checkout, new, self._beside)
        found, _ = definitions(self._checkout, [p for p in new if is_test_name(p) and p not in unreadable])
        said = [f"{path} is not tried: it {why}" for path, why in unreadable.items()]
        return "\n".join([*said, self._trials.tell(["::".join(d.key) for d in found])])

    def _unreadable(self, handed: Handed) -> dict[str, str]:
        found = readable(self._checkout, self._new(), self._beside)
        reasons = {p.test: found[f] for p in handed.tests if (f := p.test.partition("::")[0]) in found}
        reasons |= {
            p.test: "is in no file that pytest takes for tests" for p in handed.tests if not is_test_name(p.test.partition("::")[0])
        }
        spread(handed.tests, reasons, set())
        return reasons

    def _delete(self, handed: Handed, reasons: Mapping[str, str]) -> None:
        """Delete the files without a test that is kept, and the page objects that no kept test imports."""
        new = self._new()
        keep = {p.test.partition("::")[0] for p in handed.tests if p.test not in reasons}
        for _ in new:
            keep |= {found for path in sorted(keep) for found in imported(self._checkout, path, new)}
        for path in new:
            if path not in keep:
                with suppress(ToolError):
                    self._tools.call("delete", {"path": path})
                self._stage.log.info("deleted %s", path)

    def _result(self, handed: Handed, reasons: Mapping[str, str]) -> Result:
        proposed, kept = len(handed.tests), len(handed.tests) - len(reasons)
        summary = f"{kept} of {proposed} browser tests that the model wrote are kept" + (f", {len(reasons)} discarded" if reasons else "")
        rows = [
            {"test": p.test, "requirement": p.requirement, "breaks": p.breaks.model_dump(), "kept": p.test not in reasons}
            | ({"why": reasons[p.test]} if p.test in reasons else {})
            for p in handed.tests
        ]
        for test, why in reasons.items():
            self._stage.log.info("%s is not kept: it %s", test, why)
        report = {"summary": summary, "tests": rows, "not_tested": handed.not_tested, "files": self._new()}
        (self._stage.reports / "tests.json").write_text(json.dumps(report, indent=1))
        (self._stage.reports / "tests.md").write_text(_markdown(summary, rows, handed.not_tested))
        return Result(metrics=dict(zip(_METRICS, map(float, (proposed, kept, len(reasons))), strict=True)), summary=one_line(summary))


def _markdown(summary: str, rows: Sequence[Mapping[str, Any]], not_tested: Sequence[str]) -> str:
    lines = ["# Browser tests that were written", "", summary, "", "| test | requirement | with what broken | kept |", "|---|---|---|---|"]
    for row in rows:
        broken = f"{row['breaks']['kind']} {row['breaks']['target']}"
        kept = "yes" if row["kept"] else f"no: it {row['why']}"
        lines.append(f"| {' | '.join(cell(text) for text in (row['test'], row['requirement'], broken, kept))} |")
    if not_tested:
        lines += ["", "## Not tested, in the model's words", "", *(f"- {cell(text)}" for text in not_tested)]
    return "\n".join(lines) + "\n"
