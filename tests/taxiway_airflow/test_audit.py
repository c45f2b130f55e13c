"""An audit from a worker's settings to the gate: `dependencies` measures what the advisory service of the machine says."""

from __future__ import annotations

import logging
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from taxiway import stage
from taxiway.agents import registry
from taxiway.compiler import compile_content
from taxiway.errors import GateFailed
from taxiway.home import HOME_VARIABLE
from taxiway.integrations.advisories import INDEX_VARIABLE, URL_VARIABLE
from taxiway.stop import Stop
from taxiway_airflow.connections import build_ports

sys.path.insert(0, str(Path(__file__).parents[1]))

from advisory_server import cvss3, record, serving

PIPELINE = b"""
pipeline: audited
params: {repository: {type: string}}
stages:
  validate: {agent: validate, with: {checks: [dependencies]}, gates: [dependencies.high == 0]}
"""
HIGH = cvss3("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project with one dependency, and a home beside it that keeps what was installed."""
    place = tmp_path_factory.mktemp("audit")
    (place / "project").mkdir()
    (place / "project" / "requirements.txt").write_text("iniconfig==2.1.0\n")
    (place / "project" / "tiny.py").write_text("import iniconfig\n")
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "Begin"]):
        own = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]
        subprocess.run(["git", *own, *words], cwd=place / "project", check=True)
    return place


@pytest.fixture
def validate(folder, monkeypatch):
    """Runs the stage as a worker does whose machine names this advisory service."""

    def call(url, run):
        monkeypatch.setenv(HOME_VARIABLE, str(folder / "home"))
        monkeypatch.setenv(URL_VARIABLE, url)
        monkeypatch.setenv(INDEX_VARIABLE, url)
        plan = compile_content(PIPELINE, "audited.yaml", registry(), {})
        params, now = {"repository": str(folder / "project")}, datetime.now(UTC)
        ports = build_ports(plan, run=run, params=params, started=now, stage=plan.stage("validate"))
        context = stage.RunContext(
            run=run, attempt=1, params=params, results={}, started=now, memory=Memory(), scratch=folder / "home" / "checkouts"
        )
        return stage.run(plan, "validate", context, ports=ports, agents=registry(), stop=Stop(), log=logging.getLogger("test"))

    return call


class Memory(dict):
    """Airflow's task state store, as far as a stage uses it."""

    def set(self, key, value):
        self[key] = value

    def delete(self, key):
        self.pop(key, None)


@pytest.fixture
def server():
    with serving() as server:
        server.published.add(("iniconfig", "2.1.0"))
        yield server


def test_the_gate_passes_where_the_service_knows_nothing_against_the_packages(validate, server):
    result = validate(server.url, "good")
    assert "/v1/querybatch" in server.asked
    assert (result.metrics["dependencies.high"], [r.passed for r in result.gates]) == (0, [True])


def test_the_gate_fails_on_a_vulnerability(validate, server):
    server.found["iniconfig"] = ["GHSA-1"]
    server.records["GHSA-1"] = record("GHSA-1", "iniconfig", **HIGH)
    with pytest.raises(GateFailed) as failed:
        validate(server.url, "bad")
    (reading,) = failed.value.readings
    assert (reading.metric, reading.measured, reading.passed) == ("dependencies.high", 1, False)


def test_the_gate_fails_where_the_service_gives_no_answer(validate, server):
    server.faults["/v1/querybatch"] = lambda _path, _body: (200, b"<html>", {})
    with pytest.raises(GateFailed) as failed:
        validate(server.url, "silent")
    (reading,) = failed.value.readings
    assert (reading.measured, reading.passed) == (None, False)
    assert "no answer about 1 of 1 packages, such as iniconfig 2.1.0" in reading.note
