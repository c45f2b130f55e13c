import os
import re
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
from airflow.dag_processing.bundles.base import BundleVersion

from taxiway.errors import OperatorError
from taxiway_airflow.bundle import PipelineBundle

GOOD = """\
pipeline: {name}
description: A test.
owner: platform
policy: default
params:
  name: {{type: string, default: greeter}}
stages:
  scaffold:
    agent: scaffold
    with: {{template: python-service, name: "{{{{ params.name }}}}"}}
  validate:
    agent: validate
    timeout: {timeout}
"""
POLICY = Path(__file__).parents[2] / "pipelines" / "policies" / "default.yaml"


class Folder:
    """A folder of pipelines and the bundle that follows it."""

    def __init__(self, path):
        self.source, self.store = path / "pipelines", path / "store"
        (self.source / "policies").mkdir(parents=True)
        shutil.copy(POLICY, self.source / "policies")
        self.bundle = self.another()

    def another(self, **options):
        return PipelineBundle(name="pipelines", source=str(self.source), store=str(self.store), **{"maintenance": False, **options})

    def save(self, name, text):
        (self.source / name).write_text(text)

    def good(self, name, *, file=None, timeout="60s"):
        self.save(file or f"{name}.yaml", GOOD.format(name=name, timeout=timeout))

    def modules(self):
        return {p.name: p.read_text() for p in sorted(self.bundle.path.iterdir()) if p.suffix == ".py"}

    def load(self, name, path=None):
        """What importing a module gives: its DAG, or the last lines of the traceback."""
        space = {}
        try:
            exec(compile(((path or self.bundle.path) / name).read_bytes(), name, "exec"), space)
        except Exception:  # noqa: BLE001 - any error is what a module may end in
            return traceback.format_exc(limit=-2)
        return space["dag"]


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.mark.parametrize("ending", [".yml", ".YAML", ".Yml"])
def test_other_endings_are_pipelines_too(folder, ending):
    folder.good("shop", file=f"shop{ending}")
    folder.bundle.initialize()
    (name,) = folder.modules()
    assert folder.load(name).dag_id == "shop"


def test_a_spec_becomes_a_dag(folder):
    folder.good("shop")
    folder.bundle.initialize()
    assert list(folder.modules()) == ["shop.py"]
    dag = folder.load("shop.py")
    assert (dag.dag_id, dag.task_ids) == ("shop", ["scaffold", "validate", "outcome"])
    assert "# pipeline: shop\n" in folder.modules()["shop.py"]


def test_what_is_no_spec_is_left_alone(folder):
    folder.good("shop")
    for name in (".hidden.yaml", "notes.txt", "shop.yaml~", ".shop.yaml.swp"):
        folder.save(name, "no: [pipeline")
    (folder.source / "sub.yaml").mkdir()
    (folder.source / "sub").mkdir()
    folder.save("sub/inner.yaml", GOOD)
    folder.bundle.refresh()
    assert list(folder.modules()) == ["shop.py"]


def test_a_broken_spec_shows_where_and_neighbours_stay(folder):
    folder.good("shop")
    folder.good("other")
    folder.bundle.refresh()
    before = folder.modules()
    folder.save("shop.yaml", GOOD.format(name="shop", timeout="soon"))
    folder.bundle.refresh()
    assert folder.modules()["other.py"] == before["other.py"]
    _, _, error = sorted(folder.modules(), key=lambda n: "-" in n)
    shown = folder.load(error)
    # Runs that have started go on, and no new ones start.
    last = folder.load("shop.py")
    assert (last.dag_id, sorted(last.allowed_run_types)) == ("shop", ["asset_triggered"])
    assert "timeout: 60s" in folder.modules()["shop.py"]
    assert "shop.yaml:13:14: error: " in shown
    assert "\n        timeout: soon\n                 ^\n" in shown
    assert len(shown.splitlines()) < 16
    assert "During handling" not in shown
    folder.good("shop")
    folder.bundle.refresh()
    assert folder.modules() == before


def test_edit_remove_rename(folder):
    folder.good("shop")
    folder.bundle.refresh()
    versions = [folder.bundle.get_current_version()]
    folder.good("shop", timeout="61s")
    folder.bundle.refresh()
    versions.append(folder.bundle.get_current_version())
    assert folder.load("shop.py").get_task("validate").execution_timeout.seconds == 91
    folder.good("market", file="shop.yaml")
    folder.bundle.refresh()
    (module,) = folder.modules()
    assert module.startswith("shop_yaml-")
    assert folder.load(module).dag_id == "market"
    (folder.source / "shop.yaml").unlink()
    folder.bundle.refresh()
    assert folder.modules() == {}
    assert len({str(v) for v in [*versions, folder.bundle.get_current_version()]}) == 3


