import json

import pytest
from taxiway_links import AGENT

from taxiway.errors import GateFailed
from taxiway.testing import reports_of, run_stages

PIPELINE = "pipeline: docs\nstages:\n  links: {agent: links}\n"


def links(folder, files):
    return run_stages(PIPELINE, folder=folder, files=files, agents={"links": AGENT})["links"]


def test_links_that_lead_somewhere_pass(tmp_path):
    page = "[guide](docs/guide.md#start) ![logo](/logo.svg) [elsewhere](https://example.org/x) `[no](link.md)`"
    result = links(tmp_path, {"README.md": page, "docs/guide.md": "[up](../README.md)", "logo.svg": "<svg/>"})
    assert result.metrics == {"links.total": 3, "links.broken": 0}


@pytest.mark.parametrize(
    "link",
    ["gone.md", "docs", "../outside.md", "/gone.md", "x" * 5000, "a%00b"],
    ids=["missing", "folder", "outside", "root", "long", "nul"],
)
def test_links_that_lead_nowhere_fail_the_gate(tmp_path, link):
    with pytest.raises(GateFailed, match=r"links\.broken == 0: 1"):
        links(tmp_path, {"README.md": f"[here](README.md) [there]({link})"})
    assert json.loads((reports_of(tmp_path, "links") / "links.json").read_text())["broken"][0]["file"] == "README.md"


def test_nothing_read_is_nothing_measured(tmp_path):
    with pytest.raises(GateFailed, match="not measured"):
        links(tmp_path, {"main.py": ""})


def test_a_link_of_the_file_system_does_not_lead_out(tmp_path):
    (tmp_path / "secret.md").write_text("[x](y)")
    project = tmp_path / "project"
    project.mkdir()
    (project / "page.md").symlink_to(tmp_path / "secret.md")
    with pytest.raises(Exception, match="leads out of the project"):
        links(tmp_path, {"README.md": "hello"})
