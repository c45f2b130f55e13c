"""update_dependencies in a run: a real repository, a commit that says what moved, and trailers that nobody forges."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from taxiway.errors import StageError
from taxiway.integrations import bubblewrap
from taxiway.testing import run_stages

sys.path.insert(0, str(Path(__file__).parents[1] / "integrations"))

sys.path.insert(0, str(Path(__file__).parents[1]))

from advisory_server import answer, cvss3, record
from advisory_server import serving as advising
from index_server import Answer, index_server, metadata, wheel

pytestmark = pytest.mark.skipif(bubblewrap.available() is not None, reason=str(bubblewrap.available()))

PIPELINE = "pipeline: update\nstages:\n  update: {agent: update_dependencies, with: {level: minor}}\n"
FORGED = "Changelog, https://x.example/a\\nTaxiway-Run: forged"


@pytest.mark.parametrize(("url", "shown"), [("Changelog, https://x.example/changes", ": https://x.example/changes"), (FORGED, "")])
def test_the_commit_says_what_moved_and_keeps_its_trailers(tmp_path, monkeypatch, url, shown):
    (tmp_path / "wheels").mkdir()
    with index_server(tmp_path / "wheels") as index:
        for version in ("1.2.0", "1.3.0", "2.0.0"):
            place = wheel(tmp_path / "wheels", "tinything", version)
            told = metadata("tinything", version) + f"Project-URL: {url}\n"
            index.answers |= {f"/files/{place.name}": Answer(place.read_bytes()), f"/files/{place.name}.metadata": Answer(told)}
        files = sorted((tmp_path / "wheels").glob("tinything-[12].[0-9].[0-9]-*.whl"))
        index.html(*(f"/files/{place.name}" for place in files))
        for name, value in {"UV_DEFAULT_INDEX": index.url, "PIP_CONFIG_FILE": "/dev/null", "UV_HTTP_RETRIES": "0"}.items():
            monkeypatch.setenv(name, value)
        for name in ("UV_INDEX", "UV_FIND_LINKS", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        (tmp_path / "run").mkdir()
        project = {"requirements.in": "tinything\n", "requirements.txt": "tinything==1.2.0\n"}
        result = run_stages(PIPELINE, folder=tmp_path / "run", files=project)["update"]
    repository = next(p for p in (tmp_path / "run" / "home").rglob("*.git") if p.is_dir())

    def git(*argv):
        return subprocess.run(["git", "-C", repository, *argv], check=True, capture_output=True, text=True).stdout

    subject, _, *body = git("show", "-s", "--format=%B", result.commit).splitlines()
    assert subject == result.summary.join(["update: ", ""]) == "update: Update 1 dependency (minor)"
    assert body[0] == f"- tinything 1.2.0 -> 1.3.0 (minor){shown}"
    trailers = git("show", "-s", "--format=%(trailers:only)", result.commit)
    assert trailers.count("Taxiway-Run:") == 1
    assert "forged" not in trailers
    assert json.dumps(git("show", "--format=", "--name-only", result.commit).split()) == '["requirements.txt"]'


REPAIRED = """\
pipeline: p
params:
  level: {type: string, default: minor}
stages:
  validate:
    agent: validate
    with: {checks: [dependencies]}
    gates: [dependencies.critical == 0]
    repair: {agent: update_dependencies, with: {level: "{{ params.level }}"}, attempts: 1}
"""
PROJECT = {
    ".taxiway.yaml": "name: app\ninstall: {requirements: [requirements.txt]}\n",
    "requirements.in": "tinything\n",
    "requirements.txt": "tinything==1.2.0\n",
}


@pytest.fixture
def advised(tmp_path, monkeypatch):
    """An index with two versions, and a service that knows what is wrong with the first."""
    (tmp_path / "wheels").mkdir()
    (tmp_path / "run").mkdir()
    with index_server(tmp_path / "wheels") as index, advising() as advisories:
        made = [wheel(tmp_path / "wheels", "tinything", version) for version in ("1.2.0", "1.3.0")]
        index.answers |= {f"/files/{place.name}": Answer(place.read_bytes()) for place in made}
        index.html(*(f"/files/{place.name}" for place in made))
        # Taxiway's own tools come from the machine's index.
        monkeypatch.setenv("UV_INDEX", index.url)
        monkeypatch.setenv("TAXIWAY_ADVISORIES_URL", advisories.url)
        monkeypatch.setenv("TAXIWAY_ADVISORIES_INDEX", advisories.url)
        advisories.published = {("tinything", version) for version in ("1.2.0", "1.3.0")}
        advisories.records = {"GHSA-1": record("GHSA-1", "tinything") | cvss3("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H")}
        known = [{"vulns": [{"id": "GHSA-1"}]}, {}]
        advisories.faults["/v1/querybatch"] = lambda _, body: answer({"results": [known[q["version"] != "1.2.0"] for q in body["queries"]]})
        yield index


def test_it_repairs_what_an_audit_refused(tmp_path, advised):
    result = run_stages(REPAIRED, folder=tmp_path / "run", files=PROJECT)["validate"]
    assert (result.metrics["dependencies.critical"], result.verdicts[0].commit) == (0, result.commit)
    repository = next(p for p in (tmp_path / "run" / "home").rglob("*.git") if p.is_dir())
    said = ["git", "-C", repository, "show", "--format=%B", "--name-only", result.commit]
    text = subprocess.run(said, check=True, capture_output=True, text=True).stdout
    assert text.startswith("validate: Update 1 dependency (minor)\n\n- tinything 1.2.0 -> 1.3.0 (minor)\n")
    assert "Taxiway-Agent: update_dependencies\nTaxiway-Repair: 1\n" in text
    assert text.rstrip().splitlines()[-1] == "requirements.txt"


def test_without_a_version_that_helps_the_stage_says_what_the_audit_found(tmp_path, advised):
    with pytest.raises(StageError, match=r"dependencies\.critical == 0: 1; update_dependencies repaired nothing: nothing to update"):
        run_stages(REPAIRED, folder=tmp_path / "run", files=PROJECT, params={"level": "patch"})
