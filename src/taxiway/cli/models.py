"""Whether the models that a run will want can be asked from here: told before it starts, not after its first stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from taxiway.agents.base import Agent
from taxiway.cli.filled import defaults_of, filled, runs
from taxiway.compiler.plan import Plan
from taxiway.compiler.thinking import Asked, asked
from taxiway.errors import OperatorError
from taxiway.integrations.claude import REPLAY_VARIABLE
from taxiway.spec.thinking import REPAIR, UNREPAIRED

__all__ = ["Asks", "Connections", "Way", "lines", "unrepaired", "way_to"]

KEY, ADDRESS = "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"


@dataclass(frozen=True)
class Way:
    """How models are asked: `through` what, or with "" there what is `missing`, and in `hint` what to configure."""

    through: str
    missing: str = ""
    hint: str = ""


class Connections(Protocol):
    """An Airflow that can be asked for its connections."""

    def has_connection(self, name: str) -> bool:
        """Whether it has that one."""


def way_to(connection: str, environ: Mapping[str, str]) -> Way:
    """By the policy's `connection` ("" for none) and the environment. A key is looked for, never shown; no provider is asked."""
    if replayed := environ.get(REPLAY_VARIABLE):
        return Way(f"the answers recorded in {replayed}")
    if connection:
        return Way(f"Airflow's connection {connection}")
    key, address = environ.get(KEY, "").strip(), environ.get(ADDRESS, "").strip()
    if not key and not address:
        hint = f"set {KEY} (or {ADDRESS} for a server of your own), or name a connection in the policy"
        return Way("", "there is no key", hint)
    try:
        # An address may hold credentials: only its host is shown.
        host = urlsplit(address).hostname
    except ValueError:
        host = None
    if address and not host:
        return Way("", f"{ADDRESS} cannot be read", "set it to an address such as http://localhost:11434")
    place = f" at {host}" if host else ""
    return Way(f"{KEY}{place}" if key else f"{ADDRESS}, without a key{place}")


def lines(plan: Plan, agents: Mapping[str, Agent], way: Way) -> dict[str, list[str]]:
    """By stage, what a plan says of the models that it may ask. The plan has its params filled in."""
    found: dict[str, list[str]] = {}
    for one in asked(plan, agents):
        if one.use is not UNREPAIRED or not _lacking(one, way):
            found.setdefault(one.name, []).append(_line(one, plan, way))
    return found


def unrepaired(plan: Plan, agents: Mapping[str, Agent], way: Way) -> dict[str, str]:
    """By stage that says `repair`, why nothing will be repaired there. The plan has its params filled in."""
    return {one.name: _line(one, plan, way) for one in asked(plan, agents) if one.use is UNREPAIRED and _lacking(one, way)}


def _lacking(one: Asked, way: Way) -> bool:
    return one.choice is None or not way.through


def _line(one: Asked, plan: Plan, way: Way) -> str:
    if one.choice is None or not way.through:
        why, hint = _lacks(one, plan, way)
        return f"none: {one.use.without}; {why}: {hint}"
    who = "for repairs, " if one.agent == REPAIR else ""
    fallback = f", else {one.choice.fallback}" if one.choice.fallback else ""
    return f"{who}{one.choice.model}{fallback}, through {way.through}"


def _lacks(one: Asked, plan: Plan, way: Way) -> tuple[str, str]:
    """Why there is no model, and what to do."""
    if one.choice is not None:
        return f"policy {plan.policy.name} names {one.choice.model}, and {way.missing}", way.hint
    if not plan.policy.name:
        return "the pipeline has no policy that names one", "write `policy:`, and `models: {model: ...}` into that policy"
    return f"policy {plan.policy.name} names none", "add `models: {model: ...}` to it"


@dataclass(frozen=True)
class Asks:
    """What the stages of a run may ask models, by its plan and `params`, before it starts. `environ` is what the workers will have;
    not `sure` where they were started before, perhaps with another."""

    plan: Plan
    params: Mapping[str, Any]
    agents: Mapping[str, Agent]
    environ: Mapping[str, str]
    sure: bool

    def missing(self) -> tuple[str, ...]:
        """Warnings for what will run, as far as the params tell, and has no model. Raise OperatorError where such a stage certainly
        fails, and with it the run."""
        return self._held_against(way_to(self._connection, self.environ))

    def unconnected(self, airflow: Connections) -> tuple[str, ...]:
        """The same, where the policy names a connection that this Airflow does not have."""
        name = self._connection
        if not name or self.environ.get(REPLAY_VARIABLE) or f"AIRFLOW_CONN_{name.upper()}" in self.environ or airflow.has_connection(name):
            return ()
        hint = f"make it: `taxiway up`, then Admin > Connections; or set AIRFLOW_CONN_{name.upper()}"
        return self._held_against(Way("", f"Airflow has no connection {name}", hint))

    @property
    def _connection(self) -> str:
        return self.plan.policy.models.connection if self.plan.policy.models else ""

    def _held_against(self, way: Way) -> tuple[str, ...]:
        values = defaults_of(self.plan) | dict(self.params)
        told: dict[tuple[str, str, bool], list[str]] = {}
        for one in asked(filled(self.plan, values), self.agents):
            will = runs(one.stage, values)
            if will is False or (one.choice is not None and way.through):
                continue
            why, hint = _lacks(one, self.plan, way)
            certain = will and (self.sure or one.choice is None)
            if one.use.fails and certain and not one.stage.continue_on_failure:
                raise OperatorError(f"stage {one.name} cannot work without a model: {why}", hint=hint)
            # What the workers have in their environment makes no policy name a model.
            told.setdefault((why, hint, one.choice is not None and not self.sure), []).append(f"{one.name}: {one.use.without}")
        unless = "; unless the Airflow that runs already was started with it"
        return tuple(_warning(why, hint, stages, unless * doubt) for (why, hint, doubt), stages in told.items())


def _warning(why: str, hint: str, stages: Sequence[str], unless: str) -> str:
    return f"no model: {why}{unless}. {'; '.join(stages)} ({hint})"
