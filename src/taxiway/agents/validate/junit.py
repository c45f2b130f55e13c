"""JUnit XML, read as the work of an enemy: no document type, no entities, bounded."""

from __future__ import annotations

from collections import Counter
from typing import Any
from xml.parsers import expat

from taxiway.agents.validate.check import NotMeasured

__all__ = ["mangle", "read_junit"]

_DEPTH = 12
_CASES = 200_000


def read_junit(content: bytes) -> dict[str, str]:
    """Outcome by test address, the worst one where a test is listed twice: failed, skipped or passed. Raise NotMeasured
    if it is no JUnit, or if its own totals disagree with its cases."""
    reader = _Reader()
    try:
        reader.parse(content)
    except expat.ExpatError as error:
        raise NotMeasured(f"the JUnit report cannot be read: {error}") from error
    if reader.suites != 1:
        raise NotMeasured(f"the JUnit report has {reader.suites} test suites")
    for name, counted in (("failures", reader.kinds["failure"]), ("errors", reader.kinds["error"])):
        if reader.totals.get(name) != str(counted):
            raise NotMeasured(f"the JUnit report says {reader.totals.get(name)} {name} and lists {counted}")
    # Subtests that passed are in the total and have no case of their own.
    total = reader.totals.get("tests", "")
    if not (total.isascii() and total.isdigit() and int(total[:9]) >= len(reader.outcomes)):
        raise NotMeasured(f"the JUnit report says {total[:20]} tests and lists {len(reader.outcomes)}")
    return reader.outcomes


class _Reader:
    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.totals: dict[str, str] = {}
        self.suites = self.cases = self._depth = 0
        self.kinds: Counter[str] = Counter()
        self._case = ""

    def parse(self, content: bytes) -> None:
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = parser.ExternalEntityRefHandler = self._refuse
        parser.Parse(content, True)

    def _refuse(self, *_: Any) -> int:
        raise NotMeasured("the JUnit report declares a document type or an entity")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEPTH or self.cases > _CASES:
            raise NotMeasured("the JUnit report is deeper or longer than any run makes it")
        if name == "testsuite":
            self.suites += 1
            self.totals = dict(attributes)
        elif name == "testcase":
            self.cases += 1
            self._case = ".".join(filter(None, (attributes.get("classname", ""), attributes.get("name", ""))))
            self.outcomes.setdefault(self._case, "passed")
        elif name in ("failure", "error", "skipped") and self._case:
            self.kinds[name] += 1
            if self.outcomes[self._case] != "failed":
                self.outcomes[self._case] = "skipped" if name == "skipped" else "failed"

    def _end(self, name: str) -> None:
        self._depth -= 1
        if name == "testcase":
            self._case = ""


def mangle(nodeid: str) -> str:
    """A test's address in JUnit, as pytest writes it."""
    path, bracket, parameters = nodeid.partition("[")
    names = path.split("::")
    names[0] = names[0].replace("/", ".").removesuffix(".py")
    text = ".".join(names) + bracket + parameters
    return "".join(c if _legal(ord(c)) else f"#x{ord(c):02X}" if ord(c) <= 0xFF else f"#x{ord(c):04X}" for c in text)  # noqa: PLR2004


def _legal(code: int) -> bool:
    # https://www.w3.org/TR/xml/#charsets
    return code in (0x9, 0xA, 0xD) or 0x20 <= code <= 0x7E or 0x80 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000  # noqa: PLR2004
