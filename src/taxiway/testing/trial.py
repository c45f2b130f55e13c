"""One case of a test file, run, and what of it is not as expected."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from taxiway.agents import Agent
from taxiway.home import Home
from taxiway.integrations.advisories import advisories
from taxiway.integrations.artifacts import DirectoryArtifacts
from taxiway.integrations.browsers import find_browsers
from taxiway.integrations.environments import UvEnvironments
from taxiway.integrations.git import GitWorkspace
from taxiway.integrations.ledger import SqliteLedger
from taxiway.integrations.local.client import Client
from taxiway.integrations.local.target import LocalTarget
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.integrations.servers import LocalServers
from taxiway.ports import Models, Ports, Spending
from taxiway.purse import cost_of
from taxiway.records import Cost, Reading
from taxiway.testing.cases import Case, Expected, FileSpec, ReplySpec
from taxiway.testing.playing import Asked, Played, models_of, play
from taxiway.testing.scripted import Answer, Failure, ScriptedClaude, Turn, say, use
from taxiway.testing.stages import make_repository

__all__ = ["Tried", "try_case"]

_RUN = "test"


@dataclass(frozen=True)
class Tried:
    """How a case went: what is not as expected (nothing if it passed), what its models took, and its time."""

    file: str
    case: str
    problems: tuple[str, ...]
    cost: Cost | None
    seconds: float


def try_case(case: Case, agents: Mapping[str, Agent], *, environments: Home) -> Tried:
    """Run the case in fresh folders, and hold it against what it expects. Environments of projects are shared by `environments`.

    No key is read and no model is asked beyond the case's replies or its cassette. Services that it deploys are stopped at the end.
    """
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="taxiway-test-", ignore_cleanup_errors=True) as name,
        _asked(case) as asked,
        models_of(asked) as models,
    ):
        folder = Path(name)
        home, url = Home(folder / "home"), _project(case, folder / "project")
        ports = _ports(case, home, url, models, environments)
        params = {**case.spec.params, **({"repository": url} if url and "repository" in case.plan.params else {})}
        log = logging.getLogger("taxiway.testing")
        with _services_stopped(home):
            played = play(case.plan, run=_RUN, params=params, home=home, ports=ports, agents=agents, only=case.spec.stages, log=log)
        calls = ports.ledger.spending(_RUN)
        problems = [*_script_problems(asked), *_problems(case, played, calls, asked)]
        problems += _file_problems(case.spec.expect, played, ports, folder)
    return Tried(str(case.file), case.name, tuple(problems), cost_of(calls), time.monotonic() - began)


def _asked(case: Case) -> AbstractContextManager[Asked | None]:
    if case.spec.cassette is not None:
        return nullcontext(case.place(case.spec.cassette).resolve())
    return ScriptedClaude([_answer(reply) for reply in case.spec.replies]) if case.spec.replies else nullcontext()


@contextmanager
def _services_stopped(home: Home) -> Iterator[None]:
    try:
        yield
    finally:
        for folder in home.services.iterdir() if home.services.is_dir() else ():
            if folder.is_dir() and not folder.name.startswith("."):
                Client(home, folder.name).stop(rest=True)


def _answer(reply: ReplySpec) -> Answer:
    if reply.fail is not None:
        return Failure(reply.fail)
    turn = Turn((), reply.stop or "")
    for part in (*([say(reply.say)] if reply.say is not None else ()), *(use(tool, **given) for tool, given in reply.use.items())):
        turn += part
    return turn


def _project(case: Case, place: Path) -> str:
    """The address of the project that the run starts from; "" for a new one."""
    files: dict[str, str | bytes] = {}
    if case.spec.repository is not None:
        source = case.place(case.spec.repository)
        found = [p for p in sorted(source.rglob("*")) if p.is_file() and ".git" not in p.relative_to(source).parts]
        files |= {p.relative_to(source).as_posix(): p.read_bytes() for p in found}
    files |= case.spec.files
    return str(make_repository(place, files)) if files else ""


def _ports(case: Case, home: Home, url: str, models: Models | None, environments: Home) -> Ports:
    policy = case.plan.policy
    trusted = policy.trusts(url)
    return Ports(
        sandbox=ProcessSandbox(trusted=trusted or policy.unisolated),
        environments=UvEnvironments(environments, trusted=trusted, unisolated=policy.unisolated),
        workspace=GitWorkspace(home=home, pipeline=case.plan.pipeline, run=_RUN, url=url, credentials=None, started=datetime.now(UTC)),
        artifacts=DirectoryArtifacts(home.artifacts),
        ledger=SqliteLedger(home.ledger),
        targets={"local": LocalTarget(home, trusted=trusted or policy.unisolated)},
        advisories=advisories(os.environ),
        trusted=trusted,
        browsers=find_browsers(os.environ),
        servers=LocalServers(os.environ),
        models=models,
    )


# --- what is not as expected ------------------------------------------------------------------------


def _script_problems(asked: Asked | None) -> Iterator[str]:
    if isinstance(asked, ScriptedClaude):
        if asked.error:
            hint = "add what it answers to `replies:`; a conversation ends when it calls hand_in"
            yield f"the model was asked more often than there are replies: {asked.error}\nhint: {hint}"
        if asked.left:
            yield f"{asked.left} of {len(asked.requests) + asked.left} replies were not asked for"


def _problems(case: Case, played: Played, calls: Sequence[Spending], asked: Asked | None) -> Iterator[str]:
    expect = case.spec.expect
    failed = [name for name, error in played.errors.items()]
    outcome = "failed" if failed else "success"
    if outcome != expect.outcome:
        yield f"outcome: expected {expect.outcome}, it is {outcome}"
    for name, wanted in expect.stages.items():
        ended = played.results[name].outcome if name in played.results else "not_run"
        if ended != wanted:
            yield f"stage {name}: expected {wanted}, it is {ended}"
    for name, judged in expect.gates.items():
        yield from _gate_problems(name, judged, played)
    yield from _cost_problems(expect, cost_of(calls))
    # Why a stage failed belongs to what is told, where that was not expected.
    for name in failed:
        if expect.outcome != "failed" or expect.stages.get(name, "failed") != "failed":
            # What the client makes of a script that is at its end is nobody's to mend.
            spent = isinstance(asked, ScriptedClaude) and asked.error and asked.error in played.errors[name].problem
            yield f"stage {name} failed: {'its model had no reply left' if spent else played.errors[name]}"


def _gate_problems(name: str, wanted: str, played: Played) -> Iterator[str]:
    held = [g for g in played.held.get(name, ()) if g.blocking]
    if not held:
        yield f"gates of {name}: expected {wanted}, none was held against a measurement"
        return
    lost = ", ".join(f"{g.metric} {g.wanted} ({_measured(g)})" for g in held if not g.passed)
    if bool(lost) is (wanted == "passed"):
        yield f"gates of {name}: expected {wanted}, {f'these failed: {lost}' if lost else 'all passed'}"


def _measured(gate: Reading) -> str:
    return "not measured" if gate.measured is None else f"measured {gate.measured:g}"


def _cost_problems(expect: Expected, cost: Cost | None) -> Iterator[str]:
    if cost is None:
        return
    most = expect.cost
    tokens = cost.input_tokens + cost.cached_tokens + cost.output_tokens
    for name, bound, took in (("usd", most.usd, cost.usd), ("tokens", most.tokens, tokens), ("calls", most.calls, cost.calls)):
        if bound is not None and (took is None or took > bound):
            yield f"cost: expected at most {bound:g} {name}, it took {'an unknown number' if took is None else format(took, 'g')}"


def _file_problems(expect: Expected, played: Played, ports: Ports, folder: Path) -> Iterator[str]:
    if not expect.files:
        return
    checkout = folder / "files"
    checkout.mkdir()
    commit = played.commit or ports.workspace.start()
    if commit:
        ports.workspace.checkout(commit, checkout)
    for name, wanted in expect.files.items():
        if problem := _file_problem(checkout / name, wanted):
            yield f"file {name}: {problem}"


def _file_problem(path: Path, wanted: FileSpec) -> str:
    there = path.is_file() and not path.is_symlink()
    if wanted.absent:
        return "expected to be absent, it is there" if there or path.is_symlink() or path.exists() else ""
    if not there:
        return f"expected to contain {wanted.contains!r}, it is absent"
    return "" if str(wanted.contains) in path.read_text(encoding="utf-8", errors="replace") else f"expected to contain {wanted.contains!r}"
