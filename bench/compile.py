"""What the dag-processor does with N pipelines of seven stages, against hand-written DAG files and dag-factory.

    .venv/bin/python bench/compile.py [--quick] [--rounds N]

Each file is parsed and serialised by Airflow's own `_parse_file` in a fork of its own; seconds are CPU time in the fork. dag-factory is
installed into a folder that is thrown away; without an index it is left out.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import specs
from forked import NoPools, forked, prepare
from measuring import Section, against, asked, done, ratios, spread

PEER = "dag-factory==1.1.0"
PEER_MOST = 100
"""Above this its ratio stays the same, and the bench would take three times as long."""


def install_peer(folder: Path) -> str:
    """Put dag-factory on this process's path; what went wrong, or ""."""
    from taxiway.integrations.indexes import uv_binary, uv_environment  # noqa: PLC0415 - what is measured must not find it imported

    argv = [uv_binary(), "pip", "install", "--quiet", "--python", sys.executable, "--target", str(folder), "--no-deps", PEER]
    ended = subprocess.run(argv, env=uv_environment(os.environ), capture_output=True, text=True, check=False)
    sys.path.append(str(folder))
    return "" if ended.returncode == 0 else (ended.stderr.strip().splitlines() or ["no reason"])[-1]


def parse(file: Path) -> int:
    """Parse and serialise; the number of DAGs. Raises where there is an import error."""
    import structlog  # noqa: PLC0415 - in the fork
    from airflow.dag_processing.processor import DagFileParseRequest, _parse_file  # noqa: PLC0415 - in the fork

    found = _parse_file(DagFileParseRequest(file=str(file), bundle_path=file.parent, bundle_name="bench"), structlog.get_logger())
    if found is None or found.import_errors or len(found.serialized_dags) != 1:
        raise RuntimeError(f"{file.name}: {found.import_errors if found else 'nothing'}")
    return len(found.serialized_dags)


def parsed(folder: Path) -> float:
    """CPU seconds for every module of a folder, each in a fork that has what the dag-processor imports beforehand."""
    import structlog  # noqa: PLC0415 - as below
    from airflow.dag_processing.processor import _pre_import_airflow_modules  # noqa: PLC0415 - once `prepare` has set up Airflow

    total = 0.0
    for file in sorted(folder.glob("*.py")):
        _pre_import_airflow_modules(str(file), structlog.get_logger())
        total += forked(functools.partial(parse, file))[0]
    return total


def refreshed(source: Path, place: Path, change: Callable[[], None] = lambda: None) -> tuple[float, float, Path]:
    """CPU seconds of the bundle's first refresh and of one after `change`, and where the modules are."""
    from taxiway_airflow.bundle import PipelineBundle  # noqa: PLC0415 - its import is part of a first refresh

    bundle = PipelineBundle(
        name="bench", source=str(source), home=str(place), store=str(place / "store"), pools=NoPools(), maintenance=False
    )
    began = time.process_time()
    bundle.refresh()
    middle = time.process_time()
    change()
    between = time.process_time()
    bundle.refresh()
    return middle - began, time.process_time() - between, bundle.path


def measure(count: int, rounds: int, folder: Path, peer: bool) -> dict[str, list[float]]:
    """Seconds by what was measured, in turn."""
    specs.specs(folder / "pipelines", count)
    specs.dags(folder / "dags", count)
    specs.factory(folder / "factory", count)
    found: dict[str, list[float]] = {name: [] for name in ("hand", "refresh", "ours", "again", "peer")}
    for i in range(rounds):
        found["hand"].append(parsed(folder / "dags"))
        place = folder / f"store-{i}"
        refresh, again, modules = forked(functools.partial(refreshed, folder / "pipelines", place))[1]
        found["refresh"].append(refresh)
        found["again"].append(again)
        found["ours"].append(parsed(modules))
        found["peer"] += [parsed(folder / "factory")] if peer else []
    return found


def main() -> None:
    """Measure and print."""
    given = asked(__doc__ or "", rounds=3)
    section = Section("Compiling pipelines")
    with tempfile.TemporaryDirectory(prefix="taxiway-bench-") as name:
        folder = Path(name)
        prepare(folder)
        import airflow.dag_processing.manager  # noqa: F401, PLC0415 - as the process that forks has done

        (folder / "none").mkdir()
        refreshed(folder / "none", folder / "none")  # it has refreshed its bundles too
        missing = install_peer(folder / "peer")
        rows = []
        for count, times in ((1, 1), (3, 1)) if given.quick else ((1, 10), (100, 1), (1000, 0)):
            rounds = max(1, given.rounds * times)
            found = measure(count, rounds, folder / str(count), peer=not missing and count <= PEER_MOST)
            compiled = ratios(found["ours"], found["hand"])
            first = ratios([a + b for a, b in zip(found["refresh"], found["ours"], strict=True)], found["hand"])
            rows.append(
                [
                    *(str(count), str(rounds), spread(found["hand"], "s", digits=3)),
                    *(spread(compiled, ""), against(1.1, compiled), spread(first, ""), against(1.3, first)),
                    spread(ratios(found["peer"], found["hand"]), "") if found["peer"] else "-",
                    spread(found["again"], "ms", scale=1000, digits=1),
                ]
            )
    section.say(
        "N pipelines of seven stages, parsed and serialised as the dag-processor does it: each module in a fork of its own by Airflow's "
        "own function; CPU time. The floor are hand-written DAG files of the same eight tasks with `BashOperator`, settings and edges "
        "alike. First compile is the bundle's first refresh, which imports the compiler and writes the modules, and their parse."
    )
    head = ["N", "repetitions", "floor", "modules / floor", "goal", "first compile / floor", "goal", f"{PEER} / floor", "next refresh"]
    section.table(head, rows)
    if missing:
        section.say(f"{PEER} could not be installed here, and is left out: {missing}")
    done(section, given)


if __name__ == "__main__":
    main()
