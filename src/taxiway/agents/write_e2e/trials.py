"""Tests on trial: in a real browser on the app as it is, and on the app with their feature broken. No word of the model decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from taxiway.agents.e2e.artifacts import keep_round
from taxiway.agents.e2e.rounds import Round, Setting, run_round
from taxiway.agents.validate.record import Record
from taxiway.agents.write_e2e.asking import Proposed
from taxiway.agents.write_e2e.reading import faults, imported

__all__ = ["Outcome", "Trials", "readable"]

_FAILS = ("AssertionError", "TimeoutError", "Error:", "TooLong")
"""How a test fails that looked for its feature; a NameError is a fault of the test."""
_TEXT = 500


@dataclass(frozen=True)
class Outcome:
    """How a test ended, over all of its parameters: "passed" (all did), "failed" (all did), "mixed", "missing". `broken`: what it
    names was there to be broken."""

    ended: str
    text: str = ""
    broken: bool = False


@dataclass
class Trials:
    """Runs files of tests, each time on the app started anew. `setting` is the agent's."""

    setting: Setting
    rounds: int = 0
    strays: set[str] = field(default_factory=set)

    def survey(self, pages: Sequence[str]) -> Round:
        """The pages as they are; no test runs."""
        return self._round(replace(self.setting, survey=True), [], pages)

    def run(self, tests: Iterable[str], breaks: Mapping[str, Mapping[str, str]] | None = None, *, keep: bool = True) -> dict[str, Outcome]:
        """How each test ended. Files that spoil a round for all are tried alone."""
        wanted = sorted(tests)
        files = sorted({t.partition("::")[0] for t in wanted})
        if not files:
            return {}
        done = self._round(replace(self.setting, breaks=breaks or {}), files, (), keep=keep)
        if done.record is None and len(files) > 1:
            alone = [self.run([t for t in wanted if t.startswith(file + "::")], breaks, keep=keep) for file in files]
            return {test: outcome for outcomes in alone for test, outcome in outcomes.items()}
        if done.record is None:
            return {test: Outcome("failed", done.why) for test in wanted}
        self.strays |= {_plain(key) for key in done.record.keys.values()} - set(wanted)
        return {test: _outcome(done.record, test) for test in wanted}

    def judge(self, proposed: Sequence[Proposed], reasons: dict[str, str]) -> None:
        """Write into `reasons` why tests are not kept: test -> why. What is in there already is not tried."""
        self.strays.clear()
        for test, outcome in self.run(p.test for p in proposed if p.test not in reasons).items():
            if outcome.ended != "passed":
                reasons[test] = f"does not pass on the app: {outcome.text or outcome.ended}"
        spread(proposed, reasons, self.strays)
        left = [p for p in proposed if p.test not in reasons]
        breaks = {p.test: {"kind": p.breaks.kind, "target": p.breaks.target} for p in left}
        outcomes = self.run(breaks, breaks)
        for p in left:
            if why := _not_proven(outcomes[p.test], p):
                reasons[p.test] = why
        spread(proposed, reasons, self.strays)

    def confirm(self, proposed: Sequence[Proposed], reasons: dict[str, str]) -> None:
        """The second pass, on what is left: what fails now is not kept either."""
        for test, outcome in self.run(p.test for p in proposed if p.test not in reasons).items():
            if outcome.ended != "passed":
                reasons[test] = f"passed on the app once and not again: {outcome.text or outcome.ended}"
        spread(proposed, reasons, self.strays)

    def tell(self, tests: Sequence[str]) -> str:
        """How the tests end on the app as they are now, for a model in the middle of its work; no verdict."""
        outcomes = self.run(tests, keep=False)
        return "\n".join(f"{test}: {o.ended}{': ' if o.text else ''}{o.text}" for test, o in outcomes.items()) or "there is no test to run"

    def _round(self, setting: Setting, tests: list[str], pages: Sequence[str], *, keep: bool = True) -> Round:
        self.rounds += 1
        done = run_round(setting, self.rounds, tests, pages)
        if keep:
            keep_round(setting.context, done, f"round-{self.rounds}")
        done.why = self._without_secrets(done.why)
        if done.record:
            done.record.texts = {test: self._without_secrets(text) for test, text in done.record.texts.items()}
        return done

    def _without_secrets(self, text: str) -> str:
        for secret in sorted(self.setting.context.hidden, key=len, reverse=True):
            text = text.replace(secret, "[secret]")
        return text


def readable(checkout: Path, files: Sequence[str], there: Sequence[str]) -> dict[str, str]:
    """File -> why its tests are not tried, of the new `files`; what imports such a file is not tried either. `there` are modules of
    the project's own browser tests."""
    beside = [*files, *there]
    found = {f: why for f in files if (why := faults(checkout, f, [b for b in beside if b != f]))}
    for _ in files:
        for f in files:
            if f not in found and (bad := imported(checkout, f, list(found))):
                found[f] = f"imports {min(bad)}, which {found[min(bad)]}"
    return found


def spread(proposed: Sequence[Proposed], reasons: dict[str, str], strays: set[str]) -> None:
    """A file stays or goes whole: the other tests of a file with a reason get one, too."""
    files = {test.partition("::")[0]: test for test in reasons}
    for stray in strays:
        files.setdefault(stray.partition("::")[0], stray)
    for p in proposed:
        if p.test not in reasons and (other := files.get(p.test.partition("::")[0])):
            reasons[p.test] = f"is in one file with {other}, which is {'not kept' if other in reasons else 'made while it runs'}"


def _outcome(record: Record, test: str) -> Outcome:
    ids = [i for i, key in record.keys.items() if _plain(key) == test]
    ended = {record.outcomes.get(i, "missing") for i in ids}
    file = test.partition("::")[0]
    text = next((record.texts[i] for i in ids if record.texts.get(i)), "") or record.broken.get(file, "")[-_TEXT:]
    touched = {data["test"] for kind, data in record.others if kind == "broken"}
    state = "missing" if not ended else ended.pop() if len(ended) == 1 else "mixed"
    return Outcome(state, " ".join(text.split())[:_TEXT], bool(ids) and touched >= set(ids))


def _not_proven(outcome: Outcome, p: Proposed) -> str:
    what = f"{p.breaks.kind} {p.breaks.target}"
    if not outcome.broken:
        return f"met no {what} that could be broken"
    if outcome.ended != "failed":
        return f"does not fail with {what} broken ({outcome.ended})"
    if not outcome.text.startswith(_FAILS):
        return f"fails for another reason with {what} broken: {outcome.text}"
    return ""


def _plain(key: Sequence[str]) -> str:
    return "::".join(key)
