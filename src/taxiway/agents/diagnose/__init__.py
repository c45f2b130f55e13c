"""diagnose: reads what failed stages left and says why they failed. What it quotes must stand there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from taxiway.agents.base import Agent, AgentInput, Metric, ModelUse, StageAttempt
from taxiway.ports import Ports
from taxiway.records import Result

if TYPE_CHECKING:
    from taxiway.agents.diagnose.answer import Found

__all__ = ["AGENT", "DiagnoseInput"]

_SHORT = 240


class DiagnoseInput(AgentInput):
    """Nothing to set: the failed stages say what to explain."""


def run(inputs: DiagnoseInput, ports: Ports, stage: StageAttempt) -> Result:  # noqa: ARG001 - every agent has this face
    """Explain the failure of the covered stages, in `diagnosis.md` and `diagnosis.json` among the reports.

    Raises OperatorError where there is no model, and what asking one raises. Nothing is changed in any case.
    """
    from taxiway.agents.diagnose.answer import ask  # noqa: PLC0415 - most runs have nothing to explain
    from taxiway.agents.diagnose.material import gather  # noqa: PLC0415
    from taxiway.agents.mind import required  # noqa: PLC0415

    mind = required(stage.mind, stage.no_mind)
    material = gather(stage, ports.artifacts, mind.mask)
    found = ask(mind, material, stage, ports.sandbox)
    data = mind.mask.data({"stages": list(material.stages), **found.as_data()})
    (stage.reports / "diagnosis.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    page = mind.mask.text(found.as_page(material.stages))
    (stage.reports / "diagnosis.md").write_text(page, encoding="utf-8", errors="replace")
    stage.log.info("%s", page)
    return Result(
        metrics={"quotes.kept": float(len(found.kept)), "quotes.dropped": float(found.dropped)},
        summary=mind.mask.text(_summary(found)),
    )


def _summary(found: Found) -> str:
    cause = " ".join(found.diagnosis.root_cause.split())
    cause = cause if len(cause) <= _SHORT else f"{cause[:_SHORT]}…"
    backed = f"{len(found.kept)} of {len(found.kept) + found.dropped} quotes found" if found.kept else "no quote found: not backed"
    return f"{cause} (a model's view, confidence {found.diagnosis.confidence:.2f}, {backed})"


AGENT = Agent(
    name="diagnose",
    summary="Lets a model say why stages failed, with quotes from what they left that are checked to be there.",
    inputs=DiagnoseInput,
    run=run,
    metrics={
        "quotes.kept": Metric("quotes of the diagnosis that occur in what the stages left or in the code", example=">= 1"),
        "quotes.dropped": Metric("quotes that do not, and were taken out"),
    },
    effect="explains",
    asks="the cause of a failure",
    uses_model=lambda _: ModelUse("this stage will fail", fails=True),
)
