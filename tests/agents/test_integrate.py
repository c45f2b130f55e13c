"""integrate on real repositories: conflicts, a branch that moves, and attempts killed at each step."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from taxiway.agents.base import StageAttempt
from taxiway.agents.integrate import AGENT, IntegrateInput
from taxiway.errors import Cancelled, GateFailed, LeaseLost, MergeConflict, StageError, TransientError
from taxiway.home import Home
from taxiway.integrations.git import GitWorkspace
from taxiway.integrations.ledger import SqliteLedger
from taxiway.records import Verdict
from taxiway.stop import Stop

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STEPS = ["merge", "intend", "push", "settle"]


class Dies:
    """Passes every call on, and kills this process right before or after one of them."""

    def __init__(self, inner, step, when):
        self._inner, self._step, self._when = inner, step, when

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        if name != self._step:
            return found

        def call(*args, **named):
            if self._when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            found(*args, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        return call


class Project:
    """A run with one commit on top of main, in a folder that other processes can open too."""

    def __init__(self, folder, url):
        self.folder, self.url = folder, url
        self.ledger = SqliteLedger(folder / "ledger.db")
        self.workspace = self.open()

    def open(self, run="run-1"):
        return GitWorkspace(home=Home(self.folder / "home"), pipeline="web", run=run, url=self.url, started=STARTED)

    def change(self, parent, files, run="run-1", stage="scaffold"):
        workspace = self.open(run)
        into = self.folder / f"{run}-{len(list(self.folder.iterdir()))}"
        into.mkdir()
        workspace.checkout(parent, into)
        for path, content in files.items():
            (into / path).unlink() if content is None else (into / path).write_text(content)
        with self.ledger.lease(f"commit:{into}", holder="test", attempt=1, stop=Stop()) as lease:
            trailers = {"Taxiway-Run": run, "Taxiway-Stage": stage, "Taxiway-Attempt": "1"}
            return workspace.commit(into, parent=parent, message="m", trailers=trailers, lease=lease)

    def push_by_another(self, files):
        """What somebody else does to main meanwhile."""
        run = "other" if self.url else "run-1"  # a repository of the run's own has no other run
        workspace = self.open(run)
        head = workspace.head("main")
        commit = self.change(head, files, run=run, stage=f"s{len(list(self.folder.iterdir()))}")
        with self.ledger.lease("other", holder="other", attempt=1, stop=Stop()) as lease:
            workspace.push(commit, branch="main", expected=head, lease=lease)
        return commit

    def main(self):
        return self.workspace.head("main")

    def history(self):
        command = [
            "git",
            "--git-dir",
            self.workspace.url,
            "log",
            "--first-parent",
            "--format=%H %(trailers:key=Taxiway-Source,valueonly)",
            "main",
        ]
        return [line for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines() if line]

    def attempt(self, commit, *, number=1, verify=None, stop=None):
        reports = self.folder / f"reports-{number}"
        reports.mkdir(exist_ok=True)
        return StageAttempt(
            pipeline="web",
            run="run-1",
            name="integrate",
            attempt=number,
            commit=commit,
            checkout=self.folder,
            reports=reports,
            results={},
            stop=stop or Stop(),
            log=logging.getLogger("test"),
            verify=verify or (lambda other: (Verdict(stage="validate", commit=other, gates="g", passed=True),)),
            trailers={"Taxiway-Run": "run-1", "Taxiway-Stage": "integrate", "Taxiway-Attempt": str(number)},
        )

    def integrate(self, commit, *, strategy="squash", into="main", conflicts="fail", workspace=None, ledger=None, **more):
        ports = SimpleNamespace(workspace=workspace or self.workspace, ledger=ledger or self.ledger)
        return AGENT.run(IntegrateInput(into=into, strategy=strategy, conflicts=conflicts), ports, self.attempt(commit, **more))


@pytest.fixture(params=["own", "shared"])
def project(request, tmp_path):
    url = ""
    if request.param == "shared":
        url = str(tmp_path / "shared.git")
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", url], check=True)
    return Project(tmp_path, url)


@pytest.fixture
def start(project):
    return project.workspace.start()


@pytest.mark.parametrize("strategy", ["merge", "squash", "rebase", "fast-forward"])
def test_each_strategy_brings_the_change_and_verifies_what_is_new(project, start, strategy):
    commit = project.change(start, {"a": "1\n", "b": "2\n"})
    verified = []

    def verify(other):
        verified.append(other)
        assert project.main() == start
        return (Verdict(stage="validate", commit=other, gates="g", passed=True),)

    result = project.integrate(commit, strategy=strategy, verify=verify)
    assert project.main() == result.commit
    assert project.workspace.diff(commit, result.commit).strip() == ""
    assert verified == ([] if result.commit == commit else [result.commit])
    assert [v.commit for v in result.verdicts] == verified
    assert result.metrics == {"conflicts": 0.0, "files.changed": 2.0}
    assert result.outputs == {"branch": "main", "merged": True}
    assert f"into main ({result.commit[:7]})" in result.summary
    assert [(c.kind, c.state, c.before["head"], c.after["head"]) for c in project.ledger.changes("run-1")] == [
        ("push", "done", start, result.commit)
    ]


def test_a_second_time_changes_nothing(project, start):
    commit = project.change(start, {"a": "1\n"})
    first = project.integrate(commit)
    before = project.history()
    again = project.integrate(commit, number=2)
    assert (again.commit, again.metrics, again.outputs, again.verdicts) == (first.commit, first.metrics, first.outputs, first.verdicts)
    assert project.history() == before
    # Others have gone on, even over the same lines: what this run brought in is still found.
    project.push_by_another({"a": "other\n"})
    assert project.integrate(commit, number=3).commit == first.commit


def test_a_run_that_changed_nothing_has_nothing_to_merge(project, start):
    project.push_by_another({"a": "1\n"})
    result = project.integrate(start)
    assert (result.commit, result.metrics["files.changed"]) == (start, 0.0)
    assert "already holds" in result.summary
    assert project.ledger.changes("run-1") == ()


def test_a_branch_that_is_not_there_is_made(project, start):
    commit = project.change(start, {"a": "1\n"})
    result = project.integrate(commit, into="release/1.0")
    assert result.summary == f"created release/1.0, which was not there, at {result.commit[:7]}"
    assert project.workspace.head("release/1.0") == result.commit == commit


def test_a_branch_beside_the_default_one_is_not_made(tmp_path):
    url = str(tmp_path / "shared.git")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", url], check=True)
    project = Project(tmp_path, url)
    project.workspace.start()
    start = project.push_by_another({"old": "1\n"})
    subprocess.run(["git", "-C", url, "branch", "-m", "main", "master"], check=True)
    commit = project.change(start, {"a": "1\n"})
    with pytest.raises(StageError, match=r"there is no branch main in .*, whose default branch is master") as error:
        project.integrate(commit, verify=lambda _: pytest.fail("nothing is to be measured"))
    assert error.value.hint == "merge into that one, `with: {into: master}`, or push main first"
    assert (project.main(), project.workspace.head("master"), project.ledger.changes("run-1")) == ("", start, ())
    # A repository that somebody is at work in, on no branch: the one at its commit.
    subprocess.run(["git", "-C", url, "update-ref", "--no-deref", "HEAD", start], check=True)
    assert project.workspace.default_branch() == "master"
    assert project.integrate(commit, into="master").commit == project.workspace.head("master")


def test_conflicts_are_reported_by_hunk_and_touch_nothing(project, start):
    lines = [f"{i}\n" for i in range(40)]
    base = project.push_by_another({"a.txt": "".join(lines), "gone|.txt": "x\n"})
    mine = project.change(base, {"a.txt": "".join(["mine\n", *lines[1:30], "mine\n", *lines[31:]]), "gone|.txt": "y\n"})
    theirs = project.push_by_another({"a.txt": "".join(["theirs\n", *lines[1:30], "theirs\n", *lines[31:]]), "gone|.txt": None})
    with pytest.raises(MergeConflict, match=r"conflicts in a\.txt, gone\|\.txt") as error:
        project.integrate(mine)
    assert project.main() == theirs
    report = json.loads((project.folder / "reports-1" / "conflicts.json").read_text())
    assert (report["commit"], report["head"], report["into"]) == (mine, theirs, "main")
    assert [(hunk["path"], hunk["line"]) for hunk in report["hunks"]] == [("a.txt", 1), ("a.txt", 31), ("gone|.txt", 1)]
    assert error.value.conflicts[0] == "a.txt:1: both sides changed these lines"
    assert "deleted" in error.value.conflicts[2]
    assert "| gone\\|.txt | 1 |" in (project.folder / "reports-1" / "conflicts.md").read_text()
    assert project.ledger.changes("run-1") == ()


def test_a_result_that_does_not_pass_is_not_pushed(project, start):
    def verify(other):
        raise GateFailed("tests failed on the merge", readings=())

    with pytest.raises(GateFailed):
        project.integrate(project.change(start, {"a": "1\n"}), verify=verify)
    assert project.main() == start
    assert project.ledger.changes("run-1") == ()


def test_a_branch_that_moves_meanwhile_is_merged_again(project, start):
    commit = project.change(start, {"a": "1\n"})
    verified = []

    def verify(other):
        verified.append(other)
        if len(verified) < 3:
            project.push_by_another({f"other{len(verified)}": "x\n"})
        return ()

    result = project.integrate(commit, verify=verify)
    assert len(set(verified)) == 3
    assert project.main() == result.commit == verified[-1]
    assert project.workspace.diff(start, result.commit).startswith("3 files changed")


def test_starting_over_is_bounded(project, start):
    commit = project.change(start, {"a": "1\n"})
    count = iter(range(100))

    def verify(other):
        project.push_by_another({f"other{next(count)}": "x\n"})
        return ()

    with pytest.raises(TransientError, match="moved 5 times"):
        project.integrate(commit, verify=verify)
    assert next(count) == 5


def test_pushers_side_by_side_lose_nothing(project, start):
    commit = project.change(start, {"a": "1\n"})
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import test_integrate as t; "
        "p = t.Project(Path(sys.argv[2]), sys.argv[3]); [p.push_by_another({f'o{i}': 'x'}) for i in range(2)]"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(Path(__file__).parent), str(project.folder), project.url])
    try:
        result = project.integrate(commit)
    finally:
        code = other.wait(60)
    lines = project.history()
    assert any(line.startswith(result.commit) for line in lines)
    files = project.workspace.diff(start, project.main())
    assert "b/a\n" in files
    # The other side does not start over by itself: it either came through or found that main had moved.
    assert code in (0, 1)
    assert len(lines) == files.count("diff --git") + 1


def test_nothing_is_pushed_after_the_run_was_stopped(project, start):
    stop = Stop()

    def verify(other):
        stop.cancel()
        return ()

    with pytest.raises(Cancelled):
        project.integrate(project.change(start, {"a": "1\n"}), verify=verify, stop=stop)
    assert project.main() == start
    assert project.ledger.changes("run-1") == ()


class Stops:
    """Passes every call on, and stops the run right after one of them."""

    def __init__(self, inner, step, stop):
        self._inner, self._step, self._stop = inner, step, stop

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        if name != self._step:
            return found

        def call(*args, **named):
            answer = found(*args, **named)
            self._stop.cancel()
            return answer

        return call


@pytest.mark.parametrize("step", ["merge", "head", "intend"])
def test_a_stop_at_any_step_before_the_push_means_no_push(project, start, step):
    commit, stop = project.change(start, {"a": "1\n"}), Stop()
    with pytest.raises(Cancelled):
        project.integrate(commit, workspace=Stops(project.workspace, step, stop), ledger=Stops(project.ledger, step, stop), stop=stop)
    assert project.main() == start
    assert [c.state for c in project.ledger.changes("run-1")] == (["intended"] if step != "merge" else [])
    # Written down and not done: the next attempt finishes it, with one effect.
    result = project.integrate(commit, number=2)
    assert project.main() == result.commit
    assert [c.state for c in project.ledger.changes("run-1")] == ["done"]


def test_an_attempt_that_was_replaced_pushes_nothing(project, start):
    commit = project.change(start, {"a": "1\n"})
    newer = {}

    def verify(other):
        newer["result"] = project.integrate(commit, number=2)
        return ()

    with pytest.raises(LeaseLost):
        project.integrate(commit, verify=verify)
    assert project.main() == newer["result"].commit
    assert len(project.history()) == 2


def test_two_runs_merge_one_after_the_other(project, start):
    commit = project.change(start, {"a": "1\n"})
    inside, order = threading.Event(), []

    def verify(other):
        inside.set()
        order.append("first")
        return ()

    with project.ledger.lease(f"push:{project.workspace.url}:main", holder="run-0/integrate", attempt=1, stop=Stop()):
        thread = threading.Thread(target=lambda: project.integrate(commit, verify=verify))
        thread.start()
        assert not inside.wait(0.5)
        order.append("zeroth")
    thread.join(60)
    assert order == ["zeroth", "first"]


@pytest.mark.parametrize(("conflicts", "left"), [("ours", "theirs"), ("theirs", "mine")])
def test_decided_conflicts_are_listed_hunk_by_hunk(project, start, conflicts, left):
    lines = [f"{i}\n" for i in range(40)]
    base = project.push_by_another({"a|.txt": "".join(lines)})
    mine = project.change(base, {"a|.txt": "".join(["mine\n", *lines[1:30], "mine\n", *lines[31:]]), "b": "1\n"})
    project.push_by_another({"a|.txt": "".join(["theirs\n", *lines[1:30], "theirs\n", *lines[31:]])})
    result = project.integrate(mine, conflicts=conflicts)
    (project.folder / "out").mkdir()
    project.workspace.checkout(project.main(), project.folder / "out")
    assert (project.folder / "out" / "a|.txt").read_text() == "".join([f"{left}\n", *lines[1:30], f"{left}\n", *lines[31:]])
    assert f"decided for {conflicts}: a|.txt:1, a|.txt:31" in result.summary
    assert result.metrics["conflicts"] == 2.0
    report = json.loads((project.folder / "reports-1" / "decided.json").read_text())
    assert [(h["path"], h["line"], h["kind"]) for h in report["hunks"]] == [("a|.txt", 1, "contents"), ("a|.txt", 31, "contents")]
    assert "| a\\|.txt | 31 |" in (project.folder / "reports-1" / "decided.md").read_text()


def test_a_change_that_loses_everywhere_is_told(project, start):
    base = project.push_by_another({"a": "x\n"})
    mine = project.change(base, {"a": "mine\n"})
    head = project.push_by_another({"a": "theirs\n"})
    result = project.integrate(mine, conflicts="ours")
    assert (project.main(), result.commit) == (head, head)
    assert "main stays as it is: all hunks of the change were decided against it" in result.summary


def test_a_deleted_file_is_no_sides_to_decide(project, start):
    base = project.push_by_another({"a": "x\n"})
    mine = project.change(base, {"a": "mine\n"})
    head = project.push_by_another({"a": None})
    with pytest.raises(MergeConflict, match="that `conflicts: theirs` cannot decide in a"):
        project.integrate(mine, conflicts="theirs")
    assert project.main() == head


def test_no_commit_is_an_error(project):
    with pytest.raises(StageError, match="no commit"):
        project.integrate("")


def test_the_servers_refusal_is_told(project, start):
    if not project.url:
        return  # its own repository has no server
    commit = project.change(start, {"a": "1\n"})
    hook = Path(project.url) / "hooks" / "update"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text('#!/bin/sh\n[ "$1" != refs/heads/main ] || { echo "main is protected" >&2; exit 1; }\n')
    hook.chmod(0o755)
    with pytest.raises(StageError, match="main is protected"):
        project.integrate(commit)
    assert project.main() == start
    assert [c.state for c in project.ledger.changes("run-1")] == ["undone"]


DIE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_integrate as t
project = t.Project(Path(sys.argv[2]), sys.argv[3])
commit, step, when = sys.argv[4:]
project.integrate(commit, workspace=t.Dies(project.workspace, step, when), ledger=t.Dies(project.ledger, step, when))
"""


