from __future__ import annotations

import os
import signal

import pytest

from taxiway.cli.interrupts import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_raises_and_puts_back(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), Interrupts():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_counts_where_something_must_be_settled():
    with Interrupts() as interrupts:
        with interrupts.counted():
            with interrupts.counted():
                os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
        assert interrupts.count == 4
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
