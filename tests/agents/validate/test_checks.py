"""The table of checks holds together, and one check alone is judged by its own gates."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import get_args

import pytest
from projects import HONEST, Bench

from taxiway.agents.validate import AGENT, CheckName
from taxiway.agents.validate.checks import CHECKS


def test_the_table_and_the_input_agree() -> None:
    assert set(get_args(CheckName)) == set(CHECKS)
    for check in CHECKS.values():
        assert callable(resolve_name(f"taxiway.agents.validate.{check.function}"))
        assert {gate.split()[0] for gate in check.gates} | set(check.summary) <= set(check.metrics)
        assert check.quiet <= set(check.summary)


@pytest.mark.parametrize("check", sorted(CHECKS))
def test_one_check_alone_measures_all_that_its_gates_ask(bench: Bench, check: str) -> None:
    result = bench.validate(HONEST, before=HONEST, checks=[check])
    assert {gate.split()[0] for gate in AGENT.default_gates({"checks": [check]})} <= set(result.metrics), result
    assert {m for m in (*result.metrics, *result.unmeasured) if not m.startswith("changes.")} == set(CHECKS[check].metrics)
