import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.plugins_manager import AirflowPlugin

from taxiway_airflow.links import ConversationLink, ReportsLink, ServiceLink, artifact_key, artifacts_url

FILE = Path(__file__).parents[2] / "plugins" / "taxiway_plugin.py"


def test_the_plugins_folder_does_not_register_it_twice():
    # The tests run with Taxiway installed: its entry point has registered it.
    found = [v for v in runpy.run_path(str(FILE)).values() if isinstance(v, type) and issubclass(v, AirflowPlugin)]
    assert found == []


def test_airflow_finds_it_and_loads_no_page_yet():
    script = (
        "import sys; from airflow import plugins_manager\n"
        "apps = plugins_manager.get_fastapi_plugins()[0]\n"
        "print([a['url_prefix'] for a in apps if a['name'] == 'Taxiway'], 'taxiway_airflow.ui' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "['/taxiway'] False"


class Ended:
    """A try of a task that has ended."""

    dag_id, run_id, task_id, try_number = "shop", "manual__2026-01-01T00:00:00+00:00", "deploy", 2

    def __init__(self, result=None):
        self.result = result

    def xcom_pull(self, *, task_ids):
        assert task_ids == self.task_id
        return self.result


def test_reports_lie_where_the_engine_puts_them():
    url = ReportsLink().get_link(None, ti_key=Ended())
    assert url.startswith("/taxiway/artifacts/shop/manual-2026-01-01t00-00-00-00-00-")
    assert url.endswith("/deploy/")


def test_an_airflow_below_a_path_keeps_it(monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://ci.example/airflow/")
    assert artifacts_url("shop/run 1/deploy") == "/airflow/taxiway/artifacts/shop/run%201/deploy/"


@pytest.mark.parametrize(
    ("result", "url"),
    [
        ({"outputs": {"url": "http://127.0.0.1:8000"}}, "http://127.0.0.1:8000"),
        ({"outputs": {"url": "javascript:alert(1)"}}, ""),
        ({"outputs": {"url": 7}}, ""),
        ({"outputs": {}}, ""),
        ({"outputs": None}, ""),
        ({}, ""),
        ("text", ""),
        (None, ""),
    ],
    ids=str,
)
def test_only_a_web_address_is_a_link_to_the_service(result, url):
    assert ServiceLink().get_link(None, ti_key=Ended(result)) == url


@pytest.mark.parametrize(
    ("kept", "page"),
    [
        (["2/repair.html", "2/repair.jsonl", "2/report.html"], "2/repair.html"),
        (["2/repair.html", "2/repair.jsonl", "2/write tests.html", "2/write tests.jsonl"], "2/"),
        (["1/repair.html", "1/repair.jsonl", "2/report.html"], ""),
        (["2/repair.jsonl"], ""),
        ([], ""),
    ],
    ids=["one", "several", "an earlier try's", "no page", "nothing"],
)
def test_the_conversation_of_the_last_try(tmp_path, monkeypatch, kept, page):
    monkeypatch.setenv("TAXIWAY_HOME", str(tmp_path))
    folder = tmp_path / "artifacts" / artifact_key(Ended.dag_id, Ended.run_id, Ended.task_id)
    for name in kept:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    url = ConversationLink().get_link(None, ti_key=Ended())
    assert url == (f"{ReportsLink().get_link(None, ti_key=Ended())}{page}" if page else "")
