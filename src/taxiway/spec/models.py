"""What users write, as closed models: a field that is not here does not exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag, ValidationInfo, field_validator

from taxiway.records import Model
from taxiway.spec.matrix import AxisValue, Cell
from taxiway.spec.values import Cron, Day, Duration, GateForm, Threshold, Timezone, between, refuse

__all__ = [
    "PARAM_NAME",
    "PIPELINE_ID",
    "STAGE_ID",
    "AgentModelSpec",
    "AssetSpec",
    "BudgetSpec",
    "DefaultsSpec",
    "LimitsSpec",
    "ModelsSpec",
    "ParamSpec",
    "Pipeline",
    "PipelineSpec",
    "Policy",
    "PolicySpec",
    "PriceSpec",
    "RepairSpec",
    "RepositorySpec",
    "RetriesSpec",
    "ScheduleSpec",
    "StageSpec",
    "WaiverSpec",
]

PIPELINE_ID = r"^[a-z][a-z0-9_]{0,99}$"
STAGE_ID = r"^[a-z][a-z0-9_]{0,49}$"
PARAM_NAME = r"^[a-z][a-z0-9_]{0,49}$"

Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]


def _text_or_mapping(value: Any) -> str:
    return "<text>" if isinstance(value, str) else "<mapping>"


GateEntry = Annotated[Annotated[str, Tag("<text>")] | Annotated[GateForm, Tag("<mapping>")], Discriminator(_text_or_mapping)]
"""`metric op number`, or a mapping."""


class RetriesSpec(Model):
    """Tries for errors that another try may cure; what a stage leaves out comes from `defaults`."""

    attempts: int | None = Field(default=None, ge=1, le=10, description="Tries in all; 1 means no second try")
    first: Annotated[Duration, between("0s", "1h")] | None = Field(default=None, description="Wait before the second try")
    factor: float | None = Field(default=None, ge=1, le=10, allow_inf_nan=False, description="Each wait is about this many times the last")
    most: Annotated[Duration, between("0s", "1d")] | None = Field(default=None, description="The longest wait")


PoolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]
Queue = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]


class DefaultsSpec(Model):
    """Settings of every stage that does not say otherwise."""

    timeout: Annotated[Duration, between("1s", "1d")] = Field(default="5m", description="Time of one try of a stage")
    retries: RetriesSpec = Field(
        default_factory=RetriesSpec, description="Tries: 3 in all, waiting about 2s, then twice as long, at most 30s"
    )
    pool: PoolName | None = Field(default=None, description="Airflow pool whose slots bound how many run at once")
    queue: Queue | None = Field(default=None, description="Queue whose workers run it, where the executor has queues")
    priority: int = Field(default=1, ge=1, le=1000, description="Of what waits, the higher one starts first")


class LimitsSpec(Model):
    """Bounds of the whole pipeline."""

    runs: int = Field(default=4, ge=1, le=100, description="Runs side by side")
    stages: int = Field(default=4, ge=1, le=100, description="Stages of one run side by side")
    duration: Annotated[Duration, between("1s", "7d")] = Field(default="1h", description="Time of a run; recovery is exempt")


AssetText = Annotated[str, StringConstraints(pattern=r"^[!-~]([ -~]{0,498}[!-~])?$")]


class AssetSpec(Model):
    """An Airflow asset whose name is not its URI."""

    name: AssetText = Field(description="Its name")
    uri: AssetText = Field(description="Its URI")


AssetEntry = Annotated[Annotated[AssetText, Tag("<text>")] | Annotated[AssetSpec, Tag("<mapping>")], Discriminator(_text_or_mapping)]
"""A URI (or name) that is both, or a mapping."""


class ScheduleSpec(Model):
    """A cron expression with its timezone and first day, or assets."""

    cron: Cron | None = Field(default=None, description="Five fields (minute hour day month weekday) or a preset such as @daily")
    timezone: Timezone = Field(default="UTC", description="IANA name of the timezone that the cron is read in")
    start: Day = Field(default="2024-01-01", description="First day, year-month-day; runs before today are not caught up")
    assets: Annotated[list[AssetEntry], Field(min_length=1, max_length=50)] | None = Field(
        default=None, description="Instead of a cron: Airflow assets; it runs when each of them was updated since its last run"
    )


class ParamSpec(Model):
    """A parameter of a run, in JSON Schema's words: the trigger form and the REST check come from it."""

    type: Literal["string", "integer", "number", "boolean", "array", "object"] = Field(description="Type of the value")
    default: Any = Field(default=None, description="Value where a run gives none; a scheduled pipeline needs one")
    title: Name | None = Field(default=None, description="Heading in the trigger form")
    description: Text | None = Field(default=None, description="Help in the trigger form")
    pattern: Annotated[str, StringConstraints(max_length=500)] | None = Field(
        default=None, description="Regular expression that a text matches somewhere; anchor it with ^ and $"
    )
    minLength: int | None = Field(default=None, ge=0, le=1_000_000, description="Fewest characters")  # noqa: N815 - JSON Schema's word
    maxLength: int | None = Field(default=None, ge=0, le=1_000_000, description="Most characters")  # noqa: N815
    minimum: float | None = Field(default=None, allow_inf_nan=False, description="Smallest number")
    maximum: float | None = Field(default=None, allow_inf_nan=False, description="Largest number")
    exclusiveMinimum: float | None = Field(default=None, allow_inf_nan=False, description="Numbers are above this")  # noqa: N815
    exclusiveMaximum: float | None = Field(default=None, allow_inf_nan=False, description="Numbers are below this")  # noqa: N815
    multipleOf: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="Numbers are multiples of this")  # noqa: N815
    enum: Annotated[list[Any], Field(min_length=1, max_length=100)] | None = Field(default=None, description="The only values allowed")
    examples: Annotated[list[Any], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="Values that the trigger form proposes"
    )
    format: Literal["multiline", "date", "date-time", "time", "email", "uri"] | None = Field(
        default=None, description="Kind of text; multiline gives a larger field"
    )
    items: dict[str, Any] | None = Field(default=None, description="JSON Schema of an array's elements: {type: string}")

    def schema_(self) -> dict[str, Any]:
        """The JSON Schema as written, `default` and all."""
        return self.model_dump(exclude_unset=True)


