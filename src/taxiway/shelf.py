"""The folders of one attempt, gone afterwards, and what of them is kept in the artifact store."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taxiway.errors import TaxiwayError
from taxiway.ports import ArtifactStore

__all__ = ["Shelf"]

_REPORTS_LIMIT = 200
_REPORT_BYTES = 50_000_000


class Shelf:
    """`key` is what all artifacts of the attempt have in front, `scratch` where its folders are made, `name` how they begin."""

    def __init__(self, store: ArtifactStore, *, key: str, scratch: Path, name: str, log: logging.Logger) -> None:
        self._store, self._key, self._scratch, self._name, self._log = store, key, scratch, name, log
        self._names: list[str] = []

    @contextmanager
    def folders(self) -> Iterator[tuple[Path, Path]]:
        """A fresh checkout folder and a fresh report folder, gone afterwards, whatever happens."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{self._name}-", dir=self._scratch))
        try:
            for name in ("checkout", "reports"):
                (folder / name).mkdir()
            yield folder / "checkout", folder / "reports"
        finally:
            try:
                _remove(folder)
            except OSError as error:  # what the attempt came to matters more than what it left
                self._log.warning("%s could not be removed: %s", folder, error)

    def store(self, reports: Path, log: bytes = b"") -> dict[str, str]:
        """Put every plain file of the report folder and the attempt's log into the artifact store, with the list of all that the
        attempt has there; what is left out is said in the log."""
        files = [p for p in sorted(reports.rglob("*")) if p.is_file() and not p.is_symlink()]
        kept = [p for p in files if p.stat().st_size <= _REPORT_BYTES][:_REPORTS_LIMIT]
        if left_out := len(files) - len(kept):
            self._log.warning("%d reports are too many or too large and were not kept", left_out)
        # A later stage may rewrite nothing of an earlier one: the key holds run, stage and attempt.
        for path in kept:
            self.put(path.relative_to(reports).as_posix(), path)
        if log:
            self.put("attempt.log", log)
        names = "\n".join(sorted(set(self._names)))
        return {"reports": self.put("index.txt", names.encode())} if names else {}

    def store_after_failure(self, reports: Path, log: bytes = b"") -> dict[str, str]:
        """The same, where a failure is told already and matters more than its reports."""
        try:
            return self.store(reports, log)
        except (TaxiwayError, OSError) as error:
            self._log.warning("the reports of this attempt could not be kept: %s", error)
            return {}

    def put(self, name: str, content: bytes | Path) -> str:
        """Keep one file of the attempt; its URI."""
        uri = self._store.put(f"{self._key}/{name}", content)
        self._names.append(name)
        return uri


def _remove(folder: Path) -> None:
    def writable_and_again(function: Any, path: str, _: Any) -> None:
        # A project may take its own write permission away, from folders as well.
        for place in (Path(path).parent, Path(path)):
            if not place.is_symlink():
                place.chmod(0o700)
        function(path)

    shutil.rmtree(folder, onerror=writable_and_again)
