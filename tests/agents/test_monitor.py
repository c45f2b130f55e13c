from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from taxiway.agents import deploy, monitor
from taxiway.agents.monitor import Sample
from taxiway.errors import Cancelled, InputError, StageError
from taxiway.records import Result
from taxiway.stop import Stop

sys.path.insert(0, str(Path(__file__).parent))

from delivery_local import Delivery, serving


@pytest.fixture
def delivery(tmp_path):
    return Delivery(tmp_path)


def watch(delivery, url, *, stop=None, results=None, **inputs):
    found = {"deploy": Result(outputs={"url": url, "release": "a", "health": "/healthz"})} if results is None else results
    stage = delivery.attempt("monitor", results=found, stop=stop)
    given = monitor.MonitorInput.model_validate({"for": "400ms", "every": "50ms", **inputs})
    return monitor.run(given, delivery.ports, stage), stage


def plain(status=200, body=b"ok", **headers):
    def answer(handler):
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_a_healthy_service(delivery):
    with serving(plain()) as url:
        result, stage = watch(delivery, url, paths=["/"])
    assert result.metrics["availability"] == 1.0
    assert 4 <= result.metrics["requests"] <= 18
    assert 0 < result.metrics["latency.p50_ms"] <= result.metrics["latency.p95_ms"]
    assert set(result.metrics) == set(monitor.AGENT.metrics)
    report = json.loads((stage.reports / "monitor.json").read_text())
    assert len(report["samples"]) == result.metrics["requests"]
    assert {s["path"] for s in report["samples"]} == {"/healthz", "/"}


@pytest.mark.parametrize(
    ("answer", "availability"),
    [
        pytest.param(plain(500), 0.0, id="500"),
        pytest.param(plain(404), 0.0, id="404"),
        pytest.param(plain(302, Location="/elsewhere"), 1.0, id="redirect-not-followed"),
        pytest.param(lambda handler: handler.wfile.write(b"what?\r\n\r\n"), 0.0, id="no-http"),
        pytest.param(plain(200, b"half", **{"Content-Length": "100", "Connection": "close"}), 0.0, id="not-whole"),
    ],
)
def test_what_counts_as_available(delivery, answer, availability):
    def ending(handler):
        answer(handler)
        handler.close_connection = True

    with serving(ending) as url:
        result, _ = watch(delivery, url)
    assert result.metrics["availability"] == availability


def test_a_service_that_is_gone(delivery):
    result, _ = watch(delivery, "http://127.0.0.1:1")
    assert result.metrics["availability"] == 0.0
    assert result.unmeasured == dict.fromkeys(("latency.p50_ms", "latency.p95_ms"), "no request was answered")
    assert "failed (last: /healthz ConnectError" in result.summary


def test_an_endless_answer_is_read_to_the_limit(delivery):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        with __import__("contextlib").suppress(OSError):
            while True:
                handler.wfile.write(b"x" * 1_000_000)

    with serving(endless) as url:
        result, _ = watch(delivery, url, **{"for": "10ms"})
    assert result.metrics["requests"] == 1


def test_no_request_is_not_measured(delivery):
    result, _ = watch(delivery, "http://127.0.0.1:1", **{"for": "0s"})
    assert result.metrics == {}
    assert set(result.unmeasured) == set(monitor.AGENT.metrics)


def test_a_stopped_window_ends_at_once(delivery):
    stop = Stop()
    threading.Timer(0.2, stop.cancel).start()
    with serving(plain()) as url, pytest.raises(Cancelled):
        watch(delivery, url, stop=stop, **{"for": "20m", "every": "20m"})


def test_a_window_that_does_not_fit_the_stage(delivery):
    stop = Stop()
    stop.arm(5, None)
    with pytest.raises(InputError, match="watching for 10m does not fit into the"):
        watch(delivery, "http://127.0.0.1:1", stop=stop, **{"for": "10m"})


def test_nothing_was_deployed(delivery):
    assert watch(delivery, "", results={"deploy": Result(outcome="skipped")})[0].outcome == "skipped"
    with pytest.raises(StageError, match="no stage before deployed"):
        watch(delivery, "", results={"deploy": Result(outcome="failed")})


def test_another_release_is_no_measurement_of_this_one(delivery):
    outputs = []
    try:
        for commit, run in (("a" * 40, "run-1"), ("b" * 40, "run-2")):
            stage = delivery.attempt("deploy", commit=commit, checkout=delivery.checkout(), run=run)
            outputs.append(deploy.run(deploy.DeployInput(), delivery.ports, stage).outputs)
        found = [watch(delivery, "", results={"deploy": Result(outputs=o)})[0] for o in outputs]
    finally:
        delivery.close()
    assert found[0].metrics == {}
    assert set(found[0].unmeasured) == set(monitor.AGENT.metrics)
    assert "release bbbbbbbbbbbb is live, and not aaaaaaaaaaaa" in found[0].unmeasured["availability"]
    assert found[1].metrics["availability"] == 1.0


def test_the_nearest_deployment_is_watched(delivery):
    with serving(plain()) as url:
        results = {
            "first": Result(outputs={"url": "http://127.0.0.1:1", "release": "a"}),
            "second": Result(outputs={"url": url, "release": "b"}),
        }
        assert watch(delivery, "", results=results)[0].metrics["availability"] == 1.0


@pytest.mark.parametrize(
    ("times", "p50", "p95"),
    [([10], 10, 10), ([1, 2, 3, 4], 2, 4), (list(range(1, 101)), 50, 95), (list(range(1, 21)), 10, 19)],
    ids=["one", "four", "hundred", "twenty"],
)
def test_percentiles_by_nearest_rank(times, p50, p95):
    metrics, _ = monitor.measure([Sample(0.0, "/", 200, float(ms)) for ms in reversed(times)])
    assert (metrics["latency.p50_ms"], metrics["latency.p95_ms"]) == (p50, p95)


def test_a_timeout_counts_as_slow_and_failed_and_a_refusal_as_failed_alone():
    samples = [
        Sample(0, "/", 200, 10.0),
        Sample(0, "/", None, 5000.0, "timeout: no answer within 5 s"),
        Sample(0, "/", None, 0.1, "ConnectError: refused"),
    ]
    metrics, unmeasured = monitor.measure(samples)
    assert metrics["availability"] == pytest.approx(1 / 3)
    assert (metrics["latency.p50_ms"], metrics["latency.p95_ms"], unmeasured) == (10.0, 5000.0, {})


@pytest.mark.parametrize(("text", "value"), [("500ms", 0.5), ("1.5s", 1.5), ("2m", 120), ("1h", 3600)])
def test_durations(text, value):
    assert monitor.seconds(text) == value


@pytest.mark.parametrize("inputs", [{"for": "1"}, {"for": "-1s"}, {"paths": ["http://x"]}, {"paths": ["//x y"]}, {"window": 3}])
def test_inputs_that_do_not_do(inputs):
    with pytest.raises(ValidationError):
        monitor.MonitorInput.model_validate(inputs)


def test_a_service_that_does_not_answer_does_not_keep_a_stopped_run(delivery):
    stop, at, over = Stop(), [], threading.Event()

    def silent(_handler):
        at.append(time.monotonic())
        stop.cancel()
        over.wait(60)

    with serving(silent) as url:
        with pytest.raises(Cancelled):
            watch(delivery, url, stop=stop, **{"for": "20m"})
        assert time.monotonic() - at[0] < 4
        over.set()
