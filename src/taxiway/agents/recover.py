"""recover: brings back what deploy recorded, and says what it could not bring back."""

from __future__ import annotations

import json
from collections.abc import Callable

from taxiway.agents.base import Agent, AgentInput, StageAttempt
from taxiway.errors import OperatorError, StageError, TaxiwayError
from taxiway.ports import Cancellation, Change, Lease, Ledger, Ports, Target
from taxiway.records import Result

__all__ = ["AGENT", "RecoverInput", "bring_back"]


class RecoverInput(AgentInput):
    """Nothing to set: the records say what to bring back."""


def run(inputs: RecoverInput, ports: Ports, stage: StageAttempt) -> Result:  # noqa: ARG001 - every agent has this face
    """Undo the recorded changes of the covered stages, newest first."""
    recorded = ports.ledger.changes(stage.run)
    todo = [c for c in reversed(recorded) if c.kind == "deploy" and c.stage in stage.covers and c.state != "undone"]
    if not todo:
        return Result(outcome="skipped", summary=f"this run changed nothing that stage(s) {', '.join(stage.covers)} would have to undo")
    lines = [_undo(change, ports, stage) for change in todo]
    # What was merged is in other people's clones by now: it is said, not rewritten.
    lines += [f"the push to {c.key} stays" for c in recorded if c.kind == "push" and c.state == "done"]
    lines += [f"the push to {c.key} may have happened, and stays" for c in recorded if c.kind == "push" and c.state == "intended"]
    for line in lines:
        stage.log.info("%s", line)
    report = {"run": stage.run, "covers": list(stage.covers), "what": lines}
    (stage.reports / "recover.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return Result(summary="; ".join(lines)[:500])


def _undo(change: Change, ports: Ports, stage: StageAttempt) -> str:
    name, _, service = change.key.partition(":")
    target = ports.targets.get(name)
    if target is None:
        raise OperatorError(f"target {name!r} is not set up here", hint="run the stage where the target is")
    holder = f"{stage.run}/{stage.name}"
    with ports.ledger.lease(f"deploy:{change.key}", holder=holder, attempt=stage.attempt, stop=stage.stop) as lease:
        return bring_back(change, target, service, ports.ledger, lease, stage.stop, stage.log.info)


def bring_back(  # noqa: PLR0917 - what one recovery needs
    change: Change, target: Target, service: str, ledger: Ledger, lease: Lease, stop: Cancellation, say: Callable[[str], None]
) -> str:
    """Make live again what `change` recorded, unless another run deployed since; write it down, and say in one line what is so now.

    `lease` is on the target's service. Raises StageError where the earlier release does not become healthy.
    """
    if other := _of_another_run(change, target, service):
        line = f"{service} runs release {other} of another run: left as it is"
    else:
        line = _restore(change, target, service, lease, stop, say)
    ledger.settle(change, "undone", {**change.after, "undone": line}, lease)
    return line


def _of_another_run(change: Change, target: Target, service: str) -> str:
    """The live release, where it is neither what this run deployed nor what was there before."""
    now = target.status(service)
    live = now.live.id if now and now.live else ""
    return "" if live in ("", change.before["release"], change.after["release"]) else live


def _restore(  # noqa: PLR0917
    change: Change, target: Target, service: str, lease: Lease, stop: Cancellation, say: Callable[[str], None]
) -> str:
    before = str(change.before["release"])
    try:
        status = target.restore(service, before, lease=lease, stop=stop, say=say)
    except StageError as error:
        raise StageError(f"{service}: {error.problem}\n  {_now(target, service)}", hint=error.hint) from error
    if not before:
        return f"{service} was not there before this run and is stopped"
    return f"{service} runs release {before} again at {status.url}"


def _now(target: Target, service: str) -> str:
    try:
        now = target.status(service)
    except TaxiwayError as error:
        return f"what is live now is not known: {error.problem}"
    if now is None or now.live is None:
        return "nothing is live now"
    return f"live now: release {now.live.id}, {now.state}, {now.url}"


AGENT = Agent(
    name="recover",
    summary="Brings back what was live before this run's deploy, and verifies that it is healthy.",
    inputs=RecoverInput,
    run=run,
    effect="undoes",
    after=("deploy",),
    touches="switches services back to what was live before this run",
)