def test_what_a_dead_attempt_intended_and_never_did_is_closed(project, start):
    commit = project.change(start, {"a": "1\n"})
    command = [sys.executable, "-c", DIE, str(Path(__file__).parent), str(project.folder), project.url, commit, "push", "before"]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    project.push_by_another({"a": "other\n"})
    with pytest.raises(MergeConflict):
        project.integrate(commit, number=2)
    assert [c.state for c in project.ledger.changes("run-1")] == ["undone"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_an_attempt_killed_anywhere_has_one_effect(project, start, step, when):
    commit = project.change(start, {"a": "1\n", "b": "2\n"})
    command = [sys.executable, "-c", DIE, str(Path(__file__).parent), str(project.folder), project.url, commit, step, when]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    landed = (step, when) in (("push", "after"), ("settle", "before"), ("settle", "after"))
    assert (project.main() != start) == landed
    head = project.main()
    result = project.integrate(commit, number=2)
    assert project.main() == result.commit
    if landed:
        assert result.commit == head
    assert [line.split()[1:] for line in project.history()] in ([[commit], []], [[commit]])
    assert [(c.state, c.before["head"], c.after["head"]) for c in project.ledger.changes("run-1")] == [("done", start, result.commit)]
    assert result.metrics["files.changed"] == 2.0


HOOK = """#!/bin/sh
[ -e "{folder}/killed" ] && exit 0
grep -q refs/heads/{branch} || exit 0
touch "{folder}/killed"
kill -KILL $(cat "{folder}/pid")
{then}
"""
DIE_INSIDE = "import os, sys; from pathlib import Path; Path(sys.argv[2], 'pid').write_text(str(os.getpid()))\n" + DIE
LANDS_LATER = 'i=0; while [ ! -e "{folder}/go" ] && [ $i -lt 200 ]; do sleep 0.1; i=$((i+1)); done'


def hooked(project, hook, then, branch="main"):
    """Let the server kill who pushes to the branch, in the middle of its first push."""
    place = Path(project.url) / "hooks" / hook
    place.parent.mkdir(exist_ok=True)
    place.write_text(HOOK.format(folder=project.folder, branch=branch, then=then.format(folder=project.folder)))
    place.chmod(0o755)


@pytest.mark.parametrize("project", ["shared"], indirect=True)
@pytest.mark.parametrize(
    ("hook", "then", "landed"),
    [("pre-receive", "kill -KILL $PPID", False), ("pre-receive", LANDS_LATER, False), ("post-receive", "", True)],
    ids=["never lands", "lands while the next attempt verifies", "landed"],
)
def test_an_attempt_killed_inside_its_push_has_one_effect(project, start, hook, then, landed):
    commit = project.change(start, {"a": "1\n", "b": "2\n"})
    hooked(project, hook, then)
    command = [sys.executable, "-c", DIE_INSIDE, str(Path(__file__).parent), str(project.folder), project.url, commit, "nothing", ""]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    assert (project.main() != start) == landed
    first = project.main() if landed else ""

    def verify(other):
        if then == LANDS_LATER and not (project.folder / "go").exists():
            (project.folder / "go").touch()
            wait_until(lambda: project.main() != start)
        return (Verdict(stage="validate", commit=other, gates="g", passed=True),)

    result = project.integrate(commit, number=2, verify=verify)
    assert project.main() == result.commit
    assert first in ("", result.commit)
    assert project.workspace.diff(start, result.commit).startswith("2 files changed")
    assert len(project.history()) == 2, "the first commit and one squash, nothing else"
    assert [(c.state, c.before["head"], c.after["head"]) for c in project.ledger.changes("run-1")] == [("done", start, result.commit)]


def wait_until(true):
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


WRITE = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_integrate as t
project = t.Project(Path(sys.argv[2]), sys.argv[3])
Path(sys.argv[2], 'pid').write_text(str(os.getpid()))
files = Path(sys.argv[5])
with project.ledger.lease("attempt:run-1/scaffold", holder="run-1/scaffold", attempt=1, stop=t.Stop()) as lease:
    trailers = {"Taxiway-Run": "run-1", "Taxiway-Stage": "scaffold", "Taxiway-Attempt": "1"}
    project.workspace.commit(files, parent=sys.argv[4], message="m", trailers=trailers, lease=lease)
"""


@pytest.mark.parametrize("project", ["shared"], indirect=True)
@pytest.mark.parametrize(("hook", "then", "landed"), [("pre-receive", "kill -KILL $PPID", False), ("post-receive", "", True)])
def test_a_writer_killed_inside_the_push_of_its_commit_has_one_effect(project, start, hook, then, landed):
    hooked(project, hook, then, branch=project.workspace.branch)
    files = project.folder / "files"
    files.mkdir()
    (files / "a").write_text("1\n")
    command = [sys.executable, "-c", WRITE, str(Path(__file__).parent), str(project.folder), project.url, start, str(files)]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    branch = project.workspace.branch
    first = project.workspace.head(branch)
    assert bool(first) == landed
    with project.ledger.lease("attempt:run-1/scaffold", holder="run-1/scaffold", attempt=2, stop=Stop()) as lease:
        trailers = {"Taxiway-Run": "run-1", "Taxiway-Stage": "scaffold", "Taxiway-Attempt": "2"}
        made = project.workspace.commit(files, parent=start, message="m", trailers=trailers, lease=lease)
    assert project.workspace.head(branch) == made
    assert first in ("", made)
    listed = subprocess.run(["git", "-C", project.url, "rev-list", f"{start}..{branch}"], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == [made]
