"""Every error that Taxiway raises, split by who must act.

TaxiwayError
|-- SpecError               the author of a pipeline or policy file: problems with line, column, caret and hint
|-- StageError              a stage ended without its result, and another try would end the same
|   |-- InputError          the author of the spec: the rendered `with` is not what the agent takes
|   |-- GateFailed          the project's author: a blocking gate did not pass
|   |-- VerdictMissing      the project's author: a commit without its verdicts was to be merged or deployed
|   |-- MergeConflict       the project's author: the change does not merge
|   |-- AgentFailed         the author of the agent: it failed in a way that it does not know
|   |-- ProjectError        the project's author: it cannot be read, installed or started
|   |-- ModelError          the author of the spec: the model gave no usable answer
|   |   |-- ModelRefused    it declined the request
|   |   |-- ModelCutOff     its answer or its context reached a limit
|   |   |-- ModelUnfinished it took all its steps
|   |   `-- ModelInvalid    its answer is not of the form that was asked for
|   |-- BudgetExceeded      the author of the spec: the run's budget is spent, or a limit of the stage's own
|   `-- NotTrusted          the policy's owner: untrusted code, and no isolation to run it in
|-- OperatorError           the operator of the system: a tool, a setting, a credential, disk space is missing
|-- TransientError          nobody yet: another try may succeed (network, a busy lock, a remote that moved)
|   |-- StageTimeout        the try took longer than `timeout`
|   |-- RepairDue           the gates did not pass, and a repair comes next
|   `-- ModelUnavailable    the model's provider did not answer, or asked to come back later
|-- DeadlineExceeded        the run took longer than `limits.duration`
|-- Cancelled               somebody stopped the run
`-- LeaseLost               a newer attempt of the same stage took over
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from taxiway.records import Cost, Reading

__all__ = [
    "AgentFailed",
    "BudgetExceeded",
    "Cancelled",
    "DeadlineExceeded",
    "GateFailed",
    "InputError",
    "LeaseLost",
    "MergeConflict",
    "ModelCutOff",
    "ModelError",
    "ModelInvalid",
    "ModelRefused",
    "ModelUnavailable",
    "ModelUnfinished",
    "NotTrusted",
    "OperatorError",
    "Position",
    "Problem",
    "ProjectError",
    "RepairDue",
    "SpecError",
    "StageError",
    "StageTimeout",
    "TaxiwayError",
    "TransientError",
    "VerdictMissing",
]


@dataclass(frozen=True, order=True)
class Position:
    """A place in a file; line and column count from 1, column in characters."""

    path: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file, where, and what to do next.

    `line` is the text of the line at `at`, shown with a caret below the column; `rule` is a stable
    short name such as `unknown-key`, for editors and SARIF.
    """

    at: Position
    problem: str
    hint: str = ""
    line: str = ""
    rule: str = "spec"

    def __str__(self) -> str:
        text = f"{self.at}: error: {self.problem}"
        if self.line.strip():
            # Tabs keep their width, so the caret stands below the right column in any terminal.
            margin = "".join("\t" if c == "\t" else " " for c in self.line[: self.at.column - 1])
            text += f"\n    {self.line}\n    {margin}^"
        if self.hint:
            text += f"\n    hint: {self.hint}"
        return text


class TaxiwayError(Exception):
    """Base of all: what happened, `hint`: what to do next, `artifacts` (name -> URI) that a failed attempt left, the `cost` of its stage's
    models so far, and the `repairs` that its stage took."""

    retryable: ClassVar[bool] = False

    def __init__(self, problem: str, *, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        self.artifacts: dict[str, str] = {}
        self.cost: Cost | None = None
        self.repairs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.problem}\n  hint: {self.hint}" if self.hint else self.problem


class SpecError(TaxiwayError):
    """A pipeline or policy file cannot be used; `problems` holds everything found, in file order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(problems, key=lambda p: (p.at, p.problem)))
        super().__init__("\n".join(str(p) for p in self.problems))


class StageError(TaxiwayError):
    """A stage ended without its result; the same input would end the same way."""


class AgentFailed(StageError):
    """An agent raised what is none of these errors: a fault of its own, which another try would meet again."""


class InputError(StageError):
    """The rendered `with` of a stage is not what its agent takes."""


class GateFailed(StageError):
    """At least one blocking gate did not pass; `readings` holds every gate of the stage."""

    def __init__(self, problem: str, *, readings: Sequence[Reading], hint: str = "") -> None:
        super().__init__(problem, hint=hint)
        self.readings = tuple(readings)


class VerdictMissing(StageError):
    """A commit was to be merged or deployed without the verdicts that the plan requires."""


class MergeConflict(StageError):
    """The change does not merge; `conflicts` names the files and their hunks."""

    def __init__(self, problem: str, *, conflicts: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(problem, hint=hint)
        self.conflicts = tuple(conflicts)


class ProjectError(StageError):
    """The project cannot be read, installed or started as its manifest says."""


class ModelError(StageError):
    """The model was asked and gave no usable answer; asking the same again would cost the same and give the same."""


class ModelRefused(ModelError):
    """The model declined the request."""


class ModelCutOff(ModelError):
    """The answer reached its limit of tokens, or the conversation the model's context window."""


class ModelUnfinished(ModelError):
    """The model took all the steps that it may and did not come to an end."""


class ModelInvalid(ModelError):
    """The answer is not of the form that was asked for."""


class BudgetExceeded(StageError):
    """The run's budget, or a limit of this stage's own, is spent; nothing was called beyond it."""


class NotTrusted(StageError):
    """Code that the policy does not trust was to run where nothing isolates it."""


class OperatorError(TaxiwayError):
    """The machine or its settings lack something that only its operator can give."""


class TransientError(TaxiwayError):
    """Another try may succeed; `after_s` seconds from now where somebody said when, else 0."""

    retryable = True

    def __init__(self, problem: str, *, hint: str = "", after_s: float = 0.0) -> None:
        super().__init__(problem, hint=hint)
        self.after_s = after_s


class StageTimeout(TransientError):
    """A try took longer than the stage's `timeout`."""


class RepairDue(TransientError):
    """A blocking gate did not pass, and the next try begins with a repair; `readings` holds every gate of the stage."""

    def __init__(self, problem: str, *, readings: Sequence[Reading] = (), hint: str = "") -> None:
        super().__init__(problem, hint=hint)
        self.readings = tuple(readings)


class ModelUnavailable(TransientError):
    """The model's provider did not answer, failed, or asked to come back later."""


class DeadlineExceeded(TaxiwayError):
    """The run took longer than `limits.duration`."""


class Cancelled(TaxiwayError):
    """Somebody stopped the run; nothing is pushed or switched after this."""


class LeaseLost(TaxiwayError):
    """A newer attempt of the same stage took over; this one must not act any more."""
