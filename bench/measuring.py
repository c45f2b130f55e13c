"""What the benches share: the words of their command line, medians with their spread, and Markdown."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil


@dataclass
class Section:
    """What one bench found: tables (a head and rows of text) and sentences, in the order in which they are read."""

    title: str
    parts: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """A sentence."""
        self.parts.append(text)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table."""
        lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
        self.parts.append("\n".join(lines))

    def markdown(self) -> str:
        """The section of the page."""
        return "\n\n".join([f"## {self.title}", *self.parts]) + "\n"


def machine() -> str:
    """The machine in words."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def asked(about: str, *, rounds: int) -> argparse.Namespace:
    """`quick` (a smoke test: small and once), `rounds`, and `json`, the file where `make bench` reads the section."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small and once: whether it works, not how fast")
    parser.add_argument("--rounds", type=int, help=f"repetitions ({rounds})")
    parser.add_argument("--json", type=Path, help="write the section here")
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else rounds)
    return given


def done(section: Section, given: argparse.Namespace) -> None:
    """Print the section and hand it on."""
    print(section.markdown())
    if given.json:
        given.json.write_text(json.dumps(asdict(section)))


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    gc.collect()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def spread(values: Sequence[float], unit: str = "s", *, scale: float = 1.0, digits: int = 2) -> str:
    """Median, least and most."""
    middle, least, most = (f"{v * scale:.{digits}f}" for v in (statistics.median(values), min(values), max(values)))
    return f"{middle} {unit}".strip() + (f" ({least} to {most})" if len(values) > 1 else "")


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Pair by pair: what was measured next to each other met the same machine."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def against(goal: float, found: Sequence[float]) -> str:
    """The goal, and whether the median meets it."""
    return f"<= {goal:g}: " + ("met" if statistics.median(found) <= goal else "**missed**")
