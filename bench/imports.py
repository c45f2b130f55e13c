"""What our packages add to Airflow's own imports, in the processes where they are imported.

.venv/bin/python bench/imports.py [--quick] [--rounds N]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from measuring import Section, against, asked, done, spread

# What Airflow has imported by itself where it comes to ours: nothing that it would have imported anyway counts as ours.
BASE = """
import gc, time
began = time.process_time()
import airflow.dag_processing.manager, airflow.dag_processing.processor, airflow.sdk.execution_time.task_runner
from airflow.sdk import DAG, Asset, BaseOperator, CronTriggerTimetable, Param, TaskGroup, TriggerRule, WeightRule
from airflow.providers.standard.operators.bash import BashOperator
gc.collect()
gc.disable()
middle = time.process_time()
import {modules}
print(middle - began, time.process_time() - middle)
"""
"""The collector is off for ours: a round over Airflow's objects takes 0.1 s, and falls to whoever allocates next."""
GOAL = 0.1
PLACES = {
    "a DAG is parsed (every fork of the dag-processor, every task)": ("taxiway_airflow.dag", GOAL),
    "the bundle is made (dag-processor, API server, worker)": ("taxiway_airflow.bundle", GOAL),
    "both": ("taxiway_airflow.bundle, taxiway_airflow.dag", GOAL),
    "a stage runs (worker)": ("taxiway_airflow.running", 0.0),
    "specs are compiled (dag-processor, once)": ("taxiway.agents, taxiway.compiler.files", 0.0),
}


def cost(modules: str, folder: str) -> tuple[float, float]:
    """CPU seconds of Airflow's imports and of ours, in a fresh process."""
    environ = {**os.environ, "AIRFLOW_HOME": folder, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    argv = [sys.executable, "-c", BASE.format(modules=modules)]
    ended = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True)
    theirs, ours = map(float, ended.stdout.split()[-2:])
    return theirs, ours


def main() -> None:
    """Measure and print."""
    given = asked(__doc__ or "", rounds=7)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in PLACES}
    with tempfile.TemporaryDirectory(prefix="taxiway-bench-") as folder:
        for turn in range(given.rounds + 1):
            for name, (modules, _) in PLACES.items():
                measured = cost(modules, folder)
                found[name] += [measured] if turn or given.quick else []  # the first one writes bytecode
    section = Section("Importing our packages")
    section.say(
        f"CPU time in a fresh process, garbage collector off, after what Airflow imports there by itself; {given.rounds} repetitions."
    )
    rows = []
    for name, times in found.items():
        ours, goal = [b for _, b in times], PLACES[name][1]
        rows.append([name, spread(ours, "ms", scale=1000, digits=0), against(goal, ours).replace("<=", "s <=") if goal else ""])
    section.table(["where", "ours", "goal"], rows)
    section.say(f"Airflow's own: {spread([a for times in found.values() for a, _ in times])}.")
    done(section, given)


if __name__ == "__main__":
    main()