class RepairSpec(Model):
    """Repairs, between a failed gate and the next try."""

    attempts: int = Field(default=2, ge=1, le=5, description="Repairs in all")
    agent: str | None = Field(
        default=None, description="An agent that changes code and repairs instead of the model that the policy names for `repair`"
    )
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="The inputs of that agent; texts may hold {{ expressions }}"
    )
    may_change: list[Annotated[str, StringConstraints(pattern=r"^[^/\\\s][^\\\n]*$", max_length=200)]] = Field(
        default_factory=list,
        max_length=20,
        description="Paths (* and ? stand for any characters) of tests and settings that a repair may change; else it changes none",
    )

    @field_validator("may_change")
    @classmethod
    def _inside(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            parts = pattern.split("/")
            if {".", "..", "", ".git"} & set(parts[:-1]) or parts[-1] in (".", "..", ".git") or pattern.startswith(("!", "~")):
                problem = f"{pattern[:60]!r} is no path of the project's own files"
                raise refuse("bad-value", problem, "write it from the project's root: tests/*")
            if not pattern.strip("*/"):
                raise refuse("bad-value", f"{pattern!r} would let a repair change all that judges it", "name folders or files: tests/*")
            if pattern.count("[") != pattern.count("]"):
                raise refuse("bad-value", f"{pattern[:60]!r} is no pattern", "close what [ opens, or use * and ? alone")
        return patterns


class StageSpec(Model):
    """One step, run by one agent."""

    extends: Annotated[str, StringConstraints(pattern=STAGE_ID)] | None = Field(
        default=None, description="Template in templates/ that it stands on; what it says itself comes on top"
    )
    agent: str = Field(description="Which agent does the work")
    with_: dict[str, Any] = Field(default_factory=dict, alias="with", description="The agent's inputs; texts may hold {{ expressions }}")
    needs: Annotated[list[str], Field(max_length=100)] | None = Field(
        default=None, description="Stages that this one follows; the one above if left out, [] starts at once"
    )
    when: Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = Field(
        default=None, description="A condition such as params.deploy; the stage is skipped where it is false"
    )
    matrix: dict[Annotated[str, StringConstraints(pattern=PARAM_NAME)], Annotated[list[AxisValue], Field(min_length=1, max_length=50)]] = (
        Field(
            default_factory=dict,
            min_length=1,
            max_length=5,
            description="Axes and their values: a task for every combination, as {{ matrix.AXIS }}; only stages that measure",
        )
    )
    gates: list[GateEntry] = Field(
        default_factory=list, max_length=100, description="Thresholds on what the agent measures; they only tighten the policy's"
    )
    timeout: Annotated[Duration, between("1s", "1d")] | None = Field(default=None, description="Time of one try")
    retries: RetriesSpec = Field(default_factory=RetriesSpec, description="Tries for errors that another try may cure")
    pool: PoolName | None = Field(default=None, description="Airflow pool whose slots bound how many run at once, over all pipelines")
    queue: Queue | None = Field(default=None, description="Queue whose workers run it, where the executor has queues")
    priority: int | None = Field(default=None, ge=1, le=1000, description="Of what waits, the higher one starts first")
    repair: RepairSpec | None = Field(
        default=None,
        description="When its gates fail, a model or an agent changes the code, and it is measured again; each is one more try",
    )
    recovers: list[str] = Field(
        default_factory=list,
        max_length=100,
        description="Stages after whose failure this one undoes what they did (recover) or says why it happened (diagnose)",
    )
    continue_on_failure: bool = Field(default=False, description="true: a failure of this stage is noted and stops nothing")


class BudgetSpec(Model):
    """What the models of one run may cost, over all its stages, tries and branches; nothing is asked beyond it."""

    usd: float | None = Field(
        default=None, gt=0, le=100_000, allow_inf_nan=False, description="US dollars; a model needs a known price then"
    )
    tokens: int | None = Field(default=None, ge=1_000, le=10_000_000_000, description="Tokens read and written, cached ones too")
    warn_at: float | None = Field(
        default=None, gt=0, le=1, allow_inf_nan=False, description="Part of it from which the log warns; 0.8 if left out"
    )


class PipelineSpec(Model):
    """From a requirement to a running service."""

    pipeline: Annotated[str, StringConstraints(pattern=PIPELINE_ID)] = Field(description="Name; also the DAG's id in Airflow")
    description: Text = Field(default="", description="What it is for; shown in Airflow")
    owner: Annotated[str, StringConstraints(pattern=r"^[^,\s][^,\n]{0,99}$")] = Field(default="taxiway", description="Who to ask")
    tags: list[Annotated[str, StringConstraints(pattern=r"^\S[^\n]{0,99}$")]] = Field(
        default_factory=list, max_length=20, description="Words to find it by in Airflow"
    )
    policy: Name | None = Field(default=None, description="Policy in policies/ that it stands on; `default` where there is one")
    params: dict[Annotated[str, StringConstraints(pattern=PARAM_NAME)], ParamSpec] = Field(
        default_factory=dict, max_length=100, description="Parameters of a run, as {{ params.NAME }}"
    )
    schedule: (
        Annotated[Annotated[Cron, Tag("<text>")] | Annotated[ScheduleSpec, Tag("<mapping>")], Discriminator(_text_or_mapping)] | None
    ) = Field(default=None, description="When it runs by itself; null: only when somebody starts it")
    limits: LimitsSpec = Field(default_factory=LimitsSpec, description="Bounds of the whole pipeline")
    budget: BudgetSpec | None = Field(
        default=None, description="What models may cost in a run; the policy's, or 5 USD, if left out. Never more than the policy's"
    )
    defaults: DefaultsSpec = Field(default_factory=DefaultsSpec, description="Settings of every stage that does not say otherwise")
    stages: dict[Annotated[str, StringConstraints(pattern=STAGE_ID)], StageSpec] = Field(
        min_length=1, max_length=100, description="The steps; each follows the one above it unless it says `needs`"
    )


# The token goes there: nothing in the clear but to this machine, and no credentials, query or fragment in it.
_API = (
    r"^(https://[A-Za-z0-9][A-Za-z0-9.-]{0,252}|http://(127\.0\.0\.1|localhost))"
    r"(:[0-9]{1,5})?(/[A-Za-z0-9._~-]{1,100}){0,10}/?$"
)


class RepositorySpec(Model):
    """What the policy knows of repositories whose URL matches."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=500)] = Field(description="URL; * and ? stand for any characters")
    trusted: bool = Field(default=False, description="true: their code may run without isolation")
    connection: Annotated[str, StringConstraints(pattern=r"^[\w.-]*$", max_length=200)] = Field(
        default="", description="Airflow connection to use"
    )
    forge: Literal["github", "gitlab"] | None = Field(
        default=None, description="What has their pull requests; github.com and gitlab.com are known without it"
    )
    api: Annotated[str, StringConstraints(pattern=_API)] | None = Field(
        default=None, description="URL of the forge's API where it is not at the repository's own host"
    )

    @field_validator("api")
    @classmethod
    def _needs_forge(cls, api: str | None, info: ValidationInfo) -> str | None:
        if api is not None and info.data.get("forge", "") is None:
            raise refuse("bad-value", "`api` says where a forge is, and there is no `forge`", "add `forge: github` or `forge: gitlab`")
        return api


ConnectionName = Annotated[str, StringConstraints(pattern=r"^[\w.-]+$", max_length=200)]


class WaiverSpec(Model):
    """A gate that may fail for a while."""

    agent: Name = Field(description="Agent whose gate it is")
    metric: Name = Field(description="Metric of the gate")
    owner: Name = Field(description="Who answers for it")
    expires: Day = Field(description="Last day, year-month-day; afterwards the gate blocks again")
    reason: Annotated[str, StringConstraints(min_length=3, max_length=500)] = Field(description="Why")


def _no_other_none(name: str) -> str:
    if name.lower() == "none" and name != "none":
        raise refuse("bad-value", f"{name!r} is no model", "did you mean none?")
    return name


ModelId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:@/-]*$", max_length=200), AfterValidator(_no_other_none)]
Effort = Literal["low", "medium", "high", "xhigh", "max"]


class PriceSpec(Model):
    """USD per million tokens of a model that Taxiway's own table does not know."""

    input: float = Field(ge=0, le=100_000, allow_inf_nan=False, description="Read, not from the cache")
    output: float = Field(ge=0, le=100_000, allow_inf_nan=False, description="Written")
    cache_write: float | None = Field(
        default=None, ge=0, le=100_000, allow_inf_nan=False, description="Read and put into the cache; as `input` if left out"
    )
    cache_read: float | None = Field(
        default=None, ge=0, le=100_000, allow_inf_nan=False, description="Read from the cache; as `input` if left out"
    )


class AgentModelSpec(Model):
    """What one agent, or `repair`, has otherwise than the others."""

    model: ModelId | None = Field(default=None, description="Id of the model; `none` for no model")
    effort: Effort | None = Field(default=None, description="How hard it thinks, where the model knows the setting")
    max_tokens: int | None = Field(default=None, ge=256, le=200_000, description="Tokens of one answer")
    fallback: ModelId | None = Field(default=None, description="Model that is asked where the first stays unavailable")


class ModelsSpec(Model):
    """Which models are asked, and how they are reached."""

    model: ModelId = Field(default="none", description="Id of the model; `none` for no model")
    connection: Annotated[str, StringConstraints(pattern=r"^[\w.-]*$", max_length=200)] = Field(
        default="", description="Airflow connection of type Anthropic; empty: ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL of the worker"
    )
    effort: Effort | None = Field(default=None, description="How hard it thinks, where the model knows the setting")
    max_tokens: int = Field(default=16_000, ge=256, le=200_000, description="Tokens of one answer")
    fallback: ModelId | None = Field(default=None, description="Model that is asked where the first stays unavailable")
    agents: dict[str, AgentModelSpec] = Field(
        default_factory=dict, max_length=50, description="By agent, or `repair`: what it has otherwise than the others"
    )
    prices: dict[ModelId, PriceSpec] = Field(
        default_factory=dict, max_length=50, description="Prices of models that the table does not know"
    )


class PolicySpec(Model):
    """The floor that pipelines share."""

    policy: Annotated[str, StringConstraints(pattern=PIPELINE_ID)] = Field(description="Name")
    description: Text = Field(default="", description="What it is for")
    gates: dict[str, list[GateEntry]] = Field(default_factory=dict, max_length=100, description="Thresholds by agent")
    repositories: list[RepositorySpec] = Field(
        default_factory=list, max_length=200, description="Known repositories; the first match counts"
    )
    unisolated: bool = Field(default=False, description="true: code that is not trusted may run where nothing isolates it")
    pools: dict[PoolName, Annotated[int, Field(ge=1, le=10_000)]] = Field(
        default_factory=dict, max_length=100, description="Slots of Airflow pools that are made where they are missing"
    )
    services: dict[Literal["postgres", "redis"], ConnectionName] = Field(
        default_factory=dict,
        description="Airflow connections to servers for tests that need one; without it they are started beside the tests",
    )
    waivers: list[WaiverSpec] = Field(default_factory=list, max_length=100, description="Gates that may fail for a while")
    models: ModelsSpec | None = Field(default=None, description="Which models are asked; none if left out")
    budget: BudgetSpec | None = Field(default=None, description="The most that the models of one run may cost; pipelines only lower it")


@dataclass(frozen=True)
class Policy:
    """A checked policy file: `gates` by agent; `digest` is the SHA-256 of its bytes; `lines` are those of its waivers."""

    spec: PolicySpec
    path: str
    digest: str
    gates: dict[str, tuple[Threshold, ...]]
    lines: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its id."""
        return self.spec.policy


@dataclass(frozen=True)
class Pipeline:
    """A checked pipeline file.

    `needs` are the direct predecessors of every stage; `gates` its own ones; `uses` the stages that its expressions name;
    `cells` the cells of each that has a matrix; `lines` where it stands; `digest` the SHA-256 of the file's bytes;
    `templates` name, path and digest of those it stands on.
    """

    spec: PipelineSpec
    path: str
    digest: str
    policy: Policy | None
    needs: dict[str, tuple[str, ...]]
    gates: dict[str, tuple[Threshold, ...]]
    uses: dict[str, tuple[str, ...]]
    cells: dict[str, tuple[Cell, ...]]
    lines: dict[str, int]
    templates: tuple[tuple[str, str, str], ...] = ()

    @property
    def name(self) -> str:
        """Its id."""
        return self.spec.pipeline
