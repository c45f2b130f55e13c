"""A pipeline of one's own from a shipped example: its text with other answers in it, comments and all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from taxiway.agents import registry
from taxiway.cli.examples import policy_file
from taxiway.cli.params import read_params
from taxiway.compiler import Plan, compile_content
from taxiway.compiler.files import POLICIES, load_policies
from taxiway.errors import InputError, OperatorError
from taxiway.spec import PipelineSpec

__all__ = ["Draft", "Question", "as_answer", "write"]

_ID = re.compile(r"[a-z][a-z0-9_]{0,99}")
_SCHEMA_LINE = re.compile(r"\A# yaml-language-server: \$schema=(\S+)\n")
_TEXTS = ("description", "owner")


@dataclass(frozen=True)
class Question:
    """Something that a pipeline's author decides: `name` as `--set` takes it, the answer without one, and what checks another."""

    name: str
    about: str
    default: Any
    read: Callable[[str], Any]


class Draft:
    """An example, with the answers given so far."""

    def __init__(self, example: Path) -> None:
        self.example = example
        self._text = example.read_text(encoding="utf-8")
        self._data: dict[str, Any] = yaml.safe_load(self._text)
        self._answers: dict[tuple[str, ...], Any] = {}

    @property
    def pipeline(self) -> str:
        """The id, as answered or as the example has it."""
        return str(self._answers.get(("pipeline",), self._data["pipeline"]))

    @property
    def policy(self) -> str:
        """The policy that the example names; "" for none."""
        return str(self._data.get("policy") or "")

    def name(self, pipeline: str) -> None:
        """Give it an id, and a service that is called `name` the same one; raise InputError for one that cannot be."""
        if not _ID.fullmatch(pipeline):
            hint = "lower case letters, digits and _, beginning with a letter, as in web_service"
            raise InputError(f"{pipeline!r} is no id of a pipeline", hint=hint)
        self._answers["pipeline",] = pipeline
        if isinstance(self._data.get("params", {}).get("name"), dict) and pipeline != self._data["pipeline"]:
            try:
                self.answer(self._param("name"), pipeline.replace("_", "-"))
            except InputError:
                return  # another name than the pipeline's is needed: it stays as it is

    def questions(self) -> Iterator[Question]:
        """What may be answered besides the id, in the order of the file."""
        for name in _TEXTS:
            if name in self._data:
                yield Question(name, name, self._answers.get((name,), self._data[name]), _reader(name, _field(name)))
        for name, schema in (self._data.get("params") or {}).items():
            if "default" in schema:
                yield self._param(name)

    def question(self, name: str) -> Question:
        """The one of that name; raise InputError if there is none."""
        known = {q.name: q for q in self.questions()}
        if name not in known:
            raise InputError(f"--set {name}: the example asks no such thing", hint=f"it asks {', '.join(known)}")
        return known[name]

    def answer(self, question: Question, text: str) -> None:
        """Take an answer; raise InputError for one that does not fit."""
        place = (question.name,) if question.name in _TEXTS else ("params", question.name.removeprefix("params."), "default")
        self._answers[place] = question.read(text)

    def _param(self, name: str) -> Question:
        schema = self._data["params"][name]
        about = f"{schema.get('description') or name} (default of param {name})"
        now = self._answers.get(("params", name, "default"), schema["default"])
        called = f"params.{name}" if name in _TEXTS else name
        return Question(called, about, now, _reader(called, schema))

    def text(self, folder: Path) -> str:
        """The pipeline as text for a file in `folder`. What was not answered stands as in the example."""
        root = yaml.compose(self._text, Loader=yaml.SafeLoader)
        text = self._text
        # From the end, so that the places before stay where they are.
        for node, value in sorted(
            ((_find(root, place), v) for place, v in self._answers.items()), key=lambda pair: -pair[0].start_mark.index
        ):
            text = text[: node.start_mark.index] + _scalar(value) + text[node.end_mark.index :]
        return _for_editors(text, folder)


def _reader(called: str, schema: Mapping[str, Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        return read_params([f"{called}={text}"], {called: schema}, option="--set")[called]

    return read


def _field(name: str) -> Mapping[str, Any]:
    """What the pipeline's field of that name takes."""
    schema: Mapping[str, Any] = PipelineSpec.model_json_schema()["properties"][name]
    return {word: bound for word, bound in schema.items() if word not in ("description", "title")}


def write(draft: Draft, output: Path) -> tuple[list[Path], Plan]:
    """Write the pipeline, and the policy that it stands on where there is none; the files written, and its plan. Raises SpecError or
    InputError and writes nothing where that would be no good pipeline, or something is there already."""
    folder = output.parent
    text = draft.text(folder)
    policies, broken = load_policies(folder / POLICIES, registry())
    policy = policy_file(draft.example, draft.policy) if draft.policy and draft.policy not in policies else None
    files = {output: text}
    if policy and not broken:
        floor = _for_editors(policy.read_text(encoding="utf-8"), folder / POLICIES)
        files = {folder / POLICIES / policy.name: floor, output: text}
        policies |= load_policies(policy.parent, registry())[0]
    for path in files:
        if path.exists() or path.is_symlink():
            raise InputError(f"{path} is there already", hint="give another name, or another place with --output")
    plan = compile_content(text.encode(), str(output), registry(), policies, broken)
    for path, content in files.items():
        _place(path, content)
    return list(files), plan


def _for_editors(text: str, folder: Path) -> str:
    """The text without its line about the schema, where a file in `folder` would name one that is not there."""
    found = _SCHEMA_LINE.match(text)
    return text[found.end() :] if found and not Path(os.path.normpath(folder / found[1])).is_file() else text


def _place(path: Path, content: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError as error:
        raise InputError(f"{error.filename or path} is there already", hint="give another name, or another place with --output") from error
    except OSError as error:
        raise OperatorError(f"cannot write {path}: {error.strerror or error}", hint="mend the folder's rights, or use --output") from error


def _find(node: Any, place: tuple[str, ...]) -> Any:
    for key in place:
        node = next(value for name, value in node.value if name.value == key)
    return node


def _scalar(value: Any) -> str:
    """A value as it stands on one line of YAML, also within brackets."""
    return yaml.safe_dump([value], default_flow_style=True, width=2**31, allow_unicode=True).strip()[1:-1]


def as_answer(value: Any) -> str:
    """A default as somebody would type it."""
    return value if isinstance(value, str) else _scalar(value)
