"""An embedded Airflow for a bench, without the maintenance DAGs: their runs would fall into what is measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taxiway.home import Home
from taxiway.integrations.airflow_rest import AirflowClient, Credentials
from taxiway.integrations.airflow_server import AirflowServer


def bundle(folder: Path) -> dict[str, Any]:
    """The pipelines of `folder/pipelines`, as Taxiway configures them but for maintenance."""
    kwargs = {"source": str(folder / "pipelines"), "home": str(folder / "home"), "refresh_interval": 2, "maintenance": False}
    return {"name": "pipelines", "classpath": "taxiway_airflow.bundle.PipelineBundle", "kwargs": kwargs}


@contextmanager
def serving(folder: Path, bundles: Sequence[Mapping[str, Any]], environ: Mapping[str, str]) -> Iterator[tuple[AirflowClient, float]]:
    """A client of a fresh Airflow, and the seconds that it took to come up."""
    settings = {"dag_processor": {"dag_bundle_config_list": json.dumps(bundles)}}
    server = AirflowServer(Home(folder / "home"), folder / "pipelines", settings=settings, environ=environ)
    with server.running() as running, AirflowClient(running.url, Credentials("", running.username, running.password)) as client:
        yield client, running.seconds
