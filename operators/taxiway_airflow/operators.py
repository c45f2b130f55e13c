"""The operator behind every stage. It only translates: Airflow's context in, one call of the engine, small JSON out."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator, Context

from taxiway.compiler.plan import Plan
from taxiway.stop import Stop
from taxiway_airflow.links import ConversationLink, ReportsLink, ServiceLink

__all__ = ["StageOperator"]


class StageOperator(BaseOperator):
    """Runs stage `stage_id` of `plan`; returns its Result as JSON (XCom `return_value`).

    `with` is no template field on purpose: Taxiway renders it, see docs/adr/0005-our-own-rendering.md.
    """

    template_fields = ()
    operator_extra_links = (ReportsLink(), ConversationLink(), ServiceLink())
    ui_color = "#e8f0fe"

    def __init__(self, *, plan: Plan, stage_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage_id = stage_id
        self._plan = plan
        self._stop = Stop()

    @property
    def custom_operator_name(self) -> str:
        """The agent's name, as the UI shows it."""
        return self._plan.stage(self.stage_id).agent.capitalize()

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the stage; see `taxiway_airflow.running.execute` for how errors become Airflow's."""
        # Imported here: a DAG is parsed far more often than a stage runs.
        from taxiway_airflow.running import execute  # noqa: PLC0415

        return execute(self._plan, self.stage_id, context, self._stop)

    def on_kill(self) -> None:
        """Called in the signal handler, and returns into `execute`: only ask the attempt to end."""
        self._stop.cancel()
