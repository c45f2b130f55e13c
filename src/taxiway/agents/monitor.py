"""monitor: watches what this run deployed for a while and measures it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, StringConstraints

from taxiway.agents.base import Agent, AgentInput, Metric, StageAttempt, WithinTimeout
from taxiway.errors import InputError, StageError
from taxiway.ports import Ports
from taxiway.records import Result
from taxiway.waiting import attended

if TYPE_CHECKING:
    import httpx

__all__ = ["AGENT", "MonitorInput", "Sample", "measure", "seconds"]

_TIMEOUT_S = 5.0
_BYTES = 10_000_000
_SAY_S = 10.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Duration = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)$")]


class MonitorInput(AgentInput):
    """What to watch, and how long."""

    window: Annotated[Duration, WithinTimeout()] = Field(default="30s", alias="for", description="How long to watch")
    every: Duration = Field(default="1s", description="Time between two rounds of requests")
    paths: list[Annotated[str, StringConstraints(pattern=r"^/[\w./~%?=&-]*$", max_length=201)]] = Field(
        default_factory=list, max_length=20, description="Paths to request besides the health path"
    )


@dataclass(frozen=True)
class Sample:
    """One request: seconds after the start, its status (None without an answer), milliseconds to the last byte, what went wrong."""

    at_s: float
    path: str
    status: int | None
    ms: float
    error: str = ""

    @property
    def good(self) -> bool:
        """Whether it was answered whole with 2xx or 3xx."""
        return not self.error and self.status is not None and 200 <= self.status < 400  # noqa: PLR2004 - HTTP's own numbers


def run(inputs: MonitorInput, ports: Ports, stage: StageAttempt) -> Result:
    """Request each path in turn until the window is over."""
    deployed = _deployed(stage)
    if deployed is None:
        return Result(outcome="skipped", summary="no stage before deployed a service")
    window_s, every_s = seconds(inputs.window), max(0.01, seconds(inputs.every))
    if stage.stop.remaining_s() < window_s:
        raise InputError(
            f"watching for {inputs.window} does not fit into the {stage.stop.remaining_s():.0f} s that the stage has left",
            hint="raise the stage's timeout or limits.duration, or watch for less",
        )
    url, paths = str(deployed.outputs["url"]), _paths(inputs, deployed)
    samples: list[Sample] = []
    try:
        _watch(url, paths, window_s, every_s, stage, samples)
    finally:
        report = {"url": url, "paths": paths, "window_s": window_s, "every_s": every_s, "samples": [asdict(s) for s in samples]}
        (stage.reports / "monitor.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    metrics, unmeasured = measure(samples)
    if why := _replaced(deployed, ports):
        metrics, unmeasured = {}, dict.fromkeys(AGENT.metrics, why)
    return Result(metrics=metrics, unmeasured=unmeasured, summary=_summary(url, samples, metrics))


def seconds(duration: str) -> float:
    """`500ms`, `10s`, `5m` or `1h` as seconds."""
    unit = "ms" if duration.endswith("ms") else duration[-1]
    return float(duration.removesuffix(unit)) * _UNITS[unit]


def measure(samples: Sequence[Sample]) -> tuple[dict[str, float], dict[str, str]]:
    """Metrics, and why others have no value. Percentiles by nearest rank over the requests that were answered or
    timed out: one that was refused at once says nothing about how fast answers are."""
    if not samples:
        why = "no request was made"
        return {}, dict.fromkeys(("availability", "latency.p50_ms", "latency.p95_ms", "requests"), why)
    metrics = {"requests": float(len(samples)), "availability": sum(s.good for s in samples) / len(samples)}
    times = sorted(s.ms for s in samples if s.status is not None or s.error.startswith("timeout"))
    if not times:
        return metrics, dict.fromkeys(("latency.p50_ms", "latency.p95_ms"), "no request was answered")
    for name, share in (("latency.p50_ms", 0.50), ("latency.p95_ms", 0.95)):
        metrics[name] = times[max(0, math.ceil(share * len(times)) - 1)]
    return metrics, {}


def _deployed(stage: StageAttempt) -> Result | None:
    """The nearest deploy before; None where every stage that could have deployed was skipped."""
    for result in reversed(list(stage.results.values())):
        if result.outputs.get("url") and result.outputs.get("release"):
            return result
    if any(r.outcome == "failed" for r in stage.results.values()):
        raise StageError("no stage before deployed a service", hint="see the stage before that failed")
    return None


def _replaced(deployed: Result, ports: Ports) -> str:
    """Why the samples say nothing about this run's release: another run's, or the one that a recovery brought back, is live."""
    target = ports.targets.get(str(deployed.outputs.get("target", "")))
    # Asked last: a target may start a service again that it finds dead, and that must not improve what is measured.
    now = target.status(str(deployed.outputs.get("service", ""))) if target else None
    if now is None or now.live is None or now.live.id == deployed.outputs["release"]:
        return ""
    return f"release {now.live.id} is live, and not {deployed.outputs['release']}, which this run deployed"


def _paths(inputs: MonitorInput, deployed: Result) -> list[str]:
    return list(dict.fromkeys([str(deployed.outputs.get("health") or "/healthz"), *inputs.paths]))


def _watch(url: str, paths: list[str], window_s: float, every_s: float, stage: StageAttempt, samples: list[Sample]) -> None:  # noqa: PLR0917
    import httpx  # noqa: PLC0415 - heavy, and agents are imported while a DAG is parsed

    with httpx.Client(base_url=url, follow_redirects=False, timeout=_TIMEOUT_S, trust_env=False) as client:
        began = said = time.monotonic()
        rounds = 0
        while (now := time.monotonic() - began) < window_s:
            for path in paths:
                stage.stop.check()
                samples.append(attended(partial(_request, client, path, time.monotonic() - began), stage.stop))
            if time.monotonic() - said >= _SAY_S:
                said = time.monotonic()
                stage.log.info("%d s of %g s: %s", now, window_s, _counts(samples))
            # Late rounds are left out, not made up for: the load stays what the spec says.
            rounds = max(rounds + 1, math.ceil((time.monotonic() - began) / every_s))
            stage.stop.wait(max(0.0, min(rounds * every_s, window_s) - (time.monotonic() - began)))


def _request(client: httpx.Client, path: str, at_s: float) -> Sample:
    import httpx  # noqa: PLC0415

    began = time.monotonic()
    status, error, size = None, "", 0
    try:
        with client.stream("GET", path) as answer:
            status = answer.status_code
            for chunk in answer.iter_raw():
                size += len(chunk)
                if time.monotonic() - began > _TIMEOUT_S:
                    error = f"timeout: not whole within {_TIMEOUT_S:g} s"
                if error or size > _BYTES:
                    break
    except httpx.TimeoutException:
        error = f"timeout: no answer within {_TIMEOUT_S:g} s"
    except (httpx.HTTPError, httpx.InvalidURL) as failure:
        error = f"{type(failure).__name__}: {failure}"[:300]
    return Sample(at_s=round(at_s, 3), path=path, status=status, ms=round((time.monotonic() - began) * 1000, 3), error=error)


def _counts(samples: Sequence[Sample]) -> str:
    bad = [s for s in samples if not s.good]
    text = f"{len(samples)} requests, {len(bad)} failed"
    return f"{text} (last: {bad[-1].path} {bad[-1].error or bad[-1].status})" if bad else text


def _summary(url: str, samples: Sequence[Sample], metrics: dict[str, float]) -> str:
    p95 = f", p95 {metrics['latency.p95_ms']:.0f} ms" if "latency.p95_ms" in metrics else ""
    return f"{url}: {_counts(samples)}{p95}"


AGENT = Agent(
    name="monitor",
    summary="Watches the deployed service and measures availability and latency.",
    inputs=MonitorInput,
    run=run,
    metrics={
        "availability": Metric("share of requests answered with 2xx or 3xx, 0 to 1", most=1),
        "latency.p50_ms": Metric("median time to the last byte", "ms"),
        "latency.p95_ms": Metric("95th percentile of the time to the last byte", "ms"),
        "requests": Metric("requests made"),
    },
    gates=("requests >= 1", "availability >= 0.95"),
    after=("deploy",),
)