def test_the_same_bytes_are_the_same_version(folder, tmp_path):
    folder.good("shop")
    folder.bundle.refresh()
    version = folder.bundle.get_current_version()
    os.utime(folder.source / "shop.yaml")
    folder.bundle.refresh()
    again = folder.another()
    again.initialize()
    assert folder.bundle.get_current_version() == again.get_current_version() == version
    assert isinstance(version, BundleVersion)


def test_a_run_keeps_the_version_it_started_with(folder):
    folder.good("shop")
    folder.bundle.refresh()
    version = folder.bundle.get_current_version().version
    folder.good("shop", timeout="61s")
    folder.bundle.refresh()
    shutil.rmtree(folder.source)  # a worker has no specs
    worker = folder.another(version=version)
    worker.initialize()
    assert worker.get_current_version().version == version
    assert folder.load("shop.py", worker.path).get_task("validate").execution_timeout.seconds == 90
    worker.refresh()
    assert folder.load("shop.py").get_task("validate").execution_timeout.seconds == 91


@pytest.mark.parametrize("there", [True, False], ids=["store", "no store"])
def test_a_worker_without_its_snapshot_is_told_what_to_do(folder, there):
    if there:
        folder.good("shop")
        folder.bundle.refresh()
    with pytest.raises(OperatorError, match="mount the store"):
        folder.another(version="0" * 40).initialize()
    assert folder.store.exists() == there


def least_cpu_s(call) -> float:
    """CPU seconds, the least of several turns: what the machine does beside does not count."""
    taken = []
    for _ in range(5):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return min(taken)


def test_a_worker_does_the_same_whatever_the_number_of_specs(folder):
    folder.good("shop")
    folder.bundle.refresh()
    version = folder.bundle.get_current_version().version
    for _ in range(3000):
        (folder.bundle.path.parent / "versions" / version / f"{_}.py").touch()
    assert least_cpu_s(lambda: folder.another(version=version).initialize()) < 0.05


FORK = """
import runpy, sys
from taxiway_airflow.bundle import PipelineBundle

bundle = PipelineBundle(name="pipelines", source=sys.argv[1], store=sys.argv[2], maintenance=False)
bundle.refresh()
before, modules = set(sys.modules), sorted(bundle.path.glob("*.py"))
for module in modules:
    runpy.run_path(str(module))
print([m.name for m in modules], [m for m in set(sys.modules) - before if m.startswith("taxiway")])
"""


def test_a_module_finds_what_it_imports_where_the_dag_processor_forks(folder):
    folder.good("one")
    done = subprocess.run(
        [sys.executable, "-c", FORK, folder.source, folder.store], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "['one.py'] []"


def test_a_changed_policy_compiles_again(folder):
    folder.good("shop")
    folder.bundle.refresh()
    policy = folder.source / "policies" / "default.yaml"
    good = policy.read_text()
    policy.write_text("nonsense: [")
    folder.bundle.refresh()
    error, _ = sorted(folder.modules(), key=lambda n: "-" not in n)
    assert "policies/default.yaml:" in folder.load(error)
    policy.write_text(good)
    folder.bundle.refresh()
    assert folder.load("shop.py").dag_id == "shop"
    policy.unlink()
    folder.bundle.refresh()
    assert "default" in folder.load(error)


def test_a_pipeline_belongs_to_the_file_that_had_it(folder):
    folder.good("shop")
    folder.bundle.refresh()
    folder.good("shop", file="a copy.yaml")  # sorts before shop.yaml
    for bundle in (folder.bundle, folder.another()):
        bundle.refresh()
        first, second = folder.modules()
        assert folder.load("shop.py").dag_id == "shop"
        assert (first.startswith("a_copy_yaml-"), second) == (True, "shop.py")
        shown = folder.load(first)
        assert "a copy.yaml:1:1: error: pipeline 'shop' is already in shop.yaml\n    pipeline: shop\n    ^\n    hint: " in shown
    (folder.source / "shop.yaml").unlink()
    folder.bundle.refresh()
    (module,) = folder.modules()
    assert folder.load(module).dag_id == "shop"


def test_a_new_process_keeps_the_dag_of_a_broken_spec(folder):
    folder.good("market", file="shop.yaml")
    folder.bundle.refresh()
    (module,) = folder.modules()
    folder.save("shop.yaml", "{")
    for _ in range(2):
        folder.another().refresh()
        (error,) = folder.modules().keys() - {module}
        assert folder.load(module).dag_id == "market"
        assert re.search(r"/shop\.yaml:\d+:\d+: error: ", folder.load(error))
    folder.good("market", file="other.yaml")  # it moved
    folder.another().refresh()
    assert module not in folder.modules()
    (folder.source / "shop.yaml").unlink()
    folder.another().refresh()
    assert len(folder.modules()) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"\0",
        b"a: 1\rraise SystemExit\r",
        b"- " * 5000,
        b"&a [*a]",
        b"x" * 2_000_000,
        b"---\na: 1\n---\nb: 2\n",
        b"[" * 100_000,
    ],
    ids=["empty", "not utf-8", "nul", "cr", "deep", "alias", "huge", "two documents", "deeper"],
)
def test_whatever_is_in_a_spec_is_an_error_of_its_own(folder, content):
    folder.good("shop")
    (folder.source / "bad.yaml").write_bytes(content)
    folder.bundle.refresh()
    bad, good = folder.modules()
    assert folder.load(good).dag_id == "shop"
    assert re.search(r"/bad\.yaml:\d+:\d+: error: ", folder.load(bad))


