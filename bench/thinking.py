"""What a scripted repair asks for and costs, with and without the prompt cache, and what the loop adds to a bare call of the SDK.

.venv/bin/python bench/thinking.py [--quick] [--rounds N]
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anthropic
from measuring import Section, asked, done, ratios, spread

from taxiway.agents.loop import HAND_IN, Task, converse
from taxiway.agents.masking import Mask
from taxiway.agents.project_map import project_map
from taxiway.agents.repair import Repaired
from taxiway.agents.tools import Tools
from taxiway.agents.trace import FileTrace
from taxiway.compiler.plan import Budget, ModelChoice, PlannedModels
from taxiway.integrations.claude import ClaudeModel
from taxiway.integrations.ledger import SqliteLedger
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.ports import Usage
from taxiway.purse import RunPurse
from taxiway.stop import Stop
from taxiway.testing import ScriptedClaude, Turn, use

PRICES = (2.0, 10.0, 2.5, 0.2)
"""USD per million tokens, as of a middle model: they only weigh the kinds of tokens against each other."""


def turns(steps: int) -> list[Turn]:
    """A model that reads and writes in turn and hands in at the end."""
    work = [use("read", path="app.py") if i % 2 else use("write", path="app.py", content=f"value = {i}\n" * 40) for i in range(steps - 1)]
    return [*work, use(HAND_IN, cause="It was too small.", summary="Raise it")]


def repair(folder: Path, steps: int) -> tuple[float, Usage, list[Mapping[str, Any]]]:
    """Seconds of one conversation with everything around it (ledger, trace, masking), its usage, and what was sent."""
    folder.mkdir()
    (folder / "project").mkdir()
    for number in range(40):
        (folder / "project" / f"module_{number}.py").write_text("x = 1\n" * 50)
    ledger, stop = SqliteLedger(folder / "ledger.db"), Stop()
    models = PlannedModels("", {"": ModelChoice("m", "", 4000, "")}, {"m": PRICES})
    with (
        ScriptedClaude(turns(steps)) as claude,
        anthropic.Anthropic(api_key="bench", base_url=claude.url) as client,
        ledger.lease("attempt:r/s", holder="r/s", attempt=1, stop=stop) as lease,
        FileTrace(folder, Mask()) as trace,
    ):
        purse = RunPurse(
            ledger,
            lease,
            run="r",
            stage="s",
            attempt=1,
            budget=Budget(100, None, 1),
            models=models,
            may_ask=["m"],
            log=logging.getLogger("b"),
        )
        task = Task(
            system="You mend. " * 80, project=project_map(folder / "project"), request="It failed. " * 200, answer=Repaired, steps=steps
        )
        tools = Tools(folder / "project", ProcessSandbox(trusted=True), stop)
        began = time.perf_counter()
        ended = converse(task, model=ClaudeModel(client, "m"), tools=tools, purse=purse, trace=trace, stop=stop)
        return time.perf_counter() - began, ended.usage, claude.requests


def bare(requests: list[Mapping[str, Any]], steps: int) -> float:
    """Seconds of the same requests by the SDK alone."""
    with ScriptedClaude(turns(steps)) as claude, anthropic.Anthropic(api_key="bench", base_url=claude.url) as client:
        began = time.perf_counter()
        for request in requests:
            client.messages.create(**request)
        return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    given = asked(__doc__ or "", rounds=7)
    lengths = (3,) if given.quick else (3, 10, 30)
    section = Section("Asking a model")
    section.say(
        "A scripted model over loopback that reads and writes a file in turn and hands in: what is sent, and what the loop (ledger, trace, "
        "masking, tools) takes beside the same requests made by the SDK alone. Tokens are bytes / 4. No real model is asked."
    )
    rows = []
    for steps in lengths:
        ours, theirs = [], []
        with tempfile.TemporaryDirectory(prefix="taxiway-bench-") as place:
            for number in range(given.rounds + (not given.quick)):
                seconds, usage, requests = repair(Path(place) / str(number), steps)
                ours.append(seconds)
                theirs.append(bare(requests, steps))
        if not given.quick:  # the first pair warms up
            del ours[0], theirs[0]
        with_cache = (usage.input_tokens * PRICES[0] + usage.cache_write_tokens * PRICES[2] + usage.cache_read_tokens * PRICES[3]) / 1e6
        without = usage.prompt_tokens * PRICES[0] / 1e6
        extra = [(a - b) / steps for a, b in zip(ours, theirs, strict=True)]
        cached = f"{usage.cache_read_tokens / usage.prompt_tokens:.0%}"
        cells = [str(steps), str(usage.prompt_tokens), cached, str(usage.output_tokens), f"{with_cache / without:.2f}"]
        rows.append([*cells, spread(ratios(ours, theirs), ""), spread(extra, "ms", scale=1000, digits=1)])
    section.table(
        [
            "calls",
            "tokens read",
            "of them cached",
            "written",
            "prompt's price with cache / without",
            "loop / SDK alone",
            "loop adds per call",
        ],
        rows,
    )
    done(section, given)


if __name__ == "__main__":
    sys.exit(main())
