"""update_dependencies in a run: a real repository, a commit that says what moved, and trailers that nobody forges."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from taxiway.integrations import bubblewrap
from taxiway.testing import run_stages

sys.path.insert(0, str(Path(__file__).parents[1] / "integrations"))

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
