"""The workspace on real repositories: one of the run's own, and a shared one."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest

from taxiway.errors import InputError, LeaseLost, OperatorError, ProjectError, StageError, TransientError
from taxiway.home import Home
from taxiway.integrations.git import GitWorkspace
from taxiway.integrations.ledger import SqliteLedger
from taxiway.stop import Stop

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def git(folder, *args, stdin=b"", ok=True):
    env = {"PATH": os.environ["PATH"], "HOME": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    env |= {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "T"), ("EMAIL", "t@localhost"))}
    done = subprocess.run(["git", "-C", str(folder), *args], input=stdin, env=env, capture_output=True, check=False)
    assert done.returncode == 0 or not ok, done.stderr
    return done.stdout.decode().strip()


def trailers(stage="scaffold", attempt=1):
    return {"Taxiway-Run": "run-1", "Taxiway-Stage": stage, "Taxiway-Attempt": str(attempt), "Taxiway-Agent": "scaffold"}


@pytest.fixture
def shared(tmp_path):
    folder = tmp_path / "shared.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(folder)], check=True)
    return folder


@pytest.fixture(params=["own", "shared"])
def url(request, shared):
    return str(shared) if request.param == "shared" else ""


@pytest.fixture
def make(tmp_path):
    def make(url="", run="run-1", home="home", **more):
        return GitWorkspace(home=Home(tmp_path / home), pipeline="web", run=run, url=url, started=STARTED, **more)

    return make


@pytest.fixture
def lease(tmp_path):
    with SqliteLedger(tmp_path / "ledger.db").lease("work", holder="test", attempt=1, stop=Stop()) as lease:
        yield lease


@pytest.fixture
def checkout(tmp_path):
    count = iter(range(100))

    def checkout(workspace, commit, files=None):
        folder = tmp_path / f"checkout-{next(count)}"
        folder.mkdir()
        workspace.checkout(commit, folder)
        for path, content in (files or {}).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        return folder

    return checkout


def files_of(repository, commit):
    return git(repository, "ls-tree", "-r", "--name-only", commit).splitlines()


def test_a_run_from_start_to_push(make, url, lease, checkout):
    workspace = make(url)
    start = workspace.start()
    assert workspace.start() == start == workspace.head("main")
    folder = checkout(workspace, start, {"app/main.py": b"print(1)\n", "crlf.txt": b"a\r\nb\n"})
    commit = workspace.commit(folder, parent=start, message="scaffold: a service", trailers=trailers(), lease=lease)
    assert workspace.head(workspace.branch) == commit
    assert git(workspace.url, "log", "-1", "--format=%an <%ae> %at %ct", commit) == "Taxiway <taxiway@localhost> 1767323045 1767323045"
    assert git(workspace.url, "log", "-1", "--format=%(trailers:key=Taxiway-Stage,valueonly)", commit) == "scaffold"
    workspace.push(commit, branch="main", expected=start, lease=lease)
    workspace.push(commit, branch="main", expected=start, lease=lease)
    assert workspace.head("main") == commit
    again = checkout(workspace, commit)
    assert sorted(str(p.relative_to(again)) for p in again.rglob("*") if p.is_file()) == ["app/main.py", "crlf.txt"]
    assert (again / "crlf.txt").read_bytes() == b"a\r\nb\n"
    assert not (again / ".git").exists()


def test_the_start_stays_when_the_branch_moves(make, url, lease, checkout):
    workspace = make(url)
    start = workspace.start()
    other = workspace.commit(checkout(workspace, start, {"a": b"1"}), parent=start, message="m", trailers=trailers(), lease=lease)
    workspace.push(other, branch="main", expected=start, lease=lease)
    assert workspace.start() == start
    assert make(url).start() == start


def test_the_same_content_gives_the_same_commit(make, url, lease, checkout):
    workspace = make(url)
    start = workspace.start()
    folder = checkout(workspace, start, {"a": b"1"})
    assert workspace.commit(checkout(workspace, start), parent=start, message="m", trailers=trailers(), lease=lease) == start
    first = workspace.commit(folder, parent=start, message="m", trailers=trailers(), lease=lease)
    assert workspace.commit(folder, parent=start, message="m", trailers=trailers(), lease=lease) == first
    # A second attempt of the stage finds the first one's commit, also when a later stage has moved on.
    assert workspace.commit(folder, parent=start, message="other", trailers=trailers(attempt=2), lease=lease) == first
    later = workspace.commit(checkout(workspace, first, {"b": b"2"}), parent=first, message="m", trailers=trailers("e2e"), lease=lease)
    assert workspace.head(workspace.branch) == later
    assert workspace.commit(folder, parent=start, message="m", trailers=trailers(attempt=3), lease=lease) == first
    assert workspace.head(workspace.branch) == first


def test_a_cleared_stage_moves_the_run_back_and_loses_nothing(make, url, lease, checkout):
    workspace = make(url)
    start = workspace.start()
    old = workspace.commit(checkout(workspace, start, {"a": b"1"}), parent=start, message="m", trailers=trailers(), lease=lease)
    new = workspace.commit(checkout(workspace, start, {"a": b"2"}), parent=start, message="m", trailers=trailers(attempt=2), lease=lease)
    assert workspace.head(workspace.branch) == new != old
    kept = git(workspace.url, "for-each-ref", "--format=%(objectname)", "refs/taxiway/runs/run-1/stages").splitlines()
    assert sorted(kept) == sorted([old, new])


def test_two_machines_hand_over_through_the_shared_repository(make, shared, lease, checkout):
    here, there = make(str(shared), home="here"), make(str(shared), home="there")
    start = here.start()
    assert there.start() == start
    commit = here.commit(checkout(here, start, {"a": b"1"}), parent=start, message="m", trailers=trailers(), lease=lease)
    assert (checkout(there, commit) / "a").read_bytes() == b"1"
    merged = here.merge(commit, into="main", strategy="merge", message="m", trailers=trailers("integrate"))
    here.push(merged.commit, branch="main", expected=start, lease=lease)
    third = make(str(shared), home="third")
    assert (checkout(third, merged.commit) / "a").read_bytes() == b"1"


def test_the_default_branch_need_not_be_main(make, shared):
    tip = git(shared, "commit-tree", EMPTY_TREE, "-m", "x") if git(shared, "hash-object", "-wt", "tree", "--stdin") else ""
    git(shared, "update-ref", "refs/heads/trunk", tip)
    with pytest.raises(OperatorError, match="default branch"):
        make(str(shared)).start()
    git(shared, "symbolic-ref", "HEAD", "refs/heads/trunk")
    assert make(str(shared)).start() == tip


@pytest.mark.parametrize("way", ["", "file://", "link"])
def test_a_repository_among_the_reports_of_a_project_is_refused(make, tmp_path, way):
    reports = tmp_path / "home" / "artifacts" / "web" / "run" / "repository"
    reports.mkdir(parents=True)
    (tmp_path / "link").symlink_to(reports)
    with pytest.raises(InputError, match="where projects write"):
        make(str(tmp_path / "link") if way == "link" else f"{way}{reports}")


def test_runs_of_a_new_repository_are_apart(make):
    assert make(run="run-1").url != make(run="run-2").url
    assert ":" not in Path(make(run="manual__2026-01-01T00:00:00+00:00").url).name


@pytest.mark.parametrize("bad", ["", "main", "-x", "0" * 39, "HEAD", "--all"])
def test_only_full_commits_are_taken(make, bad, tmp_path):
    with pytest.raises(ProjectError, match="is no commit"):
        make().checkout(bad, tmp_path)


def test_an_unknown_commit_is_named(make, url, tmp_path):
    workspace = make(url)
    workspace.start()
    (tmp_path / "into").mkdir()
    with pytest.raises(ProjectError, match="is not in"):
        workspace.checkout("1" * 40, tmp_path / "into")


def test_a_branch_is_never_moved_backwards_or_from_elsewhere(make, url, lease, checkout):
    workspace = make(url)
    start = workspace.start()
    one = workspace.commit(checkout(workspace, start, {"a": b"1"}), parent=start, message="m", trailers=trailers(), lease=lease)
    two = workspace.commit(checkout(workspace, start, {"a": b"2"}), parent=start, message="m", trailers=trailers(attempt=2), lease=lease)
    workspace.push(one, branch="main", expected=start, lease=lease)
    with pytest.raises(TransientError, match="moved meanwhile"):
        workspace.push(two, branch="main", expected=start, lease=lease)
    with pytest.raises(StageError, match="would lose commits"):
        workspace.push(two, branch="main", expected=one, lease=lease)
    with pytest.raises(TransientError, match="moved meanwhile"):
        workspace.push(two, branch="main", expected="", lease=lease)
    assert workspace.head("main") == one


def test_a_branch_that_another_push_holds_is_waited_for(make, shared):
    lock = shared / "refs" / "heads" / "main.lock"
    lock.touch()
    workspace = make(str(shared))
    with pytest.raises(TransientError, match="keeps moving"):
        workspace.start()
    lock.unlink()
    assert workspace.start()


def test_runs_that_begin_at_once_in_an_empty_repository_all_begin(make, shared):
    runs = [make(str(shared), run=f"run-{i}", home=f"home-{i}") for i in range(6)]
    with ThreadPoolExecutor(len(runs)) as pool:
        assert len(set(pool.map(lambda run: run.start(), runs))) == 1


def test_who_lost_the_lease_moves_nothing(make, url, tmp_path, checkout):
    ledger = SqliteLedger(tmp_path / "leases.db")
    workspace = make(url)
    start = workspace.start()
    folder = checkout(workspace, start, {"a": b"1"})
    with ledger.lease("k", holder="h", attempt=1, stop=Stop()) as old, ledger.lease("k", holder="h", attempt=2, stop=Stop()) as new:
        with pytest.raises(LeaseLost):
            workspace.commit(folder, parent=start, message="m", trailers=trailers(), lease=old)
        assert workspace.head(workspace.branch) == ""
        commit = workspace.commit(folder, parent=start, message="m", trailers=trailers(attempt=2), lease=new)
        with pytest.raises(LeaseLost):
            workspace.push(commit, branch="main", expected=start, lease=old)
    assert workspace.head("main") == start


def test_ignored_files_stay_out_and_executables_and_links_stay(make, lease, checkout):
    workspace = make()
    start = workspace.start()
    folder = checkout(workspace, start, {".gitignore": b"*.pyc\nbuild/\n", "a.pyc": b"", "build/x": b"", "run.sh": b"#!/bin/sh\n"})
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("/etc/passwd")
    commit = workspace.commit(folder, parent=start, message="m", trailers=trailers(), lease=lease)
    assert files_of(workspace.url, commit) == [".gitignore", "link", "run.sh"]
    again = checkout(workspace, commit)
    assert os.access(again / "run.sh", os.X_OK)
    assert (again / "link").readlink() == Path("/etc/passwd")
    assert workspace.commit(again, parent=commit, message="m", trailers=trailers("e2e"), lease=lease) == commit


@pytest.mark.parametrize("place", [".git/config", "vendor/lib/.git/HEAD", "vendor/.GIT", "vendor/.git"])
def test_a_repository_inside_is_refused(make, lease, checkout, place):
    workspace = make()
    start = workspace.start()
    with pytest.raises(ProjectError, match="is a repository inside the project"):
        workspace.commit(checkout(workspace, start, {place: b""}), parent=start, message="m", trailers=trailers(), lease=lease)


def test_a_repository_in_an_ignored_folder_does_not_matter(make, lease, checkout):
    workspace = make()
    start = workspace.start()
    folder = checkout(workspace, start, {".gitignore": b"vendor/\n", "vendor/lib/.git/HEAD": b"ref: refs/heads/main\n"})
    commit = workspace.commit(folder, parent=start, message="m", trailers=trailers(), lease=lease)
    assert files_of(workspace.url, commit) == [".gitignore"]


def test_a_submodule_stays_what_it_is(make, lease, checkout):
    workspace = make()
    start = workspace.start()
    tree = git(workspace.url, "mktree", stdin=f"160000 commit {start}\tlib\n".encode())
    parent = git(workspace.url, "commit-tree", tree, "-p", start, "-m", "x")
    commit = workspace.commit(checkout(workspace, parent, {"a": b"1"}), parent=parent, message="m", trailers=trailers(), lease=lease)
    assert f"160000 commit {start}\tlib" in git(workspace.url, "ls-tree", commit)


def raw_tree(repository, *entries):
    """A tree object as a hostile server may send it; git itself would not make it."""
    content = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
    return git(repository, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=content)


def hostile_trees(repository):
    blob = git(repository, "hash-object", "-w", "--stdin", stdin=b"[core]\n\tfsmonitor = touch /tmp/pwned\n")
    link = git(repository, "hash-object", "-w", "--stdin", stdin=b"..")
    config = raw_tree(repository, ("100644", b"config", blob))
    escape = raw_tree(repository, ("100644", b"escaped", blob))
    return {
        "dot git": raw_tree(repository, ("40000", b".git", config)),
        "case": raw_tree(repository, ("40000", b".GiT", config)),
        "short name": raw_tree(repository, ("40000", b"git~1", config)),
        "invisible": raw_tree(repository, ("40000", b".g\xe2\x80\x8cit", config)),
        "parent": raw_tree(repository, ("40000", b"..", escape)),
        "slash": raw_tree(repository, ("100644", b"../escaped", blob)),
        "absolute": raw_tree(repository, ("100644", b"/tmp/escaped", blob)),
        "through a link": raw_tree(repository, ("120000", b"d", link), ("40000", b"d", escape)),
    }


@pytest.mark.parametrize("kind", ["dot git", "case", "short name", "invisible", "parent", "slash", "absolute", "through a link"])
def test_a_hostile_tree_writes_nothing_outside(make, tmp_path, kind):
    workspace = make()
    workspace.start()
    commit = git(workspace.url, "commit-tree", hostile_trees(workspace.url)[kind], "-m", "x", ok=False)
    assert commit
    (tmp_path / "inner" / "into").mkdir(parents=True)
    before = sorted(tmp_path.rglob("escaped"))
    # Of a link and a folder of one name git keeps one, and never writes through the link.
    with nullcontext() if kind == "through a link" else pytest.raises(ProjectError):
        workspace.checkout(commit, tmp_path / "inner" / "into")
    assert sorted(p for p in tmp_path.rglob("escaped") if not p.is_relative_to(tmp_path / "inner" / "into")) == before
    assert not Path("/tmp/escaped").exists()
    assert not list((tmp_path / "inner" / "into").rglob(".[gG]*"))


def test_a_tree_that_unpacks_to_billions_of_files_is_refused(make, tmp_path):
    workspace = make()
    start = workspace.start()
    tree = git(workspace.url, "hash-object", "-w", "--stdin", stdin=b"x")
    kind = "100644 blob"
    for _ in range(9):
        tree = git(workspace.url, "mktree", stdin="".join(f"{kind} {tree}\t{'d' * 60}{i}\n" for i in range(10)).encode())
        kind = "040000 tree"
    commit = git(workspace.url, "commit-tree", tree, "-p", start, "-m", "x")
    (tmp_path / "into").mkdir()
    with pytest.raises(ProjectError, match="too large"):
        workspace.checkout(commit, tmp_path / "into")
    assert not list((tmp_path / "into").iterdir())


def test_attributes_of_a_tree_run_and_change_nothing(make, lease, checkout):
    workspace = make()
    start = workspace.start()
    files = {".gitattributes": b"* text eol=crlf ident filter=lfs working-tree-encoding=UTF-16\n", "a.txt": b"$Id$\nb\n"}
    commit = workspace.commit(checkout(workspace, start, files), parent=start, message="m", trailers=trailers(), lease=lease)
    assert (checkout(workspace, commit) / "a.txt").read_bytes() == b"$Id$\nb\n"


def test_a_checkout_needs_an_empty_folder(make, tmp_path):
    workspace = make()
    start = workspace.start()
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "a").touch()
    with pytest.raises(OperatorError, match="is not empty"):
        workspace.checkout(start, tmp_path / "into")


def test_settings_of_the_user_and_their_environment_do_nothing(make, lease, checkout, tmp_path):
    (tmp_path / ".gitconfig").write_text("[user]\nname = Nobody\n[core]\nhooksPath = /nowhere\nautocrlf = true\n")
    environ = {**os.environ, "HOME": str(tmp_path), "GIT_DIR": "/nowhere", "GIT_INDEX_FILE": "/nowhere", "GIT_AUTHOR_NAME": "Nobody"}
    workspace = make(environ=environ)
    start = workspace.start()
    commit = workspace.commit(checkout(workspace, start, {"a": b"\r\n"}), parent=start, message="m", trailers=trailers(), lease=lease)
    assert git(workspace.url, "log", "-1", "--format=%an", commit) == "Taxiway"


@pytest.mark.parametrize("message", ["", "a\0b", "one\n\nTaxiway-Run: forged\nTaxiway-Stage: forged", "ends\n---\ncut", "ä\udcff"])
def test_a_message_cannot_forge_trailers(make, lease, checkout, message):
    workspace = make()
    start = workspace.start()
    commit = workspace.commit(checkout(workspace, start, {"a": b"1"}), parent=start, message=message, trailers=trailers(), lease=lease)
    assert git(workspace.url, "log", "-1", "--format=%(trailers:key=Taxiway-Run,valueonly)", commit) == "run-1"


@pytest.mark.parametrize("bad", [{"Taxiway-Run": "a\nSigned-off-by: b"}, {"a b": "c"}, {"": "c"}, {"--where": "c"}])
def test_hostile_trailers_are_refused(make, lease, checkout, bad):
    workspace = make()
    start = workspace.start()
    with pytest.raises(InputError, match="cannot be a trailer"):
        workspace.commit(checkout(workspace, start, {"a": b"1"}), parent=start, message="m", trailers=bad, lease=lease)


def test_a_diff_begins_with_its_totals_and_is_bounded(make, lease, checkout):
    workspace = make()
    start = workspace.start()
    folder = checkout(workspace, start, {"a": b"x\n" * 300_000, "b": b"1\n"})
    commit = workspace.commit(folder, parent=start, message="m", trailers=trailers(), lease=lease)
    text = workspace.diff(start, commit)
    assert text.startswith("2 files changed, 300001 insertions(+)\n")
    assert len(text) < 201_000
    assert "... cut: " in text[-100:]
    assert workspace.diff("", commit).startswith("2 files changed")
    assert workspace.diff(commit, commit).strip() == ""


def test_locks_of_a_killed_git_go_and_those_of_a_living_one_stay(make):
    workspace = make()
    start = workspace.start()
    lock = Path(workspace.url) / "refs" / "heads" / "main.lock"
    lock.touch()
    with (Path(workspace.url) / "in-use").open() as living:
        fcntl.flock(living, fcntl.LOCK_SH)
        make().start()
        assert lock.exists()
    assert make().start() == start
    assert not lock.exists()


def test_a_held_lock_is_another_try(make, lease, checkout):
    workspace = make()
    start = workspace.start()
    commit = workspace.commit(checkout(workspace, start, {"a": b"1"}), parent=start, message="m", trailers=trailers(), lease=lease)
    (Path(workspace.url) / "refs" / "heads" / "main.lock").touch()
    with pytest.raises(TransientError):
        workspace.push(commit, branch="main", expected=start, lease=lease)


def test_git_missing_or_a_home_that_cannot_be_written(make, tmp_path):
    with pytest.raises(OperatorError, match="git is not installed"):
        make(environ={"PATH": str(tmp_path)}).start()
    (tmp_path / "file").touch()
    with pytest.raises(OperatorError, match="cannot be used"):
        make(home="file").start()


def test_an_old_git_is_named(make, tmp_path):
    (tmp_path / "git").write_text("#!/bin/sh\necho git version 2.30.2\n")
    (tmp_path / "git").chmod(0o755)
    with pytest.raises(OperatorError, match=r"2\.30\.2 is too old"):
        make(environ={"PATH": str(tmp_path)}).start()


def test_a_git_that_hangs_is_killed_with_its_children(make, tmp_path):
    workspace = make()
    workspace.start()
    pid = tmp_path / "pid"
    (tmp_path / "git").write_text(f"#!/bin/sh\n/bin/sleep 60 &\necho $! > {pid}\nwait\n")
    (tmp_path / "git").chmod(0o755)
    hung = make(environ={"PATH": str(tmp_path)})._git
    with pytest.raises(TransientError, match="did not end"):
        hung("status", timeout_s=3)
    until = time.monotonic() + 60
    while _alive(int(pid.read_text())) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _alive(int(pid.read_text()))


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second where it ends while it is read
        return False


def test_a_branch_for_a_pull_request_moves_as_its_run_likes(make, url, lease, checkout):
    work = make(url)
    start = work.start()
    one = work.commit(checkout(work, start, {"a": b"1"}), parent=start, message="m", trailers=trailers(), lease=lease)
    two = work.commit(checkout(work, start, {"a": b"2"}), parent=start, message="m", trailers=trailers(attempt=2), lease=lease)
    branch = work.offered("main")
    assert branch == "taxiway/web/pull/run-1/main"
    assert work.offered("release/1.0") != work.offered("release-1-0")
    for commit in (one, one, two, one):  # the second does not build on the first
        work.offer(commit, into="main", measured=two, lease=lease)
        assert work.head(branch) == commit
    if url:  # another machine finds both
        elsewhere = make(url, home="elsewhere")
        assert elsewhere.diff(one, two)


def test_what_somebody_else_pushed_there_stays(make, url, lease, checkout):
    work, other = make(url), make(url, run="run-1" if not url else "other")
    start = work.start()
    one = work.commit(checkout(work, start, {"a": b"1"}), parent=start, message="m", trailers=trailers(), lease=lease)
    work.offer(one, into="main", measured=one, lease=lease)
    two = other.commit(checkout(other, one, {"a": b"2"}), parent=one, message="m", trailers=trailers(attempt=2), lease=lease)
    other.push(two, branch=work.offered("main"), expected=one, lease=lease)
    with pytest.raises(StageError, match="which this run did not push there"):
        work.offer(one, into="main", measured=one, lease=lease)
    assert work.head(work.offered("main")) == two


def test_who_lost_the_lease_offers_nothing(make, url, tmp_path, checkout, lease):
    work = make(url)
    start = work.start()
    commit = work.commit(checkout(work, start, {"a": b"1"}), parent=start, message="m", trailers=trailers(), lease=lease)
    ledger = SqliteLedger(tmp_path / "ledger.db")
    old = ledger.lease("pull", holder="h", attempt=1, stop=Stop())
    with ledger.lease("pull", holder="h", attempt=2, stop=Stop()), pytest.raises(LeaseLost):
        work.offer(commit, into="main", measured=commit, lease=old)
    assert work.head(work.offered("main")) == ""


def test_what_a_run_offered_goes_with_it(make, url, lease, checkout):
    work = make(url)
    start = work.start()
    commit = work.commit(checkout(work, start, {"a": b"1"}), parent=start, message="m", trailers=trailers(), lease=lease)
    work.offer(commit, into="main", measured=commit, lease=lease)
    assert work.drop_run()
    assert (work.head(work.offered("main")), work.head(work.branch), work.head("main") != "") == ("", "", True)
