"""What a run may spend: over parallel stages, killed attempts and failing providers, on a real ledger."""

import logging
import sqlite3
import threading
from dataclasses import replace

import pytest

from taxiway.compiler.plan import Budget, ModelChoice, PlannedModels
from taxiway.errors import BudgetExceeded, InputError, LeaseLost, ModelUnavailable
from taxiway.integrations.ledger import SqliteLedger
from taxiway.integrations.ledger_file import FIRST
from taxiway.ports import Reply, Usage
from taxiway.purse import RunPurse, cost_of, table
from taxiway.stop import Stop

MODELS = PlannedModels("", {"": ModelChoice("m", "", 1000, "")}, {"m": (1.0, 10.0, 1.0, 0.1), "dear": (100.0, 100.0, 100.0, 100.0)})
CALL = {"prompt_tokens": 1000, "output_tokens": 1000}  # at most 0.011 USD of m
REPLY = Reply((), "end_turn", "m", Usage(100, 100))  # 0.0011 USD


@pytest.fixture
def ledger(tmp_path):
    return SqliteLedger(tmp_path / "ledger.db")


def hold(ledger, stage="s", attempt=1, ttl_s=30.0):
    return ledger.lease(f"attempt:r/{stage}", holder=f"r/{stage}", attempt=attempt, stop=Stop(), ttl_s=ttl_s)


def purse(ledger, lease, *, stage="s", attempt=1, budget=None, may_ask=("m",), models=MODELS):
    log = logging.getLogger("test")
    budget = budget or Budget(0.02, None, 0.8)
    return RunPurse(ledger, lease, run="r", stage=stage, attempt=attempt, budget=budget, models=models, may_ask=may_ask, log=log)


def test_a_call_is_reserved_at_its_dearest_and_settled_at_its_price(ledger):
    with hold(ledger) as lease:
        mine = purse(ledger, lease)
        first = mine.reserve("m", **CALL)
        with pytest.raises(BudgetExceeded, match=r"0\.0110 USD so far, and the next call may take 0\.0110 USD"):
            mine.reserve("m", **CALL)
        mine.settle(first, REPLY)
        mine.settle(mine.reserve("m", **CALL), REPLY)
    cost = cost_of(ledger.spending("r"))
    assert (cost.calls, cost.usd, cost.models) == (2, 0.0022, ("m",))
    assert table(ledger.spending("r")).splitlines()[1].split() == ["s", "m", "2", "200", "0", "200", "0.0022", "0", "0"]


def test_tokens_bound_without_a_price(ledger):
    models = replace(MODELS, prices={})
    with hold(ledger) as lease:
        with pytest.raises(InputError, match="no price is known for unheard"):
            purse(ledger, lease, may_ask=("unheard",), models=models)
        mine = purse(ledger, lease, budget=Budget(None, 3000, 0.8), may_ask=("unheard",), models=models)
        mine.settle(mine.reserve("unheard", **CALL), replace(REPLY, model="unheard"))
        mine.reserve("unheard", **CALL)
        with pytest.raises(BudgetExceeded, match="3000 tokens"):
            mine.reserve("unheard", **CALL)


def test_a_fallback_is_reserved_at_the_dearer_price(ledger):
    with hold(ledger) as lease, pytest.raises(BudgetExceeded):
        purse(ledger, lease, may_ask=("m", "dear")).reserve("m", **CALL)


def test_two_branches_cannot_spend_the_same_dollar(ledger):
    budget, admitted, refused = Budget(0.05, None, 1), [], []
    leases = [hold(ledger, f"s{n}") for n in range(8)]
    start = threading.Barrier(8)

    def ask(number):
        mine = purse(ledger, leases[number], stage=f"s{number}", budget=budget)
        start.wait()
        for _ in range(3):
            try:
                admitted.append(mine.reserve("m", **CALL))
            except BudgetExceeded:
                refused.append(number)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(admitted), len(refused)) == (4, 20)


def test_reservations_of_a_dead_attempt_come_back(ledger):
    dead = hold(ledger, ttl_s=0.2)  # nobody renews it: its process was killed
    purse(ledger, dead).reserve("m", **CALL)
    with hold(ledger, "other") as lease:
        other = purse(ledger, lease, stage="other")
        Stop().wait(0.3)
        other.reserve("m", **CALL)
    assert [c.state for c in ledger.spending("r")] == ["returned", "reserved"]


def test_a_newer_attempt_takes_over_and_what_the_older_one_spent_counts(ledger):
    older = purse(ledger, hold(ledger))
    reservation = older.reserve("m", **CALL)
    with hold(ledger, attempt=2) as lease:
        newer = purse(ledger, lease, attempt=2)
        newer.reserve("m", **CALL)
        with pytest.raises(LeaseLost):
            older.reserve("m", **CALL)
        older.settle(reservation, REPLY)
        assert [(c.attempt, c.state, c.micros) for c in ledger.spending("r")] == [(1, "settled", 1100), (2, "reserved", 0)]


def test_a_failing_provider_is_left_alone_for_a_while(ledger):
    with hold(ledger) as lease, hold(ledger, "other") as second:
        mine = purse(ledger, lease)
        for _ in range(3):
            mine.settle(mine.reserve("m", **CALL), None, failed=True)
        for blocked in (mine, purse(ledger, second, stage="other")):
            with pytest.raises(ModelUnavailable, match="3 times in a row"):
                blocked.reserve("m", **CALL)
    assert cost_of(ledger.spending("r")) is None


def test_it_warns_once_the_mark_is_passed(ledger, caplog):
    with hold(ledger) as lease, caplog.at_level(logging.WARNING):
        mine = purse(ledger, lease, budget=Budget(0.02, None, 0.6))
        mine.settle(mine.reserve("m", **CALL), REPLY)
        assert caplog.text == ""
        mine.settle(mine.reserve("m", **CALL), replace(REPLY, usage=Usage(100, 1000)))
        assert "of the run's budget" in caplog.text


def test_an_older_file_is_brought_up_to_date(ledger, tmp_path):
    with sqlite3.connect(tmp_path / "old.db") as db:
        db.executescript(FIRST + "PRAGMA user_version = 1;")
    db.close()
    assert SqliteLedger(tmp_path / "old.db").spending("r") == ()
