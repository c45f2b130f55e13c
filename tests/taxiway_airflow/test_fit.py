"""What a plan needs of this Airflow: pools, and queues."""

import logging
import shutil
from dataclasses import replace

import pytest

from taxiway_airflow.bundle import PipelineBundle
from taxiway_airflow.fit import AirflowPools, Fit, Unfit

SPEC = """\
pipeline: shop
defaults: {{{defaults}}}
stages:
  one: {{agent: validate, needs: []}}
  two:
    agent: validate
    {two}
"""


class Pools:
    """An Airflow's pools, and how often they were asked for."""

    def __init__(self, *names):
        self.there, self.asked = dict.fromkeys(names, 1), 0

    def names(self):
        self.asked += 1
        return frozenset(self.there)

    def make(self, name, slots):
        self.there[name] = slots


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pipelines" / "policies").mkdir(parents=True)
    return tmp_path / "pipelines"


def bundle(folder, pools):
    found = PipelineBundle(name="pipelines", source=str(folder), store=str(folder.parent / "store"), pools=pools)
    found.refresh()
    return found


def module(found):
    return "\n".join(p.read_text() for p in found.path.glob("*.py"))


def save(folder, *, defaults="", two="timeout: 5m"):
    (folder / "shop.yaml").write_text(SPEC.format(defaults=defaults, two=two))


@pytest.mark.parametrize(
    ("settings", "place"), [({"two": "pool: browsers"}, "shop.yaml:7:5"), ({"defaults": "pool: browsers"}, "shop.yaml:2:12")]
)
def test_a_pool_that_is_missing_is_an_import_error_until_it_is_there(folder, settings, place):
    save(folder, **settings)
    pools = Pools("default_pool")
    found = bundle(folder, pools)
    assert f"{place}: error: this Airflow has no pool 'browsers'" in module(found).replace("\\'", "'")
    assert "airflow pools set browsers" in module(found)
    pools.make("browsers", 2)
    found.refresh()
    assert "build_dag(" in module(found)
    del pools.there["browsers"]
    found.refresh()
    assert "SpecRefused" in module(found)
    # Runs under way go on, and nobody starts another.
    assert "closed=True" in module(found)


def test_a_policy_makes_the_pool_and_leaves_one_that_is_there(folder):
    save(folder, two="pool: browsers")
    (folder / "policies" / "default.yaml").write_text("policy: default\npools: {browsers: 3, unused: 2}\n")
    pools = Pools("default_pool")
    assert "build_dag(" in module(bundle(folder, pools))
    assert pools.there == {"default_pool": 1, "browsers": 3}
    pools.there["browsers"] = 9
    shutil.rmtree(folder.parent / "store")
    assert "build_dag(" in module(bundle(folder, pools))
    assert pools.there["browsers"] == 9


def test_pools_are_asked_for_once_a_refresh_and_only_where_one_is_named(folder):
    save(folder)
    pools = Pools("default_pool", "browsers")
    found = bundle(folder, pools)
    assert pools.asked == 0
    save(folder, two="pool: browsers")
    (folder / "other.yaml").write_text("pipeline: other\nstages: {a: {agent: validate, pool: browsers}}\n")
    found.refresh()
    found.refresh()
    assert pools.asked == 2


def test_without_a_database_nobody_is_refused(folder, caplog):
    save(folder, two="pool: browsers")
    with caplog.at_level(logging.WARNING):
        assert "build_dag(" in module(bundle(folder, AirflowPools()))
    assert "pools cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("executor", "refused"),
    [
        ("LocalExecutor", True),
        ("airflow.executors.local_executor.LocalExecutor,CeleryExecutor", True),
        ("local:LocalExecutor", True),
        ("KubernetesExecutor", True),
        ("CeleryExecutor", False),
        ("CeleryExecutor,LocalExecutor", False),
        ("airflow.providers.edge3.executors.EdgeExecutor", False),
    ],
)
def test_a_queue_is_refused_where_it_would_do_nothing(plan, executor, refused):
    queued = replace(plan, stages=tuple(replace(s, queue="large") for s in plan.stages))
    fit = Fit(Pools(), executor)
    assert fit.hold(plan, "", "p.yaml") is None
    if refused:
        with pytest.raises(Unfit, match="queue 'large' does nothing") as caught:
            fit.hold(queued, "stages:\n\n\n  check: {queue: large}\n", "p.yaml")
        assert len(caught.value.problems) == 1
        assert (caught.value.problems[0].at.line, caught.value.problems[0].at.column) == (4, 11)
    else:
        fit.hold(queued, "", "p.yaml")
