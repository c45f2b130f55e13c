"""complexity: McCabe's number of each function, by ruff's C901 with a limit of zero, so that it names them all."""

from __future__ import annotations

import re
from typing import Any

from taxiway.agents.validate.check import Context, Measured, NotMeasured, load_json
from taxiway.agents.validate.finding import Finding, project_path, whole
from taxiway.agents.validate.listed import listed
from taxiway.ports import Command

__all__ = ["complexity"]

_TIMEOUT_S = 120.0
_MESSAGE = re.compile(r"^`(.+)` is too complex \((\d+) > 0\)$")
_SHOWN_ABOVE = 10


def complexity(context: Context) -> Measured:
    """The most complex function. A function inside another counts on its own and to the one around it; lambdas,
    comprehensions and code outside functions do not count. Comments that switch the rule off change nothing."""
    ruff = context.tool("ruff")
    folder = context.folder("complexity")
    files = listed(context, folder, suffixes=(".py", ".pyw", ".pyi", ".ipynb"))
    options: tuple[str, ...] = ("--isolated", "--no-cache", "--no-respect-gitignore", "--ignore-noqa", "--select=C901")
    options += ("--config=lint.mccabe.max-complexity=0", "--output-format=json")
    argv, tools = (ruff, "check", *options, "@{reports}/files"), context.chosen("ruff").environment
    command = Command(argv, context.checkout, folder, tools=tools, timeout_s=_TIMEOUT_S, output_limit=60_000_000)
    result = context.run(command, "ruff", codes=(0, 1))
    if result.truncated:
        raise NotMeasured("ruff found more than can be read")
    data = load_json(result.stdout, "ruff")
    if not isinstance(data, list):
        raise NotMeasured("the report of ruff is not a list of findings")
    functions = [_function(context, d) for d in data]
    measured = Measured({"complexity.files": len(files), "complexity.functions": len(functions)})
    if not functions:
        measured.missing(["complexity.max"], "there is no function")
        return measured
    measured.metrics["complexity.max"] = max(n for n, _ in functions)
    measured.findings = [f for n, f in sorted(functions, key=lambda found: -found[0]) if n > _SHOWN_ABOVE]
    return measured


def _function(context: Context, data: Any) -> tuple[int, Finding]:
    message = _MESSAGE.match(str(data.get("message"))) if isinstance(data, dict) else None
    path = project_path(str(data.get("filename")), context.checkout) if isinstance(data, dict) else ""
    if message is None:
        raise NotMeasured(f"{path} cannot be parsed" if path else "the report of ruff is not a list of findings")
    place = data.get("location")
    line = whole(place.get("row")) if isinstance(place, dict) else 0
    text = f"{message[1]} has a complexity of {message[2]}"
    return int(message[2]), Finding("complexity", "ruff", "C901", text, path, line, severity="note")
