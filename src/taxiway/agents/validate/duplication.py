"""duplication: the share of the code's lines that stand in more than one place.

Not pylint's symilar, which compares no file with itself and every file with every other, nor lizard, whose measure obeys
comments of the project: a window of lines is short enough to be written here.
"""

from __future__ import annotations

import re
from collections import defaultdict

from taxiway.agents.validate.check import Context, Measured, NotMeasured
from taxiway.agents.validate.files import Layout
from taxiway.agents.validate.finding import Finding
from taxiway.agents.validate.listed import listed
from taxiway.errors import ProjectError
from taxiway.manifest import read_inside

__all__ = ["duplication"]

_WINDOW = 6
"""Lines of code in a row that make a repetition."""
_LIMIT_BYTES = 50_000_000
_FILE_BYTES = 4_000_000
_SHOWN = 50
_NO_CODE = re.compile(r"#|import\s|from\s+\S+\s+import\b|\W*$")

_Place = tuple[str, int]


def duplication(context: Context) -> Measured:
    """Percent of the lines of code, outside the tests folders, that belong to a run of at least six which stands word for
    word in another place, of the same file or of another one. Every copy counts, the first one too. Blank lines, comments,
    imports, lines without a letter or digit and indentation are left out."""
    layout = Layout(context.manifest)
    found = listed(context, context.folder("duplication"))
    files = [f for f in found if not layout.in_tests(f) and not layout.in_browser_tests(f)]
    if not files:
        raise NotMeasured("there is no Python file outside the tests")
    code = _code(context, files)
    lines = sum(len(texts) for texts in code.values())
    if not lines:
        raise NotMeasured("there is no code")
    repeated, findings = _repeated(code)
    # Rounded up: 3.001 is above 3.
    percent = -(-10_000 * len(repeated) // lines) / 100
    return Measured({"duplication.files": len(files), "duplication.lines": lines, "duplication.percent": percent}, findings=findings)


def _code(context: Context, files: list[str]) -> dict[str, list[tuple[int, str]]]:
    """The lines of code of each file, with their numbers."""
    found, size = {}, 0
    for path in files:
        context.stop.check()
        try:
            content = read_inside(context.checkout, path, limit=_FILE_BYTES)
        except ProjectError as error:
            raise NotMeasured(error.problem) from error
        size += len(content)
        if size > _LIMIT_BYTES:
            raise NotMeasured(f"there are more than {_LIMIT_BYTES // 1_000_000} MB of code")
        texts = enumerate(content.decode(errors="replace").splitlines(), 1)
        plain = ((number, " ".join(text.split())) for number, text in texts)
        found[path] = [(number, text) for number, text in plain if not _NO_CODE.match(text)]
    return found


def _repeated(code: dict[str, list[tuple[int, str]]]) -> tuple[set[_Place], list[Finding]]:
    windows: dict[tuple[str, ...], list[_Place]] = defaultdict(list)
    for path, lines in code.items():
        texts = [text for _, text in lines]
        for start in range(len(texts) - _WINDOW + 1):
            windows[tuple(texts[start : start + _WINDOW])].append((path, start))
    repeated: set[_Place] = set()
    findings: list[Finding] = []
    for places in windows.values():
        if not _apart(places):
            continue
        (path, start), (other, at) = places[0], places[-1]
        if (path, start) not in repeated and len(findings) < _SHOWN:
            text = f"stands in {other}:{code[other][at][0]} too"
            findings.append(Finding("duplication", "taxiway", "repeated", text, path, code[path][start][0], severity="note"))
        repeated |= {(file, first + i) for file, first in places for i in range(_WINDOW)}
    return repeated, findings


def _apart(places: list[_Place]) -> bool:
    """Whether two of these windows share no line: a list of equal lines repeats only where it is two windows long."""
    (first, start), (last, end) = places[0], places[-1]
    return len(places) > 1 and (first != last or end - start >= _WINDOW)
