"""What a round left that people read later: copied by name and kind, within bounds; the folder is as hostile as the project."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from taxiway.agents.e2e.rounds import Round
from taxiway.agents.validate.check import Context
from taxiway.agents.validate.files import list_files
from taxiway.agents.validate.servers import LOGS as SERVER_LOGS
from taxiway.errors import ProjectError
from taxiway.manifest import read_inside

__all__ = ["keep_round"]

_LOGS = ("junit.xml", "tests.log", "app.log", *SERVER_LOGS)
_KINDS = (".png", ".webm", ".zip")
_FILE_BYTES = 25_000_000
_ALL_BYTES = 150_000_000
_FILES, _FILES_OF_A_RETRY = 100, 12
_DEPTH = 3


def keep_round(context: Context, done: Round, folder: str) -> None:
    """Copy logs and what Playwright kept of tests into `folder` of the reports; say what is left out."""
    into = context.reports / folder
    into.mkdir(exist_ok=True)
    for name in _LOGS:
        _copy(done.folder, name, into / name, _FILE_BYTES)
    room, kept = _ALL_BYTES, 0
    found = [p for p in list_files(done.folder / "output") if PurePosixPath(p).suffix in _KINDS and p.count("/") < _DEPTH]
    for path in found[: _FILES_OF_A_RETRY if folder else _FILES]:
        size = _copy(done.folder / "output", path, into / "tests" / path, min(room, _FILE_BYTES))
        room, kept = room - size, kept + (size > 0)
    if left_out := len(found) - kept:
        context.log.warning("%d traces, pictures or videos are too many or too large and were not kept", left_out)


def _copy(root: Path, path: str, into: Path, limit: int) -> int:
    """Bytes that were copied; 0 where there is no such plain file within the limit."""
    try:
        content = read_inside(root, path, limit=limit)
    except ProjectError:
        return 0
    into.parent.mkdir(parents=True, exist_ok=True)
    into.write_bytes(content)
    return len(content)
