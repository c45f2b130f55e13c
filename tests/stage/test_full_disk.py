"""A disk that is full at each step of an attempt: the operator of the system is told, and the next attempt finds nothing broken."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager

import pytest

from taxiway.errors import OperatorError
from taxiway.ports import Change
from taxiway.records import Result
from taxiway.stop import Stop

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")


@contextmanager
def small(place, *options):
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def writes(size):
    def writer(_inputs, _ports, attempt):
        (attempt.checkout / "made").write_bytes(os.urandom(size))
        return Result(summary="wrote")

    return writer


def test_no_room_for_the_folders_of_an_attempt(bench):
    bench.stage("s", writes(10), effect="writes")
    with small(bench.home.checkouts, "size=1m", "nr_inodes=2"):
        (bench.home.checkouts / "last").touch()
        with pytest.raises(OperatorError, match="No space left") as caught:
            bench.run("s")
        assert "taxiway gc" in caught.value.hint
    assert bench.run("s").outcome == "success"


def test_no_room_for_what_an_agent_writes(bench):
    bench.stage("s", writes(2_000_000), effect="writes")
    with small(bench.home.checkouts, "size=1m"):
        with pytest.raises(OperatorError, match="No space left"):
            bench.run("s")
        assert bench.left_behind() == []
    assert bench.workspace.head(bench.workspace.branch) == ""


def test_no_room_for_a_commit(bench):
    bench.stage("s", writes(2_000_000), effect="writes")
    with small(bench.home.repositories, "size=1m"):
        with pytest.raises(OperatorError, match="No space left"):
            bench.run("s")
        assert bench.workspace.head(bench.workspace.branch) == ""
        assert bench.left_behind() == []
        assert not list(bench.home.repositories.rglob("*.lock"))


def test_no_room_for_the_ledger(bench):
    folder = bench.home.path
    with small(folder, "size=2m"), bench.ledger.lease("k", holder="h", attempt=1, stop=Stop()) as lease:
        with pytest.raises(OperatorError, match=r"the ledger .* cannot be used"):
            bench.ledger.intend(Change("r", "s", "push", "k", {}, {"x": "y" * 4_000_000}), lease)
        # What did not fit is not half there, and the lease is still held.
        assert bench.ledger.changes("r") == ()
        lease.check()
        assert bench.ledger.intend(Change("r", "s", "push", "k", {}, {}), lease).state == "intended"
