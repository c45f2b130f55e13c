import threading
from datetime import UTC, datetime, timedelta

import pytest

from taxiway.errors import Cancelled, DeadlineExceeded, StageTimeout
from taxiway.stop import Stop


def test_nothing_ends_a_fresh_one():
    stop = Stop()
    stop.check()
    assert stop.remaining_s() == float("inf")


@pytest.mark.parametrize(
    ("timeout_s", "deadline_s", "error", "retryable"),
    [(0, 60, StageTimeout, True), (60, -1, DeadlineExceeded, False), (0, -1, DeadlineExceeded, False)],
)
def test_time_is_up(timeout_s, deadline_s, error, retryable):
    stop = Stop()
    stop.arm(timeout_s, datetime.now(UTC) + timedelta(seconds=deadline_s))
    assert stop.remaining_s() == 0
    with pytest.raises(error) as caught:
        stop.check()
    assert caught.value.retryable is retryable


def test_the_shorter_time_counts():
    stop = Stop()
    stop.arm(1000, datetime.now(UTC) + timedelta(seconds=100))
    assert 0 < stop.remaining_s() <= 100
    stop.arm(50, None)
    assert 0 < stop.remaining_s() <= 50


def test_a_cancel_wakes_a_wait():
    stop = Stop()
    threading.Timer(0.1, stop.cancel).start()
    with pytest.raises(Cancelled):
        stop.wait(1000)
    assert stop.requested
