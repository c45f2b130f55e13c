from __future__ import annotations

import fcntl
import os
import stat
import time
from pathlib import Path

import pytest

from taxiway.home import Home
from taxiway.integrations.environments import UvEnvironments
from taxiway.integrations.ledger import SqliteLedger
from taxiway.integrations.local.state import HealthSettings, State, StoredRelease, write_state
from taxiway.maintenance.gc import Keep, as_json, collect
from taxiway.ports import Change, RunRecord
from taxiway.stop import Stop

DAY = 86_400
HEALTH = HealthSettings(path="/", within_s=1, every_s=1, needed=1, timeout_s=1)


class Known:
    def __init__(self, live=(), waiting=0):
        self.live, self.wait = live, waiting

    def state(self, pipeline, run_id):
        return "live" if run_id in self.live else "success"

    def waiting(self, pipeline):
        return self.wait

    def unwell(self, pipeline, run_id, stages):
        return []


def age(place: Path, days: float) -> None:
    moment = time.time() - days * DAY
    for path in (*place.rglob("*"), place):
        os.utime(path, (moment, moment), follow_symlinks=False)


class Installation:
    def __init__(self, folder):
        self.home = Home(folder / "home")
        self.ledger = SqliteLedger(self.home.ledger)

    def file(self, path, size=10, days=100.0):
        place = self.home.path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"x" * size)
        age(place, days)
        folder = place.parent
        while folder != self.home.path:
            os.utime(folder, (place.stat().st_mtime,) * 2)
            folder = folder.parent
        return place

    def run(self, name, *, days=100.0, closed=True, version="v", url=None):
        """A run with a report, a repository and a log."""
        self.file(f"artifacts/shop/{name}/validate/1/report.txt", days=days)
        self.file(f"repositories/shop/{name}.git/HEAD", days=days)
        self.file(f"airflow/logs/dag_id=shop/run_id={name}/task_id=a/attempt=1.log", days=days)
        born = time.time() - days * DAY
        place = url or str(self.home.repositories / "shop" / f"{name}.git")
        record = RunRecord(run=name, pipeline="shop", run_id=name, born=born, version=version, url=place)
        self.ledger.enter(record)
        with self.ledger._store.transaction() as db:
            db.execute("UPDATE runs SET entered = ?, closed = ? WHERE run = ?", (born, born if closed else 0, name))
        return record

    def service(self, name, *, live="", environment="", days=100.0, release="a" * 12):
        folder = self.home.services / name
        folder.mkdir(parents=True)
        stored = StoredRelease(
            id=release, service=name, commit="a" * 40, start=(), port=0, health=HEALTH, env={}, environment_key=environment, isolated=False
        )
        since = time.time() - days * DAY
        write_state(folder, State(service=name, live=live, previous=release, since=since, stopped=not live, releases=(stored,)))

    def collect(self, known=None, **options):
        options = {"keep": Keep(days=30, runs=0), **options}
        return collect(self.home, self.ledger, known or Known(), stop=Stop(), say=lambda _: None, **options)

    def left(self):
        return sorted(str(p.relative_to(self.home.path)) for p in self.home.path.rglob("*") if p.is_file() and "ledger" not in p.name)


@pytest.fixture
def here(tmp_path):
    return Installation(tmp_path)


def runs_left(here):
    return [r.run for r in here.ledger.runs()]


def test_an_old_run_goes_as_a_whole(here):
    here.run("old")
    found = here.collect()
    assert (here.left(), runs_left(here)) == ([], [])
    assert as_json(found)["removed"] == {kind: {"count": 1, "bytes": 10} for kind in ("artifacts", "log", "repository")}
    assert as_json(here.collect())["removed"] == {}


def test_a_dry_run_removes_nothing(here):
    here.run("old")
    here.file("environments/abc/x")
    here.file("checkouts/old-validate-1/x")
    before = here.left()
    found = here.collect(dry_run=True)
    assert sorted(found.count) == ["artifacts", "checkout", "environment", "log", "repository"]
    assert [p for p in here.left() if not p.endswith(".used")] == before
    assert runs_left(here) == ["old"]


@pytest.mark.parametrize(
    ("known", "keep", "options"),
    [
        (Known(live=["r"]), Keep(30, 0), {}),
        (Known(), Keep(365, 0), {}),
        (Known(), Keep(30, 1), {}),
        (Known(), Keep(30, 0), {"closed": False}),
    ],
    ids=["it lives", "young", "one of the last", "not settled"],
)
def test_what_stays(here, known, keep, options):
    here.run("r", **options)
    before = here.left()
    found = here.collect(known, keep=keep)
    assert here.left() == before
    assert runs_left(here) == ["r"]
    assert found.unsettled == (1 if options else 0)


def test_the_newest_runs_of_each_pipeline_stay(here):
    for days in (50, 60, 70):
        here.run(f"r{days}", days=days)
    here.collect(keep=Keep(30, 2))
    assert runs_left(here) == ["r60", "r50"]


