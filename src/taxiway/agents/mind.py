"""A model at an attempt's disposal: what it is asked, it is asked within the run's budget, without secrets, and on the record."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from taxiway.agents.loop import Conversation, Purse, Task, converse
from taxiway.agents.masking import Mask
from taxiway.agents.tools import Tools
from taxiway.agents.trace import FileTrace
from taxiway.errors import OperatorError
from taxiway.ports import Cancellation, Model

__all__ = ["Mind", "required"]

Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True)
class Mind:
    """One attempt's model. `reports` is where its conversations are kept, `max_tokens` bounds one answer, `about` says
    whose it is."""

    model: Model
    purse: Purse
    mask: Mask
    reports: Path
    max_tokens: int
    stop: Cancellation
    log: logging.Logger
    about: str = ""

    def work(self, task: Task[Answer], tools: Tools, *, name: str = "trace") -> Conversation[Answer]:
        """Let it work on `task` with `tools`; the conversation is kept as `<name>.jsonl` and `<name>.html`. Raises as `converse`."""
        self.log.info("asking %s, with at most %d steps; the conversation is in %s.html", self.model.name, task.steps, name)
        bounded = replace(task, max_tokens=self.max_tokens)
        with FileTrace(self.reports, self.mask, name=name, about=self.about) as trace:
            done = converse(bounded, model=self.model, tools=tools, purse=self.purse, trace=trace, stop=self.stop, mask=self.mask)
        used = done.usage
        self.log.info(
            "%d call%s: %d tokens read, %d of them cached, %d written",
            done.calls,
            "s" * (done.calls != 1),
            used.prompt_tokens,
            used.cache_read_tokens,
            used.output_tokens,
        )
        return done


def required(mind: Mind | None, missing: str) -> Mind:
    """The model of a stage that cannot work without one; raise OperatorError, which says what to configure, where there is none."""
    if mind is None:
        raise OperatorError("this stage cannot work without a model", hint=missing)
    return mind
