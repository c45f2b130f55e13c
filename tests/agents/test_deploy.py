from __future__ import annotations

import dataclasses
import importlib.util
import marshal
import sys
import threading
from pathlib import Path

import httpx
import pytest

from taxiway.agents import deploy
from taxiway.errors import Cancelled, NotTrusted, OperatorError, ProjectError
from taxiway.stop import Stop

sys.path.insert(0, str(Path(__file__).parent))

from delivery_local import MANIFEST, Delivery

A, B = "a" * 40, "b" * 40


@pytest.fixture
def delivery(tmp_path):
    made = Delivery(tmp_path)
    yield made
    made.close()


def run(delivery, commit=A, *, inputs=None, attempt=1, stop=None, run="run-1", **checkout):
    stage = delivery.attempt("deploy", commit=commit, checkout=delivery.checkout(**checkout), attempt=attempt, stop=stop, run=run)
    return deploy.run(deploy.DeployInput(**(inputs or {})), delivery.ports, stage)


def test_a_commit_becomes_a_service(delivery):
    result = run(delivery)
    url = result.outputs["url"]
    assert httpx.get(url, trust_env=False).text == "hello"
    assert result.outputs == {"url": url, "service": "greeter", "release": "a" * 12, "target": "local", "health": "/healthz"}
    assert result.summary == f"greeter aaaaaaa is live at {url}"
    assert set(result.metrics) <= set(deploy.AGENT.metrics)
    assert set(result.outputs) == set(deploy.AGENT.outputs)
    assert result.metrics["deploy.seconds"] > 0
    assert delivery.states() == [("deploy", "", "done")]


def test_a_service_is_started_as_if_it_were_installed(delivery):
    checkout = delivery.checkout()
    (checkout / "pyproject.toml").write_text('[project]\nname = "greeter-app"\nversion = "1.4"\n')
    (checkout / "src" / "greeting.py").write_text("from importlib.metadata import version\nTEXT = version('greeter-app')\n")
    result = deploy.run(deploy.DeployInput(), delivery.ports, delivery.attempt("deploy", commit=A, checkout=checkout))
    assert httpx.get(result.outputs["url"], trust_env=False).text == "1.4"


def test_bytecode_does_not_stand_in_for_its_source(delivery):
    checkout = delivery.checkout()
    code = marshal.dumps(compile("TEXT = 'another'", "greeting.py", "exec"))
    cache = checkout / "src" / "__pycache__" / f"greeting.{sys.implementation.cache_tag}.pyc"
    cache.parent.mkdir()
    # PEP 552: flags 0b01 is a hash-based pyc that nobody checks against its source.
    cache.write_bytes(importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + code)
    result = deploy.run(deploy.DeployInput(), delivery.ports, delivery.attempt("deploy", commit=A, checkout=checkout))
    assert httpx.get(result.outputs["url"], trust_env=False).text == "hello"


def test_a_file_of_the_project_is_not_taken_for_what_the_install_would_write(delivery, tmp_path):
    checkout = delivery.checkout()
    (checkout / "pyproject.toml").write_text('[project]\nname = "greeter-app"\nversion = "1.4"\n')
    (checkout / ".taxiway-installed").symlink_to(tmp_path / "elsewhere")
    deploy.run(deploy.DeployInput(), delivery.ports, delivery.attempt("deploy", commit=A, checkout=checkout))
    assert not (tmp_path / "elsewhere").exists()


def test_what_was_live_is_written_down(delivery):
    run(delivery)
    run(delivery, B, run="run-2", text="new")
    assert delivery.states("run-2") == [("deploy", "a" * 12, "done")]


def test_a_second_attempt_does_not_take_the_first_ones_work_for_what_was_there(delivery):
    run(delivery, run="run-0")
    run(delivery, B)
    run(delivery, B, attempt=2)
    assert delivery.states() == [("deploy", "a" * 12, "done")]


def test_a_cleared_deploy_brings_back_what_another_run_deployed_meanwhile(delivery):
    run(delivery, run="run-0")
    run(delivery, B)
    run(delivery, "c" * 40, run="run-2")
    run(delivery, B, attempt=2)
    assert delivery.states() == [("deploy", "a" * 12, "undone"), ("deploy", "c" * 12, "done")]


def test_name_and_health_path_can_be_set(delivery):
    result = run(delivery, inputs={"service": "other", "health": "/ok"})
    assert (result.outputs["service"], result.outputs["health"]) == ("other", "/ok")


def test_a_project_that_is_not_trusted_does_not_choose_the_service(delivery):
    delivery.ports = dataclasses.replace(delivery.ports, trusted=False)
    with pytest.raises(NotTrusted, match="calls its service 'greeter'"):
        run(delivery)
    assert delivery.states() == []
    assert run(delivery, inputs={"service": "theirs"}).outputs["service"] == "theirs"


def test_a_failure_that_switched_nothing_is_settled(delivery):
    first = run(delivery)
    with pytest.raises(ProjectError, match=r"exit code 3"):
        run(delivery, B, run="run-2", app="import sys; sys.exit(3)")
    assert delivery.states("run-2") == [("deploy", "a" * 12, "undone")]
    assert httpx.get(first.outputs["url"], trust_env=False).text == "hello"


def test_a_first_deployment_that_fails_is_settled(delivery):
    with pytest.raises(ProjectError):
        run(delivery, app="import sys; sys.exit(3)")
    assert delivery.states() == [("deploy", "", "undone")]


def test_stopped_before_the_switch(delivery):
    run(delivery)
    stop = Stop()
    threading.Timer(0.5, stop.cancel).start()
    with pytest.raises(Cancelled):
        run(delivery, B, run="run-2", app="import time; time.sleep(60)", stop=stop)
    assert delivery.target.status("greeter").live.commit == A


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        (None, "no Python project that Taxiway knows"),
        ("name: greeter\n", "does not say how the service starts"),
        ("name: [", "not valid YAML"),
        (MANIFEST.replace("name: greeter", "name: ../x"), "name"),
    ],
    ids=["missing", "no-start", "broken", "bad-name"],
)
def test_a_manifest_that_does_not_do(delivery, manifest, problem):
    with pytest.raises(ProjectError, match=problem):
        run(delivery, manifest=manifest)
    assert delivery.states() == []


def test_a_target_that_is_not_set_up(delivery):
    delivery.ports = delivery.ports.__class__(**{**vars(delivery.ports), "targets": {}})
    with pytest.raises(OperatorError, match="not set up here"):
        run(delivery)
