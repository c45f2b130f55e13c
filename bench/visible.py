"""How long a saved file takes to be a DAG in REST where there are 1000 pipelines, and where there is one.

.venv/bin/python bench/visible.py [--quick] [--rounds N]
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import specs
from embedded import bundle, serving
from measuring import Section, asked, done, spread

from taxiway.integrations.airflow_rest import AirflowClient

ALL_S = 1200.0


def save(folder: Path, name: str) -> None:
    """Write a pipeline as an editor does, whole or not at all."""
    draft = folder / f".{name}.tmp"
    draft.write_text(specs.SPEC.format(name=name))
    draft.rename(folder / f"{name}.yaml")


def wait_for_all(client: AirflowClient, count: int) -> float:
    """Seconds until the last pipeline of the folder is a DAG."""
    began = time.monotonic()
    for i in range(count):
        client.wait_for_dag(f"bench_{i}", timeout_s=max(1.0, ALL_S - (time.monotonic() - began)))
    return time.monotonic() - began


def visible(client: AirflowClient, folder: Path, rounds: int) -> list[float]:
    """Seconds from saving a new pipeline to its DAG in REST, one after the other."""
    times = []
    for i in range(rounds):
        save(folder, f"new_{i}")
        began = time.monotonic()
        client.wait_for_dag(f"new_{i}", timeout_s=300)
        times.append(time.monotonic() - began)
    return times


def main() -> None:
    """Measure and print."""
    given = asked(__doc__ or "", rounds=7)
    rows = []
    for count in (1, 3) if given.quick else (1, 1000):
        with tempfile.TemporaryDirectory(prefix="taxiway-bench-") as name:
            folder = Path(name)
            specs.specs(folder / "pipelines", count)
            with serving(folder, [bundle(folder)], os.environ) as (client, up):
                first = wait_for_all(client, count)
                times = visible(client, folder / "pipelines", given.rounds)
        rows.append([str(count), f"{up:.0f} s", f"{first:.0f} s", spread(times, digits=1)])
    section = Section("From a saved file to a DAG")
    section.say(
        f"The embedded Airflow (SQLite, one parsing process, the folder looked at every 2 s), its first start included; {given.rounds} "
        "saved pipelines, one after the other, each until the REST API has its DAG."
    )
    section.table(["pipelines", "Airflow up", "then all of them visible", "a new one visible"], rows)
    done(section, given)


if __name__ == "__main__":
    main()
