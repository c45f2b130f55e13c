"""The signed record of a test run, checked before a word of it is believed."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taxiway.agents.validate.check import NotMeasured, read_report

__all__ = ["Record", "read_events", "read_record"]


@dataclass
class Record:
    """What the record says: every test that was collected with its key in the source, and how each one ended. `foreign` are those
    that run by another function than one of their file."""

    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)
    outcomes: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    skipped_files: set[str] = field(default_factory=set)
    tampered: list[str] = field(default_factory=list)
    shadowed: set[str] = field(default_factory=set)
    others: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    code: int = -1

    def count(self, outcome: str) -> int:
        """How many tests ended so."""
        return Counter(self.outcomes.values())[outcome]


def read_record(folder: Path, key: bytes) -> Record:
    """The record, whole and unchanged, of a run that ended; raise NotMeasured for anything less."""
    record = Record()
    for kind, data in read_events(folder, "events", key):
        if kind == "end":
            record.code = data["code"]
            _same_files(folder, data["digests"])
        else:
            _note(record, kind, data)
    return record


def read_events(folder: Path, name: str, key: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Every event of a signed file, the last one being `end`; raise NotMeasured where it is not whole or was changed."""
    events: list[tuple[str, dict[str, Any]]] = []
    before = b""
    for line in read_report(folder, name).splitlines():
        text, _, mac = line.rpartition(b"\t")
        ended = bool(events) and events[-1][0] == "end"
        if ended or not hmac.compare_digest(hmac.digest(key, before + text, "sha256").hex().encode(), mac):
            raise NotMeasured("the record of the test run was changed")
        before = mac
        kind, data = json.loads(text)
        events.append((kind, data))
    if not events or events[-1][0] != "end":
        raise NotMeasured("the test run stopped before its end")
    return events


def _same_files(folder: Path, digests: dict[str, str]) -> None:
    for name, digest in digests.items():
        if not digest:
            raise NotMeasured(f"the test run wrote no {name}")
        if hashlib.sha256(read_report(folder, name)).hexdigest() != digest:
            raise NotMeasured(f"{name} was changed after the test run")


def _note(record: Record, kind: str, data: dict[str, Any]) -> None:
    if kind == "item":
        record.keys[data["id"]] = tuple(data["key"])
        if not data["own"]:
            record.foreign.add(data["id"])
    elif kind == "test":
        if data["id"] in record.outcomes:
            record.tampered.append(f"{data['id']} ran twice")
        if data["id"] not in record.keys:
            record.tampered.append(f"{data['id']} ran and was never collected")
        record.outcomes[data["id"]] = data["outcome"]
        record.texts[data["id"]] = data["text"]
    elif kind == "file":
        if data["outcome"] == "skipped":
            record.skipped_files.add(data["id"])
        else:
            record.broken[data["id"]] = data["text"]
    elif kind == "shadowed":
        record.shadowed.add(data["name"])
    elif kind == "tampered":
        record.tampered.append(data["what"])
    else:
        record.others.append((kind, data))
