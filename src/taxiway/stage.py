"""One attempt of one stage: inputs -> agent -> commit -> gates -> Result."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from taxiway import gates as gate
from taxiway.agents.base import REPAIR, Agent, StageAttempt
from taxiway.agents.masking import Mask
from taxiway.attempt_log import AttemptLog
from taxiway.before import Before
from taxiway.compiler.plan import Plan, PlannedStage, Repair
from taxiway.errors import (
    AgentFailed,
    BudgetExceeded,
    GateFailed,
    InputError,
    ModelError,
    OperatorError,
    StageError,
    TaxiwayError,
)
from taxiway.mending import EVIDENCE, KEPT_TESTS, evidence_text, lost_tests, reports_text
from taxiway.minds import Minds
from taxiway.ports import Lease, Ports, RunRecord
from taxiway.records import Cost, Result, Verdict
from taxiway.render import render, stage_scope
from taxiway.results import compact, failed_result
from taxiway.shelf import Shelf
from taxiway.stop import Stop
from taxiway.tries import Memory, Mending, Tries

__all__ = ["RunContext", "run", "run_key"]

_LOOK = 12_000
_WORST = 1_000_000
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class RunContext:
    """What a run tells one attempt. `results` are of finished stages; `generation` changes when a person clears the task;
    `last` says that nobody will try again, whatever the stage's own count (a try that was killed early is not in it);
    `scratch` is a folder for fresh checkouts; `started` is the run's start, UTC. `run_id` is Airflow's id of the run, `created` when
    it came to be (the same for every try, whatever is cleared), `version` the bundle's that it runs with; without a `run_id`
    the ledger is not told of the run."""

    run: str
    attempt: int
    params: Mapping[str, Any]
    results: Mapping[str, Result]
    started: datetime
    memory: Memory
    scratch: Path
    generation: str = ""
    last: bool = False
    run_id: str = ""
    created: datetime | None = None
    version: str = ""


def run_key(pipeline: str, run_id: str) -> str:
    """A run's short name for branches, folders and trailers: safe in all of them, different for every run of every pipeline."""
    digest = hashlib.sha256(f"{pipeline}\0{run_id}".encode()).hexdigest()[:8]
    words = re.sub(r"[^A-Za-z0-9]+", "-", run_id).strip("-")[:40].strip("-").lower()
    return f"{words}-{digest}" if words else digest


def run(
    plan: Plan, name: str, context: RunContext, *, ports: Ports, agents: Mapping[str, Agent], stop: Stop, log: logging.Logger
) -> Result:
    """Run stage `name` once and return what it hands on; its outcome is `skipped` where it had nothing to do.

    Raises the errors of `taxiway.errors`; those with `retryable` may be tried again while the stage's own
    count of tries lasts, and this function turns the last of them into one that may not.
    """
    stage = plan.stage(name)
    for agent in (stage.agent, *([stage.repair.agent] if stage.repair and stage.repair.agent else ())):
        if agent not in agents:
            raise OperatorError(f"agent {agent!r} is not installed here", hint="install on the workers what the scheduler has")
    return _Attempt(plan, stage, context, ports=ports, agents=agents, stop=stop, log=log).run()


