"""Waiting for a library's blocking call, which no cancel and no deadline interrupts."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from taxiway.ports import Cancellation

__all__ = ["attended"]

Answer = TypeVar("Answer")

_POLL_S = 0.05


def attended(call: Callable[[], Answer], stop: Cancellation | None, *, most_s: float = float("inf")) -> Answer:
    """What `call` returns or raises; what `stop.check` raises as soon as that is due, TimeoutError after `most_s` seconds.

    A call that is given up goes on in a thread that nobody waits for, the end of the process neither. So it is one question, or asks
    `stop` itself before each of its next steps.
    """
    if stop is not None:
        stop.check()
    ends = time.monotonic() + most_s
    answer: Future[Answer] = Future()
    # A daemon, unlike the threads of a pool, which the interpreter waits for.
    threading.Thread(target=contextvars.copy_context().run, args=(_answer, call, answer), name="attended", daemon=True).start()
    while not wait((answer,), _POLL_S).done:
        if stop is not None:
            stop.check()
        if time.monotonic() >= ends:
            raise TimeoutError(f"no whole answer within {most_s:g} s")
    return answer.result()


def _answer(call: Callable[[], Answer], answer: Future[Answer]) -> None:
    try:
        answer.set_result(call())
    except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
        answer.set_exception(error)
