"""Work in a forked child, as Airflow's dag-processor and LocalExecutor do theirs, timed in the processor's time."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def prepare(folder: Path) -> None:
    """Give this process an Airflow of its own; before anything imports Airflow."""
    os.environ["AIRFLOW_HOME"] = str(folder / "airflow")
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
    if "airflow" in sys.modules:
        raise RuntimeError("Airflow is imported already")


def forked(work: Callable[[], T]) -> tuple[float, T]:
    """What `work` returns in a child of its own, and the seconds of CPU that it took there; the fork itself is not counted."""
    with tempfile.TemporaryFile() as answer:
        child = os.fork()
        if child == 0:
            try:
                began = time.process_time()
                found = work()
                pickle.dump((time.process_time() - began, found), answer)
                answer.flush()
                os._exit(0)
            except BaseException:  # noqa: BLE001 - a child never returns into its parent's code
                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if status:
            raise RuntimeError("the child failed, see above")
        answer.seek(0)
        seconds, found = pickle.load(answer)
        return seconds, found


class NoPools:
    """Airflow's pools as a process without a database sees them."""

    def names(self) -> None:
        """They are not known."""

    def make(self, name: str, slots: int) -> None:
        """Never asked."""