@contextmanager
def _disk_space() -> Iterator[None]:
    """Turn what a full or read-only disk raises, wherever it does, into the error that says who must act."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        hint = "make room where the Taxiway home and the temporary files are (`taxiway gc` says what it can remove), and clear the stage"
        raise OperatorError(f"nothing more can be written here: {error}", hint=hint) from error


class _Attempt:
    """The attempt's steps, in the order in which the data meets them."""

    def __init__(
        self,
        plan: Plan,
        stage: PlannedStage,
        context: RunContext,
        *,
        ports: Ports,
        agents: Mapping[str, Agent],
        stop: Stop,
        log: logging.Logger,
    ) -> None:
        self.plan, self.stage, self.context, self.ports, self.agents, self.stop = plan, stage, context, ports, agents, stop
        self.kept_log = AttemptLog()
        self.log = log = self.kept_log.logger(log)
        self.scope = {
            "params": dict(context.params),
            "stages": stage_scope(context.results),
            "run": {"id": context.run, "pipeline": plan.pipeline, "attempt": context.attempt, "started": context.started.isoformat()},
        }
        self.shelf = Shelf(
            ports.artifacts,
            key=f"{plan.pipeline}/{context.run}/{stage.id}/{context.attempt}",
            scratch=context.scratch,
            name=f"{context.run}-{stage.id}",
            log=log,
        )
        self.before = Before(plan, stage, context.results, log)
        self.minds: Minds
        # The commit that the attempt stands on now, what it mends, what the next one would, and what was measured last.
        self.on = ""
        self.mended: Mending | None = None
        self.mending: Mending | None = None
        self.measured: Mapping[str, float] = {}
        self.earned: tuple[Verdict, ...] = ()

    def run(self) -> Result:
        """Everything from the first check to the Result."""
        self._start_clock()
        holder = f"{self.context.run}/{self.stage.id}"
        if self.context.run_id:
            self.ports.ledger.enter(self._record())
        # A newer try takes this over at once, and from then on the older one's next act is refused.
        with self.ports.ledger.lease(f"attempt:{holder}", holder=holder, attempt=self.context.attempt, stop=self.stop) as lease:
            commit = self.before.commit(self.ports.workspace)
            if why := self.before.reason_to_skip(self._scope_of(self.stage)):
                self.log.info("skipped: %s", why)
                return Result(outcome="skipped", commit=commit, summary=why)
            tries = Tries(
                self.context.memory,
                commit=commit,
                generation=self.context.generation,
                attempt=self.context.attempt,
                limit=self.stage.retries.attempts,
                last=self.context.last,
                repairs=self.stage.repair.attempts if self.stage.repair else 0,
            )
            self.on, self.mended = commit, tries.mending
            self.minds = Minds(
                self.plan,
                self.stage.id,
                run=self.context.run,
                attempt=self.context.attempt,
                ports=self.ports,
                lease=lease,
                stop=self.stop,
                log=self.log,
            )
            try:
                with _disk_space():
                    result = self._work(commit, lease, tries)
            except TaxiwayError as error:
                raise_or_result = tries.spend(error, self.mending)
                raise_or_result.cost, raise_or_result.repairs = self._cost_so_far(), tries.repaired
                if isinstance(raise_or_result, StageError) and self.stage.continue_on_failure:
                    return self._tolerated(raise_or_result, commit)
                if raise_or_result is error:
                    raise
                raise raise_or_result from error
            result = compact(result, named=self._named(result))
            tries.forget()
            return result

    def _named(self, result: Result) -> list[str]:
        """The metrics of this stage that expressions of others may name."""
        texts = json.dumps([(s.when, s.inputs, s.repair.inputs if s.repair else {}) for s in self.plan.stages], default=str)
        return [name for name in result.metrics if all(part in texts for part in name.split("."))]

    # --- before the agent -----------------------------------------------------------------------

    def _record(self) -> RunRecord:
        """What must be known of the run when it has ended and its pipeline may be another one."""
        url = str(self.context.params.get("repository") or "")
        entry = self.plan.policy.repository(url) if url else None
        return RunRecord(
            run=self.context.run,
            pipeline=self.plan.pipeline,
            run_id=self.context.run_id,
            born=(self.context.created or self.context.started).timestamp(),
            url=self.ports.workspace.url,
            connection=entry.connection if entry else "",
            version=self.context.version,
            # What only explains a failure brings nothing back.
            recovers={s.id: s.recovers for s in self.plan.stages if s.recovers and s.effect == "undoes"},
        )

    def _start_clock(self) -> None:
        # What undoes or explains a failed run must not fail for lack of the time that the failure took.
        deadline = None if self.stage.after_failure else self.context.started + timedelta(seconds=self.plan.limits.duration_s)
        self.stop.arm(self.stage.timeout_s, deadline)
        self.stop.check()

    def _scope_of(self, stage: PlannedStage) -> dict[str, Any]:
        """What the expressions of a stage know: that of this one, or of one whose gates it measures again."""
        return {**self.scope, **({"matrix": stage.matrix} if stage.group else {})}

    # --- the agent and what follows ---------------------------------------------------------------

    def _work(self, commit: str, lease: Lease, tries: Tries) -> Result:
        if self.stage.effect in ("merges", "deploys"):
            self.before.require_verdicts(commit)
        with self.shelf.folders() as (checkout, reports):
            try:
                if self.mended is not None:
                    self._repair_or_say(self.mended, tries, reports, lease)
                if self.on and self.stage.effect != "undoes":
                    self.ports.workspace.checkout(self.on, checkout)
                attempt = self._attempt(self.stage, self.on, checkout, reports)
                verify = functools.partial(self._verify, reports=reports)
                attempt = replace(attempt, verify=verify, evidence=tries.evidence(), cost=self.minds.cost)
                attempt = self._with_mind(attempt)
                result = self._measure_and_judge(attempt, lease)
            except BaseException as error:
                if self.stage.repair and isinstance(error, GateFailed | ModelError):
                    self._offer_repair(error, commit, reports)
                stored = self.shelf.store_after_failure(reports, self._log_text(f"{type(error).__name__}: {error}"))
                if isinstance(error, TaxiwayError):
                    error.artifacts = stored
                raise
            stored = {**result.artifacts, **self.shelf.store(reports, self._log_text())}
            result = result.model_copy(update={"artifacts": stored, "cost": self.minds.cost(), "repairs": tries.repaired})
            self.shelf.put("result.json", result.model_dump_json(indent=2).encode())
            self.stop.check()
            lease.check()
            return result

    def _log_text(self, end: str = "") -> bytes:
        """What the attempt logged, and how it ended, without secrets."""
        return Mask(self.ports.secrets).text(f"{self.kept_log.text()}{end}").encode("utf-8", "replace")

    def _measure_and_judge(self, attempt: StageAttempt, lease: Lease) -> Result:
        result = self._call(self.stage, attempt)
        if self.stage.effect == "writes":
            self.stop.check()
            # What the summary says beyond one line is for the commit's message.
            line = result.summary.partition("\n")[0]
            result = result.model_copy(update={"commit": self._commit(attempt, result, lease), "verdicts": (), "summary": line})
        elif self.stage.effect != "merges":
            # Only who merges hands on a commit of its own, and what it verified on it.
            result = result.model_copy(update={"commit": attempt.commit, "verdicts": self.earned})
        # What watches another stage's work has nothing to measure where that one was skipped. It gives no verdict.
        return result if result.outcome == "skipped" and self.agents[self.stage.agent].after else self._judge(result)

    def _call(self, stage: PlannedStage, attempt: StageAttempt) -> Result:
        agent = self.agents[stage.agent]
        rendered = render(stage.inputs, self._scope_of(stage))
        self.log.info("%s: %s", stage.agent, json.dumps(rendered, ensure_ascii=False))
        try:
            inputs = agent.inputs.model_validate(rendered)
        except ValidationError as error:
            faults = "; ".join(f"with.{'.'.join(map(str, e['loc']))}: {e['msg']} (is {e['input']!r})" for e in error.errors())
            raise InputError(faults, hint=f"the values come from templates; `taxiway schema` shows what {agent.name} takes") from error
        try:
            result = agent.run(inputs, self.ports, attempt)
        except (TaxiwayError, MemoryError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _NO_SPACE:
                raise  # no fault of the agent
            self.log.exception("agent %s failed in a way that it does not know", agent.name)
            raise AgentFailed(
                f"agent {agent.name} failed: {type(error).__name__}: {error}", hint="this is a fault of the agent; its traceback is above"
            ) from error
        if undeclared := sorted(set(result.metrics) - set(agent.metrics)):
            raise OperatorError(
                f"agent {agent.name} reported metrics that it does not declare: {', '.join(undeclared)}", hint="mend the agent"
            )
        return result

    def _commit(self, attempt: StageAttempt, result: Result, lease: Lease) -> str:
        message = f"{attempt.name}: {result.summary or 'changed by ' + self.stage.agent}"
        trailers = {**attempt.trailers, **self._cost_trailers()}
        return self.ports.workspace.commit(attempt.checkout, parent=attempt.commit, message=message, trailers=trailers, lease=lease)

    def _cost_so_far(self) -> Cost | None:
        try:
            return self.minds.cost()
        except TaxiwayError as error:  # why the stage failed matters more
            self.log.warning("what its models cost cannot be read: %s", error)
            return None

    def _cost_trailers(self) -> dict[str, str]:
        """What models did for this stage so far, for its commit; nothing where none did."""
        cost = self.minds.cost()
        return cost.trailers() if cost else {}

    def _with_mind(self, attempt: StageAttempt) -> StageAttempt:
        mind, missing = self.minds.of(self.stage.agent, attempt.reports)
        return replace(attempt, mind=mind, no_mind=missing)

    def _judge(self, result: Result) -> Result:
        """Hold the gates against the measurements; raise GateFailed if a blocking one did not pass."""
        stage = self.stage
        if not stage.gates:
            return result
        self.measured = result.metrics
        readings = (*gate.evaluate(stage.gates, result, datetime.now(UTC).date()), *lost_tests(self.mended, result))
        self.shelf.put("gates.json", json.dumps([r.model_dump() for r in readings], indent=2).encode())
        self.log.info("gates of %s on %s\n%s", stage.id, result.commit[:12] or "no commit", gate.table(readings))
        if failed := gate.failures(readings):
            first = "; ".join(f"{r.metric} {r.wanted}: {'not measured' if r.measured is None else format(r.measured, 'g')}" for r in failed)
            raise GateFailed(
                f"{len(failed)} of {len(readings)} gates did not pass: {first}",
                readings=readings,
                hint="the reports of this attempt say more",
            )
        own = gate.verdict(stage.id, result.commit, stage.gates, readings)
        return result.model_copy(update={"gates": readings, "verdicts": (*result.verdicts, own)})

    # --- repairs ----------------------------------------------------------------------------------

    def _offer_repair(self, error: GateFailed | ModelError, commit: str, reports: Path) -> None:
        try:
            self._prepare_repair(error, commit, reports)
        except (TaxiwayError, OSError) as problem:  # the failure itself is what matters
            self.log.warning("no repair follows, for the evidence could not be kept: %s", problem)

    def _prepare_repair(self, error: GateFailed | ModelError, commit: str, reports: Path) -> None:
        """Put what is wrong where the next try finds it; or say, where no model is configured, that nothing is repaired."""
        if missing := self._no_mender(reports):
            self.log.warning("nothing is repaired: %s", missing)
            error.hint = f"{error.hint}; nothing is repaired: {missing}" if error.hint else f"nothing is repaired: {missing}"
            return
        failed = len(gate.failures(error.readings)) if isinstance(error, GateFailed) else _WORST
        best, fewest = (self.mended.best, self.mended.failed) if self.mended else (commit, _WORST)
        # A refused repair measured nothing: the evidence of the one before stays beside it.
        text = evidence_text(error, reports)
        if self.mended and not isinstance(error, GateFailed):
            text += "\n\nBefore that:\n" + self.ports.artifacts.get(self.mended.evidence).decode("utf-8", "replace")[: EVIDENCE // 2]
        baseline = self.mended.baseline if self.mended else {n: v for n, v in self.measured.items() if n in KEPT_TESTS}
        best, fewest = (self.on, failed) if failed <= fewest else (best, fewest)
        if self.mended:
            (reports / "repairs.diff").write_text(self.ports.workspace.diff(commit, best), encoding="utf-8", errors="replace")
        self.mending = Mending(self.on, self.shelf.put("evidence.md", text.encode()), error.problem[:500], best, fewest, dict(baseline))

    def _no_mender(self, reports: Path) -> str:
        """What to configure for a repair that needs a model and has none; "" for one that can go on."""
        how = self.stage.repair
        if how is None or not how.agent:
            return self.minds.of(REPAIR, reports)[1]
        try:
            given = render(how.inputs, self._scope_of(self.stage))
        except InputError:
            return ""  # the repair says what is wrong with its inputs
        return self.minds.of(how.agent, reports)[1] if self.agents[how.agent].needs_model(given) else ""

    def _repair_or_say(self, mended: Mending, tries: Tries, reports: Path, lease: Lease) -> None:
        """Repair; where the budget ends that, what was to be repaired is told with it."""
        try:
            self._repair(mended, tries, reports, lease)
        except BudgetExceeded as error:
            raise BudgetExceeded(f"{mended.problem}; repair {tries.repairs} came to no end: {error.problem}", hint=error.hint) from error

    def _repair(self, mended: Mending, tries: Tries, reports: Path, lease: Lease) -> None:
        """Let the code that `mended` tells of be changed, commit that, and earn the verdicts of the stages before on it anew."""
        if self.stage.repair is None:
            raise OperatorError("this try was to begin with a repair, and the stage has none", hint="clear the stage, or start a new run")
        self.on = mended.commit
        evidence = self.ports.artifacts.get(mended.evidence).decode("utf-8", "replace")
        with self.shelf.folders() as (checkout, scratch):
            self.ports.workspace.checkout(mended.commit, checkout)
            if self.stage.repair.agent:
                summary = self._repair_by_agent(
                    self.stage.repair, mended, {**tries.evidence(), "report": evidence}, checkout=checkout, reports=reports
                )
            else:
                summary = self._repair_by_model(
                    self.stage.repair, tries.repairs, evidence, checkout=checkout, reports=reports, scratch=scratch
                )
            self.stop.check()
            number, agent = str(tries.repairs), self.stage.repair.agent or "repair"
            attempt = self._attempt(self.stage, mended.commit, checkout, reports)
            trailers = {**attempt.trailers, "Taxiway-Agent": agent, "Taxiway-Repair": number, **self._cost_trailers()}
            message = f"{self.stage.id}: {summary}"
            self.on = self.ports.workspace.commit(checkout, parent=mended.commit, message=message, trailers=trailers, lease=lease)
        line = Mask(self.ports.secrets).text(summary.partition("\n")[0])
        self.log.info("repair %s is commit %s: %s", number, self.on[:12], line)
        tries.note_repair(f"{self.on[:12]} {line}")
        self.earned = self._verify(self.on, reports)

    def _repair_by_model(self, how: Repair, number: int, evidence: str, *, checkout: Path, reports: Path, scratch: Path) -> str:
        from taxiway.agents.repair import repair  # noqa: PLC0415 - most attempts repair nothing

        mind, missing = self.minds.of("repair", reports)
        if mind is None:
            raise OperatorError("this try was to begin with a repair, and there is no model any more", hint=missing)
        return repair(
            mind,
            checkout=checkout,
            evidence=evidence,
            number=number,
            may_change=how.may_change,
            sandbox=self.ports.sandbox,
            stop=self.stop,
            checks={self.stage.id: lambda: self._look(checkout, scratch)},
        ).summary

    def _repair_by_agent(self, how: Repair, mended: Mending, evidence: Mapping[str, Any], *, checkout: Path, reports: Path) -> str:
        from taxiway.agents.repair import Judge  # noqa: PLC0415

        judge = Judge(checkout, how.may_change)
        folder = reports / "repair"
        folder.mkdir()
        stage = replace(self.stage, agent=how.agent, inputs=how.inputs)
        attempt = replace(self._attempt(stage, mended.commit, checkout, folder), evidence=evidence)
        mind, missing = self.minds.of(how.agent, folder)
        summary = self._call(stage, replace(attempt, mind=mind, no_mind=missing)).summary.strip() or f"repaired by {how.agent}"
        changed = self.ports.workspace.changed(checkout, parent=mended.commit)
        if not changed:
            hint = f"its log is above, and the evidence is with the try before: {mended.evidence}"
            raise StageError(f"{mended.problem}; {how.agent} repaired nothing: {summary}", hint=hint)
        if refused := judge.refuses(changed):
            hint = "name the paths under `repair: may_change`, or mend the agent"
            raise StageError(f"the repair by {how.agent} changed what judges it: {refused}", hint=hint)
        return summary

    def _look(self, checkout: Path, scratch: Path) -> str:
        """What this stage's own checks say of the files as they are now: for a model in the middle of its work, no verdict."""
        folder = Path(tempfile.mkdtemp(prefix="look-", dir=scratch))
        (folder / "reports").mkdir()
        shutil.copytree(checkout, folder / "checkout", symlinks=True)
        attempt = self._attempt(self.stage, self.on, folder / "checkout", folder / "reports")
        readings = gate.evaluate(self.stage.gates, self._call(self.stage, attempt), datetime.now(UTC).date())
        return f"{gate.table(readings)}\n\n{reports_text(folder / 'reports', _LOOK)}"

    def _verify(self, commit: str, reports: Path) -> tuple[Verdict, ...]:
        """Measure the gates that this stage requires again, on another commit; raise GateFailed at the first that does not pass."""
        verdicts = []
        for name in self.stage.requires:
            other = self.plan.stage(name)
            done = self.context.results.get(name)
            if done is not None and done.outcome == "skipped":
                continue
            self.log.info("measuring the gates of %s on %s", name, commit[:12])
            with self.shelf.folders() as (checkout, _):
                own_reports = reports / f"verify-{name}"
                own_reports.mkdir(exist_ok=True)
                self.ports.workspace.checkout(commit, checkout)
                attempt = self._attempt(other, commit, checkout, own_reports)
                readings = gate.evaluate(other.gates, self._call(other, attempt), datetime.now(UTC).date())
            self.log.info("gates of %s on %s\n%s", name, commit[:12], gate.table(readings))
            if gate.failures(readings):
                raise GateFailed(
                    f"gates of {name} do not pass on the resulting commit {commit[:12]}",
                    readings=readings,
                    hint="the change and its target pass alone, not together: bring the run up to date with its target",
                )
            # Cells mostly share their gates: one verdict says of all of those what was measured on each.
            verdicts.append(gate.verdict(other.group or name, commit, other.gates, readings))
        return tuple(dict.fromkeys(verdicts))

    def _attempt(self, stage: PlannedStage, commit: str, checkout: Path, reports: Path) -> StageAttempt:
        return StageAttempt(
            pipeline=self.plan.pipeline,
            run=self.context.run,
            name=stage.id,
            attempt=self.context.attempt,
            commit=commit,
            checkout=checkout,
            reports=reports,
            results=self.context.results,
            stop=self.stop,
            log=self.log,
            verify=lambda _: (),
            trailers={
                "Taxiway-Run": self.context.run,
                "Taxiway-Stage": stage.id,
                "Taxiway-Attempt": str(self.context.attempt),
                "Taxiway-Agent": stage.agent,
            },
            covers=stage.recovers,
        )

    def _tolerated(self, error: StageError, commit: str) -> Result:
        """`continue_on_failure`: the task ends in success, the Result says failed, and no verdict is given."""
        self.log.warning("failed, and the run goes on (continue_on_failure): %s", error)
        left = failed_result(error, commit)
        return left.model_copy(update={"summary": f"failed, tolerated: {left.summary}"})
