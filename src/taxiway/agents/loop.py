"""The one loop of all agents that think: ask, do what is asked for, tell what came of it, until the work is handed in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from taxiway.agents.masking import Mask
from taxiway.agents.tools import ToolError, Tools
from taxiway.errors import BudgetExceeded, ModelCutOff, ModelInvalid, ModelRefused, ModelUnavailable, ModelUnfinished
from taxiway.ports import Cancellation, Model, Reply, Usage

__all__ = ["HAND_IN", "Conversation", "Purse", "Task", "Trace", "converse"]

HAND_IN = "hand_in"
"""The tool by which a model ends its work; its arguments are the answer. Current models cannot be forced to call a tool."""

NO_SECRETS = Mask()
"""Knows no secret, and takes out what looks like one all the same."""

Answer = TypeVar("Answer", bound=BaseModel)
_REMINDER = f"You ended without calling {HAND_IN}. Go on working, or call {HAND_IN} now."
_ASK_AGAIN = "not done: the answers to your other calls are long enough for now. Read them, and ask again for what you still need"
_MOST_TOLD = 200_000
"""Characters of the answers to one message, after which no more of its calls are made: dozens at once would be more than it can read."""
_THOUGHTS = ("thinking", "redacted_thinking")
_CACHED = {"cache_control": {"type": "ephemeral"}}


class Purse(Protocol):
    """What the run may still spend."""

    def reserve(self, model: str, *, prompt_tokens: int, output_tokens: int) -> str:
        """Set aside the most that a call can cost and return the reservation; raise BudgetExceeded where it does not fit."""

    def settle(self, reservation: str, reply: Reply | None, *, failed: bool = False) -> None:
        """Write down what the call cost; None where it was never answered or not waited for, `failed` where that was the
        provider's fault."""


class Trace(Protocol):
    """Where a conversation is written down while it goes on."""

    def note(self, kind: str, data: Mapping[str, Any]) -> None:
        """One entry."""


@dataclass(frozen=True)
class Task(Generic[Answer]):
    """What to ask for. `system` and `project` are the same for every attempt and are cached; `request` is this attempt's.

    `accept` may look at an answer of the right form and send it back by raising ToolError.
    """

    system: str
    project: str
    request: str
    answer: type[Answer]
    steps: int = 60
    max_tokens: int = 16_000
    seconds: float = 1800.0
    accept: Callable[[Answer], None] | None = None


@dataclass(frozen=True)
class Conversation(Generic[Answer]):
    """How it went: the answer, and what it took."""

    answer: Answer
    usage: Usage
    calls: int


def converse(
    task: Task[Answer], *, model: Model, tools: Tools, purse: Purse, trace: Trace, stop: Cancellation, mask: Mask = NO_SECRETS
) -> Conversation[Answer]:
    """Let the model work on `task` with `tools` until it hands in an answer that has the form of `task.answer`.

    Raises BudgetExceeded before the call that would not fit (time, tokens, dollars), ModelUnfinished after the last step, ModelRefused,
    ModelCutOff, ModelInvalid, and what `Model.create` and a dead sandbox raise.
    """
    request = _opening(task, tools, mask)
    messages, usage, ends = request["messages"], Usage(), time.monotonic() + task.seconds
    trace.note("request", {"system": task.system, "project": task.project, "request": task.request, "model": model.name})
    reminded = False
    for step in range(1, task.steps + 1):
        stop.check()
        reply = _ask(request, model=model, purse=purse, timeout_s=_left_s(task, ends, stop))
        usage += reply.usage
        trace.note(
            "reply",
            {"step": step, "stop_reason": reply.stop_reason, "model": reply.model, "content": reply.content, "usage": vars(reply.usage)},
        )
        _held(reply)
        if said := _said(reply):
            messages.append({"role": "assistant", "content": said})
        calls = [block for block in reply.content if block.get("type") == "tool_use"]
        if not calls and reminded:
            raise ModelInvalid(f"the model ended without calling {HAND_IN}, twice", hint="see its last words in the trace")
        reminded = not calls
        results: list[dict[str, Any]] = []
        for call in calls:
            if call["name"] == HAND_IN and len(calls) == 1:
                try:
                    return Conversation(_handed_in(call, task), usage, step)
                except ToolError as error:
                    trace.note("tool", {"name": HAND_IN, "input": call["input"], "failed": True, "told": str(error)})
                    results.append(_result(call, mask.text(str(error)), failed=True))
                    continue
            _left_s(task, ends, stop)
            full = sum(len(result["content"]) for result in results) > _MOST_TOLD
            results.append(_result(call, _ASK_AGAIN, failed=True) if full else _do(call, tools, trace, mask))
        _tell(messages, results or [{"type": "text", "text": _REMINDER}])
        _move_mark(messages)
    problem = f"the model took {task.steps} steps and handed in nothing that could be taken"
    raise ModelUnfinished(problem, hint="give it less to do; its last words are in the trace")


