"""`run --record` and `--replay`: which folder the models' traffic of a run goes to, or comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from taxiway.cli.project import Project
from taxiway.errors import InputError, OperatorError
from taxiway.integrations.airflow_state import read_state
from taxiway.integrations.cassettes import check_recorded
from taxiway.integrations.claude import RECORD_VARIABLE, REPLAY_VARIABLE

__all__ = ["refuse_running", "tape"]


def tape(record: Path | None, replay: Path | None, *, elsewhere: bool, keep: bool) -> Mapping[str, str]:
    """The variables that tell Airflow's workers of it, {} for neither; raise InputError where it cannot work."""
    if record is None and replay is None:
        return {}
    if record is not None and replay is not None:
        raise InputError("a run is recorded or replayed, not both", hint="give --record or --replay")
    option = "--record" if record is not None else "--replay"
    if elsewhere:
        hint = f"there, set {RECORD_VARIABLE} or {REPLAY_VARIABLE} for the workers"
        raise InputError(f"{option} is for the Airflow that `taxiway run` starts, not for one elsewhere", hint=hint)
    if keep:
        raise InputError(f"{option} is for one run, and --keep-airflow would keep it for the next", hint="leave one of the two out")
    if record is not None:
        return {RECORD_VARIABLE: str(_writable(record))}
    return {REPLAY_VARIABLE: str(_recorded(Path(replay or "")))}


def refuse_running(tapes: Mapping[str, str], project: Project) -> None:
    """Raise InputError where an Airflow runs already: its workers were told nothing of a folder."""
    state = read_state(project.home) if tapes else None
    if state and state.running:
        hint = "`taxiway down` stops it; `run` then starts one of its own"
        raise InputError(f"an Airflow runs already at {state.url}, and does not know of the recording", hint=hint)


def _writable(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is no folder", hint="name one for the recorded answers; it is made where there is none")
    return folder.resolve()


def _recorded(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"nothing is recorded in {folder}", hint="`taxiway run PIPELINE --record DIR` records a run")
    try:
        check_recorded(folder)
    except OperatorError as error:
        raise InputError(error.problem, hint=error.hint) from error
    return folder.resolve()
