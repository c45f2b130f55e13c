"""The commands of the guide that need an Airflow, one after the other as a reader types them, on the session's."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from taxiway.home import HOME_VARIABLE
from taxiway.integrations.airflow_settings import USER, secrets_of

ROOT = Path(__file__).resolve().parents[2]
AGENTS = Path(__file__).parent / "agents"
# The page, the pipelines that its reader has saved (the page's own, and shipped ones), and what ran before its commands.
PAGES = {
    "docs/pipelines.md": (["hello", "check_repository.yaml"], []),
    "docs/operating.md": (["web_service.yaml"], [["run", "web_service", "--param", "e2e=false"]]),
}
THEIRS = "https://git.example.com/team/my-library"
BUNDLE = """
import json
from airflow.dag_processing.bundles.manager import DagBundlesManager

(bundle,) = DagBundlesManager().get_all_dag_bundles()
bundle.initialize()
lines = (line for module in bundle.path.glob("*.py") for line in module.read_text().splitlines())
found = sorted(json.loads(line.removeprefix("# source: ")) for line in lines if line.startswith("# source: "))
print(json.dumps([type(bundle).__name__, bundle.name, bundle.refresh_interval, found]))
"""


def blocks(page, info):
    return re.findall(rf"^```{info}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def pipeline(page, name):
    if name.endswith(".yaml"):
        return (ROOT / "pipelines" / name).read_text()
    (found,) = [b for b in blocks(page, "yaml") if yaml.safe_load(b).get("pipeline") == name]
    return found


@pytest.fixture
def my_library(tmp_path):
    """The project of a reader, as their git server has it."""
    (tmp_path / "my_library.py").write_text("def one() -> int:\n    return 1\n")
    (tmp_path / "test_my_library.py").write_text("from my_library import one\n\n\ndef test_one() -> None:\n    assert one() == 1\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "my-library"\nversion = "1.0"\n')
    own = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], [*own, "commit", "-qm", "Begin"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


@pytest.fixture
def taxiway(airflow):
    """Runs a command in the project whose Airflow this is; by its URL, since tests start it with settings of their own."""
    login = {
        "TAXIWAY_AIRFLOW_URL": airflow.client.url,
        "TAXIWAY_AIRFLOW_USERNAME": USER,
        "TAXIWAY_AIRFLOW_PASSWORD": secrets_of(airflow.home).password,
    }
    environ = {**os.environ, **login, HOME_VARIABLE: str(airflow.home.path), "NO_COLOR": "1", "COLUMNS": "160"}
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(AGENTS), os.environ.get("PYTHONPATH")]))

    def call(words):
        return subprocess.run(
            [sys.executable, "-m", "taxiway.cli", *words],
            cwd=airflow.pipelines.parent, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip

    return call


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_work_in_their_order(airflow, taxiway, my_library, page):
    saved, before = PAGES[page]
    for name in saved:
        airflow.wait_for(pipeline(page, name))
    for words in before:
        done = taxiway(words)
        assert done.returncode == 0, done.stdout + done.stderr
    for line in filter(None, "\n".join(blocks(page, "console live")).splitlines()):
        program, *words = shlex.split(line.replace(THEIRS, str(my_library)), comments=True)
        assert program == "taxiway"
        done = taxiway(words)
        assert done.returncode == (1 if "exits 1" in line else 0), f"{line}\n{done.stdout}{done.stderr}"
        assert done.stdout + done.stderr


def test_the_recipe_by_rest_starts_a_run(airflow, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl: apt-get install curl")
    airflow.wait_for(pipeline("docs/operating.md", "web_service.yaml"))
    (recipe,) = blocks("docs/operating.md", "sh")
    # Where the reader stands: the home is beside the pipelines.
    (tmp_path / ".taxiway").symlink_to(airflow.home.path)
    environ = {**os.environ, "URL": airflow.client.url, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", recipe], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    answer = json.loads(done.stdout)
    (run,) = [r for r in airflow.client.runs("web_service") if r.id == answer["dag_run_id"]]
    airflow.client.cancel(run.dag, run.id)
    assert run.conf == {"name": "shop"}


def test_the_bundle_of_the_page_is_one_that_airflow_takes(tmp_path):
    (block,) = blocks("docs/operating.md", "ini")
    places = {"/etc/taxiway/pipelines": str(ROOT / "pipelines"), "/var/lib/taxiway": str(tmp_path / "home")}
    for place, ours in places.items():
        assert place in block
        block = block.replace(place, ours)
    (tmp_path / "airflow.cfg").write_text(block)
    own = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "false"}
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "TAXIWAY"))} | own
    done = subprocess.run([sys.executable, "-c", BUNDLE], env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [
        "PipelineBundle",
        "pipelines",
        5,
        ["bugfix.yaml", "check_repository.yaml", "feature.yaml", "library.yaml", "web_service.yaml"],
    ]


def test_every_page_with_such_commands_is_here():
    pages = {str(p.relative_to(ROOT)) for p in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")] if "```console live" in p.read_text()}
    assert pages == set(PAGES)
