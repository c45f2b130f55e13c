"""The versioned API of an agent: what it takes, what it measures, and the one function that does its work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from taxiway.ports import Cancellation, Ports
from taxiway.records import Cost, Model, Result, Verdict

if TYPE_CHECKING:
    from taxiway.agents.mind import Mind  # only attempts need it, and this module is read while DAGs are parsed

__all__ = ["API_VERSION", "REPAIR", "Agent", "AgentInput", "Later", "Metric", "ModelUse", "StageAttempt", "WithinTimeout"]

API_VERSION = 1
REPAIR = "repair"
"""What stands for repairs among the agents of a policy's `models:`."""


class AgentInput(Model):
    """Base of every agent's `with`: closed, frozen, strict. Every field carries a description for the schema."""


@dataclass(frozen=True)
class Later:
    """Beside a field's type: values that are planned and not taken yet, so that a spec with one is told so."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class WithinTimeout:
    """Beside the type of a duration: the stage works this long, so that its `timeout` must be longer."""


@dataclass(frozen=True)
class Metric:
    """A number that an agent can measure. `unit` is "", "%", "ms", ...; `least` and `most` are the bounds that it never leaves,
    None where there is none. `example` is a threshold that says something, such as "<= 3", for `taxiway agents`."""

    description: str
    unit: str = ""
    least: float | None = 0.0
    most: float | None = None
    example: str = ""


@dataclass(frozen=True)
class StageAttempt:
    """One try of one stage, as the agent sees it.

    `checkout` is a fresh directory with the files of `commit`; what a writing agent changes there is committed.
    Files left in `reports` become artifacts of the attempt. `results` are those of the stages before.
    `verify(commit)` measures the gates that merging or deploying requires again, on another commit, and
    raises GateFailed if one does not pass. `evidence` is what the last failed attempt left ({} on the first).
    `cost()` is what models did for the stage so far, None where none was asked; the commit of a writing agent says it by itself.
    `covers` are, for what runs after a failure, the stages that it undoes or explains. `mind` is the model that the policy
    gives this stage; without one `no_mind` says what to configure.
    """

    pipeline: str
    run: str
    name: str
    attempt: int
    commit: str
    checkout: Path
    reports: Path
    results: Mapping[str, Result]
    stop: Cancellation
    log: logging.Logger
    verify: Callable[[str], tuple[Verdict, ...]]
    trailers: Mapping[str, str] = field(default_factory=dict)
    cost: Callable[[], Cost | None] = lambda: None
    covers: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    mind: Mind | None = None
    no_mind: str = "no model is configured"


@cache
def _default(inputs: type[AgentInput], name: str) -> Any:
    """What an input is where `with` leaves it out; shared, so to be read alone."""
    return inputs.model_fields[name].get_default(call_default_factory=True)


@dataclass(frozen=True)
class ModelUse:
    """That a stage may ask a model, and `without` one, what comes of it: a few words after "none:". `fails` where the stage then fails
    whenever it runs, which is wrong on a policy that says `model: none`."""

    without: str
    fails: bool = False


def _never(_: Mapping[str, Any]) -> bool:
    return False


def _as_it_says(_: Mapping[str, Any]) -> ModelUse:
    return ModelUse("the agent says what it does then")


@dataclass(frozen=True)
class Agent:
    """A kind of work.

    `effect` is what it does beyond measuring: `writes` changes the code on the run's branch, `merges` and `deploys`
    change the world and need verdicts, `undoes` brings back what a deploy recorded, `explains` says why
    stages failed; both run only after a failure. `after` names agents of which one
    must run before it. `gates` are its default gates, in the spec's own syntax. `gates_by` are further ones, by an input
    that is a list of words and then by word: `{"checks": {"lint": ("lint.errors == 0",)}}`. `metrics_by` names, in the
    same way, the metrics that are measured only where the list holds the word. `touches` says in one line, for
    `taxiway plan`, what it will change. `thinks` says, of a stage's `with` as the spec writes it, whether a model may change code
    in it (where in doubt, as with a template: yes): such code runs with isolation alone. `asks` is what it asks a model for,
    "" for nothing; `uses_model`, of an agent that asks, whether a stage with this `with` does, None where it does not.
    """

    name: str
    summary: str
    inputs: type[AgentInput]
    run: Callable[[Any, Ports, StageAttempt], Result]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    gates: tuple[str, ...] = ()
    gates_by: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    metrics_by: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    effect: Literal["measures", "writes", "merges", "deploys", "undoes", "explains"] = "measures"
    after: tuple[str, ...] = ()
    touches: str = "nothing"
    thinks: Callable[[Mapping[str, Any]], bool] = _never
    asks: str = ""
    uses_model: Callable[[Mapping[str, Any]], ModelUse | None] = _as_it_says
    outputs: tuple[str, ...] = ()
    version: str = "1"
    api: int = API_VERSION

    @property
    def writer(self) -> bool:
        """Whether it can hand on another commit than it was given."""
        return self.effect in ("writes", "merges")

    @property
    def after_failure(self) -> bool:
        """Whether its stage runs only where one that it covers failed."""
        return self.effect in ("undoes", "explains")

    def needs_model(self, given: Mapping[str, Any]) -> ModelUse | None:
        """What comes of a stage with this `with` that cannot work without a model; None for one that can."""
        use = self.uses_model(given) if self.asks else None
        return use if use and use.fails else None

    def default_gates(self, given: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """The default gates of a stage with this `with`, as the spec writes it; without one, all that there are.

        A gate of a word acts where the list holds the word. Where the list is known only at run time, all act.
        """
        found = list(self.gates)
        for name, by_word in self.gates_by.items():
            words = self.words(name, by_word, given)
            found += [gate for word, gates in by_word.items() if words is None or word in words for gate in gates]
        return tuple(found)

    def words(self, name: str, known: Collection[str], given: Mapping[str, Any] | None) -> tuple[str, ...] | None:
        """The words of an input that is a list of words, for a stage with this `with`; None where they are not all `known`
        before a run."""
        if given is None:
            return None
        value = given[name] if name in given else _default(self.inputs, name)
        return tuple(value) if isinstance(value, list) and all(isinstance(word, str) and word in known for word in value) else None
