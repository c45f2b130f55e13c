"""integrate by pull request, as a whole stage: real git over HTTP, the real clients, a local server that speaks their forge's REST."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from taxiway.errors import Cancelled, GateFailed, InputError, MergeConflict, OperatorError, StageError, StageTimeout, TransientError
from taxiway.records import Cost
from taxiway.stop import Stop

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import pull_local
from forge_server import PROJECT, Fault, serving
from pull_local import Run


@pytest.fixture(params=["github", "gitlab"])
def forge(request, tmp_path):
    with serving(request.param, tmp_path) as forge:
        yield forge


@pytest.fixture
def github(tmp_path):
    with serving("github", tmp_path) as forge:
        yield forge


@pytest.fixture
def gitlab(tmp_path):
    with serving("gitlab", tmp_path) as forge:
        yield forge


@pytest.fixture
def start(tmp_path):
    def start(forge, **more):
        return Run(tmp_path / "work", forge.kind, forge.git_url, forge.api, **more)

    return start


def calls(forge, method):
    return [path for verb, path, _ in forge.asked if verb == method]


@pytest.mark.parametrize("strategy", ["squash", "merge"])
def test_a_change_is_offered_and_merged(forge, start, strategy):
    run = start(forge)
    offered = run.begin()
    result = run.integrate(strategy=strategy, title="Add the shop")
    pull = forge.pull
    assert (pull.state, pull.head, pull.into, pull.title) == ("merged", offered, "main", "Add the shop")
    assert pull.branch == "taxiway/web/pull/run-1/main"
    assert result.commit == forge.head("main") == pull.merged
    assert result.outputs["branch"] == "main"
    assert result.outputs["pull_request"].endswith(f"/{pull.number}")
    assert result.metrics == {"conflicts": 0.0, "files.changed": 1.0}
    # A later stage that asks for verdicts finds them on what was merged.
    assert [(v.stage, v.commit, v.passed) for v in result.verdicts] == [("check", result.commit, True)]
    assert [(c.state, c.after["head"], c.after["offered"]) for c in run.changes()] == [("done", result.commit, offered)]
    assert [(s["context"], s["state"]) for s in forge.statuses[offered]] == [("taxiway", "success")]
    told = forge.git("log", "-1", "--format=%s%n%(trailers:key=Taxiway-Source,valueonly)", "main").splitlines()
    assert told[:2] == ["Add the shop", offered]
    assert ("- build: wrote the shop" in forge.git("log", "-1", "--format=%b", "main")) is (strategy == "squash")
    for words in ("| `check` | `value` | `>= 1` | `1` | `passed` |", "`wrote the shop`", "Taxiway-Run: run-1", offered):
        assert words in pull.body


@pytest.mark.parametrize("strategy", ["rebase", "fast-forward"])
def test_gitlab_by_fast_forward(gitlab, start, strategy):
    gitlab.settings = {"merge_method": "ff"}
    run = start(gitlab)
    offered = run.begin()
    result = run.integrate(strategy=strategy)
    assert result.commit == offered == gitlab.head("main")
    assert [v.commit for v in result.verdicts] == [offered]


def test_gitlab_squashes_in_a_fast_forward_project(gitlab, start):
    gitlab.settings = {"merge_method": "ff"}
    run = start(gitlab)
    run.begin()
    assert run.integrate().commit == gitlab.head("main") == gitlab.pull.squashed


def test_github_by_rebase(github, start):
    run = start(github)
    offered = run.begin()
    result = run.integrate(strategy="rebase")
    assert result.commit == github.head("main") != offered
    again = run.integrate(strategy="rebase", attempt=2)
    assert (again.commit, github.pull.state) == (result.commit, "merged")


def test_a_second_time_changes_nothing(forge, start):
    run = start(forge)
    run.begin()
    first = run.integrate()
    forge.commit("main", {"a": "other\n"})
    before, writes = forge.head("main"), calls(forge, "POST")
    again = run.integrate(attempt=2)
    assert (again.commit, again.metrics, [v.commit for v in again.verdicts]) == (first.commit, first.metrics, [first.commit])
    assert (forge.head("main"), calls(forge, "POST"), len(forge.pulls)) == (before, writes, 1)


# --- waiting ------------------------------------------------------------------------------------


def test_it_waits_for_required_checks_and_reviews(forge, start, caplog):
    forge.required, forge.checks, forge.approvals, forge.computing = ["build", "taxiway"], {"build": "waiting", "docs": "failed"}, 1, 1
    forge.page = 1
    run = start(forge)
    run.begin()
    forge.after_looks(lambda: forge.checks.update(build="passed"))
    forge.after_looks(lambda: forge.reviews.append(("ada", "APPROVED")))
    with caplog.at_level(logging.INFO):
        run.integrate()
    assert forge.pull.state == "merged"
    assert [line for line in caplog.messages if "waits for" in line]
    assert any("approv" in line for line in caplog.messages)


def test_checks_of_a_protected_branch_on_a_server_without_rulesets(github, start):
    github.rulesets, github.required, github.checks = False, ["build"], {"build": "failed"}
    run = start(github)
    run.begin()
    with pytest.raises(StageError, match="check build failed"):
        run.integrate()


def test_an_approval_after_a_wish_for_changes_counts(forge, start):
    forge.reviews = [("ada", "CHANGES_REQUESTED"), ("ada", "APPROVED")]
    run = start(forge)
    run.begin()
    run.integrate()
    assert forge.pull.state == "merged"


def closed(forge):
    forge.once("look", lambda: forge.close(forge.pull))


STOPS = {
    "a required check failed": (
        lambda forge: (forge.required.append("build"), forge.checks.update(build="failed")),
        "is not to be merged: check build failed",
    ),
    "changes requested": (lambda forge: forge.reviews.append(("ada", "CHANGES_REQUESTED")), "asked for changes"),
    "a draft": (lambda forge: forge.once("look", lambda: setattr(forge.pull, "draft", True)), "is a draft"),
    "closed": (closed, "was closed"),
    "added to": (lambda forge: forge.once("look", lambda: forge.commit(forge.pull.branch, {"z": "1"})), "somebody added to it"),
}


@pytest.mark.parametrize("case", STOPS)
def test_what_waiting_does_not_cure(forge, start, case):
    prepare, problem = STOPS[case]
    prepare(forge)
    run = start(forge)
    run.begin()
    with pytest.raises(StageError, match=problem) as error:
        run.integrate()
    assert error.value.hint
    assert not error.value.retryable
    assert forge.pull.state == ("closed" if case == "closed" else "open")
    assert forge.git("rev-list", "--count", "main") == "1"
    assert not [c for c in run.changes() if c.state == "done"]


def test_a_closed_pull_request_is_gone_on_with_once_it_is_reopened(forge, start):
    closed(forge)
    run = start(forge)
    run.begin()
    for attempt in (1, 2):
        with pytest.raises(StageError, match="was closed"):
            run.integrate(attempt=attempt)
    forge.pull.state, forge.pull.head = "open", ""
    run.integrate(attempt=3)
    assert forge.pull.state == "merged"


def test_waiting_ends(forge, start):
    forge.approvals = 1
    run = start(forge)
    run.begin()
    with pytest.raises(StageError, match=r"still waits for an approv.* after 2 s"):
        run.integrate(wait="2s")
    assert forge.pull.state == "open"
    forge.reviews.append(("ada", "APPROVED"))
    assert run.integrate(attempt=2, wait="2s").commit == forge.pull.merged


def test_waiting_ends_by_itself_before_the_stages_time_does(github, start):
    github.approvals, stop = 1, Stop()
    run = start(github)
    run.begin()
    run.during = lambda: stop.arm(8.0, None)
    with pytest.raises(StageError, match="still waits for"):
        run.integrate(stop=stop)


def test_a_wait_that_does_not_fit_is_refused_before_anything_happens(forge, start):
    run = start(forge)
    run.begin()
    with pytest.raises(InputError, match="waiting for 2h does not fit"):
        run.integrate(wait="2h")
    assert forge.asked == []


def test_a_stopped_run_stops_waiting_at_once_and_leaves_the_pull_request(forge, start):
    forge.approvals, stop, stopped = 1, Stop(), []
    run = start(forge)
    run.begin()
    forge.after_looks(lambda: (stopped.append(time.monotonic()), stop.cancel()))
    with pytest.raises(Cancelled):
        run.integrate(stop=stop)
    assert time.monotonic() - stopped[0] < 4.0
    assert forge.pull.state == "open"


def test_a_run_stopped_before_that_opens_none(forge, start):
    stop = Stop()
    run = start(forge)
    run.begin()
    run.during = stop.cancel
    with pytest.raises(Cancelled):
        run.integrate(stop=stop)
    assert (forge.pulls, forge.head("taxiway/web/pull/run-1/main")) == ([], "")


# --- the target moves -----------------------------------------------------------------------------


def test_a_target_that_moved_is_measured_again(forge, start):
    run = start(forge)
    offered = run.begin()
    forge.once("look", lambda: forge.commit("main", {"b": "2\n"}))
    result = run.integrate()
    assert run.seen[-1] == {"README": "shop", "a": "1\n", "b": "2\n"}
    assert len(run.seen) == 3
    assert (forge.pull.head, result.commit) == (offered, forge.head("main"))
    assert forge.git("show", "main:b") == "2"
    # What the pull request says is about the merge that was made.
    assert forge.git("rev-parse", f"{result.commit}^") in forge.pull.body


def test_a_change_that_only_passes_alone_is_told_at_the_forge(forge, start):
    run = start(forge)
    offered = run.begin()

    def another():
        forge.commit("main", {"b": "2\n"})
        run.value = 0.0

    forge.once("look", another)
    with pytest.raises(GateFailed):
        run.integrate()
    assert forge.pull.state == "open"
    assert [s["state"] for s in forge.statuses[offered]] == ["success", "failure" if forge.kind == "github" else "failed"]


def test_a_target_that_came_to_conflict(forge, start):
    run = start(forge)
    offered = run.begin()
    forge.once("look", lambda: forge.commit("main", {"a": "theirs\n"}))
    with pytest.raises(MergeConflict):
        run.integrate()
    assert "does not merge" in forge.statuses[offered][-1]["description"]


def test_a_target_that_keeps_moving(forge, start):
    run = start(forge)
    run.begin()
    count = iter(range(100))
    for _ in range(40):
        forge.once("look", lambda: forge.commit("main", {f"b{next(count)}": "2\n"}))
    with pytest.raises(TransientError, match="moved 5 times"):
        run.integrate()
    assert len(run.seen) == 6


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_what_must_be_on_top_of_its_target_is(request, start, kind):
    forge = request.getfixturevalue(kind)
    forge.strict, forge.settings = True, {} if kind == "github" else {"merge_method": "ff"}
    run = start(forge)
    offered = run.begin()
    forge.commit("main", {"b": "2\n"})
    result = run.integrate(strategy="rebase")
    assert forge.pull.head != offered
    assert forge.git("log", "--format=%s", "main").splitlines()[1:] == ["somebody else's", "Begin"]
    assert result.commit == forge.head("main")


def test_what_another_merge_brought_in_meanwhile_stays_and_is_told(forge, start):
    run = start(forge)
    run.begin()
    forge.once("merge", lambda: forge.commit("main", {"b": "2\n"}))
    if forge.kind == "gitlab":
        forge.settings = {"merge_method": "merge"}
    with pytest.raises(StageError, match=r"its tree is not the one that was measured .*: it stays merged"):
        run.integrate()
    assert forge.pull.state == "merged"
    # Cleared, the stage measures what the branch got.
    again = run.integrate(attempt=2)
    assert (again.commit, run.seen[-1]["b"]) == (forge.pull.merged, "2\n")


def test_the_text_says_what_models_cost(forge, start):
    run = start(forge)
    run.begin()
    cost = Cost(calls=3, input_tokens=10, output_tokens=5, cached_tokens=90, usd=0.25, models=("m",))
    run.results["build"] = run.results["build"].model_copy(update={"cost": cost})
    run.integrate()
    assert "| `build` | `3 calls of m: 100 tokens read (90 cached), 5 written, 0.2500 USD` |" in forge.pull.body
    assert "| `check` | `" not in forge.pull.body.partition("### Models")[2]


def test_somebody_merges_it_by_hand(forge, start):
    forge.approvals = 1
    run = start(forge)
    run.begin()
    forge.once("look", lambda: forge.merge(forge.pull, "squash", "by hand"))
    result = run.integrate()
    assert result.commit == forge.head("main")
    assert [v.commit for v in result.verdicts] == [result.commit]
    assert run.integrate(attempt=2).commit == result.commit


def test_what_the_target_holds_already_closes_the_pull_request(forge, start):
    forge.approvals = 1
    run = start(forge)
    run.begin()
    with pytest.raises(StageError):
        run.integrate(wait="1s")
    head = forge.commit("main", {"a": "1\n"})
    assert run.integrate(attempt=2).commit == head
    assert (forge.pull.state, len(forge.pull.comments)) == ("closed", 1)


def test_what_was_closed_because_the_target_holds_it_is_no_failure(forge, start):
    forge.approvals = 1
    run = start(forge)
    run.begin()
    with pytest.raises(StageError):
        run.integrate(wait="1s")
    head = forge.commit("main", {"a": "1\n"})
    forge.close(forge.pull)
    assert run.integrate(attempt=2).commit == head
    assert (forge.pull.state, forge.pull.comments) == ("closed", [])


def test_hundreds_of_decided_hunks_leave_room_for_the_rest_of_the_text(github, start):
    run = start(github)
    run.files = {f"file-{'x' * 200}-{n}": "ours\n" for n in range(400)}
    run.begin()
    github.commit("main", dict.fromkeys(run.files, "theirs\n"))
    run.integrate(conflicts="theirs")
    assert len(github.pull.body) < 60_000
    assert "380 more" in github.pull.body
    assert "Taxiway-Source: " in github.pull.body


def test_conflicts_decided_for_one_side_are_offered_as_they_were_measured(forge, start):
    run = start(forge)
    offered = run.begin()
    forge.commit("main", {"a": "theirs\n"})
    result = run.integrate(conflicts="theirs")
    assert forge.git("show", "main:a") == "1"
    assert forge.pull.head != offered
    assert "decided for theirs: a:1" in result.summary
    assert "| `a` | `1` |" in forge.pull.body
    assert run.integrate(conflicts="theirs", attempt=2).commit == result.commit


# --- faults ---------------------------------------------------------------------------------------

MERGE = r"/merge$"
FAULTS = {
    "no answer to the merge": Fault("PUT", MERGE, after=True),
    "broken after the merge": Fault("PUT", MERGE, 502, b"<html>", after=True),
    "busy while waiting": Fault("GET", r"/(pulls|merge_requests)/1$", 429, {"message": "slow down"}, {"Retry-After": "0.1"}, times=9),
    "broken while waiting": Fault("GET", r"/(pulls|merge_requests)/1$", 503, b"", times=3),
    "busy from the start": Fault("GET", r"shop$", 429, {"message": "slow down"}, {"Retry-After": "0.1"}, times=9),
    "busy when asked for it": Fault("GET", r"/(pulls|merge_requests)$", 429, {"message": "slow down"}, {"Retry-After": "0.1"}, times=9),
    "busy when it is opened": Fault("POST", r"/(pulls|merge_requests)$", 429, {"message": "slow down"}, {"Retry-After": "0.1"}, times=9),
    "busy at the status": Fault("POST", r"/statuses/", 429, {"message": "slow down"}, {"Retry-After": "0.1"}, times=9),
    "busy at the merge": Fault("PUT", MERGE, 429, {"message": "slow down"}, {"Retry-After": "0.1"}, times=9),
    "refused once": Fault("PUT", MERGE, 405, {"message": "not mergeable"}),
    "head seen late": Fault("PUT", MERGE, 409, {"message": "Head branch was modified"}),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_that_are_got_over(forge, start, case):
    fault = FAULTS[case]
    forge.faults = [Fault(**fault.__dict__)]
    run = start(forge)
    run.begin()
    result = run.integrate()
    assert (result.commit, forge.git("rev-list", "--count", "--first-parent", "main")) == (forge.head("main"), "2")
    assert [c.state for c in run.changes()] == ["done"]


def test_a_forge_is_asked_again_when_it_said_and_no_sooner(forge, start):
    forge.faults = [Fault("PUT", MERGE, 403 if forge.kind == "github" else 429, {"message": "x"}, {"Retry-After": "2"})]
    run = start(forge)
    run.begin()
    began = time.monotonic()
    run.integrate()
    assert 2 < time.monotonic() - began < 20


@pytest.mark.parametrize("path", [r"shop$", r"/(pulls|merge_requests)/1$"])
def test_a_forge_that_wants_to_be_left_alone_for_longer_than_there_is_time_is_another_try(forge, start, path):
    forge.faults = [Fault("GET", path, 429, {"message": "slow down"}, {"Retry-After": "3600"}, times=99)]
    run = start(forge)
    run.begin()
    began = time.monotonic()
    with pytest.raises(TransientError, match="slow down"):
        run.integrate()
    assert time.monotonic() - began < 20


def test_a_stopped_run_does_not_wait_until_the_forge_may_be_asked(forge, start):
    stop = Stop()
    forge.once("open", lambda: threading.Timer(0.5, stop.cancel).start())
    forge.faults = [Fault("GET", r"/(pulls|merge_requests)/1$", 429, {"message": "slow down"}, {"Retry-After": "60"}, times=99)]
    run = start(forge)
    run.begin()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        run.integrate(stop=stop)
    assert time.monotonic() - began < 20


def test_a_forge_that_stays_away_while_it_is_waited_for_is_another_try(forge, start):
    forge.approvals = 1
    forge.once("open", lambda: forge.faults.append(Fault("GET", r"/(pulls|merge_requests)/1$", 503, b"", times=99)))
    run = start(forge)
    run.begin()
    with pytest.raises(TransientError, match="503"):
        run.integrate(wait="2s")
    assert forge.pull.state == "open"


def test_a_merge_that_no_branch_holds_is_not_believed(forge, start):
    run = start(forge)
    run.begin()
    base = forge.head("main")
    forge.approvals = 1

    def claim():
        forge.merge(forge.pull, "squash", "m")
        forge.git("update-ref", "refs/heads/main", base)

    forge.once("look", claim)
    with pytest.raises(TransientError, match="does not hold"):
        run.integrate()


def test_a_merge_that_is_refused_for_good_says_why(forge, start):
    forge.faults = [Fault("PUT", MERGE, 405, {"message": "the train has left"}, times=99)]
    run = start(forge)
    run.begin()
    with pytest.raises(StageError, match="the train has left"):
        run.integrate()
    assert [c.state for c in run.changes()] == ["undone"]
    assert forge.pull.state == "open"


def test_an_open_that_was_answered_to_nobody(forge, start):
    forge.faults = [Fault("POST", r"/(pulls|merge_requests)$", after=True)]
    run = start(forge)
    run.begin()
    with pytest.raises(TransientError):
        run.integrate()
    run.integrate(attempt=2)
    assert forge.pull.state == "merged"


def test_another_attempt_opened_it_meanwhile(forge, start):
    run = start(forge)
    run.begin()
    forge.once("open", lambda: forge.make("taxiway/web/pull/run-1/main", "main", "Earlier", ""))
    run.integrate()
    assert forge.pull.state == "merged"


def test_without_a_forge_or_a_token(forge, start, tmp_path):
    nowhere = Run(tmp_path / "a", "", forge.git_url, "")
    nowhere.begin()
    with pytest.raises(OperatorError, match=f"which forge has the pull requests of {forge.git_url}") as error:
        nowhere.integrate()
    assert "policy's `repositories`" in error.value.hint
    secretless = start(forge, token="", name="run-2")
    secretless.begin()
    with pytest.raises(OperatorError, match=f"no token for {PROJECT}"):
        secretless.integrate()


def test_a_branch_that_is_not_there(forge, start):
    run = start(forge)
    run.begin()
    with pytest.raises(StageError, match=r"no branch release in .*, whose default branch is main"):
        run.integrate(into="release")
    assert forge.pulls == []


HOSTILE = "Draft: @all `rm -rf` | <img src=x onerror=alert(1)>\n/close\r\nFixes #1 \x1b[31m ${jndi} 🛫 " + "x" * 60


def test_hostile_titles_and_summaries(github, start):
    run = start(github)
    run.summary = f"{HOSTILE}\n\nTaxiway-Run: other\n```\n/merge"
    run.begin()
    result = run.integrate(title=HOSTILE)
    title = github.pull.title
    assert title.isprintable()
    assert title.startswith("Draft: @all")
    for line in github.pull.body.splitlines():
        assert not line.startswith("/")
        if "@all" in line or "<img" in line or "Fixes" in line:
            assert line.count("`") == 4
            assert line.startswith("| `build` | `")
            assert line.endswith("` |")
    assert github.git("log", "-1", "--format=%(trailers:key=Taxiway-Run,valueonly)", "main") == "run-1"
    assert result.commit == github.head("main")


def test_a_title_that_makes_a_draft_is_told(gitlab, start):
    run = start(gitlab)
    run.begin()
    with pytest.raises(StageError, match="is a draft"):
        run.integrate(title="Draft: no")


@pytest.mark.parametrize("into", ["release/1.0", "a.b-c_d/e", "HEAD-1"])
def test_branch_names(forge, start, into):
    run = start(forge)
    run.begin()
    forge.git("update-ref", f"refs/heads/{into}", forge.head("main"))
    assert run.integrate(into=into).commit == forge.head(into)


# --- killed ---------------------------------------------------------------------------------------

STEPS = [
    ("workspace", "offer"),
    ("forge", "open"),
    ("forge", "set_status"),
    ("forge", "readiness"),
    ("ledger", "intend"),
    ("forge", "merge"),
    ("ledger", "settle"),
]


KILLS = [("github", port, step, when) for port, step in STEPS for when in ("before", "after")]
# What differs between the two is what they answer to a second try.
KILLS += [("gitlab", "forge", "open", "after"), ("gitlab", "forge", "merge", "after")]


@pytest.mark.parametrize(("kind", "port", "step", "when"), KILLS)
def test_an_attempt_killed_anywhere_has_one_pull_request_and_one_merge(request, start, kind, port, step, when):  # noqa: PLR0917 - a table
    forge = request.getfixturevalue(kind)
    run = start(forge)
    command = [sys.executable, pull_local.__file__, str(run.folder), forge.kind, forge.git_url, forge.api, port, step, when]
    done = subprocess.run(command, check=False, timeout=180, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    landed = (step, when) in (("merge", "after"), ("settle", "before"), ("settle", "after"))
    assert len(forge.pulls) == (0 if step == "offer" or (step, when) == ("open", "before") else 1)
    assert (forge.git("rev-list", "--count", "--first-parent", "main") == "2") == landed
    run.begin()
    result = run.integrate(attempt=2)
    assert (forge.pull.state, forge.pull.merged) == ("merged", result.commit)
    assert forge.git("rev-list", "--count", "--first-parent", "main") == "2"
    assert [(c.state, c.after["head"]) for c in run.changes()] == [("done", result.commit)]
    assert (result.metrics["files.changed"], [v.commit for v in result.verdicts]) == (1.0, [result.commit])


def test_a_try_whose_time_is_up_goes_on_in_the_next(forge, start):
    forge.approvals = 1
    run = start(forge)
    run.begin()
    stop = Stop()
    run.during = lambda: stop.arm(2.0, None)
    with pytest.raises(StageTimeout):
        run.integrate(stop=stop, wait="60s")
    run.during = lambda: None
    forge.reviews.append(("ada", "APPROVED"))
    run.integrate(attempt=2)
    assert forge.pull.state == "merged"


def once_asked(forge, method, path, act):
    """Do something when the forge has got such a request."""

    def watch():
        end = time.monotonic() + 60
        while not any(verb == method and re.search(path, asked) for verb, asked, _ in list(forge.asked)) and time.monotonic() < end:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", r"/(pulls|merge_requests)/\d+$"), ("PUT", r"/merge$"), ("POST", r"/(pulls|merge_requests)$"), ("POST", "/statuses/")],
    ids=["waiting", "merging", "opening", "status"],
)
def test_a_forge_that_says_nothing_does_not_keep_a_stopped_run(forge, start, method, path):
    stop, at = Stop(), []
    run = start(forge, stop=stop)
    run.begin()
    forge.faults = [Fault(method, path, hangs_s=600)]

    def cancel():
        at.append(time.monotonic())
        stop.cancel()

    thread = once_asked(forge, method, path, cancel)
    with pytest.raises(Cancelled):
        run.integrate()
    assert time.monotonic() - at[0] < 4
    thread.join()
    asked = len(forge.asked)
    # Nothing comes after it; and what it wrote down lets another try of the stage end what it began.
    run.stop = run_on = Stop()
    assert {c.state for c in run.changes()} <= {"intended"}
    assert all(p.state == "open" for p in forge.pulls)
    assert forge.head("main") == forge.git("rev-list", "--max-parents=0", "main")
    assert len(forge.asked) == asked
    again = start(forge, stop=run_on)
    again.results, again.memory = run.results, run.memory
    again.stage("integrate", attempt=2, mode="pull_request")
    assert forge.pull.state == "merged"


def test_a_forge_that_says_nothing_does_not_outlast_the_time_of_a_try(forge, start):
    run = start(forge)
    run.begin()
    forge.faults = [Fault("GET", r"/(pulls|merge_requests)/\d+$", hangs_s=600)]
    began = time.monotonic()
    with pytest.raises(StageTimeout):
        run.integrate(timeout_s=6)
    assert time.monotonic() - began < 6 + 4
