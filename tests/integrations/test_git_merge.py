"""Merges tried on objects alone, on real histories."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime

import pytest

from taxiway.errors import MergeConflict, ProjectError
from taxiway.home import Home
from taxiway.integrations.git import GitWorkspace

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TRAILERS = {"Taxiway-Run": "run-1", "Taxiway-Stage": "integrate", "Taxiway-Attempt": "1"}
TEN = "".join(f"{i}\n" for i in range(10))


class History:
    """Commits made from tables of files: name -> content, None removes, bytes are as they are."""

    def __init__(self, workspace):
        self.workspace = workspace
        self.root = workspace.start()

    def git(self, *args, stdin=b"", env=None):
        given = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/dev/null", "LC_ALL": "C"}
        given |= {"GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@localhost", "GIT_AUTHOR_DATE": "@1700000000 +0100"}
        given |= {"GIT_COMMITTER_NAME": "Bob", "GIT_COMMITTER_EMAIL": "bob@localhost", "GIT_COMMITTER_DATE": "@1700000001 +0000"}
        command = ["git", "--git-dir", self.workspace.url, *args]
        return subprocess.run(command, input=stdin, env=given | (env or {}), capture_output=True, check=True).stdout.decode().strip()

    def commit(self, parents, files, message="m"):
        index = {"GIT_INDEX_FILE": f"{self.workspace.url}/test-index"}
        parents = [parents] if isinstance(parents, str) else parents
        self.git("read-tree", parents[0], env=index)
        for path, content in files.items():
            if content is None:
                self.git("update-index", "--index-info", stdin=f"0 {'0' * 40}\t{path}\n".encode(), env=index)
            else:
                blob = self.git("hash-object", "-w", "--stdin", stdin=content if isinstance(content, bytes) else content.encode())
                self.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=index)
        words = [word for parent in parents for word in ("-p", parent)]
        return self.git("commit-tree", self.git("write-tree", env=index), *words, stdin=message.encode())

    def main(self, commit):
        self.git("update-ref", "refs/heads/main", commit)
        return commit

    def merge(self, commit, strategy="squash", favor="fail", **more):
        trailers = {**TRAILERS, **more}
        return self.workspace.merge(commit, into="main", strategy=strategy, message="Integrate", trailers=trailers, favor=favor)

    def show(self, what):
        return self.git("show", what)


@pytest.fixture
def history(tmp_path):
    return History(GitWorkspace(home=Home(tmp_path), pipeline="web", run="run-1", started=STARTED))


def test_a_squashed_commit_says_what_became_of_it(history):
    history.main(history.root)
    first = history.commit(
        history.root, {"a": "1"}, "update: Update 1 dependency\n\n- httpx 0.26.0 -> 0.27.0 (minor)\n\nTaxiway-Run: run-1\n"
    )
    forged = "validate: Mend it\n\nSigned-off-by: Eve <eve@localhost>\nTaxiway-Run: another\nTaxiway-Source: " + "0" * 40
    second = history.commit(first, {"a": "2"}, forged)
    tried = history.merge(second)
    assert history.git("log", "-1", "--format=%B", tried.commit).splitlines() == [
        "Integrate",
        "",
        "- update: Update 1 dependency",
        "",
        "  - httpx 0.26.0 -> 0.27.0 (minor)",
        "",
        "- validate: Mend it",
        "",
        "  Signed-off-by: Eve <eve@localhost>",
        "",
        *(f"{name}: {value}" for name, value in {**TRAILERS, "Taxiway-Source": second}.items()),
    ]
    # Its own words are none of its trailers, and a second attempt finds it by those.
    assert history.git("log", "-1", "--format=%(trailers:key=Signed-off-by)", tried.commit) == ""
    history.main(tried.commit)
    assert history.merge(second).up_to_date


def test_what_hundreds_of_commits_say_is_cut(history):
    history.main(history.root)
    head = history.root
    for i in range(20):
        head = history.commit(head, {"a": str(i)}, f"change {i}\n\n{'long ' * 1000}")
    told = history.git("log", "-1", "--format=%B", history.merge(head).commit)
    assert len(told) < 31_000
    assert "Taxiway-Run: run-1" in told


@pytest.mark.parametrize(("strategy", "parents"), [("merge", 2), ("squash", 1), ("rebase", 1)])
def test_a_moved_branch_gets_the_change_on_top(history, strategy, parents):
    base = history.commit(history.root, {"a": TEN})
    mine = history.commit(history.commit(base, {"b": "1\n"}), {"a": TEN + "mine\n"})
    head = history.main(history.commit(base, {"a": "theirs\n" + TEN}))
    merged = history.merge(mine, strategy)
    assert merged == history.merge(mine, strategy)
    assert (merged.base, merged.conflicts, merged.up_to_date) == (head, (), False)
    assert history.show(f"{merged.commit}:a") == ("theirs\n" + TEN + "mine").strip()
    assert history.show(f"{merged.commit}:b") == "1"
    assert len(history.git("log", "-1", "--format=%P", merged.commit).split()) == parents
    assert history.git("rev-parse", "main") == head
    assert history.git("log", "-1", "--format=%(trailers:key=Taxiway-Source,valueonly)", merged.commit) == mine


def test_a_rebase_keeps_authors_and_messages(history):
    mine = history.commit(history.commit(history.root, {"a": "1\n"}, "One\n\nBody ä"), {"a": "2\n"}, "Two")
    head = history.main(history.commit(history.root, {"b": "1\n"}))
    merged = history.merge(mine, "rebase").commit
    lines = history.git("log", "--reverse", "--format=%an %ad %cn %ct %s", "--date=raw", f"{head}..{merged}").splitlines()
    assert lines == ["Ada 1700000000 +0100 Taxiway 1767323045 One", "Ada 1700000000 +0100 Taxiway 1767323045 Two"]


def test_a_rebase_leaves_out_what_is_there_already(history):
    one = history.commit(history.root, {"a": "1\n"})
    mine = history.commit(one, {"b": "1\n"})
    head = history.main(history.commit(history.commit(history.root, {"c": "1\n"}), {"a": "1\n"}))
    merged = history.merge(mine, "rebase").commit
    assert history.git("rev-list", "--count", f"{head}..{merged}") == "1"


def test_a_merge_in_between_is_not_rebased(history):
    left, right = history.commit(history.root, {"a": "1\n"}), history.commit(history.root, {"b": "1\n"})
    mine = history.commit([left, right], {"b": "1\n"})
    history.main(history.commit(history.root, {"c": "1\n"}))
    with pytest.raises(ProjectError, match="is itself a merge"):
        history.merge(mine, "rebase")
    assert history.merge(mine, "squash").commit


def test_fast_forward_where_the_branch_has_moved(history):
    mine = history.commit(history.root, {"a": "1\n"})
    assert history.merge(mine, "fast-forward").commit == mine
    history.main(history.commit(history.root, {"b": "1\n"}))
    with pytest.raises(MergeConflict, match="no fast-forward"):
        history.merge(mine, "fast-forward")


@pytest.mark.parametrize("strategy", ["merge", "squash", "rebase", "fast-forward"])
def test_what_the_branch_holds_is_up_to_date(history, strategy):
    mine = history.commit(history.root, {"a": "1\n"})
    history.main(history.commit(mine, {"b": "1\n"}))
    merged = history.merge(mine, strategy)
    assert (merged.commit, merged.up_to_date) == (mine, True)


@pytest.mark.parametrize("strategy", ["merge", "squash", "rebase"])
def test_what_this_run_brought_in_is_found_even_when_others_went_on(history, strategy):
    mine = history.commit(history.commit(history.root, {"a": "1\n"}), {"a": "2\n"})
    history.main(history.commit(history.root, {"b": "1\n"}))
    first = history.merge(mine, strategy)
    history.main(history.commit(first.commit, {"a": "other\n"}))
    again = history.merge(mine, strategy, **{"Taxiway-Attempt": "2"})
    assert (again.commit, again.up_to_date) == (first.commit, True)
    # Another run's word for it does not count.
    assert not history.merge(mine, strategy, **{"Taxiway-Run": "run-2"}).up_to_date or strategy == "merge"


def test_histories_that_share_nothing(history):
    alone = history.git("commit-tree", history.git("mktree"), stdin=b"alone")
    with pytest.raises(ProjectError, match="shares no history with main"):
        history.merge(alone)


CONFLICTS = [
    ({"a": TEN}, {"a": "mine\n" + TEN[2:]}, {"a": "theirs\n" + TEN[2:]}, ["a:1: both sides"]),
    ({"a": TEN}, {"a": TEN[:-2] + "x\n"}, {"a": TEN[:-2] + "y\n"}, ["a:10: both sides"]),
    ({"a": "x\n"}, {"a": None}, {"a": "y\n"}, ["a:1: a deleted in"]),
    ({"a": "x\n"}, {"a": "y\n"}, {"a": None}, ["a:1: a deleted in"]),
    ({}, {"a": "1\n"}, {"a": "2\n"}, ["a:1: both sides"]),
    ({"a": b"\0one"}, {"a": b"\0two"}, {"a": b"\0three"}, ["a:1: both sides changed this file"]),
    ({"a": TEN}, {"b": TEN, "a": None}, {"c": TEN, "a": None}, ["a:1: a renamed to"]),
    ({}, {"d": "1\n"}, {"d/x": "1\n"}, ["d~"]),
    ({"sp ace\n|ä": "x\n"}, {"sp ace\n|ä": "y\n"}, {"sp ace\n|ä": "z\n"}, ["sp ace\\n|ä:1: both sides"]),
]


@pytest.mark.parametrize("case", CONFLICTS)
@pytest.mark.parametrize("strategy", ["squash", "rebase"])
def test_conflicts_name_the_place_and_the_reason(history, case, strategy):
    base, mine, theirs, expected = case
    common = history.commit(history.root, base)
    history.main(history.commit(common, theirs))
    merged = history.merge(history.commit(common, mine), strategy)
    assert merged.commit == ""
    assert len(merged.conflicts) == len(expected), merged.conflicts
    for line, start in zip(merged.conflicts, expected, strict=True):
        assert str(line).startswith(start), line


def test_markers_in_a_file_are_not_hunks(history):
    text = "<<<<<<< HEAD\nx\n=======\ny\n>>>>>>> z\n" + TEN
    common = history.commit(history.root, {"a": text})
    history.main(history.commit(common, {"a": text[:-2] + "theirs\n"}))
    merged = history.merge(history.commit(common, {"a": text[:-2] + "mine\n"}))
    assert [conflict.line for conflict in merged.conflicts] == [15]


MINE, THEIRS = "mine\n" + TEN[2:-2] + "X\n" + "new\n", "theirs\n" + TEN[2:]
DECIDED = [
    # base, the change, the branch, what `ours` (the branch) and `theirs` (the change) give, the hunks
    ({"a": TEN}, {"a": MINE}, {"a": THEIRS}, {"a": "theirs\n" + MINE[5:]}, {"a": MINE}, ["a:1"]),
    (
        {"a": TEN},
        {"a": "m\n" + TEN[2:-2] + "m\n"},
        {"a": "t\n" + TEN[2:-2] + "t\n"},
        {"a": "t\n" + TEN[2:-2] + "t\n"},
        None,
        ["a:1", "a:10"],
    ),
    ({}, {"a": "1\nsame\n"}, {"a": "2\nsame\n"}, {"a": "2\nsame\n"}, {"a": "1\nsame\n"}, ["a:1"]),
    ({"a": b"\0one"}, {"a": b"\0two"}, {"a": b"\0three"}, {"a": b"\0three"}, {"a": b"\0two"}, ["a:1"]),
    ({"a": TEN}, {"b": "m\n" + TEN[2:], "a": None}, {"a": "t\n" + TEN[2:]}, {"b": "t\n" + TEN[2:]}, {"b": "m\n" + TEN[2:]}, ["b:1"]),
    ({"sp ace\n|ä": "x"}, {"sp ace\n|ä": "y"}, {"sp ace\n|ä": "z"}, {"sp ace\n|ä": "z"}, {"sp ace\n|ä": "y"}, ["sp ace\\n|ä:1"]),
    ({"a": "x\n"}, {"a": "<<<<<<< y\n=======\n"}, {"a": ">>>>>>> z\n"}, {"a": ">>>>>>> z\n"}, {"a": "<<<<<<< y\n=======\n"}, ["a:1"]),
    ({"a": "x\r\ny\r\n"}, {"a": "1\r\ny\r\n"}, {"a": "2\r\ny\r\n"}, {"a": "2\r\ny\r\n"}, {"a": "1\r\ny\r\n"}, ["a:1"]),
    ({"a": "x"}, {"a": "y"}, {"a": "z"}, {"a": "z"}, {"a": "y"}, ["a:1"]),
]


@pytest.mark.parametrize("case", DECIDED)
@pytest.mark.parametrize("favor", ["ours", "theirs"])
def test_one_side_decides_the_hunks_that_both_changed_as_git_itself_does(history, tmp_path, case, favor):
    base, mine, theirs, ours_gives, theirs_gives, places = case
    common = history.commit(history.root, base)
    head, change = history.main(history.commit(common, {**theirs, "t": "1"})), history.commit(common, {**mine, "m": "1"})
    merged = history.merge(change, favor=favor)
    assert [f"{hunk.path}:{hunk.line}" for hunk in merged.decided] == places
    assert merged.conflicts == ()
    for path, content in ((ours_gives if favor == "ours" else theirs_gives) or {}).items():
        given = content if isinstance(content, bytes) else content.encode()
        assert history.git("rev-parse", f"{merged.commit}:{path}") == history.git("hash-object", "--stdin", stdin=given)
    # git with a work tree is the measure.
    (tmp_path / "tree").mkdir()
    at = {"GIT_WORK_TREE": str(tmp_path / "tree"), "GIT_INDEX_FILE": str(tmp_path / "index")}
    history.git("checkout", "-q", "--detach", head, env=at)
    history.git("merge", "-q", "-X", favor, "-m", "m", change, env=at)
    assert history.git("rev-parse", f"{merged.commit}^{{tree}}") == history.git("rev-parse", "HEAD^{tree}")


UNDECIDABLE = [
    ({"a": "x\n"}, {"a": None}, {"a": "y\n"}, "modify/delete"),
    ({"a": TEN}, {"b": TEN, "a": None}, {"c": TEN, "a": None}, "rename/rename"),
    ({}, {"d": "1\n"}, {"d/x": "1\n"}, "file/directory"),
]


@pytest.mark.parametrize("case", UNDECIDABLE)
@pytest.mark.parametrize("strategy", ["merge", "rebase"])
def test_what_no_side_can_decide_fails_and_names_that_alone(history, case, strategy):
    base, mine, theirs, kind = case
    common = history.commit(history.root, {**base, "both": "x\n"})
    history.main(history.commit(common, {**theirs, "both": "t\n"}))
    merged = history.merge(history.commit(common, {**mine, "both": "m\n"}), strategy, favor="theirs")
    assert (merged.commit, merged.decided) == ("", ())
    assert {conflict.kind for conflict in merged.conflicts} == {kind}


def test_a_rebase_lists_what_each_commit_had_decided(history):
    common = history.commit(history.root, {"a": TEN})
    one = history.commit(common, {"a": "m\n" + TEN[2:]}, "One")
    two = history.commit(one, {"a": "m\n" + TEN[2:-2] + "m\n"}, "Two")
    history.main(history.commit(common, {"a": "t\n" + TEN[2:-2] + "t\n"}))
    merged = history.merge(two, "rebase", favor="theirs")
    assert [(c.line, c.reason[-13:-1]) for c in merged.decided] == [(1, one[:12]), (10, two[:12])]
    assert history.show(f"{merged.commit}:a") == ("m\n" + TEN[2:-2] + "m").strip()


def test_a_branch_that_wins_everything_stays_as_it_is(history):
    common = history.commit(history.root, {"a": TEN})
    head = history.main(history.commit(common, {"a": "t\n" + TEN[2:]}))
    merged = history.merge(history.commit(common, {"a": "m\n" + TEN[2:]}), favor="ours")
    assert (merged.commit, merged.up_to_date, len(merged.decided)) == (head, True, 1)


def test_links_and_modes_go_to_the_side_that_decides(history):
    def link(parent, target):
        index = {"GIT_INDEX_FILE": f"{history.workspace.url}/test-index"}
        history.git("read-tree", parent, env=index)
        history.git(
            "update-index", "--add", "--cacheinfo", f"120000,{history.git('hash-object', '-w', '--stdin', stdin=target)},l", env=index
        )
        return history.git("commit-tree", history.git("write-tree", env=index), "-p", parent, stdin=b"m")

    common = link(history.root, b"x")
    history.main(history.commit(link(common, b"t"), {"t": "1"}))
    merged = history.merge(link(common, b"m"), favor="theirs")
    assert history.git("ls-tree", merged.commit, "l").split()[0] == "120000"
    assert history.show(f"{merged.commit}:l") == "m"
