"""What Taxiway adds to Airflow's web server. Loaded in every Airflow process, so it imports next to nothing."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from taxiway_airflow.links import PREFIX

__all__ = ["TaxiwayPlugin"]


class LazyApp:
    """An ASGI app that is built at its first request: schedulers and workers load plugins, but serve no pages."""

    def __init__(self) -> None:
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is None:
            from taxiway_airflow.ui import build_app  # noqa: PLC0415 - see the class

            self._app = build_app()
        await self._app(scope, receive, send)


def one_writer(app: Any) -> Any:
    """The middleware of `taxiway_airflow.writes`, imported where a server is built."""
    from taxiway_airflow.writes import OneWriter  # noqa: PLC0415 - see LazyApp

    return OneWriter(app)


class TaxiwayPlugin(AirflowPlugin):
    """Serves the artifacts of runs to people who may see the pipeline; lets requests that write to SQLite take turns."""

    name = "taxiway"
    fastapi_apps: list[Any] = [{"name": "Taxiway", "app": LazyApp(), "url_prefix": PREFIX}]  # noqa: RUF012 - as the base declares it
    fastapi_root_middlewares: list[Any] = [{"name": "Taxiway, one writer", "middleware": one_writer}]  # noqa: RUF012 - the same
