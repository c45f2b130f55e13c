"""What failed stages left, as files that a model can read beside the code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

from taxiway.agents.base import StageAttempt
from taxiway.agents.masking import Mask
from taxiway.errors import TaxiwayError
from taxiway.ports import ArtifactStore
from taxiway.records import Result

__all__ = ["Material", "gather"]

_FOLDER = "taxiway-evidence"
_KINDS = (".log", ".md", ".json", ".txt", ".xml", ".diff", ".sarif")
_FIRST = ("attempt.log", "evidence.md", "gates.json")
_MOST_FILES = 60
_MOST_CHARS = 300_000
_END = 8_000


@dataclass(frozen=True)
class Material:
    """`stages` are those that failed, `files` what they left, from the root of the checkout, `told` the shortest account of it."""

    stages: tuple[str, ...]
    files: tuple[str, ...]
    told: str


def gather(stage: StageAttempt, artifacts: ArtifactStore, mask: Mask) -> Material:
    """Write what the covered stages left into a folder of the checkout that the project does not have, secrets masked."""
    folder = _FOLDER
    while (stage.checkout / folder).exists() or (stage.checkout / folder).is_symlink():
        folder += "-"
    # One that left no result was killed, or waited for another that failed.
    known = {name: stage.results.get(name) for name in stage.covers}
    failed = {n: r for n, r in known.items() if r is not None and r.outcome in ("failed", "cancelled")}
    silent = [n for n, r in known.items() if r is None]
    files, told = list[str](), list[str]()
    for name, result in failed.items():
        texts = {"failure.json": result.model_dump_json(indent=2), **dict(_texts(result, artifacts, stage))}
        for path, text in texts.items():
            place = stage.checkout / folder / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(mask.text(text), encoding="utf-8", errors="replace")
            files.append(f"{folder}/{name}/{path}")
        told.append(_told(name, result, texts.get("attempt.log", "")))
    if silent:
        told.append(f"These left no result; they were killed, or never began: {', '.join(silent)}")
    return Material(tuple(failed) or tuple(silent), tuple(files), "\n\n".join(told))


def _texts(result: Result, artifacts: ArtifactStore, stage: StageAttempt) -> Iterator[tuple[str, str]]:
    """Name -> text of the reports that are for people or tools; a model's own conversations are no evidence."""
    index = result.artifacts.get("reports", "")
    try:
        names = artifacts.get(index).decode("utf-8", "replace").splitlines() if index else []
    except TaxiwayError as error:
        stage.log.warning("the reports cannot be read: %s", error.problem)
        return
    wanted = [n for n in dict.fromkeys(names) if PurePosixPath(n).suffix in _KINDS and _plain(n)]
    for name in sorted(wanted, key=lambda n: (n not in _FIRST, n))[:_MOST_FILES]:
        try:
            text = artifacts.get(f"{index.rpartition('/')[0]}/{quote(name)}").decode("utf-8", "replace")
        except TaxiwayError as error:
            stage.log.warning("%s cannot be read: %s", name, error.problem)
            continue
        if "\0" not in text:
            yield name, text[-_MOST_CHARS:]


def _plain(name: str) -> bool:
    return not name.startswith("/") and not any(part in ("", ".", "..") for part in name.split("/"))


def _told(name: str, result: Result, log: str) -> str:
    gates = [
        f"{r.metric} {r.wanted}: {'not measured' if r.measured is None else format(r.measured, 'g')}" for r in result.gates if not r.passed
    ]
    parts = [f"Stage {name} {result.outcome}: {result.summary}", *(f"gate not passed: {gate}" for gate in gates)]
    return "\n".join([*parts, "The end of its log:", log[-_END:] or "(no log)"])
