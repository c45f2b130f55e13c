"""What a check found, in the one form that every report is written from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["Finding", "Severity", "project_path", "whole"]

Severity = Literal["error", "warning", "note"]
_IN_SANDBOX = "/project/"


@dataclass(frozen=True)
class Finding:
    """One finding. `rule` is the tool's own name for it; `path` is relative to the checkout, "" where it is about no file;
    `line` and `column` count from 1, 0 where unknown. `suppressed`: the code asks tools to look away, and it counts all the
    same. `message` never holds a secret in clear."""

    check: str
    tool: str
    rule: str
    message: str
    path: str = ""
    line: int = 0
    column: int = 0
    severity: Severity = "error"
    suppressed: bool = False


def project_path(path: str, checkout: Path) -> str:
    """A path as a tool wrote it, relative to the checkout; tools write it as they see it, inside the sandbox or outside."""
    for prefix in (_IN_SANDBOX, f"{checkout}/", f"{checkout.resolve()}/", "./"):
        path = path.removeprefix(prefix)
    return path


def whole(value: Any) -> int:
    """A line or column of a report; 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
