"""A stage that waits for a model ends when it is stopped and when its time is up, whatever the model's server does."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from taxiway.agents.loop import Task
from taxiway.agents.tools import Tools
from taxiway.compiler.plan import ModelChoice
from taxiway.errors import Cancelled, ModelUnavailable, StageTimeout
from taxiway.records import Result
from taxiway.stop import Stop
from taxiway.testing import Failure, Hang, ScriptedClaude

PROMISED_S = 4.0


class Words(BaseModel):
    text: str


class Trickle:
    """Begins an answer to each request and sends a blank of it again and again: no timeout of a silence ever ends this."""

    def __init__(self, listener):
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.requests, self._listener, self._over = [], listener, threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self):
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._answer, args=(connection,)))
            self._threads[-1].start()

    def _answer(self, connection):
        with connection:
            self.requests.append(connection.recv(65_536))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n")
            while not self._over.wait(0.05):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return


@contextmanager
def trickle():
    with socket.create_server(("127.0.0.1", 0)) as listener, Trickle(listener) as server:
        yield server


# Each with what the stage ends by when its time is up. Who is to come back after that says at once that the provider is away.
SERVERS = {
    "no answer": (lambda: ScriptedClaude(lambda _: Hang(600)), StageTimeout),
    "asked to come back later": (lambda: ScriptedClaude(lambda _: Failure(529, retry_after_s=50)), ModelUnavailable),
    "an answer that never ends": (trickle, StageTimeout),
}


@pytest.fixture(params=list(SERVERS.values()), ids=list(SERVERS))
def server(request):
    with request.param[0]() as server:
        server.times_out_as = request.param[1]
        yield server


def writer(_inputs, ports, attempt):
    (attempt.checkout / "written").write_text("before the model was asked\n")
    task = Task(system="s", project="p", request="r", answer=Words)
    attempt.mind.work(task, Tools(attempt.checkout, ports.sandbox, attempt.stop))
    return Result(summary="never")


def thinking(bench, server, **changes):
    bench.stage("s", writer, effect="writes", **changes)
    bench.think(server, retries=4)


def once_asked(server, act):
    """Do something when the server has got a request."""

    def watch():
        end = time.monotonic() + 60
        while not server.requests and time.monotonic() < end:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def given_back(bench):
    """Every call is over in the ledger and counts nothing; nothing was committed."""
    calls = bench.ledger.spending("run-1")
    assert calls
    assert {call.state for call in calls} <= {"returned", "failed"}
    assert bench.workspace.head(bench.workspace.branch) == ""


def test_a_signal_ends_the_wait_for_a_model(bench, server):
    stop, at = Stop(), SimpleNamespace(signal=0.0)

    def kill():
        at.signal = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)

    thinking(bench, server)
    # What on_kill does in a task: the handler sets a flag and returns into the work.
    before = signal.signal(signal.SIGTERM, lambda *_: stop.cancel())
    try:
        thread = once_asked(server, kill)
        with pytest.raises(Cancelled):
            bench.run("s", stop=stop)
        took = time.monotonic() - at.signal
        thread.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert took < PROMISED_S
    given_back(bench)
    assert len(server.requests) == 1


def test_the_time_of_a_try_ends_the_wait_for_a_model(bench, server):
    thinking(bench, server, timeout_s=5)
    began = time.monotonic()
    with pytest.raises(server.times_out_as):
        bench.run("s")
    assert time.monotonic() - began < 5 + PROMISED_S
    given_back(bench)


def test_another_model_has_only_the_time_that_is_left(bench):
    with ScriptedClaude(lambda _: Hang(600)) as claude:
        thinking(bench, claude, timeout_s=4)
        choice = ModelChoice("m", "other", 4000, "")
        models = dataclasses.replace(bench.policy.models, choices={"": choice}, prices={"m": (1.0,) * 4, "other": (1.0,) * 4})
        bench.policy = dataclasses.replace(bench.policy, models=models)
        began = time.monotonic()
        with pytest.raises(StageTimeout):
            bench.run("s")
    assert time.monotonic() - began < 4 + PROMISED_S
    given_back(bench)
