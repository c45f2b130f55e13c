"""What only a real Airflow shows to act: pool, priority, assets, and a template that is saved."""

from __future__ import annotations

import time

import httpx
import pytest

from taxiway.integrations.airflow_settings import USER, secrets_of
from taxiway.integrations.airflow_state import read_state

LANES = """
pipeline: spec_lanes
policy: lanes
params: {marks: {type: string, default: ""}}
defaults: {pool: one_lane, timeout: 1m}
stages:
  low: {agent: probe, needs: [], with: {marks: "{{ params.marks }}", seconds: 0.5}}
  high: {agent: probe, needs: [], priority: 9, with: {marks: "{{ params.marks }}", seconds: 0.5}}
  middle: {agent: probe, needs: [], priority: 5, with: {marks: "{{ params.marks }}", seconds: 0.5}}
"""
NOWHERE = """
pipeline: spec_nowhere
policy: open
stages:
  a: {agent: probe, pool: nowhere}
"""
ASSET = """
pipeline: spec_asset
policy: open
schedule: {assets: [{name: spec_orders, uri: "file://shop/orders.csv"}]}
stages:
  a: {agent: probe}
"""
EXTENDS = """
pipeline: spec_extends
policy: open
stages:
  a: {extends: spoken, gates: [value >= 1]}
"""


@pytest.fixture(scope="module")
def web(airflow):
    with httpx.Client(base_url=read_state(airflow.home).url, timeout=30) as client:
        login = {"username": USER, "password": secrets_of(airflow.home).password}
        client.headers["Authorization"] = f"Bearer {client.post('/auth/token', json=login).json()['access_token']}"
        yield client


@pytest.fixture(scope="module", autouse=True)
def _files(airflow):
    (airflow.pipelines / "policies" / "lanes.yaml").write_text("policy: lanes\npools: {one_lane: 1}\n")
    template(airflow, "one")
    for text in (ASSET, NOWHERE, LANES, EXTENDS):
        airflow.save(text)
    yield
    (airflow.pipelines / "spec_nowhere.yaml").unlink()


def template(airflow, says):
    folder = airflow.pipelines / "templates"
    folder.mkdir(exist_ok=True)
    (folder / "spoken.yaml").write_text(f"templates: {{spoken: {{agent: probe, with: {{say: {says}}}}}}}\n")


def eventually(look, what):
    end = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < end, what
        time.sleep(0.3)
    return found


def test_a_pool_of_the_policy_is_made_and_lets_stages_through_by_priority(airflow, web, tmp_path):
    marks = tmp_path / "marks"
    done = airflow.run_pipeline(LANES, {"marks": str(marks)})
    assert done.run.state == "success"
    assert web.get("/api/v2/pools/one_lane").json()["slots"] == 1
    assert marks.read_text().splitlines() == [f"{name} 1 {what}" for name in ("high", "middle", "low") for what in ("start", "end")]


def test_a_pool_that_is_not_there_is_said_where_people_look(airflow, web):
    def said():
        return [f.text for f in airflow.client.import_failures() if "no pool 'nowhere'" in f.text]

    text = eventually(said, "no import error for the pool")[0]
    assert "spec_nowhere.yaml:5:21: error: this Airflow has no pool 'nowhere': stage 'a' would wait for ever" in text
    web.post("/api/v2/pools", json={"name": "nowhere", "slots": 1}).raise_for_status()
    airflow.wait_for(NOWHERE)


def test_an_update_of_the_asset_starts_a_run(airflow, web):
    dag = airflow.wait_for(ASSET)
    assets = eventually(lambda: web.get("/api/v2/assets", params={"name_pattern": "spec_orders"}).json()["assets"], "no asset")
    assert assets[0]["uri"] == "file://shop/orders.csv"
    web.post("/api/v2/assets/events", json={"asset_id": assets[0]["id"]}).raise_for_status()
    run = eventually(lambda: airflow.client.runs(dag), "no run")[0]
    assert airflow.finish(run).run.state == "success"


def test_a_saved_template_is_in_the_next_run(airflow):
    first = airflow.trigger(EXTENDS)
    assert airflow.finish(first).result("a").outputs["said"] == "one"
    template(airflow, "two")
    assert airflow.run_pipeline(EXTENDS).result("a").outputs["said"] == "two"
    assert "say: two" in airflow.client.source("spec_extends")
