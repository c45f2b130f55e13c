"""The question to the model, its answer, and which of its quotes are real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from taxiway.agents.base import StageAttempt
from taxiway.agents.diagnose.material import Material
from taxiway.agents.loop import Task
from taxiway.agents.masking import Mask
from taxiway.agents.mind import Mind
from taxiway.agents.project_map import DATA, project_map
from taxiway.agents.tools import Tools
from taxiway.errors import ProjectError
from taxiway.manifest import read_inside
from taxiway.ports import Sandbox
from taxiway.records import Model

__all__ = ["Diagnosis", "Found", "Quote", "ask"]

_SYSTEM = f"""You find out why stages of a software delivery pipeline failed. Read what they left and the code that they worked on, and name
the cause that, had it been otherwise, they would not have failed: not the symptom. Prove it with quotes, each copied exactly from one
file, with the line where it begins; quotes that do not stand there are thrown away. You change nothing. Be honest about how sure you are.
{DATA}"""
_STEPS = 30
_MOST_QUOTES = 20
_SHORTEST = 4
"""Characters other than spaces that a quote must have to say anything."""
_FILE_BYTES = 1_000_000


class Quote(Model):
    """A piece of a file."""

    file: str = Field(min_length=1, max_length=400, description="File, from the project's root")
    line: int = Field(ge=1, description="Line at which it begins")
    text: str = Field(min_length=1, max_length=1000, description="The exact text, one line or a few")


class Diagnosis(Model):
    """Why it failed, in the model's words."""

    root_cause: str = Field(min_length=1, max_length=2000, description="What made the stages fail")
    evidence: list[Quote] = Field(max_length=_MOST_QUOTES, description="Quotes that show it, from the logs, reports and code")
    suggested_fix: str = Field(min_length=1, max_length=2000, description="What to change, and where")
    confidence: float = Field(ge=0, le=1, description="How sure you are of the cause, from 0 to 1")


@dataclass(frozen=True)
class Found:
    """A diagnosis with the quotes that are real, where they really stand, and the number of those that are not."""

    diagnosis: Diagnosis
    kept: tuple[Quote, ...]
    dropped: int

    def as_data(self) -> dict[str, Any]:
        """For programs."""
        evidence = [quote.model_dump() for quote in self.kept]
        return {**self.diagnosis.model_dump(), "evidence": evidence, "dropped_quotes": self.dropped, "backed": bool(self.kept)}

    def as_page(self, stages: Sequence[str]) -> str:
        """For people, as Markdown; what others wrote is indented, so that it is shown as it is."""
        quotes = "".join(f"- {quote.file}:{quote.line}\n\n{_indented(quote.text)}\n" for quote in self.kept)
        none = "" if self.kept else "No quote of the model occurs in what the stages left or in the code: nothing backs this diagnosis.\n"
        dropped = f"{self.dropped} quotes do not occur there, and were taken out.\n" if self.dropped else ""
        return (
            f"# Why {', '.join(stages)} failed\n\nA model's view, with confidence {self.diagnosis.confidence:.2f}. It is no evidence: "
            f"the quotes are, each of which was found where it says.\n\n## Root cause\n\n{_indented(self.diagnosis.root_cause)}\n"
            f"## Evidence\n\n{quotes}{none}{dropped}\n## Suggested fix\n\n{_indented(self.diagnosis.suggested_fix)}"
        )


def ask(mind: Mind, material: Material, stage: StageAttempt, sandbox: Sandbox) -> Found:
    """What the model makes of the material, with its quotes held against the files."""
    tools = Tools(stage.checkout, sandbox, stage.stop, writable=False)
    files = "\n".join(material.files) or "(nothing was left)"
    request = f"What failed:\n<material>\n{material.told}\n</material>\n\nWhat it left, to be read as files:\n{files}"
    task = Task(system=_SYSTEM, project=project_map(stage.checkout), request=request, answer=Diagnosis, steps=_STEPS)
    diagnosis = mind.work(task, tools, name="diagnose").answer
    real = [_real(quote, stage.checkout, mind.mask) for quote in diagnosis.evidence]
    kept = tuple(dict.fromkeys(quote for quote in real if quote))
    return Found(diagnosis, kept, real.count(None))


def _real(quote: Quote, checkout: Path, mask: Mask) -> Quote | None:
    """The quote with the file's own words and line, nearest to the line that it names; None where it does not occur."""
    wanted = _plain(quote.text)
    if len(wanted.replace(" ", "")) < _SHORTEST or ".git" in quote.file.split("/"):
        return None
    try:
        content = read_inside(checkout, quote.file, limit=_FILE_BYTES)
    except (ProjectError, ValueError):
        return None
    # As it was shown to the model.
    lines = mask.text(content.decode("utf-8", errors="replace")).splitlines()
    height = len(quote.text.strip().splitlines())
    for at in sorted(range(len(lines)), key=lambda i: abs(i + 1 - quote.line)):
        text = "\n".join(lines[at : at + height])
        if wanted in _plain(text):
            return Quote(file=quote.file, line=at + 1, text=text[:1000])
    return None


def _plain(text: str) -> str:
    return " ".join(text.split())


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())
