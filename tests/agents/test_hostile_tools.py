"""What a hostile model asks of its tools: each call has its effect in the checkout, or none at all, and never ends the stage."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from taxiway.agents.loop import Task, converse
from taxiway.agents.tools import Limits, ToolError, Tools
from taxiway.errors import ProjectError
from taxiway.integrations import bubblewrap
from taxiway.integrations.claude import ClaudeModel, client_from
from taxiway.integrations.sandbox import ProcessSandbox
from taxiway.records import Model as Record
from taxiway.stop import Stop
from taxiway.testing import ScriptedClaude, use

CANARY = "canary-of-the-outside"
LINES = "= = =\n" * 10_000


def write(path, content="x"):
    return ("write", {"path": path, "content": content})


def read(path, **more):
    return ("read", {"path": path, **more})


def replace(path, old="one = 1", new="x"):
    return ("replace", {"path": path, "old": old, "new": new})


def delete(path):
    return ("delete", {"path": path})


def look(name, path):
    return (name, {"path": path, **({"pattern": "canary"} if name == "search" else {})})


REFUSED = {
    # leaving by name
    "read: parent": read("../outside/secret.txt"),
    "read: parent of a folder": read("src/../../outside/secret.txt"),
    "read: absolute": read("/etc/passwd"),
    "read: absolute, doubled": read("//etc/passwd"),
    "read: home": read("~/.ssh/id_rsa"),
    "read: another's home": read("~root/.ssh/id_rsa"),
    "read: backslashes": read("src\\..\\..\\outside\\secret.txt"),
    "read: processes": read("/proc/self/environ"),
    "read: url": read("file:///etc/passwd"),
    "read: NUL": read("src/\0/../../outside/secret.txt"),
    "read: NUL cuts": read("../outside/secret.txt\0.py"),
    "read: letters like slashes": read("..\u2215outside\u2215secret.txt"),
    "read: dots of full width": read("\uff0e\uff0e/outside/secret.txt"),
    "read: percent": read("%2e%2e/outside/secret.txt"),
    "list: parent": look("list", ".."),
    "list: root": look("list", "/"),
    "search: parent": look("search", ".."),
    "search: root": look("search", "/"),
    "search: a dash": look("search", "-f/etc/passwd"),
    "write: parent": write("../outside/new.txt"),
    "write: absolute": write("/tmp/taxiway-hostile"),
    "write: parent of a folder that is not": write("a/../../outside/new.txt"),
    "delete: parent": delete("../outside/secret.txt"),
    "delete: root": delete("/"),
    "delete: the project": delete("."),
    "delete: nothing": delete("./"),
    "replace: parent": replace("../outside/secret.txt", CANARY),
    # leaving by links
    "read: link": read("link.txt"),
    "read: relative link": read("relative.txt"),
    "read: hard link": read("hard.txt"),
    "read: through a folder": read("folder/secret.txt"),
    "read: through loops": read("deep/deep/deep/folder/secret.txt"),
    "read: link to itself": read("itself"),
    "read: processes by link": read("proc/environ"),
    "read: root by link": read("proc/root/etc/passwd"),
    "list: link": look("list", "folder"),
    "list: processes by link": look("list", "proc"),
    "search: link": look("search", "folder"),
    "search: root by link": look("search", "proc/root"),
    "write: link": write("link.txt"),
    "write: hard link": write("hard.txt"),
    "write: through a folder": write("folder/new.txt"),
    "write: dangling": write("dangling"),
    "write: folders through a link": write("folder/new/new.txt"),
    "write: memory of a process": write("proc/mem"),
    "write: ci by a link": write("workflows/ci.yml"),
    "replace: link": replace("link.txt", CANARY),
    "replace: hard link": replace("hard.txt", CANARY),
    "delete: through a folder": delete("folder/secret.txt"),
    "delete: link": delete("link.txt"),
    # git's own
    "git: read": read(".git/config"),
    "git: list": look("list", ".git"),
    "git: search": look("search", ".git"),
    "git: delete": delete(".git/config"),
    "git: hook": write(".git/hooks/post-checkout", "#!/bin/sh\n"),
    "git: by dots": write("./././.git/config"),
    "git: case": write(".GIT/config"),
    "git: mixed case": write(".Git/config"),
    "git: trailing dot": write(".git./config"),
    "git: trailing dots": write(".git. . ./config"),
    "git: trailing space": write(".git /config"),
    "git: no-break space": write(".git\u00a0/config"),
    "git: short name": write("git~1/config"),
    "git: short name, case": write("GIT~1/config"),
    "git: zero width": write(".g\u200cit/config"),
    "git: direction mark": write(".gi\u202et/config"),
    "git: full width": write("\uff0e\uff47\uff49\uff54/config"),
    "git: bold letters": write(".\U0001d420\U0001d422\U0001d42d/config"),
    "git: nested": write("src/.git/config"),
    "git: a file": write("src/.git", "gitdir: ../../outside\n"),
    "git: stream": write(".git::$INDEX_ALLOCATION/config"),
    "git: data stream": write(".git:x:$DATA"),
    # what decides how the project is run
    "manifest: write": write(".taxiway.yaml", "start: [sh]"),
    "manifest: by a dot": write("./.taxiway.yaml", "start: [sh]"),
    "manifest: by slashes": write(".//.taxiway.yaml", "start: [sh]"),
    "manifest: case": write(".TAXIWAY.yaml", "start: [sh]"),
    "manifest: replace": replace(".taxiway.yaml", "shop"),
    "manifest: delete": delete(".taxiway.yaml"),
    "ci: write": write(".github/workflows/ci.yml"),
    "ci: new": write(".github/workflows/new.yml"),
    "ci: case": write(".GitHub/workflows/ci.yml"),
    "ci: gitlab": write(".gitlab-ci.yml"),
    "ci: circle": write(".circleci/config.yml"),
    "ci: jenkins": write("jenkinsfile"),
    "modules": write(".gitmodules"),
    "attributes": write(".gitattributes", "* filter=x"),
    "attributes: nested": write("src/.gitattributes", "* filter=x"),
    # no plain files
    "pipe: read": read("pipe"),
    "pipe: write": write("pipe"),
    "pipe: delete": delete("pipe"),
    "socket: read": read("socket"),
    "socket: write": write("socket"),
    "device: read": read("device"),
    "device: write": write("device"),
    "binary: read": read("binary.bin"),
    "binary: replace": replace("binary.bin", "\1"),
    "large: read": read("large.txt"),
    "large: replace": replace("large.txt", "x"),
    "folder: read": read("src"),
    "project: read": read("."),
    "folder: write": write("src"),
    "folder: delete": delete("src"),
    "file as a folder: write": write("src/app.py/x"),
    "file as a folder: list": look("list", "src/app.py"),
    "missing: read": read("nothing.py"),
    "missing: delete": delete("nothing.py"),
    # contents and names
    "content: NUL": write("new.bin", "a\0b"),
    "content: one too many": write("new.txt", "x" * 80_001),
    "content: huge": write("new.txt", "x" * 5_000_000),
    "content: bytes, not characters": write("new.txt", "\U0001f600" * 20_001),
    "content: surrogate": write("new.txt", "\ud800"),
    "name: line end": write("new\nname.txt"),
    "name: return": write("new\r.txt"),
    "name: escape": write("\x1b[2Jnew.txt"),
    "name: surrogate": write("\udcff.txt"),
    "name: too long": write("x" * 300),
    "path: too long": write("x/" * 300),
    "path: empty": write(""),
    "replace: a million places": replace("lines.txt", "="),
    "replace: grows beyond the most": replace("src/app.py", new="x" * 80_000),
    "replace: by NUL": replace("src/app.py", new="\0"),
    "replace: nothing": replace("src/app.py", ""),
    # patterns
    "pattern: no end": ("search", {"pattern": r"^(.*)(.*)(.*)(.*)\1\2\3\4[c-d]$", "path": "long.txt"}),
    "pattern: no pattern": ("search", {"pattern": "("}),
    "pattern: memory": ("search", {"pattern": "((a{1,200}){1,200}){1,200}"}),
    "pattern: NUL": ("search", {"pattern": "a\0b"}),
    "pattern: surrogate": ("search", {"pattern": "\ud800"}),
    "pattern: too long": ("search", {"pattern": "a" * 501}),
    # wrong calls
    "tool: shell": ("shell", {"command": "id"}),
    "tool: python's own": ("__class__", {}),
    "tool: no name": ("", {}),
    "check: unknown": ("check", {"name": "deploy"}),
    "check: a command behind": ("check", {"name": "tests; id"}),
    "check: another argument": ("check", {"name": "tests", "command": "id"}),
    "check: cannot run": ("check", {"name": "broken"}),
    "arguments: list": read(["a", "b"]),
    "arguments: object": read({"$ref": "/etc/passwd"}),
    "arguments: text": ("read", "src/app.py"),
    "arguments: none": ("read", None),
    "arguments: missing": ("write", {"path": "new.txt"}),
    "arguments: number": write("new.txt", 7),
    "arguments: unknown": ("write", {"path": "new.txt", "content": "x", "mode": "0777"}),
    "arguments: unknown surrogate": read("src/app.py", **{"\ud800": 1}),
    "arguments: line -1": read("src/app.py", first=-1),
    "arguments: last line -5": read("src/app.py", last=-5),
    "arguments: line 10**30": read("src/app.py", first=10**30),
    "arguments: yes": read("src/app.py", first=True),
    "arguments: 1.5": read("src/app.py", first=1.5),
}

HARMLESS = {
    "deep folders": (write("a/" * 150 + "x"), "wrote"),
    "a name of dashes": (write("--help"), "wrote"),
    "shell in a name": (write("$(id);`id`"), "wrote"),
    "a link to a folder is not entered": (look("list", "."), "(a link, which is not followed)"),
    "more files than are told": (look("list", "many"), "... and 20 more"),
    "backwards": (read("src/app.py", first=2, last=1), "(empty)"),
    "far beyond": (read("src/app.py", last=10**30), "one = 1"),
    "an option as pattern": (("search", {"pattern": "-f/etc/passwd"}), "(no match)"),
    "all": (("search", {"pattern": ".", "path": "src"}), "src/app.py:1:one = 1"),
    "a control character in a name": (look("list", "odd"), "a?b"),
}


@pytest.fixture
def place(tmp_path):
    """A checkout beside things that nobody may touch, and links to them."""
    outside, checkout = tmp_path / "outside", tmp_path / "checkout"
    (outside / "folder").mkdir(parents=True)
    (outside / "secret.txt").write_text(CANARY)
    (outside / "run.sh").write_text("#!/bin/sh\n")
    (outside / "run.sh").chmod(0o755)
    (outside / "folder" / "secret.txt").write_text(CANARY)
    files = {
        ".git/config": f"[core]\n\teditor = {CANARY}\n",
        ".github/workflows/ci.yml": "on: push\n",
        ".taxiway.yaml": "name: shop\n",
        "src/app.py": "one = 1\ntwo = 2\n",
        "large.txt": "x" * 90_000,
        "lines.txt": LINES,
        "long.txt": "ab" * 20_000 + "\n",
        "odd/a\nb": "",
    }
    for path, text in files.items():
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_text(text)
    (checkout / "binary.bin").write_bytes(b"\0\1\2")
    (checkout / "many").mkdir()
    for number in range(60):
        (checkout / "many" / f"{number}").touch()
    links = {
        "link.txt": outside / "secret.txt",
        "relative.txt": "../outside/secret.txt",
        "folder": outside / "folder",
        "deep": ".",
        "itself": "itself",
        "dangling": outside / "new.txt",
        "proc": "/proc/self",
        "workflows": ".github/workflows",
    }
    for name, target in links.items():
        (checkout / name).symlink_to(target)
    os.link(outside / "secret.txt", checkout / "hard.txt")
    os.mkfifo(checkout / "pipe")
    try:
        os.mknod(checkout / "device", 0o666 | 0o020000, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        os.mkfifo(checkout / "device")
    # A path of a socket is short: it is made from within.
    here = os.open(checkout, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{here}/socket")
    os.close(here)
    return tmp_path


@pytest.fixture
def tools(place):
    def broken():
        raise ProjectError("the project cannot be read")

    limits = Limits(file_bytes=80_000, answer=5000, entries=40, search_s=1.0)
    return Tools(
        place / "checkout", ProcessSandbox(trusted=True), Stop(), checks={"tests": lambda: "3 passed", "broken": broken}, limits=limits
    )


def seen(folder: Path) -> dict[str, object]:
    """Everything below a folder: kind and mode, owner, links, time and content."""
    found: dict[str, object] = {}
    for path in sorted([folder, *folder.rglob("*")]):
        info = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path)] = (info.st_mode, info.st_uid, info.st_nlink, info.st_mtime_ns, content)
    return found


def test_there_are_many():
    assert len(REFUSED) >= 40


@pytest.mark.parametrize(("name", "arguments"), REFUSED.values(), ids=REFUSED)
def test_refused_without_any_effect(place, tools, name, arguments):
    before = seen(place)
    with pytest.raises(ToolError) as refused:
        tools.call(name, arguments)
    assert CANARY not in str(refused.value)
    assert seen(place) == before
    assert tools.changed == set()
    assert not Path("/tmp/taxiway-hostile").exists()


@pytest.mark.parametrize(("call", "told"), HARMLESS.values(), ids=HARMLESS)
def test_harmless_and_nothing_outside_changes(place, tools, call, told):
    before = seen(place / "outside")
    answer = tools.call(*call)
    assert told in answer
    assert CANARY not in answer
    assert len(answer) < 5100
    assert seen(place / "outside") == before


def test_files_without_end_are_refused_from_a_number_on(place, tools):
    for number in range(200):
        tools.call(*write(f"new/{number}.txt"))
    with pytest.raises(ToolError, match="no more may be"):
        tools.call(*write("new/200.txt"))
    assert len(list((place / "checkout" / "new").iterdir())) == 200


class Done(Record):
    """Nothing to say."""


class Free:
    """A purse for which nothing costs anything."""

    def reserve(self, model, *, prompt_tokens, output_tokens):
        return ""

    def settle(self, reservation, reply, *, failed=False):
        pass


class Kept(list):
    def note(self, kind, data):
        self.append((kind, data))


def test_no_call_ends_the_conversation(place, tools):
    """All of them, one after the other, over the wire: the model is told each time, and can still hand in."""
    before = seen(place / "outside")
    short = {i: c for i, c in REFUSED.items() if isinstance(c[1], dict) and len(str(c[1])) < 2000}
    said = {i: c for i, c in short.items() if not i.startswith("pattern: ")}
    script = [use(name or "none", **arguments) for name, arguments in said.values()]
    with ScriptedClaude([*script, use("hand_in")]) as claude, client_from({"ANTHROPIC_BASE_URL": claude.url}) as client:
        task = Task(system="You work.", project="A project.", request="Do it.", answer=Done, steps=len(script) + 1)
        done = converse(task, model=ClaudeModel(client, "m", retries=0), tools=tools, purse=Free(), trace=Kept(), stop=Stop())
        told = [m["content"][0] for m in claude.requests[-1]["messages"] if m["role"] == "user"][1:]
        assert (claude.error, claude.left) == ("", 0)
    assert done.calls == len(script) + 1
    assert len(told) == len(script)
    # Half a surrogate pair does not come through the wire as one: what is left of it can be written.
    fine = {i for i, block in zip(said, told, strict=True) if not block.get("is_error")}
    assert fine == {"content: surrogate", "name: surrogate"}
    assert CANARY not in str(told)
    assert seen(place / "outside") == before


@pytest.mark.skipif(bubblewrap.available() is not None, reason=str(bubblewrap.available()))
def test_a_search_sees_the_checkout_alone(place, tools):
    tools.sandbox = ProcessSandbox(trusted=False)
    (place / "checkout" / "hard.txt").unlink()  # no commit and no sandbox makes a file that has another name outside
    for pattern in ("canary", "root:", "^PATH="):
        assert tools.call("search", {"pattern": pattern}) == "(no match)"
