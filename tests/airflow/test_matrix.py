"""A stage with a matrix on the real Airflow: a group of tasks, each of which counts."""

from __future__ import annotations

import httpx
import pytest

from taxiway.integrations.airflow_settings import USER, secrets_of
from taxiway.integrations.airflow_state import read_state

HEAD = """
pipeline: {name}
policy: open
defaults: {{timeout: 1m, retries: {{attempts: 1}}}}
stages:
  w: {{agent: scribe, with: {{files: {{a.txt: hello}}}}}}
"""
CASES = {
    "all": """
  a:
    agent: probe
    matrix: {value: [5, 6], kind: ["3.11"]}
    with: {say: "{{ matrix.kind }}"}
    gates: [value >= 5]
  b: {agent: probe, with: {say: "{{ stages.a.value_6_kind_3_11.metrics.value }}"}}
  m: {agent: integrate}
""",
    "one_fails": """
  a: {agent: probe, matrix: {value: [5, 4]}, gates: [value >= 5]}
  m: {agent: integrate}
""",
    "tolerated": """
  a: {agent: probe, matrix: {value: [5, 4]}, gates: [value >= 5], continue_on_failure: true}
  m: {agent: integrate}
""",
    "skipped": """
  a: {agent: probe, matrix: {value: [5, 4]}, gates: [value >= 5], when: matrix.value > 4}
  m: {agent: integrate}
""",
}


@pytest.fixture(scope="module")
def runs(airflow):
    texts = {name: HEAD.format(name=f"matrix_{name}") + stages for name, stages in CASES.items()}
    for text in texts.values():
        airflow.save(text)
    return {name: airflow.trigger(text) for name, text in texts.items()}


@pytest.fixture
def ended(airflow, runs):
    return lambda name: airflow.finish(runs[name], timeout_s=240)


def test_every_cell_runs_and_the_merge_stands_on_all(ended):
    done = ended("all")
    assert done.run.state == "success"
    cells = ["a.value_5_kind_3_11", "a.value_6_kind_3_11"]
    assert done.states().keys() == {"w", *cells, "b", "m", "outcome"}
    assert [(done.result(c).metrics, done.result(c).outputs["said"]) for c in cells] == [({"value": 5.0}, "3.11"), ({"value": 6.0}, "3.11")]
    assert done.result("b").outputs["said"] == 6.0
    # Squashing makes another commit, so every cell was measured again on it; one verdict says so of all.
    assert done.log("m").count("measuring the gates of a.") == 2
    assert [v.stage for v in done.result("m").verdicts] == ["a"]
    assert "a.value_5_kind_3_11" in done.log("outcome")


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("one_fails", {"a.value_5": "success", "a.value_4": "failed", "m": "upstream_failed", "outcome": "failed"}),
        ("tolerated", {"a.value_5": "success", "a.value_4": "success", "m": "failed", "outcome": "failed"}),
        ("skipped", {"a.value_5": "success", "a.value_4": "skipped", "m": "success", "outcome": "success"}),
    ],
)
def test_a_cell_that_did_not_pass(ended, name, states):
    done = ended(name)
    assert done.states() == {"w": "success"} | states
    assert done.run.state == states["outcome"]
    if name == "tolerated":
        assert "no passed verdict of a.value_4" in done.log("m")


def test_the_ui_shows_the_cells_as_a_group(airflow, ended):
    ended("all")
    with httpx.Client(base_url=read_state(airflow.home).url, timeout=30) as web:
        login = {"username": USER, "password": secrets_of(airflow.home).password}
        web.headers["Authorization"] = f"Bearer {web.post('/auth/token', json=login).json()['access_token']}"
        graph = web.get("/ui/structure/structure_data", params={"dag_id": "matrix_all"}).json()
    group = next(node for node in graph["nodes"] if node["id"] == "a")
    assert {child["label"] for child in group["children"] if child["type"] == "task"} == {"value_5_kind_3_11", "value_6_kind_3_11"}
