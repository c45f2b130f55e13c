"""Between Airflow's context and one attempt of a stage."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from typing import Any, NoReturn

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from pydantic import ValidationError

from taxiway import __version__, stage
from taxiway.agents import registry
from taxiway.compiler.plan import Plan
from taxiway.errors import Cancelled, OperatorError, TaxiwayError
from taxiway.records import Result
from taxiway.results import failed_result
from taxiway.stop import Stop
from taxiway_airflow.connections import build_ports, taxiway_home

__all__ = ["execute", "results_of"]

log = logging.getLogger("taxiway.stage")

_FAULTS = 5


def execute(plan: Plan, stage_id: str, context: Context, stop: Stop) -> dict[str, Any]:
    """Run the stage and return its Result as JSON.

    A skipped stage hands its Result on before it raises AirflowSkipException; one that failed or was stopped leaves a
    Result with outcome `failed` or `cancelled` for people to read. What another try cannot mend becomes AirflowFailException.
    """
    ti = context["ti"]
    try:
        result = _run(plan, stage_id, context, stop)
    except TaxiwayError as error:
        _leave(ti, error)
        _end(error)
    data = result.model_dump(mode="json")
    if result.outcome == "skipped":
        ti.xcom_push("return_value", data)
        raise AirflowSkipException(result.summary)
    return data


def _run(plan: Plan, stage_id: str, context: Context, stop: Stop) -> Result:
    ti, dag_run = context["ti"], context["dag_run"]
    run = stage.run_key(plan.pipeline, dag_run.run_id)
    started = (dag_run.start_date or dag_run.run_after or datetime.now(UTC)).astimezone(UTC)
    params = dict(context["params"])
    ports = build_ports(plan, run=run, params=params, started=dag_run.run_after or started, stage=plan.stage(stage_id), stop=stop)
    attempt = stage.RunContext(
        run=run,
        attempt=ti.try_number,
        params=params,
        results=results_of(ti, _before(plan, stage_id)),
        started=started,
        memory=context["task_state_store"],
        scratch=taxiway_home().checkouts,
        generation=str(ti.max_tries),
        last=ti.try_number > ti.max_tries,
        run_id=dag_run.run_id,
        created=dag_run.run_after,
        version=_bundle_version(ti),
    )
    with closing(ports.models) if ports.models else nullcontext():
        return stage.run(plan, stage_id, attempt, ports=ports, agents=registry(), stop=stop, log=log)


def _bundle_version(ti: Any) -> str:
    """Of the pipelines that the run executes; "" where Airflow has no versions of them."""
    return ti.bundle_instance.version or ""


def results_of(ti: Any, names: Iterable[str]) -> dict[str, Result]:
    """The Results that stages of this run left; stages without one are absent."""
    results = {}
    for name in names:
        data = ti.xcom_pull(task_ids=name, map_indexes=-1)
        if data is None:
            continue
        try:
            results[name] = Result.model_validate_json(json.dumps(data))
        except ValidationError as error:
            # Nothing of it is passed over: what this version does not know may be what a gate or a merge depends on.
            faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:_FAULTS])
            raise OperatorError(
                f"the result of stage {name} cannot be read by Taxiway {__version__} on this worker: {faults}",
                hint="another version wrote it: install the same Taxiway on all workers, then clear this stage; one that is to be"
                " older than that begins with a new run",
            ) from error
    return results


def _before(plan: Plan, stage_id: str) -> list[str]:
    """Every stage that runs before, in the plan's order."""
    found: set[str] = set()
    todo = [stage_id]
    while todo:
        for need in plan.stage(todo.pop()).needs:
            if need not in found:
                found.add(need)
                todo.append(need)
    return [s.id for s in plan.stages if s.id in found]


def _leave(ti: Any, error: TaxiwayError) -> None:
    """Hand the failed Result on; whatever goes wrong with that must not hide the failure itself."""
    try:
        ti.xcom_push("return_value", failed_result(error).model_dump(mode="json"))
    except Exception:
        log.exception("The result of the failed stage could not be handed on.")


def _end(error: TaxiwayError) -> NoReturn:
    """Airflow's word for the error. Its traceback stops here: the text says where, what, and what to do."""
    text = f"{type(error).__name__}: {error}"
    if error.retryable or isinstance(error, Cancelled):
        raise AirflowException(text) from None
    raise AirflowFailException(text) from None
