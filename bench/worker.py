"""What a worker does before a stage runs, where the bundle has 1000 pipelines and where it has one.

    .venv/bin/python bench/worker.py [--quick] [--rounds N]

The bundle of the run's version is initialised and the one module parsed, in a fork that has Airflow imported and nothing of ours.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

import specs
from forked import NoPools, forked, prepare
from measuring import Section, against, asked, done, ratios, spread


def publish(source: Path, place: Path) -> str:
    """Compile all of a folder; the version that a run would start with."""
    from taxiway_airflow.bundle import PipelineBundle  # noqa: PLC0415 - its import is part of what is measured

    bundle = PipelineBundle(
        name="bench", source=str(source), home=str(place), store=str(place / "store"), pools=NoPools(), maintenance=False
    )
    bundle.initialize()
    version = bundle.get_current_version()
    return version.version if version else ""


def start(place: Path, version: str) -> int:
    """What Airflow's task runner does with bundle and file; the number of DAGs found."""
    from airflow.dag_processing.dagbag import BundleDagBag  # noqa: PLC0415 - in the fork, after `prepare`

    from taxiway_airflow.bundle import PipelineBundle  # noqa: PLC0415 - its import is part of what is measured

    bundle = PipelineBundle(name="bench", source="nowhere", home=str(place), store=str(place / "store"), version=version)
    bundle.initialize()
    bag = BundleDagBag(dag_folder=str(bundle.path / "bench_0.py"), bundle_path=bundle.path, bundle_name="bench", load_op_links=False)
    if list(bag.dags) != ["bench_0"]:
        raise RuntimeError(f"found {list(bag.dags)}, {bag.import_errors}")
    return len(bag.dags)


def main() -> None:
    """Measure and print."""
    given = asked(__doc__ or "", rounds=20)
    many = 5 if given.quick else 1000
    with tempfile.TemporaryDirectory(prefix="taxiway-bench-") as name:
        folder = Path(name)
        prepare(folder)
        os.environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH"] = str(folder / "bundles")
        import airflow.dag_processing.dagbag  # noqa: PLC0415 - as the process that forks has done
        import airflow.sdk.execution_time.task_runner  # noqa: F401, PLC0415 - as above

        versions = {}
        for count in (1, many):
            specs.specs(folder / f"pipelines-{count}", count)
            versions[count] = forked(functools.partial(publish, folder / f"pipelines-{count}", folder / f"home-{count}"))[1]
        times: dict[int, list[float]] = {1: [], many: []}
        for _ in range(given.rounds + 1):
            for count, found in times.items():
                found.append(forked(functools.partial(start, folder / f"home-{count}", versions[count]))[0])
    one, all_of_them = times[1][1:], times[many][1:]
    section = Section("Starting a stage on a worker")
    section.say(
        f"Initialising the bundle with the run's version and parsing the one module, our imports included; CPU time, {given.rounds} "
        "repetitions in turn."
    )
    compared = ratios(all_of_them, one)
    head = ["pipelines in the bundle", "1", str(many), "ratio", "goal"]
    section.table(
        head, [["", spread(one, "ms", scale=1000), spread(all_of_them, "ms", scale=1000), spread(compared, ""), against(1.2, compared)]]
    )
    done(section, given)


if __name__ == "__main__":
    main()
