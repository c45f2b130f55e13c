"""When a try must end: somebody stopped the run, the try's `timeout` is over, or the run's `limits.duration`."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from taxiway.errors import Cancelled, DeadlineExceeded, StageTimeout

__all__ = ["Stop"]

_POLL_S = 0.05


class Stop:
    """Implements `ports.Cancellation`. `cancel` may be called from a signal handler: it only sets a flag."""

    def __init__(self) -> None:
        self._requested = False
        self._timeout_s = float("inf")
        self._ends = float("inf")
        self._deadline: datetime | None = None

    def arm(self, timeout_s: float, deadline: datetime | None) -> None:
        """Start the try's clock; `deadline` is the run's, None where the stage is exempt."""
        self._timeout_s = timeout_s
        self._ends = time.monotonic() + timeout_s
        self._deadline = deadline

    def cancel(self) -> None:
        """Ask the attempt to end."""
        # No lock, no Event: the handler may interrupt the very thread that would hold it.
        self._requested = True

    @property
    def requested(self) -> bool:
        """Whether somebody stopped the run."""
        return self._requested

    def check(self) -> None:
        """Raise Cancelled, DeadlineExceeded or StageTimeout where one is due."""
        if self._requested:
            raise Cancelled("the run was stopped")
        if self._deadline is not None and datetime.now(UTC) >= self._deadline:
            raise DeadlineExceeded(
                f"the run's time was over at {self._deadline:%Y-%m-%d %H:%M:%S} UTC",
                hint="raise limits.duration, or see which stage took the time",
            )
        if time.monotonic() >= self._ends:
            raise StageTimeout(f"the try took longer than {self._timeout_s:g} s", hint="raise the stage's timeout")

    def remaining_s(self) -> float:
        """Seconds until the first of the two ends; infinite before `arm`."""
        left = self._ends - time.monotonic()
        if self._deadline is not None:
            left = min(left, (self._deadline - datetime.now(UTC)).total_seconds())
        return max(0.0, left)

    def wait(self, seconds: float) -> None:
        """Sleep, ending early by raising what `check` raises."""
        end = time.monotonic() + seconds
        while True:
            self.check()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _POLL_S))
