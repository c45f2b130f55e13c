"""The way in for an Airflow without the bundle: the files of dags/, run as Airflow runs them."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from taxiway.errors import OperatorError
from taxiway_airflow.broken import SpecRefused

DAGS = Path(__file__).parents[2] / "dags"
SPEC = "pipeline: {name}\nstages:\n  validate: {{agent: validate, timeout: {timeout}}}\n"
ASKED = "_AIRFLOW_PARSING_CONTEXT_DAG_ID"
BUNDLES = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"


class Folder:
    def __init__(self, path):
        self.path, self.specs = path, path / "pipelines"
        self.specs.mkdir()
        (path / "dags").mkdir()
        for file in DAGS.glob("*.py"):
            shutil.copy(file, path / "dags")

    def save(self, name, text=None, *, timeout="60s"):
        (self.specs / f"{name}.yaml").write_text(SPEC.format(name=name, timeout=timeout) if text is None else text)

    def load(self, name="pipelines"):
        """The DAGs that Airflow would find in a file."""
        space = runpy.run_path(str(self.path / "dags" / f"{name}.py"))
        return sorted(value.dag_id for value in space.values() if type(value).__name__ == "DAG")

    def cached(self):
        return sorted((self.path / ".taxiway" / "cache" / "plans").glob("*.json"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("TAXIWAY_HOME", raising=False)
    monkeypatch.delenv("TAXIWAY_PIPELINES", raising=False)
    return Folder(tmp_path)


def test_good_specs_load_and_bad_ones_are_listed(folder):
    folder.save("shop")
    folder.save("blog")
    folder.save("typo", "pipeline: typo\nstagse: {}\n")
    folder.save("twin", SPEC.format(name="shop", timeout="60s"))
    assert folder.load() == ["blog", "shop"]
    with pytest.raises(SpecRefused) as caught:
        folder.load("pipelines_errors")
    said = str(caught.value)
    assert f"{folder.specs}/typo.yaml:2:1: error: unknown key 'stagse'" in said
    assert f"{folder.specs}/twin.yaml:1:1: error: pipeline 'shop' is already in shop.yaml" in said
    for name in ("typo", "twin"):
        (folder.specs / f"{name}.yaml").unlink()
    assert folder.load("pipelines_errors") == []


def test_a_broken_policy_is_listed_with_each_spec_that_stands_on_it(folder):
    folder.save("shop", "pipeline: shop\npolicy: strict\nstages:\n  validate: {agent: validate}\n")
    (folder.specs / "policies").mkdir()
    (folder.specs / "policies" / "strict.yaml").write_text("policy: strict\ngates: 1\n")
    assert folder.load() == []
    with pytest.raises(SpecRefused, match=r"strict\.yaml:2"):
        folder.load("pipelines_errors")
    (folder.specs / "policies" / "strict.yaml").write_text("policy: strict\n")
    assert folder.load() == ["shop"]


def test_a_template_is_followed(folder):
    (folder.specs / "templates").mkdir()
    template = folder.specs / "templates" / "checks.yaml"
    template.write_text("templates:\n  strict: {agent: validate, timeout: 61s}\n")
    folder.save("shop", "pipeline: shop\nstages:\n  validate: {extends: strict}\n")
    assert folder.load() == ["shop"]
    template.write_text("template: [")
    assert folder.load() == []


def test_a_worker_builds_only_what_it_was_asked_for(folder, monkeypatch):
    for name in ("shop", "blog"):
        folder.save(name)
    folder.save("typo", "pipeline: [")
    monkeypatch.setenv(ASKED, "shop")
    assert folder.load() == ["shop"]
    assert len(folder.cached()) == 1
    assert folder.load("pipelines_errors") == []
    monkeypatch.setenv(ASKED, "ghost")
    assert folder.load() == []


def test_a_name_that_only_yaml_can_read_is_found_too(folder, monkeypatch):
    folder.save("odd", '{"pipeline": "odd", "stages": {"validate": {"agent": "validate"}}}')
    monkeypatch.setenv(ASKED, "odd")
    assert folder.load() == ["odd"]


def test_the_same_content_is_compiled_once(folder):
    folder.save("shop")
    folder.load()
    (place,) = folder.cached()
    kept = json.loads(place.read_text())
    place.write_text(json.dumps({**kept, "plan": kept["plan"].replace('"pipeline":"shop"', '"pipeline":"kept"')}))
    assert folder.load() == ["kept"], "it was compiled again"
    folder.save("shop", timeout="61s")
    assert folder.load() == ["shop"]
    place.write_text("{")
    folder.save("shop")
    assert folder.load() == ["shop"]


def test_nothing_heavy_is_imported_where_all_is_compiled(folder):
    folder.save("shop")
    heavy = "('taxiway.spec.load', 'taxiway.compiler.files', 'taxiway.agents.scaffold')"
    code = f"import runpy, sys; runpy.run_path(sys.argv[1]); print([m for m in {heavy} if m in sys.modules])"
    # Both parses in processes of their own: a test before this one may have put agents on this one's path.
    command = [sys.executable, "-c", code, str(folder.path / "dags" / "pipelines.py")]
    first, again = (subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1] for _ in range(2))
    assert "taxiway.spec.load" in first, "the first one compiles"
    assert again == "[]"


@pytest.mark.parametrize("file", ["pipelines", "pipelines_errors"])
def test_does_nothing_where_the_bundle_serves_the_folder(folder, monkeypatch, file):
    folder.save("shop")
    folder.save("typo", "pipeline: [")
    entry = {"name": "p", "classpath": "taxiway_airflow.bundle.PipelineBundle", "kwargs": {"source": str(folder.specs)}}
    monkeypatch.setenv(BUNDLES, json.dumps([entry]))
    assert folder.load(file) == []
    assert folder.load("taxiway_maintenance") == []
    entry["kwargs"] = {"source": "/elsewhere", "maintenance": False}
    monkeypatch.setenv(BUNDLES, json.dumps([entry]))
    assert folder.load() == ["shop"]
    assert folder.load("taxiway_maintenance") == ["taxiway_db_clean", "taxiway_gc", "taxiway_reconcile"]


def test_where_the_specs_are(folder, monkeypatch, tmp_path):
    folder.save("shop")
    (tmp_path / "other" / "dags").mkdir(parents=True)
    link = tmp_path / "other" / "dags" / "pipelines.py"
    link.symlink_to(folder.path / "dags" / "pipelines.py")
    assert "shop" in runpy.run_path(str(link))
    (tmp_path / "named").mkdir()
    monkeypatch.setenv("TAXIWAY_PIPELINES", str(tmp_path / "named"))
    assert folder.load() == []
    monkeypatch.setenv("TAXIWAY_PIPELINES", str(tmp_path / "ghost"))
    with pytest.raises(OperatorError, match="there is no such folder"):
        folder.load()


def test_airflow_looks_at_each_file():
    """Its safe mode skips what does not have both words."""
    for file in DAGS.glob("*.py"):
        text = file.read_text().lower()
        assert "dag" in text
        assert "airflow" in text
