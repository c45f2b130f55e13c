"""The plan: a pipeline with every default settled and the graph checked. Pure data, JSON both ways, no I/O."""

from __future__ import annotations

import fnmatch
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

__all__ = [
    "FORMAT",
    "NONE",
    "Budget",
    "Gate",
    "Limits",
    "ModelChoice",
    "Plan",
    "PlannedModels",
    "PlannedPolicy",
    "PlannedStage",
    "Repair",
    "Repository",
    "Retries",
    "Schedule",
    "Waiver",
]

FORMAT = 3
"""Version of the JSON; a reader refuses another one."""
NONE = "none"
"""The model's id that stands for no model."""


@dataclass(frozen=True)
class Waiver:
    """A gate that the policy lets fail until `expires` (ISO date, last day included)."""

    owner: str
    expires: str
    reason: str


@dataclass(frozen=True)
class Gate:
    """A threshold on a metric, as text `metric op threshold`."""

    metric: str
    op: Literal[">=", ">", "<=", "<", "==", "!="]
    threshold: float
    blocking: bool = True
    source: Literal["default", "policy", "spec"] = "spec"
    waiver: Waiver | None = None


@dataclass(frozen=True)
class Retries:
    """Tries for transient errors: `attempts` in all, waiting first_s, first_s * factor, ... at most most_s seconds."""

    attempts: int
    first_s: float
    factor: float
    most_s: float


@dataclass(frozen=True)
class Limits:
    """Runs side by side, stages side by side, and the run's time in seconds."""

    runs: int
    stages: int
    duration_s: float


@dataclass(frozen=True)
class Schedule:
    """A cron expression in an IANA timezone, from `start` (ISO date) on; or, with an empty `cron`, updates of all the
    `assets`, each a name and a URI."""

    cron: str
    timezone: str
    start: str
    assets: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Repository:
    """A pattern (fnmatch) of repository URLs that the policy knows: whether it trusts their code, their Airflow connection, and
    the forge that has their pull requests ("" for what its host says) with the URL of its API ("" for its usual place)."""

    url: str
    trusted: bool
    connection: str
    forge: Literal["github", "gitlab", ""] = ""
    api: str = ""


@dataclass(frozen=True)
class Budget:
    """What the models of one run may cost: `usd` and `tokens` are None where they bound nothing; `warn_at` is a part of 1."""

    usd: float | None
    tokens: int | None
    warn_at: float


@dataclass(frozen=True)
class Repair:
    """Repairs between failed gates and the next try. `may_change` are patterns of tests and settings that one may change; `agent` is
    who repairs, with its `inputs`, "" for the model of `repair`."""

    attempts: int
    may_change: tuple[str, ...]
    agent: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelChoice:
    """The model of one agent; `model` is `none` for no model, `effort` and `fallback` are "" for none."""

    model: str
    effort: str
    max_tokens: int
    fallback: str


@dataclass(frozen=True)
class PlannedModels:
    """Models by agent (`""` for all others) and how they are reached. `prices` are the policy's own, in USD per million tokens:
    input, output, cache_write, cache_read."""

    connection: str
    choices: dict[str, ModelChoice]
    prices: dict[str, tuple[float, float, float, float]]

    def choice(self, agent: str) -> ModelChoice:
        """What an agent, or `repair`, asks."""
        return self.choices.get(agent, self.choices[""])

    def has(self, agent: str) -> bool:
        """Whether there is a model for it."""
        return self.choice(agent).model != NONE


@dataclass(frozen=True)
class PlannedPolicy:
    """What of the policy acts at run time. `pools` are the slots of pools that are made where they are missing,
    `services` the Airflow connections to servers for tests, by server; `models` is None for none."""

    name: str
    repositories: tuple[Repository, ...]
    unisolated: bool
    pools: dict[str, int] = field(default_factory=dict)
    services: dict[str, str] = field(default_factory=dict)
    models: PlannedModels | None = None

    def repository(self, url: str) -> Repository | None:
        """The first entry that matches."""
        return next((r for r in self.repositories if fnmatch.fnmatchcase(url, r.url)), None)

    def trusts(self, url: str) -> bool:
        """Whether code of this repository may run without isolation; "" is a new one, made from Taxiway's own template."""
        entry = self.repository(url)
        return not url or (entry is not None and entry.trusted)


