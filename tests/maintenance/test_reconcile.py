from __future__ import annotations

import sqlite3
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from taxiway.agents import deploy
from taxiway.integrations.git import GitWorkspace
from taxiway.integrations.ledger import SqliteLedger
from taxiway.integrations.local.client import Client
from taxiway.maintenance.reconcile import World, as_json, reconcile
from taxiway.ports import Change, RunRecord, ServiceStatus
from taxiway.stop import Stop

sys.path.insert(0, str(Path(__file__).parents[1] / "agents"))

from delivery_local import Delivery

OLD, NEW, OTHER = "a" * 12, "b" * 12, "c" * 12
RUN = RunRecord(run="run-1", pipeline="shop", run_id="manual 1", born=1.0, recovers={"rollback": ["deploy", "monitor"]})


class Known:
    """What Airflow would say."""

    def __init__(self, *states, unwell=()):
        self.states, self.unwells, self.asked = list(states), set(unwell), []

    def state(self, pipeline, run_id):
        self.asked.append((pipeline, run_id))
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def unwell(self, pipeline, run_id, stages):
        return [s for s in stages if s in self.unwells]


class Shelf:
    """A target that only remembers which release is live."""

    def __init__(self, live):
        self.live, self.restored = live, []

    def status(self, service):
        release = deploy.Release(self.live, service, "", (), 0, deploy.Health()) if self.live else None
        return ServiceStatus(service, "http://shelf", release, "running" if release else "stopped")

    def restore(self, service, release, *, lease, stop, say):
        lease.check()
        self.live = release
        self.restored.append(release)
        return self.status(service)


class Scene:
    def __init__(self, folder, live=NEW, state="intended", run=RUN):
        self.ledger, self.target, self.run = SqliteLedger(folder / "ledger.db"), Shelf(live), run
        self.change = Change(run="run-1", stage="deploy", kind="deploy", key="local:shop", before={"release": OLD}, after={"release": NEW})
        self.ledger.enter(run)
        with self.ledger.lease("deploy:local:shop", holder="run-1/deploy", attempt=1, stop=Stop()) as lease:
            self.ledger.intend(self.change, lease)
            if state != "intended":
                self.ledger.settle(self.change, state, self.change.after, lease)

    def reconcile(self, known, **options):
        world = World(self.ledger, {"local": self.target}, known, lambda _: None, list, wait_s=options.pop("wait_s", 45.0))
        return reconcile(world, stop=Stop(), say=lambda _: None, **options)

    def outcome(self):
        return self.target.live, self.ledger.changes("run-1")[0].state, not self.ledger.runs(unsettled=True)


@pytest.mark.parametrize(
    ("live", "written", "run", "known", "expected"),
    [
        (NEW, "intended", RUN, Known("failed", unwell=["deploy"]), (OLD, "undone", True)),
        (OLD, "intended", RUN, Known("failed", unwell=["deploy"]), (OLD, "undone", True)),
        (NEW, "done", RUN, Known("failed", unwell=["monitor"]), (OLD, "undone", True)),
        (NEW, "done", RUN, Known("failed"), (NEW, "done", True)),
        (NEW, "done", RUN, Known("success", unwell=["monitor"]), (NEW, "done", True)),
        (NEW, "intended", RUN, Known("success"), (NEW, "done", True)),
        (OLD, "intended", RUN, Known("success"), (OLD, "undone", True)),
        (NEW, "intended", replace(RUN, recovers={}), Known("failed", unwell=["deploy"]), (NEW, "done", True)),
        (NEW, "done", replace(RUN, recovers={"other": ["ship"]}), Known("failed", unwell=["deploy"]), (NEW, "done", True)),
        (OTHER, "intended", RUN, Known("failed", unwell=["deploy"]), (OTHER, "undone", True)),
        (OTHER, "intended", RUN, Known("success"), (OTHER, "undone", True)),
        (NEW, "intended", RUN, Known("gone"), (OLD, "undone", True)),
        (NEW, "done", RUN, Known("gone"), (NEW, "done", True)),
        (NEW, "undone", RUN, Known("failed", unwell=["deploy"]), (NEW, "undone", True)),
        (NEW, "intended", RUN, Known("live"), (NEW, "intended", False)),
        (NEW, "intended", RUN, Known("failed", "live", unwell=["deploy"]), (NEW, "intended", False)),
    ],
    ids=[
        "switched, then marked failed",
        "intended, never switched",
        "deployed, monitor never came",
        "failed after all that is covered ended well",
        "succeeded",
        "succeeded, not settled",
        "succeeded, another was to be live",
        "no recovery",
        "a recovery of something else",
        "another run deployed since",
        "another run deployed since a success",
        "deleted in the middle",
        "deleted after its end",
        "recovered already",
        "still runs",
        "cleared while we came",
    ],
)
def test_what_becomes_of_a_change(tmp_path, live, written, run, known, expected):  # noqa: PLR0917
    scene = Scene(tmp_path, live, written, run)
    scene.reconcile(known)
    assert scene.outcome() == expected


