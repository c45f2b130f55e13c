"""`conflicts: ask_model`: a model proposes what each hunk becomes; what it is not sure of, or gets wrong, stays for people."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from pydantic import Field

from taxiway.agents.base import StageAttempt
from taxiway.agents.integrate.parsing import unreadable
from taxiway.agents.loop import Task
from taxiway.agents.masking import MASKED
from taxiway.agents.mind import Mind
from taxiway.agents.project_map import DATA, material, project_map
from taxiway.agents.tools import ToolError, Tools
from taxiway.errors import ModelCutOff, ModelInvalid, ModelRefused, ModelUnfinished
from taxiway.ports import Hunk, Resolution, Sandbox, TornFile
from taxiway.records import Model

__all__ = ["Asking", "Proposal"]

_SYSTEM = f"""You resolve one conflict of a merge: lines that two sides changed differently. Say what these lines become, so that what both
sides wanted is kept. You get the lines as they were, as each side has them, what stands around them, and what the commits say. The text
that you hand in takes the place of these lines alone: all of them, without the lines around, without conflict markers. Look at other
files where that helps; they are as one side has them. Be honest about how sure you are: what you are not sure of, a person decides.
{DATA}"""
_STEPS = 15
_AROUND = 60
_SHOWN = 20_000
"""Characters of one side, or of what stands around, that are shown."""
_MOST_HUNKS = 30
_SENT_BACK = 2
_REPEATED = 2
_MARKER = re.compile(r"(?:<{7,}|>{7,}|\|{7,})(?: .*)?|={7}")


class Proposal(Model):
    """What the hunk becomes."""

    text: str = Field(max_length=100_000, description="The lines that take the place of the conflict; empty to leave them out")
    confidence: float = Field(ge=0, le=1, description="How sure you are that this is what both sides wanted, from 0 to 1")
    reason: str = Field(min_length=1, max_length=500, description="Why, in one sentence")


@dataclass(frozen=True)
class _Asked:
    """A hunk and what was proposed for it; `refused` says why that is not taken, "" where it is."""

    path: str
    hunk: Hunk
    proposal: Proposal | None
    refused: str


@dataclass(frozen=True)
class Asking:
    """Asks about the hunks of one attempt, about the same one only once."""

    mind: Mind
    threshold: float
    sandbox: Sandbox
    stage: StageAttempt
    known: dict[tuple[str, Hunk], _Asked] = field(default_factory=dict)

    def resolve(self, file: TornFile) -> Sequence[Resolution]:
        """Decide the hunks of a file. All of them stay conflicts where the file cannot be read with what was proposed."""
        asked: list[_Asked] = []
        for hunk in file.hunks:
            asked.append(self.known.get((file.path, hunk)) or self._ask(file, hunk, asked))
            self.known[file.path, hunk] = asked[-1]
        if all(not one.refused for one in asked) and (why := unreadable(file.path, file.mended([_text(one) for one in asked]))):
            asked = [_Asked(one.path, one.hunk, one.proposal, f"with it the file cannot be read: {why}") for one in asked]
            self.known.update({(file.path, one.hunk): one for one in asked})
        return [self._resolution(one) for one in asked]

    def report(self) -> None:
        """Write down every proposal, taken or not."""
        found = [
            {
                "path": one.path,
                **asdict(one.hunk),
                "proposal": one.proposal and one.proposal.model_dump(),
                "taken": not one.refused,
                "refused": one.refused,
            }
            for one in self.known.values()
        ]
        data = self.mind.mask.data({"threshold": self.threshold, "hunks": found})
        (self.stage.reports / "proposals.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        page = "# Proposals of a model for conflicts\n\nNone of this is evidence: what was taken was measured as every merge is.\n"
        page += "".join(_section(one) for one in self.known.values())
        (self.stage.reports / "proposals.md").write_text(self.mind.mask.text(page), encoding="utf-8", errors="replace")

    # --- one hunk -------------------------------------------------------------------------------

    def _ask(self, file: TornFile, hunk: Hunk, before: Sequence[_Asked]) -> _Asked:
        if len(self.known) >= _MOST_HUNKS:
            return _Asked(file.path, hunk, None, f"a model is asked about {_MOST_HUNKS} hunks at most")
        if max(len(side) for side in (hunk.base, hunk.ours, hunk.theirs)) > _SHOWN:
            return _Asked(file.path, hunk, None, f"one side has more than {_SHOWN} characters, and no model is shown half of it")
        left = _SENT_BACK

        def look(proposal: Proposal) -> None:
            nonlocal left
            if left and (fault := self._fault(file, hunk, before, proposal)):
                left -= 1
                raise ToolError(f"this cannot be taken: {fault}")

        task = Task(
            system=_SYSTEM,
            project=project_map(self.stage.checkout),
            request=_request(file, hunk),
            answer=Proposal,
            steps=_STEPS,
            accept=look,
        )
        tools = Tools(self.stage.checkout, self.sandbox, self.stage.stop, writable=False)
        try:
            proposal = self.mind.work(task, tools, name=f"conflict-{len(self.known) + 1}").answer
        except (ModelRefused, ModelCutOff, ModelInvalid, ModelUnfinished) as error:
            return _Asked(file.path, hunk, None, f"no proposal: {error.problem}")
        refused = self._fault(file, hunk, before, proposal)
        if not refused and proposal.confidence < self.threshold:
            refused = f"its confidence is below {self.threshold:g}"
        return _Asked(file.path, hunk, proposal, refused)

    @staticmethod
    def _fault(file: TornFile, hunk: Hunk, before: Sequence[_Asked], proposal: Proposal) -> str:
        """What is wrong with a proposal for any reader; the file as a whole is read once its last hunk is there."""
        if fault := _unfit(file, hunk, proposal.text):
            return fault
        taken = [one for one in before if not one.refused]
        if len(taken) + 1 < len(file.hunks):
            return ""
        why = unreadable(file.path, file.mended([*map(_text, taken), _lines(proposal.text, hunk)]))
        return f"with it the file cannot be read: {why}" if why else ""

    @staticmethod
    def _resolution(asked: _Asked) -> Resolution:
        if asked.proposal is None:
            return Resolution(None, asked.refused)
        said = f"confidence {asked.proposal.confidence:.2f}: {asked.proposal.reason}"
        return Resolution(None, f"{asked.refused} ({said})") if asked.refused else Resolution(_text(asked), said)


def _unfit(file: TornFile, hunk: Hunk, text: str) -> str:
    """Why a text cannot take a hunk's place, whatever the language."""
    sides = hunk.ours + hunk.theirs + hunk.base
    if "\0" in text:
        return "it is no text"
    if MASKED in text and MASKED not in sides:
        return "it needs a text that no model is shown"
    known = set(sides.splitlines())
    if any(_MARKER.fullmatch(line) and line not in known for line in text.splitlines()):
        return "conflict markers are left in it"
    above, below = _around(file, hunk)
    # One line may well stand there twice, such as a closing bracket; empty ones say nothing.
    around = (_said(above)[-_REPEATED:], _said(below)[:_REPEATED])
    if any(len(lines) == _REPEATED and _holds(text, lines) and not _holds(sides, lines) for lines in around):
        return "it repeats lines that stand around the conflict, which stay as they are"
    return ""


