"""Whether this machine has the browsers that a run will want: told before the run starts, not after its first stages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from taxiway.compiler.plan import Plan, PlannedStage
from taxiway.errors import InputError, OperatorError
from taxiway.ports import Browser
from taxiway.render import decide, render

__all__ = ["missing_browsers"]

_AGENTS = ("e2e", "write_e2e")


def missing_browsers(plan: Plan, params: Mapping[str, Any], browsers: Mapping[str, Browser]) -> tuple[str, ...]:
    """A warning for each stage that will run, as far as `params` tell, and tests in a browser that is not there. Raise
    OperatorError where such a stage fails the run and no browser of any stage is there: the run could measure nothing."""
    wanted = _wanted(plan, params)
    missing = [(stage, name) for stage, name in wanted if name not in browsers]
    fatal = next((pair for pair in missing if not pair[0].continue_on_failure), None)
    if fatal and len(missing) == len(wanted):
        raise OperatorError(f"stage {fatal[0].id} tests in {fatal[1]}, which this machine does not have", hint=_hint(fatal[1], fatal[0]))
    return tuple(_warning(stage, name) for stage, name in missing)


def _wanted(plan: Plan, params: Mapping[str, Any]) -> list[tuple[PlannedStage, str]]:
    given = {name: schema["default"] for name, schema in plan.params.items() if "default" in schema} | dict(params)
    found = []
    for stage in plan.stages:
        scope = {"params": given, "matrix": stage.matrix}
        # One that depends on results is known only in the run; its gates fail closed.
        with suppress(InputError):
            if stage.agent in _AGENTS and (not stage.when or decide(stage.when, scope)):
                found.append((stage, str(render(stage.inputs, scope).get("browser", "chromium"))))
    return found


def _warning(stage: PlannedStage, browser: str) -> str:
    end = "" if stage.continue_on_failure else "; a gate that blocks then fails, and with it the run"
    return f"stage {stage.id} tests in {browser}, which this machine does not have: it will not be measured{end} ({_hint(browser, stage)})"


def _hint(browser: str, stage: PlannedStage) -> str:
    get = "sudo apt-get install chromium" if browser == "chromium" else f"playwright install {browser}"
    switch = re.fullmatch(r"params\.(\w+)", stage.when.strip())
    return f"get it: {get}" + (f"; or leave the stage out: --param {switch[1]}=false" if switch else "")