def test_again_changes_nothing(tmp_path):
    scene = Scene(tmp_path)
    known = Known("failed", unwell=["deploy"])
    first, second = scene.reconcile(known), scene.reconcile(known)
    assert first.settled == [f"shop manual 1: shop runs release {OLD} again at http://shelf"]
    assert (second.looked_at, second.settled, scene.target.restored) == (0, [], [OLD])
    assert as_json(second) == {"looked_at": 0, "settled": [], "waiting": [], "failed": [], "revived": []}


def test_a_dry_run_only_says_it(tmp_path):
    scene = Scene(tmp_path)
    found = scene.reconcile(Known("failed", unwell=["deploy"]), dry_run=True)
    assert found.settled == ["shop manual 1: deploy local:shop would be brought back to what was live before"]
    assert scene.outcome() == (NEW, "intended", False)


@pytest.mark.parametrize("key", ["attempt:run-1/deploy", "deploy:local:shop"])
def test_a_try_that_still_lives_is_not_raced(tmp_path, key):
    scene = Scene(tmp_path)
    known = Known("failed", unwell=["deploy"])
    with scene.ledger.lease(key, holder="run-1/deploy", attempt=1, stop=Stop()) as lease:
        found = scene.reconcile(known, wait_s=0.3)
        lease.check()
    assert len(found.waiting) == 1
    assert scene.outcome() == (NEW, "intended", False)
    scene.reconcile(known)
    assert scene.outcome() == (OLD, "undone", True)


def test_a_cleared_run_is_looked_at_again(tmp_path):
    scene = Scene(tmp_path, state="done")
    scene.reconcile(Known("success"))
    assert scene.outcome() == (NEW, "done", True)
    scene.ledger.enter(RUN)
    scene.reconcile(Known("failed", unwell=["monitor"]))
    assert scene.outcome() == (OLD, "undone", True)


def test_a_run_that_begins_again_meanwhile_stays_open(tmp_path):
    scene = Scene(tmp_path, state="undone")

    class Cleared(Known):
        def state(self, pipeline, run_id):
            scene.ledger.enter(RUN)
            return "failed"

    scene.reconcile(Cleared("failed"))
    assert scene.ledger.runs(unsettled=True)


def test_a_deleted_run_of_the_same_id_is_settled_and_its_successor_is_free(tmp_path):
    scene = Scene(tmp_path)
    with scene.ledger.lease("attempt:run-1/deploy", holder="run-1/deploy", attempt=2, stop=Stop()):
        pass
    scene.ledger.enter(replace(RUN, born=2.0))
    assert scene.ledger.changes("run-1") == ()
    with scene.ledger.lease("attempt:run-1/deploy", holder="run-1/deploy", attempt=1, stop=Stop()) as lease:
        lease.check()
    known = Known("live")
    found = scene.reconcile(known)
    assert scene.target.live == OLD
    assert len(found.settled) == 1
    assert known.asked == [("shop", "manual 1")]
    assert [r.born for r in scene.ledger.runs(unsettled=True)] == [2.0]


def test_a_target_that_is_not_here_fails_and_is_tried_again(tmp_path):
    scene = Scene(tmp_path)
    world = World(scene.ledger, {}, Known("failed", unwell=["deploy"]), lambda _: None, list)
    found = reconcile(world, stop=Stop(), say=lambda _: None)
    assert "target 'local' is not set up here" in found.failed[0]
    assert scene.outcome() == (NEW, "intended", False)