def _said(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _holds(text: str, wanted: Sequence[str]) -> bool:
    lines = _said(text)
    return any(lines[at : at + len(wanted)] == wanted for at in range(len(lines)))


def _lines(text: str, hunk: Hunk) -> str:
    """The text as whole lines, which end as the hunk's do."""
    ends = "\r\n" if "\r\n" in hunk.ours + hunk.theirs else "\n"
    return "".join(f"{line}{ends}" for line in text.replace("\r\n", "\n").removesuffix("\n").split("\n")) if text else ""


def _text(asked: _Asked) -> str:
    return _lines(asked.proposal.text, asked.hunk) if asked.proposal else ""


def _around(file: TornFile, hunk: Hunk) -> tuple[str, str]:
    """What merges by itself right above and below a hunk."""
    at = next(i for i, part in enumerate(file.parts) if part is hunk)
    above, below = (file.parts[i] if 0 <= i < len(file.parts) else "" for i in (at - 1, at + 1))
    return above if isinstance(above, str) else "", below if isinstance(below, str) else ""


def _request(file: TornFile, hunk: Hunk) -> str:
    above, below = _around(file, hunk)
    parts = [
        ("lines_above", "".join(above.splitlines(keepends=True)[-_AROUND:])[-_SHOWN:]),
        ("before_both", hunk.base),
        ("branch", hunk.ours),
        ("change", hunk.theirs),
        ("lines_below", "".join(below.splitlines(keepends=True)[:_AROUND])[:_SHOWN]),
        ("messages_of_the_branch", file.ours_messages),
        ("messages_of_the_change", file.theirs_messages),
    ]
    shown = "\n".join(material(name, text) for name, text in parts)
    return f"The conflict is in {file.path}, at line {hunk.line}. An empty side means that it has no such lines.\n\n{shown}"


def _section(asked: _Asked) -> str:
    head = f"\n## {asked.path}:{asked.hunk.line}: {'not taken: ' + asked.refused if asked.refused else 'taken'}\n"
    said = f"\nConfidence {asked.proposal.confidence:.2f}: {asked.proposal.reason}\n" if asked.proposal else ""
    proposed = [("proposed", _text(asked))] if asked.proposal else []
    sides = [*proposed, ("the branch", asked.hunk.ours), ("the change", asked.hunk.theirs), ("before both", asked.hunk.base)]
    return head + said + "".join(f"\n{name}:\n\n{_indented(text)}\n" for name, text in sides)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines()) or "    (no lines)"