def test_what_a_service_was_made_from_stays(here):
    here.run("old")
    with here.ledger.lease("deploy:local:shop", holder="old/deploy", attempt=1, stop=Stop()) as lease:
        change = Change("old", "deploy", "deploy", "local:shop", {"release": ""}, {"release": "a" * 12})
        here.ledger.settle(here.ledger.intend(change, lease), "done", change.after, lease)
    here.service("shop", live="a" * 12)
    here.collect()
    assert "repositories/shop/old.git/HEAD" in here.left()


def test_a_repository_that_another_run_works_on_stays(here):
    here.run("old")
    here.run("new", days=1, url="file://" + str(here.home.repositories / "shop" / "old.git"))
    here.collect()
    assert "repositories/shop/old.git/HEAD" in here.left()


def test_what_the_ledger_does_not_know_goes_by_age(here):
    here.file("artifacts/shop/lost/a/1/x", days=100)
    here.file("repositories/shop/lost.git/HEAD", days=100)
    here.file("artifacts/.bundles/pipelines/versions/v/x", days=100)
    here.file("repositories/mirrors/abc.git/HEAD", days=100)
    here.file("artifacts/shop/fresh/a/1/x", days=1)
    here.collect()
    kept = ["artifacts/.bundles/pipelines/versions/v/x", "artifacts/shop/fresh/a/1/x", "repositories/mirrors/abc.git/HEAD"]
    assert here.left() == kept


def test_a_checkout_goes_when_nobody_works_in_it(here):
    here.file("checkouts/run-1-validate-x/checkout/a", days=1)
    here.file("checkouts/run-2-validate-x/checkout/a", days=1)
    here.file("checkouts/run-3-validate-x/checkout/a", days=0)
    with here.ledger.lease("attempt:run-1/validate", holder="run-1/validate", attempt=1, stop=Stop()):
        here.collect()
    assert here.left() == ["checkouts/run-1-validate-x/checkout/a", "checkouts/run-3-validate-x/checkout/a"]


def test_environments(here):
    for key, days in (("old", 100), ("young", 1), ("served", 100), ("used", 100)):
        here.file(f"environments/{key}/lib/x", days=days)
    (here.home.environments / "old" / "lib").chmod(0o555)
    (here.home.environments / "old").chmod(0o555)
    here.service("shop", live="a" * 12, environment="served")
    with (here.home.environments / "used.used").open("a") as mark:
        age(Path(mark.name), 100)
        fcntl.flock(mark, fcntl.LOCK_SH)
        found = here.collect()
    assert sorted(p.name for p in here.home.environments.iterdir() if not p.suffix) == ["served", "used", "young"]
    assert found.problems == []
    here.collect()
    assert sorted(p.name for p in here.home.environments.iterdir() if not p.suffix) == ["served", "young"]


def test_a_real_environment_in_use_stays(here, tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / ".taxiway.yaml").write_text("name: shop\n")
    environments = UvEnvironments(here.home)
    made = environments.project(tmp_path / "project", Stop())
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o555
    age(made.path.with_name(f"{made.key}.used"), 100)
    here.collect()
    assert made.python.exists()
    del environments
    here.collect()
    assert not made.path.exists()
    again = UvEnvironments(here.home).project(tmp_path / "project", Stop())
    assert again.python.exists()
    assert not again.cached


def test_services_that_were_taken_away(here):
    here.service("resting", live="a" * 12)
    here.service("gone")
    here.service("gone-lately", days=1)
    here.collect()
    assert sorted(p.name for p in here.home.services.iterdir()) == ["gone-lately", "resting"]


def test_versions_that_a_run_needs_stay(here):
    class Store:
        asked = None

        def pipelines(self):
            return {"other"}

        def collect(self, keep, before, *, dry_run):
            self.asked = keep
            return [("v0", 7)]

    here.run("young", days=1, version="v1")
    here.run("old", version="v0")
    store = Store()
    found = here.collect(versions=[store])
    assert store.asked == {"v1"}
    assert (found.count["version"], found.bytes["version"]) == (1, 7)
    waits = Store()
    here.collect(Known(waiting=1), versions=[waits])
    assert waits.asked is None


def test_branches_elsewhere_only_where_asked(here):
    here.run("old", url="https://git.example.com/shop.git")
    asked = []
    found = here.collect(dry_run=True, drop_branches=asked.append)
    assert (found.count["branch"], asked) == (1, [])
    here.collect(drop_branches=lambda run: asked.append(run.url) or True)
    assert asked == ["https://git.example.com/shop.git"]


def test_what_a_killed_one_left_is_finished(here):
    here.file("environments/.gone-1/x")
    here.file("artifacts/shop/.gone-2/x")
    here.collect()
    assert here.left() == []


def test_one_problem_does_not_keep_the_rest(here):
    for name in ("a", "b"):
        here.run(name, url="https://git.example.com/shop.git")

    def drop(run):
        if run.run == "a":
            raise OSError("no way")
        return True

    found = here.collect(drop_branches=drop)
    assert found.problems == ["run shop a: no way"]
    assert runs_left(here) == ["a"]


def test_unreadable_state_stops_everything(here):
    here.run("old")
    (here.home.services / "shop").mkdir(parents=True)
    (here.home.services / "shop" / "state.json").write_text("{")
    before = here.left()
    with pytest.raises(Exception, match="cannot be read"):
        here.collect()
    assert here.left() == before
