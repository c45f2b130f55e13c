"""Secrets planted where a worker has them: a run that repairs leaves none of them anywhere, whatever code and model try."""

from __future__ import annotations

import base64
import dataclasses
import logging
import sqlite3
from urllib.parse import quote

import pytest

from taxiway.compiler.plan import Gate, Repair, Retries
from taxiway.errors import GateFailed, RepairDue
from taxiway.integrations import bubblewrap
from taxiway.integrations.git import GitCredentials
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.ports import Command
from taxiway.records import Result
from taxiway.testing import ScriptedClaude, use

IN_ENVIRONMENT = "canary-of-the-environment/+1"
IN_GIT = "canary-of-git-9f2"
IN_CONNECTION = "canary-of-a-connection-77"
IN_FILES = "canary-of-a-home-file"
CANARIES = (IN_ENVIRONMENT, IN_GIT, IN_CONNECTION, IN_FILES)
SPY = "env; cat /proc/*/environ; cat ~/.netrc {home}/.netrc ~/.git-credentials; git config --list; cat /proc/*/cmdline; exit 0"

pytestmark = pytest.mark.skipif(bubblewrap.available() is not None, reason=str(bubblewrap.available()))


def forms(secret):
    """As it is, as a URL writes it, and as base64 writes it alone. In a longer text that is base64 it is not looked for."""
    return {secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode().rstrip("=")}


def everything(bench, tmp_path):
    """All that a run left, as one text: files, the ledger's rows, every object of the repository."""
    kept = [p.read_bytes() for p in (tmp_path / "home").rglob("*") if p.is_file() and not p.is_symlink()]
    kept.append(bench.workspace._git("cat-file", "--batch-all-objects", "--batch", "--buffer").text.encode(errors="surrogateescape"))
    with sqlite3.connect(bench.home.ledger) as ledger:
        kept.append("\n".join(ledger.iterdump()).encode())
    return b"\n".join(kept).decode(errors="replace")


@pytest.fixture
def spied(bench, write, tmp_path, monkeypatch):
    """A run whose check is the project's own code, which looks for secrets and reports what it found."""
    monkeypatch.setenv("DEPLOY_TOKEN", IN_ENVIRONMENT)
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", f"postgres://me:{IN_CONNECTION}@db.example/shop")
    (tmp_path / "person").mkdir()
    (tmp_path / "person" / ".netrc").write_text(f"machine db.example login me password {IN_FILES}\n")
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    bench.workspace._credentials = GitCredentials("git", IN_GIT, "")
    bench.ports = dataclasses.replace(bench.ports, workspace=bench.workspace, secrets=CANARIES)

    def check(_inputs, ports, attempt):
        found = ports.sandbox.run(Command(("sh", "-c", SPY.format(home=tmp_path / "person")), attempt.checkout), attempt.stop)
        assert "PATH=" in found.stdout
        (attempt.reports / "report.md").write_text(f"{found.stdout}\n{found.stderr}")
        attempt.log.info("the check says: %s", found.stdout)
        return Result(metrics={"value": float((attempt.checkout / "app.py").read_text())}, summary=found.stdout[-200:])

    bench.stage("scaffold", write({"app.py": "1"}), effect="writes")
    bench.stage("validate", check, needs=("scaffold",), gates=(Gate("value", ">=", 3),), repair=Repair(1, ()), retries=Retries(2, 0, 1, 0))
    bench.run("scaffold")
    return bench


@pytest.mark.parametrize("mended", [True, False], ids=["repaired", "failed"])
def test_no_canary_is_anywhere(spied, tmp_path, caplog, mended):
    caplog.set_level(logging.DEBUG)
    script = [
        use("read", path="/proc/self/environ"),
        use("search", pattern="canary"),
        use("check", name="validate"),
        use("write", path="app.py", content="3" if mended else "2"),
        use("hand_in", cause="It was 1.", summary="Raise it"),
    ]
    with ScriptedClaude(script) as claude:
        spied.think(claude)
        spied.ports = dataclasses.replace(spied.ports, sandbox=ProcessSandbox(trusted=False))
        with pytest.raises(RepairDue):
            spied.run("validate")
        if mended:
            results = spied.run("validate", attempt=2).model_dump_json()
        else:
            with pytest.raises(GateFailed) as failed:
                spied.run("validate", attempt=2)
            results = str(failed.value)
    assert (claude.error, claude.left) == ("", 0)
    left = "\n".join([everything(spied, tmp_path), caplog.text, results, str(claude.requests)])
    assert "Raise it" in left
    assert "the check says: " in left
    assert [form for secret in CANARIES for form in forms(secret) if form in left] == []


def test_a_secret_that_the_project_holds_is_not_shown_to_a_model(bench, write):
    """It stands in the project's own files: no prompt and no trace has it, in any of its forms."""
    text = "".join(f"{form}\n" for form in sorted(forms(IN_ENVIRONMENT)))
    bench.ports = dataclasses.replace(bench.ports, secrets=CANARIES)

    def check(_inputs, _ports, attempt):
        (attempt.reports / "report.md").write_text((attempt.checkout / "README.md").read_text())
        return Result(metrics={"value": float((attempt.checkout / "app.py").read_text())})

    bench.stage("scaffold", write({"app.py": "1", "README.md": text}), effect="writes")
    bench.stage("validate", check, needs=("scaffold",), gates=(Gate("value", ">=", 3),), repair=Repair(1, ()), retries=Retries(2, 0, 1, 0))
    bench.run("scaffold")
    script = [use("read", path="README.md"), use("search", pattern="canary"), use("check", name="validate")]
    done = [use("write", path="app.py", content="3"), use("hand_in", cause="It was 1.", summary="Raise it")]
    with ScriptedClaude([*script, *done]) as claude:
        bench.think(claude)
        with pytest.raises(RepairDue):
            bench.run("validate")
        bench.run("validate", attempt=2)
    traces = "".join(p.read_text() for p in bench.home.artifacts.rglob("repair.*"))
    shown = str(claude.requests) + traces
    assert shown.count("[secret]") >= 12
    assert [form for form in forms(IN_ENVIRONMENT) if form in shown] == []
