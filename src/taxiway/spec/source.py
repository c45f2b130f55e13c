"""YAML as data with positions: every mapping key and value knows its line and column. Nothing in the file is run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import yaml

from taxiway.agents.masking import Mask
from taxiway.errors import Position, Problem, SpecError
from taxiway.spec.words import show

__all__ = ["Entry", "Node", "Origin", "Report", "Source", "parse"]

MOST_BYTES = 1_048_576
MOST_NODES = 20_000
"""Values in a file once its aliases are expanded."""
MOST_DEPTH = 40
_MOST_PROBLEMS = 100
_LINE_SHOWN = 240

_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_MASK = Mask()
# What YAML does not allow; said the other way round, its pattern takes as long to make as twenty others.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\uffff]")
_CONTROL_IN_VALUE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,20})")
_FLOAT = re.compile(r"[-+]?[0-9][0-9_]{0,20}\.[0-9_]{0,20}(?:[eE][-+]?[0-9]{1,3})?")
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
# What YAML 1.1 and 1.2 read differently: we let nobody guess.
_AMBIGUOUS = "means different things to different YAML readers"
_PLAINLY = "quote it if it is text; else write true, false or a plain decimal number"
_MISREAD = (
    (re.compile(r"(?i:yes|no|on|off)"), _AMBIGUOUS, _PLAINLY),
    (
        re.compile(r"[-+]?(?:0[0-7_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+|[1-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?)"),
        _AMBIGUOUS,
        _PLAINLY,
    ),
    (re.compile(r"[-+]?[1-9][0-9_]{21,}"), "is too long a number", "quote it if it is text; else write at most 21 digits"),
)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Origin:
    """The template that a value comes from, its file, and where that was extended."""

    name: str
    path: str
    lines: Sequence[str]
    used: str


@dataclass(slots=True)
class Node:
    """A value: a scalar, a list of nodes, or a mapping of entries. `size` and `height` count what is below; `origin` is
    set where it stands in another file; of a `partial` mapping some keys could not be read."""

    line: int
    column: int
    value: Any
    size: int = 1
    height: int = 0
    origin: Origin | None = None
    partial: bool = False

    def plain(self) -> Any:
        """The value without positions."""
        value = self.value
        if isinstance(value, dict):
            return {key: entry.node.plain() for key, entry in value.items()}
        return [item.plain() for item in value] if isinstance(value, list) else value

    def get(self, key: str) -> Node | None:
        """The value below `key`; None if this is no mapping or has no such key."""
        entry = self.value.get(key) if isinstance(self.value, dict) else None
        return entry.node if entry else None

    def find(self, path: Iterable[str | int], *, key: bool = False) -> Node:
        """The deepest node on the path that exists, its key instead of its value with `key`. Parts that are in no
        mapping (pydantic's names of union branches) are passed over."""
        here, result = self, self
        for part in path:
            if isinstance(here.value, dict) and part in here.value:
                entry = here.value[part]
                here, result = entry.node, entry.key if key else entry.node
            elif isinstance(here.value, list) and isinstance(part, int) and part < len(here.value):
                here = result = here.value[part]
        return result


@dataclass(slots=True)
class Entry:
    """A key of a mapping and its value."""

    key: Node
    node: Node


class Report:
    """Collects the problems of one file."""

    def __init__(self, path: str, text: str = "") -> None:
        self.path = path
        self.lines: Sequence[str] = _BREAK.split(text)
        self.problems: list[Problem] = []
        self._unreadable: set[tuple[int, int]] = set()

    def unreadable(self, at: tuple[int, int], problem: str, *, rule: str, hint: str) -> None:
        """A value that stands for nothing: what else would be said of it is not, for it would follow from this."""
        self.add(at, problem, rule=rule, hint=hint)
        self._unreadable.add(at)

    def add(self, at: Node | tuple[int, int], problem: str, *, rule: str, hint: str = "") -> None:
        """One more problem, at a node or at (line, column); the same one twice is one."""
        line, column = (at.line, at.column) if isinstance(at, Node) else at
        path, lines = self.path, self.lines
        if isinstance(at, Node) and at.origin:
            path, lines, hint = at.origin.path, at.origin.lines, "; ".join(filter(None, [hint, at.origin.used]))
        elif (line, column) in self._unreadable:
            return
        text = lines[line - 1] if line <= len(lines) else ""
        text = _CONTROL.sub("\ufffd", _MASK.text(text))  # a terminal would obey it, and logs are read by many
        if len(text) > _LINE_SHOWN:
            text = text[:_LINE_SHOWN] if column <= _LINE_SHOWN else ""
        found = Problem(Position(path, line, column), _MASK.text(problem), hint, text, rule)
        if found not in self.problems and len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(found)

    def raise_if_any(self) -> None:
        """Raise SpecError with everything collected."""
        if self.problems:
            raise SpecError(self.problems)


@dataclass
class Source:
    """A parsed file."""

    root: Node
    report: Report


def parse(content: bytes, path: str, *, begin: str = "`pipeline: NAME` and `stages:`") -> Source:
    """Read one YAML document whose top is a mapping; raise SpecError where it is none, with a hint how such a file would `begin`.
    Problems that leave the rest readable (a duplicate key) are kept in the report."""
    text = _decode(content, path)
    report = Report(path, text)
    if found := _CONTROL.search(text):
        report.add(
            _place(text, found.start()),
            f"the character U+{ord(found.group()):04X} is not allowed",
            rule="control-character",
            hint="remove it; most editors show it only when asked to show invisible characters",
        )
        report.raise_if_any()
    root = _Composer(report).compose(text)
    if root is None or (root.value is None and root.size == 1):
        report.add((1, 1), "the file is empty", rule="empty", hint=f"start with {begin}")
    elif not isinstance(root.value, dict):
        report.add(root, "the file is not a mapping of keys to values", rule="wrong-type", hint=f"start with {begin}")
    else:
        return Source(root, report)
    raise SpecError(report.problems)


def _decode(content: bytes, path: str) -> str:
    report = Report(path)
    if len(content) > MOST_BYTES:
        report.add((1, 1), f"the file has more than {MOST_BYTES} bytes", rule="too-large", hint="split it up")
    else:
        try:
            return content.decode().removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            before = content[: error.start].decode()
            line, column = _place(before, len(before))
            report.lines = [""] * (line - 1) + [_BREAK.split(before)[-1]]
            report.add(
                (line, column),
                f"the file is not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start}",
                rule="not-utf-8",
                hint="save it as UTF-8",
            )
    raise SpecError(report.problems)


def _place(text: str, offset: int) -> tuple[int, int]:
    lines = _BREAK.split(text[:offset])
    return len(lines), len(lines[-1]) + 1


@dataclass(slots=True)
class _Open:
    """A collection that has begun and not ended."""

    node: Node
    anchor: str | None
    key: Node | None = None
    waiting: bool = False
    children: list[Node] = field(default_factory=list)


class _Composer:
    """Builds nodes from the parser's events, with a stack of its own: depth is counted, never recursed into."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.stack: list[_Open] = []
        self.anchors: dict[str, Node | None] = {}
        self.nodes = self.documents = 0
        self.root: Node | None = None

    def compose(self, text: str) -> Node | None:
        loader: Any = None
        try:
            loader = _LOADER(text)
            while not isinstance(event := loader.get_event(), yaml.StreamEndEvent):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            self._syntax(error)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            self.report.add((1, 1), f"the file is not valid YAML: {show(str(error))}", rule="yaml", hint="check it with an editor")
            raise SpecError(self.report.problems) from error
        finally:
            if loader is not None:
                loader.dispose()
        return self.root

    def _syntax(self, error: Any) -> None:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        text = self.report.lines[line - 1] if line <= len(self.report.lines) else ""
        margin = text[: len(text) - len(text.lstrip())]
        if "\t" in margin:
            self.report.add(
                (line, margin.index("\t") + 1),
                "a tab stands in the indentation",
                rule="tab",
                hint="YAML wants spaces; set your editor to them",
            )
        else:
            context = f" {error.context}" if error.context else ""
            hint = "quote values that hold `: `, `#`, `{`, `[`, `*`, `&`, `!`, `%` or `@`; check the indentation"
            self.report.add((line, column), f"the file is not valid YAML: {error.problem or 'unreadable'}{context}", rule="yaml", hint=hint)
        raise SpecError(self.report.problems) from error

    def _stop(self, at: Any, problem: str, *, rule: str, hint: str) -> None:
        self.report.add((at.start_mark.line + 1, at.start_mark.column + 1), problem, rule=rule, hint=hint)
        raise SpecError(self.report.problems)

    def _take(self, event: Any) -> None:
        mark = event.start_mark
        if isinstance(event, yaml.ScalarEvent):
            self._refuse_tag(event)
            self._put(Node(mark.line + 1, mark.column + 1, self._scalar(event)), event, event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._refuse_tag(event)
            value: Any = [] if isinstance(event, yaml.SequenceStartEvent) else {}
            if len(self.stack) >= MOST_DEPTH:
                self._deep(event)
            if event.anchor:
                self.anchors[event.anchor] = None
            self.stack.append(_Open(Node(mark.line + 1, mark.column + 1, value), event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            done = self.stack.pop()
            self._put(done.node, event, done.anchor)
        elif isinstance(event, yaml.DocumentStartEvent):
            if self.documents:
                self._stop(event, "a second document starts here", rule="two-documents", hint="one file holds one; remove `---`")
            self.documents = 1

    def _deep(self, event: Any) -> None:
        self._stop(event, f"values are nested deeper than {MOST_DEPTH} levels", rule="too-deep", hint="close the brackets, or flatten it")

    def _alias(self, event: Any) -> None:
        target = self.anchors.get(event.anchor)
        if target is None:
            problem = "stands inside what it names" if event.anchor in self.anchors else "names nothing above it"
            self._stop(
                event, f"the alias {show('*' + event.anchor)} {problem}", rule="alias", hint="write the value out, or quote the text"
            )
        else:
            if len(self.stack) + target.height > MOST_DEPTH:
                self._deep(event)
            # The copy stands where the alias does, so that a problem with it points at the alias.
            here = Node(event.start_mark.line + 1, event.start_mark.column + 1, target.value, target.size, target.height)
            self._put(here, event, None)

    def _refuse_tag(self, event: Any) -> None:
        if event.tag is not None:
            self._stop(event, f"the tag {show(event.tag)} is not allowed", rule="tag", hint="remove it; a value is quoted to make it text")

    def _put(self, node: Node, event: Any, anchor: str | None) -> None:
        self.nodes += node.size if isinstance(event, yaml.AliasEvent) else 1
        if self.nodes > MOST_NODES:
            self._stop(event, f"the file holds more than {MOST_NODES} values", rule="too-large", hint="aliases count as what they name")
        if anchor:
            self.anchors[anchor] = node
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        top.node.size += node.size
        if node.height >= top.node.height:
            top.node.height = node.height + 1
        if isinstance(top.node.value, list):
            top.node.value.append(node)
        elif not top.waiting:
            top.key, top.waiting = node, True
        else:
            top.waiting = False
            self._entry(top, node)

    def _entry(self, top: _Open, node: Node) -> None:
        key = top.key or node
        if not isinstance(key.value, str):
            hint = "quote it: YAML reads it as something else"
            self.report.add(key, "a key must be text", rule="key-not-text", hint=hint)
        elif key.value == "<<":
            hint = "let stages share with `extends:`, write the keys out, or alias each value"
            self.report.add(key, "merge keys (`<<`) are not supported", rule="merge-key", hint=hint)
            top.node.partial = True
        elif key.value in top.node.value:
            first = top.node.value[key.value].key
            hint = f"it stands in line {first.line} already; keep one of them"
            self.report.add(key, f"duplicate key {show(key.value)}", rule="duplicate-key", hint=hint)
        else:
            top.node.value[key.value] = Entry(key, node)

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if not event.implicit[0]:  # quoted, or a block
            if found := _CONTROL_IN_VALUE.search(text):
                at = (event.start_mark.line + 1, event.start_mark.column + 1)
                problem = f"the value holds the character U+{ord(found.group()):04X}"
                self.report.add(at, problem, rule="control-character", hint="remove the escape")
            return text
        value, wrong = _plain(text)
        if wrong:
            rule, problem, hint = wrong
            at = (event.start_mark.line + 1, event.start_mark.column + 1)
            self.report.unreadable(at, f"{show(text)} {problem}", rule=rule, hint=hint)
        return value


_NO_NUMBER = ("not-finite", "is not a number that can be compared", "write a finite number")


@lru_cache(4096)  # the same few words make up most of a file
def _plain(text: str) -> tuple[Any, tuple[str, str, str] | None]:
    """What a scalar without quotes means, and what is wrong with it: rule, problem, hint."""
    if text in _WORDS:
        return _WORDS[text], None
    for pattern, problem, hint in _MISREAD:
        if pattern.fullmatch(text):
            return text, ("ambiguous", problem, hint)
    if _INT.fullmatch(text):
        return int(text.replace("_", "")), None
    if _NOT_FINITE.fullmatch(text):
        return 0.0, _NO_NUMBER
    if not _FLOAT.fullmatch(text):
        return text, None
    number = float(text.replace("_", ""))
    return (number, None) if math.isfinite(number) else (0.0, _NO_NUMBER)