@dataclass(frozen=True)
class PlannedStage:
    """One stage, settled; or one cell of a stage with a matrix, whose id is `stage.cell`.

    `needs` are all direct predecessors; `inputs` is `with` as written, to be rendered; `uses` are the stages that its
    expressions name; `requires` are the gated stages whose verdicts its commit needs; `mandatory` those among
    them that the policy gates (they may not be skipped). All of them name cells, never a stage that has some.
    `group` is the stage of a cell, `matrix` the value of each of its axes. `pool` and `queue` are "" for Airflow's own.
    `model_writes` says that a model may change code in it.
    """

    id: str
    agent: str
    effect: Literal["measures", "writes", "merges", "deploys", "undoes", "explains"]
    inputs: dict[str, Any]
    needs: tuple[str, ...]
    when: str
    gates: tuple[Gate, ...]
    timeout_s: float
    retries: Retries
    recovers: tuple[str, ...]
    continue_on_failure: bool
    uses: tuple[str, ...]
    requires: tuple[str, ...]
    mandatory: tuple[str, ...]
    touches: str
    line: int
    group: str = ""
    matrix: dict[str, Any] = field(default_factory=dict)
    pool: str = ""
    queue: str = ""
    priority: int = 1
    repair: Repair | None = None
    model_writes: bool = False

    @property
    def after_failure(self) -> bool:
        """Whether it runs only where a stage of `recovers` failed."""
        return self.effect in ("undoes", "explains")


@dataclass(frozen=True)
class Plan:
    """A pipeline, ready to become a DAG. Stages stand in an order in which each follows what it needs. `templates` are
    the name and the file of those that stages extend."""

    pipeline: str
    description: str
    owner: str
    tags: tuple[str, ...]
    params: dict[str, dict[str, Any]]
    schedule: Schedule | None
    limits: Limits
    stages: tuple[PlannedStage, ...]
    policy: PlannedPolicy
    source: str
    digest: str
    taxiway: str
    format: int = FORMAT
    templates: tuple[tuple[str, str], ...] = ()
    budget: Budget = Budget(None, None, 1)

    @property
    def written_by_models(self) -> bool:
        """Whether code of a run may be a model's. Then all of it runs with isolation or not at all, whatever the policy says."""
        return any(stage.model_writes for stage in self.stages)

    def trusts(self, url: str, *, asked: bool = True) -> bool:
        """Whether a run's code may run without isolation; `url` is of its repository, "" a new one. `asked` is False where no
        model was asked in this run and none can be: then nothing of it is a model's."""
        return self.policy.trusts(url) and not (asked and self.written_by_models)

    def unisolated(self, *, asked: bool = True) -> bool:
        """Whether even code that is not trusted may: the operator's word, which does not hold for a model's code."""
        return self.policy.unisolated and not (asked and self.written_by_models)

    def stage(self, name: str) -> PlannedStage:
        """The stage of that id; KeyError if there is none."""
        for stage in self.stages:
            if stage.id == name:
                return stage
        raise KeyError(name)

    def to_json(self) -> str:
        """One line of ASCII JSON, the same for the same plan."""
        return json.dumps(asdict(self), ensure_ascii=True, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; ValueError for another format."""
        data = json.loads(text)
        if data.get("format") != FORMAT:
            raise ValueError(f"this plan has format {data.get('format')}; this Taxiway reads format {FORMAT}")
        data["tags"] = tuple(data["tags"])
        data["templates"] = tuple((name, file) for name, file in data["templates"])
        data["schedule"] = _schedule(data["schedule"]) if data["schedule"] else None
        data["limits"] = Limits(**data["limits"])
        data["stages"] = tuple(_stage(s) for s in data["stages"])
        policy = data["policy"]
        policy["repositories"] = tuple(Repository(**r) for r in policy["repositories"])
        policy["models"] = _models(policy["models"]) if policy["models"] else None
        data["policy"] = PlannedPolicy(**policy)
        data["budget"] = Budget(**data["budget"])
        return cls(**data)


def _models(data: dict[str, Any]) -> PlannedModels:
    choices = {name: ModelChoice(**choice) for name, choice in data["choices"].items()}
    prices = {name: (p[0], p[1], p[2], p[3]) for name, p in data["prices"].items()}
    return PlannedModels(data["connection"], choices, prices)


def _schedule(data: dict[str, Any]) -> Schedule:
    data["assets"] = tuple((name, uri) for name, uri in data["assets"])
    return Schedule(**data)


def _stage(data: dict[str, Any]) -> PlannedStage:
    data["gates"] = tuple(_gate(g) for g in data["gates"])
    data["retries"] = Retries(**data["retries"])
    for name in ("needs", "recovers", "uses", "requires", "mandatory"):
        data[name] = tuple(data[name])
    if data["repair"]:
        data["repair"] = Repair(**{**data["repair"], "may_change": tuple(data["repair"]["may_change"])})
    return PlannedStage(**data)


def _gate(data: dict[str, Any]) -> Gate:
    data["waiver"] = Waiver(**data["waiver"]) if data["waiver"] else None
    return Gate(**data)
