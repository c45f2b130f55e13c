"""A model's traffic on disk: recorded once, replayed without a key, without cost, in any order.

A request is known by what it says, without what is different in every run (see `steady`): the reports of checks, which
models read, hold durations and folders. What looks like a credential is masked in both, a model's own words included.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from taxiway.agents.masking import Mask
from taxiway.errors import OperatorError
from taxiway.integrations.steady import steady
from taxiway.ports import Model, Reply, Usage

__all__ = ["RecordingModel", "ReplayedModel", "check_recorded"]

_FORMAT = 1
_SHOWN = 120
_MASK = Mask()
"""Known secrets are masked before a model is asked; what a model makes up itself only looks like one."""


class RecordingModel:
    """Asks another model and keeps every answer in `folder`, one file for each different request."""

    def __init__(self, model: Model, folder: Path) -> None:
        self._model, self._folder = model, folder

    @property
    def name(self) -> str:
        """The recorded model's."""
        return self._model.name

    def create(self, request: Mapping[str, Any], *, timeout_s: float) -> Reply:
        """Ask, and write the answer down; see `ports.Model`."""
        reply = self._model.create(request, timeout_s=timeout_s)
        data = {"format": _FORMAT, "asked": self.name, "request": _MASK.data(request), "reply": _MASK.data(asdict(reply))}
        path = self._folder / f"{_key(self.name, request)}.json"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Of its own: side by side, two stages may ask the same.
            part = path.with_suffix(f".{uuid4().hex}.part")
            part.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            part.replace(path)
        except OSError as error:
            raise OperatorError(
                f"the cassette {path} cannot be written: {error.strerror or error}", hint="make room, or record elsewhere"
            ) from error
        return reply


class ReplayedModel:
    """Answers from a folder that RecordingModel wrote. A request that is not in it is an error that says what differs, and where."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder

    @property
    def name(self) -> str:
        """The model that was asked when the answers were recorded."""
        return self._name

    def create(self, request: Mapping[str, Any], *, timeout_s: float) -> Reply:  # noqa: ARG002 - as in the port
        """The recorded answer to this very request; raise OperatorError where there is none: no other try and no repair finds one."""
        path = self._folder / f"{_key(self.name, request)}.json"
        if path.is_file():
            reply = _read(path)["reply"]
            return Reply(tuple(reply["content"]), reply["stop_reason"], reply["model"], Usage(**reply["usage"]), replayed=True)
        raise OperatorError(
            f"the replay has no recorded answer in {self._folder}: {self._difference(request)}",
            hint="the conversation changed: record it again, with `taxiway run PIPELINE --record DIR`, or take back what changed it",
        )

    def _difference(self, request: Mapping[str, Any]) -> str:
        """What keeps the nearest recorded request, the one that is equal for longest, from being this one."""
        best, found = -1, "nothing is recorded there"
        for path in sorted(self._folder.glob("*.json")):
            data = _read(path)
            if data["asked"] != self.name:
                found = f"{data['asked']} was asked then, {self.name} now" if best < 0 else found
                continue
            equal, text = _compare(steady(data["request"]), steady(_MASK.data(_plain(request))))
            if equal > best:
                best, found = equal, f"{text} (in {path.name})"
        return found


def check_recorded(folder: Path) -> None:
    """Raise OperatorError where the folder holds no recorded answer, or a file that is none."""
    found = sorted(folder.glob("*.json"))
    if not found:
        raise OperatorError(f"nothing is recorded in {folder}", hint="record a run into it: taxiway run PIPELINE --record DIR")
    for path in found:
        _read(path)


def _key(model: str, request: Mapping[str, Any]) -> str:
    # Masked first: a replay asks with the masked answers that it was given, and a part of a credential may look like an id.
    text = json.dumps({"model": model, "request": steady(_MASK.data(request))}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != _FORMAT:
            raise OperatorError(f"{path} has format {data['format']}; this Taxiway reads {_FORMAT}", hint="record it again")
        reply = data["reply"]
        Reply(tuple(reply["content"]), reply["stop_reason"], reply["model"], Usage(**reply["usage"]))
        dict(data["request"]), str(data["asked"])
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror or error}", hint="mend its rights") from error
    except (ValueError, KeyError, TypeError) as error:
        hint = "take it out of the folder, or record the run again: taxiway run PIPELINE --record DIR"
        raise OperatorError(f"{path} is no recorded answer", hint=hint) from error
    return dict(data)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _compare(recorded: Any, now: Any) -> tuple[int, str]:
    """How many leaves are equal before the first that differs, and that one: where, what was recorded, what is asked now."""
    equal = 0
    for (place, was), (other, is_) in zip(_leaves(recorded), _leaves(now), strict=False):
        if (place, was) != (other, is_):
            here = place if place == other else f"{place} (now {other})"
            return equal, f"{here} was {_short(was, is_)} and is {_short(is_, was)}"
        equal += 1
    return equal, "it goes on where the recorded conversation ends, or ends before"


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    # In the order in which a conversation grows: what stays the same first.
    order = {"system": 0, "tools": 1, "max_tokens": 2, "messages": 3}
    if isinstance(value, dict):
        for key in sorted(value, key=lambda k: (order.get(k, 1), k)):
            yield from _leaves(value[key], f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{place}[{index}]")
    else:
        yield place, value


def _short(value: Any, other: Any) -> str:
    """The value from shortly before it begins to differ."""
    text, against = json.dumps(value, ensure_ascii=False), json.dumps(other, ensure_ascii=False)
    same = next((i for i, (a, b) in enumerate(zip(text, against, strict=False)) if a != b), min(len(text), len(against)))
    start = max(0, same - 20)
    cut = text[start : start + _SHOWN]
    return f"{'...' if start else ''}{cut}{'...' if start + _SHOWN < len(text) else ''}"
