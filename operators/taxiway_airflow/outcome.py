"""The last task of every run: it writes the summary and decides whether the run succeeded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow.sdk import BaseOperator, Context, TriggerRule
from airflow.sdk.exceptions import AirflowFailException
from pydantic import ValidationError

from taxiway.compiler.plan import Plan
from taxiway.records import Result
from taxiway_airflow.links import ReportsLink, artifact_key
from taxiway_airflow.summary import StageEnd, as_json, as_markdown, as_table, failures

__all__ = ["OUTCOME", "OutcomeOperator", "Store", "store_at_home"]

OUTCOME = "outcome"
"""Its task id; no stage may take it."""

Store = Callable[[str, bytes], str]
"""Puts content under a key of the artifact store and returns its URI."""


def store_at_home(key: str, content: bytes) -> str:
    """Put into the artifact store of the Taxiway home."""
    # Imported here: a DAG is parsed far more often than a run ends.
    from taxiway_airflow.connections import artifact_store  # noqa: PLC0415

    return artifact_store().put(key, content)


class OutcomeOperator(BaseOperator):
    """Runs when every stage has ended, recoveries included; fails the run if any of them failed."""

    template_fields: Sequence[str] = ()
    operator_extra_links = (ReportsLink(),)

    def __init__(self, *, plan: Plan, store: Store = store_at_home, **options: Any) -> None:
        super().__init__(**{"retries": 0, "trigger_rule": TriggerRule.ALL_DONE, **options})
        self.plan = plan
        self.store = store
        self.custom_operator_name = "Outcome"

    def execute(self, context: Context) -> dict[str, str]:
        """URIs of the summary; raise AirflowFailException if a stage failed, or where its state cannot be known."""
        ti: Any = context["ti"]
        ends = self._ends(ti)
        failed = failures(ends)
        for line in as_table(ends):
            self.log.info("%s", line)
        uris: dict[str, str] = {}
        try:
            uris = self._write(ti, ends)
        except Exception:
            if not failed:
                raise
            # That the run failed must not be hidden by a full disk.
            self.log.exception("The summary could not be written.")
        if failed:
            raise AirflowFailException("the run failed: " + "; ".join(failed))
        return uris

    def _ends(self, ti: Any) -> list[StageEnd]:
        states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id]).get(ti.run_id, {})
        return [self._end(ti, stage.id, states) for stage in self.plan.stages]

    def _end(self, ti: Any, name: str, states: Mapping[str, Any]) -> StageEnd:
        stage = self.plan.stage(name)
        state = str(getattr(states.get(name), "value", states.get(name)) or "unknown")
        value = ti.xcom_pull(task_ids=name)
        try:
            # Through JSON: strict models take a list for a tuple only from there.
            result = None if value is None else Result.model_validate_json(json.dumps(value))
        except (ValidationError, TypeError, ValueError) as error:
            self.log.warning("The result of %s cannot be read: %s", name, error)
            result = None
        return StageEnd(stage.id, stage.agent, state, result)

    def _write(self, ti: Any, ends: Sequence[StageEnd]) -> dict[str, str]:
        key = artifact_key(ti.dag_id, ti.run_id, self.task_id, ti.try_number)
        written = {"summary.json": as_json(self.plan, ti.run_id, ends), "summary.md": as_markdown(self.plan, ti.run_id, ends)}
        uris = {name: self.store(f"{key}/{name}", text.encode("utf-8", "backslashreplace")) for name, text in written.items()}
        ti.xcom_push(key="summary", value=uris)
        return uris
