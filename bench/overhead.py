"""What a stage costs over a BashOperator task: chains of seven on one real Airflow, in turn.

.venv/bin/python bench/overhead.py [--quick] [--rounds N]
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

from embedded import bundle, serving
from measuring import Section, asked, done, ratios, spread

from taxiway.integrations.airflow_rest import AirflowClient

STAGES = 7
AGENTS = Path(__file__).parents[1] / "tests" / "airflow" / "agents"

PEER = f"""from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, chain

with DAG("peer", schedule=None):
    chain(*[BashOperator(task_id=f"t{{i}}", bash_command="true") for i in range({STAGES})])
"""


def pipeline(name: str) -> str:
    """A pipeline of stages that measure one number each."""
    return f"pipeline: {name}\nstages:\n" + "".join(f"  s{i}: {{agent: probe}}\n" for i in range(STAGES))


def chain(client: AirflowClient, dag: str) -> float:
    """Seconds from the first task's start to the run's end, as Airflow recorded them."""
    run = client.trigger(dag, {})
    ended = client.wait(dag, run.id, timeout_s=300)
    if ended.state != "success":
        raise SystemExit(f"{dag} ended {ended.state}")
    return ended.ended - ended.started


def main() -> None:
    """Chains in turn: peer, ours, peer, ours; the first pair warms up and is not counted."""
    given = asked(__doc__ or "", rounds=7)
    with tempfile.TemporaryDirectory(prefix="taxiway-bench-") as name:
        folder = Path(name)
        (folder / "pipelines").mkdir()
        (folder / "peers").mkdir()
        (folder / "peers" / "peer.py").write_text(PEER)
        (folder / "pipelines" / "ours.yaml").write_text(pipeline("ours"))
        peers = {
            "name": "peers",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(folder / "peers"), "refresh_interval": 2},
        }
        environ = {**os.environ, "PYTHONPATH": str(AGENTS)}
        with serving(folder, [bundle(folder), peers], environ) as (client, _):
            for dag in ("peer", "ours"):
                client.wait_for_dag(dag)
            pairs = [(chain(client, "peer"), chain(client, "ours")) for _ in range(given.rounds + 1)][1:]
    peer, ours = [a for a, _ in pairs], [b for _, b in pairs]
    section = Section("Running a stage")
    section.say(
        f"A chain of {STAGES} stages that measure one number each, against {STAGES} `BashOperator(bash_command='true')` on the same "
        f"Airflow (SQLite, LocalExecutor), in turn; {given.rounds} repetitions. Ours has the task `outcome` more. Each stage checks out "
        "its commit, holds its lease, evaluates its gates and stores its reports."
    )
    extra = (statistics.median(ours) / (STAGES + 1) - statistics.median(peer) / STAGES) * 1000
    head = ["BashOperator chain", "stages", "ratio", "per task more"]
    section.table(head, [[spread(peer), spread(ours), spread(ratios(ours, peer), ""), f"{extra:.0f} ms"]])
    done(section, given)


if __name__ == "__main__":
    main()
