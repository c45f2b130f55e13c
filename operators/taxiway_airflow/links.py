"""Links on a task in the Airflow UI, and where the artifacts of a run lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import attrs
from airflow.configuration import conf
from airflow.sdk import BaseOperatorLink

__all__ = ["PREFIX", "ConversationLink", "ReportsLink", "ServiceLink", "artifact_key", "artifacts_url"]

PREFIX = "/taxiway"
"""Where the plugin's routes are mounted on the API server."""


def artifact_key(pipeline: str, run_id: str, stage: str, attempt: int | None = None) -> str:
    """The artifact store's key of a stage of a run, or of one attempt, as `taxiway.stage` makes it."""
    from taxiway.stage import run_key  # noqa: PLC0415 - every Airflow process loads this module with the plugin

    key = f"{pipeline}/{run_key(pipeline, run_id)}/{stage}"
    return key if attempt is None else f"{key}/{attempt}"


def artifacts_url(key: str) -> str:
    """The page of a key on the API server, as a path that the browser resolves against where it is."""
    base = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    return f"{base}{PREFIX}/artifacts/{quote(key)}/"


@attrs.define()
class ReportsLink(BaseOperatorLink):
    """Reports and logs of all attempts of the task."""

    @property
    def name(self) -> str:
        """The button's text."""
        return "Reports"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        """The task's page of artifacts; Airflow stores it when the task ends, well or badly."""
        return artifacts_url(artifact_key(ti_key.dag_id, ti_key.run_id, ti_key.task_id))


@attrs.define()
class ConversationLink(BaseOperatorLink):
    """What a stage's last try said to a model, and the model to it."""

    @property
    def name(self) -> str:
        """The button's text."""
        return "Conversation"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        """The page of the try's conversation, or of its reports where there are several; empty (no button) where there is none."""
        key = artifact_key(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.try_number)
        pages = _conversations(key)
        if len(pages) == 1:
            return artifacts_url(f"{key}/{pages[0]}").rstrip("/")
        return artifacts_url(key) if pages else ""


def _conversations(key: str) -> list[str]:
    """The pages among an attempt's artifacts that show a conversation: those beside a file of its entries."""
    from taxiway.errors import TaxiwayError  # noqa: PLC0415 - as above
    from taxiway.home import find_home  # noqa: PLC0415

    try:
        folder = find_home(Path.cwd(), os.environ).artifacts / key
        return sorted(page.name for page in folder.glob("*.html") if page.with_suffix(".jsonl").is_file())
    except (TaxiwayError, OSError):
        return []


@attrs.define()
class ServiceLink(BaseOperatorLink):
    """The service that a stage made live."""

    @property
    def name(self) -> str:
        """The button's text."""
        return "Service"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        """The `url` among the Result's outputs; empty (no button) where there is none."""
        result = ti_key.xcom_pull(task_ids=ti_key.task_id)
        outputs = result.get("outputs") if isinstance(result, dict) else None
        url = outputs.get("url") if isinstance(outputs, dict) else None
        return url if isinstance(url, str) and url.startswith(("http://", "https://")) else ""