@pytest.mark.parametrize("landed", [True, False])
def test_a_push_is_settled_by_what_the_branch_holds(tmp_path, landed):
    delivery = Delivery(tmp_path)
    work = GitWorkspace(home=delivery.home, pipeline="shop", run="run-1", started=datetime.now(UTC))
    start = work.start()
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("a")
    ledger = delivery.ledger
    ledger.enter(replace(RUN, url=work.url))
    with ledger.lease(f"push:{work.url}:main", holder="run-1/merge", attempt=1, stop=Stop()) as lease:
        made = work.commit(tmp_path / "files", parent=start, message="m", trailers={}, lease=lease)
        change = Change("run-1", "merge", "push", f"{work.url}:main", {"head": start}, {"branch": "main", "head": made})
        ledger.intend(change, lease)
        if landed:
            work.push(made, branch="main", expected=start, lease=lease)
    world = World(ledger, {}, Known("failed"), lambda _: work, list)
    found = reconcile(world, stop=Stop(), say=lambda _: None)
    assert ledger.changes("run-1")[0].state == ("done" if landed else "undone")
    assert found.settled[0].endswith(" to main landed" if landed else " to main did not land")


@pytest.mark.parametrize("landed", ["squashed", "the same by another", ""])
def test_a_merge_at_a_forge_is_settled_by_what_the_branch_holds(tmp_path, landed):
    delivery = Delivery(tmp_path)
    work = GitWorkspace(home=delivery.home, pipeline="shop", run="run-1", started=datetime.now(UTC))
    start = work.start()
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("a")
    ledger = delivery.ledger
    ledger.enter(replace(RUN, url=work.url))
    with ledger.lease(f"push:{work.url}:main", holder="run-1/merge", attempt=1, stop=Stop()) as lease:
        made = work.commit(tmp_path / "files", parent=start, message="m", trailers={}, lease=lease)
        measured = work.merge(made, into="main", strategy="squash", message="Measured", trailers={"Taxiway-Run": "run-1"}).commit
        after = {"branch": "main", "head": measured, "source": made, "offered": made}
        ledger.intend(Change("run-1", "merge", "push", f"{work.url}:main", {"head": start}, after), lease)
        if landed:
            by = {"Taxiway-Run": "run-1"} if landed == "squashed" else {}
            other = work.merge(made, into="main", strategy="squash", message="As the forge has it", trailers=by).commit
            work.push(other, branch="main", expected=start, lease=lease)
    found = reconcile(World(ledger, {}, Known("failed"), lambda _: work, list), stop=Stop(), say=lambda _: None)
    assert ledger.changes("run-1")[0].state == ("done" if landed else "undone")
    assert found.settled[0].endswith(" to main landed" if landed else " to main did not land")


def test_on_a_real_service(tmp_path):
    """Switched and never settled; what was live is live again. A release that is gone is said once. A dead daemon comes back."""
    delivery = Delivery(tmp_path)
    try:
        for commit, text, run in (("a" * 40, "old", "run-0"), ("b" * 40, "new", "run-1")):
            stage = delivery.attempt("deploy", commit=commit, checkout=delivery.checkout(text), run=run)
            url = deploy.run(deploy.DeployInput(), delivery.ports, stage).outputs["url"]
        delivery.ledger.enter(RUN)
        Client(delivery.home, "greeter").stop(rest=False)
        world = World(delivery.ledger, {"local": delivery.target}, Known("success"), lambda _: None, delivery.target.revive)
        assert reconcile(world, stop=Stop(), say=lambda _: None).revived == ["greeter"]
        delivery.ledger.enter(RUN)
        world = replace(world, runs=Known("failed", unwell=["monitor"]))
        found = reconcile(world, stop=Stop(), say=lambda _: None)
        assert len(found.settled) == 1
        assert httpx.get(url, trust_env=False).text == "old"
        assert delivery.states() == [("deploy", OLD, "undone")]
        with sqlite3.connect(delivery.home.ledger) as db:
            db.execute(
                "UPDATE changes SET state = 'intended', before = ?, after = ?", (f'{{"release": "{OTHER}"}}', f'{{"release": "{OLD}"}}')
            )
        db.close()
        delivery.ledger.enter(RUN)
        found = reconcile(world, stop=Stop(), say=lambda _: None)
        assert f"release {OTHER} of service greeter is not kept any more" in found.failed[0]
        assert reconcile(world, stop=Stop(), say=lambda _: None).failed == []
        assert httpx.get(url, trust_env=False).text == "old"
    finally:
        delivery.close()
