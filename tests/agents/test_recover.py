from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from taxiway.agents import deploy, recover
from taxiway.errors import StageError
from taxiway.ports import Change
from taxiway.stop import Stop

sys.path.insert(0, str(Path(__file__).parent))

from delivery_local import Delivery

A, B, C = "a" * 40, "b" * 40, "c" * 40


@pytest.fixture
def delivery(tmp_path):
    made = Delivery(tmp_path)
    yield made
    made.close()


def deployed(delivery, commit, text, *, run="run-1"):
    stage = delivery.attempt("deploy", commit=commit, checkout=delivery.checkout(text), run=run)
    return deploy.run(deploy.DeployInput(), delivery.ports, stage).outputs["url"]


def recovered(delivery, *, covers=("deploy", "monitor"), attempt=1):
    stage = delivery.attempt("rollback", covers=covers, attempt=attempt)
    return recover.run(recover.RecoverInput(), delivery.ports, stage), stage


def test_what_was_live_lives_again(delivery):
    url = deployed(delivery, A, "old", run="run-0")
    deployed(delivery, B, "new")
    result, stage = recovered(delivery)
    assert httpx.get(url, trust_env=False).text == "old"
    assert result.outcome == "success"
    assert result.summary == f"greeter runs release {'a' * 12} again at {url}"
    assert delivery.states() == [("deploy", "a" * 12, "undone")]
    assert json.loads((stage.reports / "recover.json").read_text())["what"] == [result.summary]


def test_doing_it_again_does_nothing(delivery):
    deployed(delivery, A, "old", run="run-0")
    deployed(delivery, B, "new")
    recovered(delivery)
    again, _ = recovered(delivery, attempt=2)
    assert again.outcome == "skipped"


def test_what_was_not_there_is_stopped(delivery):
    url = deployed(delivery, A, "new")
    result, _ = recovered(delivery)
    assert result.summary == "greeter was not there before this run and is stopped"
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_an_intention_that_was_never_acted_on_is_undone_too(delivery):
    deployed(delivery, A, "old", run="run-0")
    pid = delivery.target.status("greeter").pid
    change = Change(
        run="run-1", stage="deploy", kind="deploy", key="local:greeter", before={"release": "a" * 12}, after={"release": "b" * 12}
    )
    with delivery.ledger.lease("deploy:local:greeter", holder="run-1/deploy", attempt=1, stop=Stop()) as lease:
        delivery.ledger.intend(change, lease)
    result, _ = recovered(delivery)
    assert result.outcome == "success"
    assert delivery.states() == [("deploy", "a" * 12, "undone")]
    assert delivery.target.status("greeter").pid == pid


def test_a_push_stays_and_is_said(delivery):
    deployed(delivery, A, "new")
    with delivery.ledger.lease("push:main", holder="run-1/integrate", attempt=1, stop=Stop()) as lease:
        change = Change(run="run-1", stage="integrate", kind="push", key="main", before={}, after={})
        delivery.ledger.settle(delivery.ledger.intend(change, lease), "done", {}, lease)
    result, _ = recovered(delivery)
    assert result.summary.endswith("; the push to main stays")


@pytest.mark.parametrize("covers", [("deploy",), ("other",)])
def test_nothing_to_undo(delivery, covers):
    if covers == ("other",):
        deployed(delivery, A, "new")
    result, _ = recovered(delivery, covers=covers)
    assert result.outcome == "skipped"
    assert result.summary == f"this run changed nothing that stage(s) {covers[0]} would have to undo"


def test_what_another_run_deployed_meanwhile_is_left(delivery):
    deployed(delivery, A, "old", run="run-0")
    deployed(delivery, B, "new")
    url = deployed(delivery, C, "newest", run="run-2")
    result, _ = recovered(delivery)
    assert "of another run: left as it is" in result.summary
    assert httpx.get(url, trust_env=False).text == "newest"


def test_what_cannot_be_brought_back_says_what_is_live(delivery):
    deployed(delivery, A, "old", run="run-0")
    url = deployed(delivery, B, "new")
    (delivery.home.services / "greeter" / "releases" / ("a" * 12) / "project").rename(delivery.folder / "gone")
    with pytest.raises(StageError, match=f"files of release {'a' * 12} are gone.*\n  live now: release {'b' * 12}, running, {url}"):
        recovered(delivery)
    assert delivery.states() == [("deploy", "a" * 12, "done")]


DIE = """
import dataclasses, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_recover as t
delivery = t.Delivery(Path(sys.argv[2]))
delivery.ports = t.deadly(delivery.ports, *sys.argv[3:])
t.recovered(delivery)
"""


class Dies:
    """Passes every call on, and kills this process before, inside (at the target's first word) or after one of them."""

    def __init__(self, inner, when, step):
        self._inner, self._when, self._step = inner, when, step

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        if name != self._step:
            return found

        def call(*args, **named):
            if self._when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            if self._when == "inside":
                named["say"] = lambda _: os.kill(os.getpid(), signal.SIGKILL)
            found(*args, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        return call


def deadly(ports, when, step):
    return dataclasses.replace(ports, ledger=Dies(ports.ledger, when, step), targets={"local": Dies(ports.targets["local"], when, step)})


@pytest.mark.parametrize("point", ["before restore", "inside restore", "after restore", "before settle", "after settle"])
def test_a_recovery_killed_anywhere_switches_once(delivery, point):
    deployed(delivery, A, "old", run="run-0")
    url = deployed(delivery, B, "new")
    command = [sys.executable, "-c", DIE, str(Path(__file__).parent), str(delivery.folder), *point.split()]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    result, _ = recovered(delivery, attempt=2)
    assert result.outcome == ("skipped" if point == "after settle" else "success")
    assert httpx.get(url, trust_env=False).text == "old"
    assert delivery.states() == [("deploy", "a" * 12, "undone")]
    log = (delivery.home.services / "greeter" / "service.log").read_text()
    # The daemon says it once for each switch: two deployments and one way back.
    assert [line.split("release ")[1][0] for line in log.splitlines() if line.endswith(" is live")] == ["a", "b", "a"]