def _left_s(task: Task[Any], ends: float, stop: Cancellation) -> float:
    left_s = min(ends - time.monotonic(), stop.remaining_s())
    if left_s <= 0:
        raise BudgetExceeded(f"the model worked for {task.seconds:g} s without an end", hint="give it less to do, or more time")
    return left_s


def _said(reply: Reply) -> list[Mapping[str, Any]]:
    """What can be sent back of an answer: the API takes no empty text, and no message that is nothing but thoughts."""
    said = [block for block in reply.content if block.get("type") != "text" or str(block.get("text", "")).strip()]
    return said if any(block.get("type") not in _THOUGHTS for block in said) else []


def _tell(messages: list[dict[str, Any]], content: list[dict[str, Any]]) -> None:
    """A message of ours, or more of the last one where nothing came in between: some servers want the roles to alternate."""
    if messages[-1]["role"] == "user":
        messages[-1]["content"] += content
    else:
        messages.append({"role": "user", "content": content})


def _handed_in(call: Mapping[str, Any], task: Task[Answer]) -> Answer:
    try:
        answer = task.answer.model_validate(call["input"])
    except ValidationError as error:
        raise ToolError(f"{HAND_IN} does not take this: {_faults(error)}") from error
    if task.accept is not None:
        task.accept(answer)
    return answer


def _opening(task: Task[Answer], tools: Tools, mask: Mask) -> dict[str, Any]:
    schema = task.answer.model_json_schema()
    hand_in = {"name": HAND_IN, "description": "Hand in your work. Nothing comes after it.", "input_schema": schema}
    return {
        "max_tokens": task.max_tokens,
        # What stays the same comes first, and the cache ends after it: tools, system, project.
        "tools": [*tools.specifications, hand_in],
        "system": [{"type": "text", "text": task.system}, {"type": "text", "text": mask.text(task.project), **_CACHED}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": mask.text(task.request), **_CACHED}]}],
    }


def _ask(request: Mapping[str, Any], *, model: Model, purse: Purse, timeout_s: float) -> Reply:
    # A byte is at most one token, and rarely less than a quarter: a third is on the safe side for text and code.
    prompt = len(json.dumps(request, ensure_ascii=False).encode("utf-8", errors="replace")) // 3
    reservation = purse.reserve(model.name, prompt_tokens=prompt, output_tokens=int(request["max_tokens"]))
    reply, failed = None, False
    try:
        reply = model.create(request, timeout_s=timeout_s)
    except ModelUnavailable:
        failed = True
        raise
    finally:
        purse.settle(reservation, reply, failed=failed)
    return reply


def _held(reply: Reply) -> None:
    if reply.stop_reason == "refusal":
        raise ModelRefused("the model declined the request", hint="see its last words in the trace, and say the request differently")
    if reply.stop_reason in ("max_tokens", "model_context_window_exceeded"):
        raise ModelCutOff(
            f"the model's answer was cut off ({reply.stop_reason})", hint="raise max_tokens in the policy, or give it less to do"
        )


def _do(call: Mapping[str, Any], tools: Tools, trace: Trace, mask: Mask) -> dict[str, Any]:
    try:
        if call["name"] == HAND_IN:
            raise ToolError(f"call {HAND_IN} alone, when everything else is done")
        told, failed = tools.call(str(call["name"]), call["input"]), False
    except ToolError as error:
        told, failed = str(error), True
    trace.note("tool", {"name": call["name"], "input": call["input"], "failed": failed, "told": told})
    return _result(call, mask.text(told), failed=failed)


def _result(call: Mapping[str, Any], told: str, *, failed: bool) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call["id"], "content": told, **({"is_error": True} if failed else {})}


def _move_mark(messages: list[dict[str, Any]]) -> None:
    """The cache ends after the newest message: the API takes four marks at most, and the first two are taken."""
    for message in messages[1:]:
        if isinstance(message["content"], list) and message["role"] == "user":
            for block in message["content"]:
                block.pop("cache_control", None)
    messages[-1]["content"][-1].update(_CACHED)


def _faults(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in error.errors()[:5])
