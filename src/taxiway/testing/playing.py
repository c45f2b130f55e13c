"""The stages of a run one after the other in this process: what Airflow does with them, without Airflow."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taxiway import stage
from taxiway.agents import Agent
from taxiway.compiler.plan import Plan, PlannedStage
from taxiway.errors import GateFailed, RepairDue, TaxiwayError
from taxiway.home import Home
from taxiway.integrations.claude import REPLAY_VARIABLE, ClaudeModels
from taxiway.ports import Models, Ports
from taxiway.records import Reading, Result
from taxiway.results import failed_result
from taxiway.stop import Stop
from taxiway.testing.scripted import ScriptedClaude

__all__ = ["Asked", "Played", "models_of", "play"]

Asked = ScriptedClaude | Path
"""What answers for models: a ScriptedClaude that serves, or a folder of recorded answers."""

_KEY = "scripted"


@dataclass(frozen=True)
class Played:
    """How it ended: the Result of every stage that ran, failed ones too, the errors of those, and by stage the gates as they were
    last held against a measurement, whatever ended its last try."""

    results: Mapping[str, Result]
    errors: Mapping[str, TaxiwayError] = field(default_factory=dict)
    held: Mapping[str, tuple[Reading, ...]] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        """The last one that a stage handed on; "" where none did."""
        return next((r.commit for r in reversed(list(self.results.values())) if r.commit), "")


class Memory(dict[str, Any]):
    """What Airflow's task state store is to a stage."""

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""
        self[key] = value

    def delete(self, key: str) -> None:
        """Forget it."""
        self.pop(key, None)


@contextmanager
def models_of(asked: Asked | None) -> Iterator[Models | None]:
    """The models that a test asks; None where it asks none."""
    if asked is None:
        yield None
    elif isinstance(asked, Path):
        yield ClaudeModels(lambda: None, missing="", environ={REPLAY_VARIABLE: str(asked)})
    else:
        import anthropic  # noqa: PLC0415 - takes a second to import, and most tests ask no model

        with anthropic.Anthropic(api_key=_KEY, base_url=asked.url) as client:
            yield ClaudeModels(lambda: client, missing="", environ={})


def play(
    plan: Plan,
    *,
    run: str,
    params: Mapping[str, Any],
    home: Home,
    ports: Ports,
    agents: Mapping[str, Agent],
    started: datetime | None = None,
    only: Collection[str] = (),
    log: logging.Logger,
) -> Played:
    """Run the stages in their order, or `only` some of them, each again while another try may succeed and without a pause.

    What follows a failed stage does not run. Recoveries never do.
    """
    results: dict[str, Result] = {}
    errors: dict[str, TaxiwayError] = {}
    held: dict[str, tuple[Reading, ...]] = {}
    stopped: set[str] = set()
    for planned in plan.stages:
        if planned.recovers or (only and planned.id not in only):
            continue
        if stopped & set(planned.needs):
            stopped.add(planned.id)
            continue
        try:
            results[planned.id] = _tried(
                plan,
                planned,
                run,
                dict(params),
                results,
                home,
                ports=ports,
                agents=agents,
                started=started or datetime.now(UTC),
                held=held,
                log=log,
            )
            held[planned.id] = results[planned.id].gates
        except TaxiwayError as error:
            errors[planned.id] = error
            results[planned.id] = failed_result(error)
            stopped.add(planned.id)
    return Played(results, errors, held)


def _tried(  # noqa: PLR0917 - what a try is made of
    plan: Plan,
    planned: PlannedStage,
    run: str,
    params: Mapping[str, Any],
    results: Mapping[str, Result],
    home: Home,
    *,
    ports: Ports,
    agents: Mapping[str, Agent],
    started: datetime,
    held: dict[str, tuple[Reading, ...]],
    log: logging.Logger,
) -> Result:
    """The Result of the last try. There are as many as Airflow would make: the stage's own count mostly ends them before."""
    room = planned.retries.attempts + (planned.repair.attempts if planned.repair else 0)
    defaults = {name: schema["default"] for name, schema in plan.params.items() if "default" in schema}
    memory, attempt = Memory(), 0
    while True:
        attempt += 1
        context = stage.RunContext(
            run=run,
            attempt=attempt,
            params={**defaults, **params},
            results=dict(results),
            started=started,
            memory=memory,
            scratch=home.checkouts,
            last=attempt >= room,
        )
        try:
            return stage.run(plan, planned.id, context, ports=ports, agents=agents, stop=Stop(), log=log)
        except TaxiwayError as error:
            if isinstance(error, GateFailed | RepairDue) and error.readings:
                held[planned.id] = tuple(error.readings)
            if not error.retryable or attempt >= room:
                raise