def test_what_cannot_be_read_is_an_error_of_its_own(folder):
    folder.good("shop")
    (folder.source / "gone.yaml").symlink_to("nowhere")
    os.mkfifo(folder.source / "pipe.yaml")
    os.mkfifo(folder.source / "policies" / "pipe.yaml")
    folder.bundle.refresh()
    gone, pipe, good = folder.modules()
    assert folder.load(good).dag_id == "shop"
    assert "cannot read the file" in folder.load(gone)
    assert "no plain file" in folder.load(pipe)


def test_hostile_file_names(folder):
    names = ["coding=utf-7.yaml", "x\nimport os.yaml", "'\"\\.yaml", "\u202egnp.yaml", os.fsdecode(b"\xff.yaml")]
    for name in names:
        folder.save(name, "{")
    folder.bundle.refresh()
    modules = folder.modules()
    assert len(modules) == len(names)
    for module in modules:
        assert "SpecRefused" in folder.load(module)


def test_a_folder_that_is_gone_takes_no_pipeline_with_it(folder):
    folder.good("shop")
    folder.bundle.refresh()
    shutil.rmtree(folder.source)
    with pytest.raises(OperatorError, match="cannot read the folder of pipelines"):
        folder.bundle.refresh()
    assert list(folder.modules()) == ["shop.py"]


def test_the_store_is_in_the_home(tmp_path, monkeypatch):
    folder = Folder(tmp_path)
    folder.good("shop")
    monkeypatch.delenv("TAXIWAY_HOME", raising=False)
    monkeypatch.chdir(folder.source)
    for bundle in (
        PipelineBundle(name="one", source=str(folder.source)),
        PipelineBundle(name="one", source=str(folder.source), home=str(tmp_path / ".taxiway")),
    ):
        bundle.refresh()
        assert bundle.path == tmp_path / ".taxiway" / "artifacts" / ".bundles" / "one" / "current"


def test_many_specs_are_followed_cheaply(folder):
    for n in range(100):
        folder.good(f"p{n}")
    folder.bundle.refresh()
    time.sleep(2.1)  # what changed just now is read again
    folder.bundle.refresh()
    assert least_cpu_s(folder.bundle.refresh) < 0.1
    assert len(folder.modules()) == 100


def test_a_changed_template_changes_its_users_and_nobody_else(folder):
    templates = folder.source / "templates"
    templates.mkdir()
    (templates / "t.yaml").write_text("templates: {t: {agent: validate, timeout: 6m}}\n")
    folder.save("user.yaml", "pipeline: user\nstages: {v: {extends: t}}\n")
    folder.good("shop")
    folder.bundle.refresh()
    before = folder.modules()
    # The UI's Code tab shows both files.
    assert "# templates: {t: {agent: validate, timeout: 6m}}" in before["user.py"]
    (templates / "t.yaml").write_text("templates: {t: {agent: validate, timeout: 7m}}\n")
    folder.bundle.refresh()
    after = folder.modules()
    assert before["shop.py"] == after["shop.py"]
    assert "timeout: 7m" in after["user.py"]
    assert folder.load("user.py").get_task("v").execution_timeout.total_seconds() == 7 * 60 + 30
