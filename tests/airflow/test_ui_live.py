"""What a person finds in the web UI: links to reports, the pages behind them, and who may see them."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from taxiway.integrations.airflow_server import Running
from taxiway.integrations.airflow_settings import USER, secrets_of
from taxiway.integrations.airflow_state import read_state

# Root cannot use Chromium's own sandbox; the rest keeps it from looking up its maker's hosts.
CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ROOT = Path(__file__).parents[2]
SPEC = """\
pipeline: live_reports
policy: open
limits: {runs: 4, stages: 4, duration: 10m}
defaults: {timeout: 60s, retries: {attempts: 2, first: 1s, factor: 1, most: 1s}}
stages:
  probe: {agent: probe, with: {fail: transient, times: 1}}
"""
FORM = """\
pipeline: live_form
policy: open
params:
  name: {type: string, pattern: "^[a-z]+$", default: greeter, description: What it is called}
  text: {type: string, format: multiline, default: "One line."}
  count: {type: integer, minimum: 1, maximum: 9, default: 3}
  loud: {type: boolean, default: false}
  size: {type: string, enum: [small, large], default: small}
stages:
  probe: {agent: probe, with: {say: "{{ params.name }} {{ params.count }} {{ params.size }}"}}
"""


@pytest.fixture(scope="module")
def finished(airflow):
    return airflow.run_pipeline(SPEC)


@pytest.fixture(scope="module")
def login(airflow):
    """URL, user and password of the server."""
    return Running(read_state(airflow.home).url, USER, secrets_of(airflow.home).password, reused=True, seconds=0)


@pytest.fixture(scope="module")
def web(login):
    """A logged-in REST client."""
    with httpx.Client(base_url=login.url, timeout=30) as client:
        token = client.post("/auth/token", json={"username": login.username, "password": login.password}).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


def links(web, finished, task):
    run = finished.run
    answer = web.get(f"/api/v2/dags/{run.dag}/dagRuns/{run.id}/taskInstances/{task}/links")
    return answer.json()["extra_links"]


def test_the_link_leads_to_the_reports_of_each_attempt(web, finished):
    found = links(web, finished, "probe")
    assert found["Reports"].startswith("/taxiway/artifacts/live_reports/")
    assert not found["Service"]
    page = web.get(found["Reports"])
    assert page.status_code == 200
    attempts = re.findall(r'href="(\d+)/"', page.text)
    assert attempts[-1] == "2"
    listing = web.get(f"{found['Reports']}2/").text
    assert 'href="probe.txt"' in listing
    report = web.get(f"{found['Reports']}2/probe.txt")
    assert report.text.startswith("probe 2 on ")
    assert report.headers["content-security-policy"].startswith("sandbox;")


def test_the_summary_is_linked_from_the_outcome(web, finished):
    url = links(web, finished, "outcome")["Reports"]
    assert web.get(f"{url}1/summary.json").text.startswith("{")
    assert "<h1>live_reports: success</h1>" in web.get(f"{url}1/summary.md").text
    assert web.get(f"{url}1/summary.md?raw").text.startswith("# live\\_reports: success")


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer nonsense"}, {"Cookie": "_token=nonsense"}], ids=["none", "token", "cookie"]
)
def test_nobody_sees_them_without_a_login(login, web, finished, header):
    url = links(web, finished, "probe")["Reports"]
    answer = httpx.get(login.url + url, headers=header)
    assert answer.status_code in (401, 403)
    assert "probe.txt" not in answer.text


def test_the_plugin_is_there_once(web):
    plugins = [p for p in web.get("/api/v2/plugins").json()["plugins"] if p["name"] == "taxiway"]
    assert len(plugins) == 1
    assert [a["url_prefix"] for a in plugins[0]["fastapi_apps"]] == ["/taxiway"]
    assert web.get("/api/v2/plugins/importErrors").json()["total_entries"] == 0


@pytest.fixture(scope="module")
def chromium():
    """A browser of the machine's."""
    place = shutil.which("chromium")
    if place is None:
        pytest.skip("no chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only what looks at pages needs it

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=place, args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(chromium, login):
    """A page of a person who has logged in."""
    page = chromium.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(30_000)
    page.goto(f"{login.url}/auth/login", wait_until="networkidle")
    page.fill('input[name="username"]', login.username)
    page.fill('input[name="password"]', login.password)
    page.click('button[type="submit"]')
    page.wait_for_url(lambda url: "/auth/login" not in url)
    return page


@pytest.fixture(scope="module")
def pictures():
    """A folder that stays, for a person to look at."""
    folder = Path(os.environ.get("TAXIWAY_SCREENSHOTS") or ROOT / ".screenshots")
    folder.mkdir(exist_ok=True)
    return folder


def test_a_person_finds_the_reports_in_the_browser(login, finished, web, page, pictures):
    run, link = finished.run, links(web, finished, "probe")["Reports"]
    page.goto(f"{login.url}/dags/{run.dag}/runs/{run.id}/tasks/probe/details")
    found = page.locator(f'a[href="{link}"]')
    found.wait_for()
    assert page.get_by_text("Probe", exact=True).count()
    page.screenshot(path=str(pictures / "task.png"))
    answer = page.goto(urljoin(login.url, found.get_attribute("href")))
    assert (answer.status, page.url) == (200, login.url + link)
    page.get_by_role("link", name="2/").click()
    page.get_by_role("link", name="probe.txt").click()
    assert "probe 2 on" in page.content()


def test_the_grid_shows_the_run(login, finished, page, pictures):
    run = finished.run
    page.goto(f"{login.url}/dags/{run.dag}/runs/{run.id}")
    for task in ("probe", "outcome"):
        page.locator(f'a[href*="/runs/{run.id}/tasks/{task}"]').first.wait_for()
    page.screenshot(path=str(pictures / "grid.png"))


def test_the_code_tab_shows_the_yaml(login, finished, page, pictures):
    page.goto(f"{login.url}/dags/{finished.run.dag}/code")
    page.get_by_text("pipeline: live_reports").first.wait_for()
    page.screenshot(path=str(pictures / "code.png"))


def test_the_form_of_a_pipeline_with_params_starts_a_run(airflow, login, page, pictures):
    dag = airflow.wait_for(FORM)
    page.goto(f"{login.url}/dags/{dag}")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    form.locator('[name="element_name"]').fill("acme")
    form.locator('[name="element_count"]').fill("5")
    assert form.get_by_text("What it is called").count()
    page.screenshot(path=str(pictures / "form.png"))
    form.get_by_role("button", name="Trigger").click()
    until(lambda: airflow.client.runs(dag))
    done = airflow.finish(airflow.client.runs(dag)[0])
    assert done.result("probe").outputs["said"] == "acme 5 small"


def test_a_broken_file_shows_its_line_and_caret(airflow, login, page, pictures):
    airflow.save(FORM.replace("live_form", "live_ui_broken").replace("\nstages:", "\nstagse:"))
    until(lambda: any("live_ui_broken.yaml" in f.text for f in airflow.client.import_failures()))
    page.goto(login.url)
    page.get_by_text("Import Error").first.click()
    page.get_by_role("button").filter(has_text="live_ui_broken_yaml").first.click()
    shown = page.locator("code").filter(has_text="live_ui_broken.yaml:9:1: error: ").first
    shown.wait_for()
    assert "stagse:\n    ^\n" in shown.inner_text()
    page.screenshot(path=str(pictures / "import-error.png"))
    (airflow.pipelines / "live_ui_broken.yaml").unlink()


def until(true, seconds=60.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.2)
