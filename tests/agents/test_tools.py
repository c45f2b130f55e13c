"""The tools of a model, and what they are for; what a hostile one asks for is in test_hostile_tools.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taxiway.agents.tools import TOOLS, Limits, ToolError, Tools
from taxiway.errors import Cancelled
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.stop import Stop

CANARY = "canary-of-the-outside"


@pytest.fixture
def place(tmp_path):
    """A checkout beside things that nobody may touch, and links to them."""
    outside, checkout = tmp_path / "outside", tmp_path / "checkout"
    (outside / "folder").mkdir(parents=True)
    (outside / "secret.txt").write_text(CANARY)
    (outside / "folder" / "secret.txt").write_text(CANARY)
    (checkout / "src").mkdir(parents=True)
    (checkout / ".git").mkdir()
    (checkout / ".git" / "config").write_text(f"[core]\n\teditor = {CANARY}\n")
    (checkout / ".github" / "workflows").mkdir(parents=True)
    (checkout / ".github" / "workflows" / "ci.yml").write_text("on: push\n")
    (checkout / ".taxiway.yaml").write_text("name: shop\n")
    (checkout / "src" / "app.py").write_text("one = 1\ntwo = 2\n")
    (checkout / "link.txt").symlink_to(outside / "secret.txt")
    (checkout / "relative.txt").symlink_to("../outside/secret.txt")
    (checkout / "folder").symlink_to(outside / "folder")
    (checkout / "deep").symlink_to(".")
    (checkout / "dangling").symlink_to(outside / "new.txt")
    os.link(outside / "secret.txt", checkout / "hard.txt")
    os.mkfifo(checkout / "pipe")
    (checkout / "binary.bin").write_bytes(b"\0\1\2")
    (checkout / "large.txt").write_text("x" * 3000)
    return tmp_path


@pytest.fixture
def tools(place):
    return Tools(
        place / "checkout",
        ProcessSandbox(trusted=False),
        Stop(),
        checks={"tests": lambda: "3 passed"},
        limits=Limits(file_bytes=2000, answer=2000, changed=3),
    )


def seen(folder: Path) -> dict[str, object]:
    """Everything below a folder: kind, content, mode."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (info.st_mode, content)
    return found


@pytest.mark.parametrize("pattern", ["canary", ".", "--", "-f/etc/passwd", "(a+)+$", "x{1,100}{1,100}"])
def test_search_sees_the_checkout_alone(place, tools, pattern):
    # No commit and no sandbox makes a file that has another name outside.
    (place / "checkout" / "hard.txt").unlink()
    before = seen(place)
    assert CANARY not in tools.call("search", {"pattern": pattern})
    assert seen(place) == before


def test_what_they_are_for(place, tools):
    assert tools.call("read", {"path": "src/app.py", "first": 2}) == "    2  two = 2"
    assert tools.call("write", {"path": "src/new/b.py", "content": "b = 1\n"}) == "wrote src/new/b.py, 1 lines"
    assert tools.call("replace", {"path": "src/app.py", "old": "two = 2", "new": "two = 3"}) == "changed src/app.py"
    assert tools.call("search", {"pattern": "two = [0-9]"}) == "src/app.py:2:two = 3"
    assert tools.call("delete", {"path": "large.txt"}) == "deleted large.txt"
    assert "app.py  16" in tools.call("list", {"path": "src"})
    assert "folder (a link, which is not followed)" in tools.call("list", {})
    assert ".git\n" not in tools.call("list", {})
    assert tools.call("check", {"name": "tests"}) == "3 passed"
    assert tools.changed == {"src/new/b.py", "src/app.py", "large.txt"}
    with pytest.raises(ToolError, match="3 files were changed"):
        tools.call("write", {"path": "fourth.txt", "content": "x"})
    tools.call("write", {"path": "src/app.py", "content": "again = 1\n"})


def test_the_mode_of_a_file_stays(place, tools):
    script = place / "checkout" / "run.sh"
    script.write_text("echo 1\n")
    script.chmod(0o755)
    tools.call("replace", {"path": "run.sh", "old": "1", "new": "2"})
    assert script.stat().st_mode & 0o777 == 0o755


def test_allowed_paths_may_be_changed(place, tools):
    tools.allowed = (".github/workflows/*.yml",)
    tools.call("write", {"path": ".github/workflows/ci.yml", "content": "on: pull_request\n"})
    with pytest.raises(ToolError, match="does not allow"):
        tools.call("write", {"path": ".taxiway.yaml", "content": "x"})


def test_who_only_reads_has_no_tools_to_write(tools):
    tools.writable = False
    assert [t["name"] for t in tools.specifications] == ["list", "read", "search", "check"]
    with pytest.raises(ToolError, match="no tool 'write'"):
        tools.call("write", {"path": "x", "content": "y"})


def test_long_answers_are_cut_and_say_so(place, tools):
    tools.limits = Limits(answer=200)
    assert tools.call("read", {"path": "large.txt"}).endswith("more characters; ask for less")


def test_a_stopped_run_calls_nothing(place):
    stop = Stop()
    stop.cancel()
    tools = Tools(place / "checkout", ProcessSandbox(trusted=False), stop)
    with pytest.raises(Cancelled):
        tools.call("read", {"path": "src/app.py"})


def test_specifications_are_the_same_every_time(tools):
    assert tools.specifications == tools.specifications
    assert tuple(tool["name"] for tool in tools.specifications) == tuple(TOOLS)
    for tool in tools.specifications:
        assert tool["description"]
        assert tool["input_schema"]["additionalProperties"] is False
        assert all(p.get("description") for p in tool["input_schema"]["properties"].values())
