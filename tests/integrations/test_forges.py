"""The real clients of both forges against a local server: what is asked, what goes wrong, and who must act."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taxiway.errors import OperatorError, StageError, TransientError
from taxiway.integrations.forges import find_forge

sys.path.insert(0, str(Path(__file__).parents[1]))

from forge_server import TOKEN, Fault, serving


@pytest.fixture(params=["github", "gitlab"])
def server(request, tmp_path):
    with serving(request.param, tmp_path) as server:
        server.commit_of_change = server.git("commit-tree", "main^{tree}", "-p", "main", stdin="change")
        server.git("update-ref", "refs/heads/change", server.commit_of_change)
        yield server


def client(server, token=TOKEN, api=None):
    return find_forge(server.git_url, kind=server.kind, api=server.api if api is None else api, token=token)


@pytest.mark.parametrize(
    ("url", "kind", "api", "expected"),
    [
        ("https://github.com/ada/shop.git", "", "", ("GitHub", "https://api.github.com", "ada/shop")),
        ("git@github.com:ada/shop.git", "", "", ("GitHub", "https://api.github.com", "ada/shop")),
        ("ssh://git@GitHub.com/ada/shop", "", "", ("GitHub", "https://api.github.com", "ada/shop")),
        ("https://gitlab.com/a/b/c/shop.git", "", "", ("GitLab", "https://gitlab.com", "a/b/c/shop")),
        ("https://git.example.com:8443/ada/shop", "github", "", ("GitHub", "https://git.example.com:8443/api/v3", "ada/shop")),
        ("git@git.example.com:ada/shop", "gitlab", "", ("GitLab", "https://git.example.com", "ada/shop")),
        ("git@ssh.example.com:ada/shop", "gitlab", "https://lab.example.com", ("GitLab", "https://lab.example.com", "ada/shop")),
        ("https://github.com/ada/shop", "github", "https://proxy.example.com", ("GitHub", "https://proxy.example.com", "ada/shop")),
    ],
)
def test_which_forge_a_repository_has(url, kind, api, expected):
    forge = find_forge(url, kind=kind, api=api)
    assert (forge.name, forge._api, forge._project) == expected


@pytest.mark.parametrize(
    "url", ["https://git.example.com/a/b", "https://github.com.evil.example/a/b", "https://example.com/github.com/b", "/srv/a"]
)
def test_a_repository_without_one(url):
    assert find_forge(url, token="t") is None


@pytest.mark.parametrize(("url", "kind"), [("https://github.com/a/b/c", ""), ("https://github.com/a", ""), ("/srv/shop.git", "gitlab")])
def test_what_no_forge_has(url, kind):
    with pytest.raises(OperatorError):
        find_forge(url, kind=kind)


def test_the_clients_are_imported_when_a_forge_is_asked():
    code = (
        "import sys; from taxiway.integrations.forges import find_forge; import taxiway.agents; "
        "find_forge('https://github.com/a/b', token='t'); find_forge('https://gitlab.com/a/b', token='t'); "
        "sys.exit(bool({'github', 'gitlab'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_from_opening_to_closing(server):
    forge = client(server)
    forge.check("squash")
    assert forge.find("change", "main") is None
    made = forge.open("change", "main", title="T", body="B")
    assert (made.state, made.head, made.title, made.body, made.draft, made.merged) == ("open", server.commit_of_change, "T", "B", False, "")
    assert forge.open("change", "main", title="Again", body="") == made == forge.read(made.number) == forge.find("change", "main")
    forge.describe(made.number, title="T2", body="B2")
    forge.comment(made.number, "said")
    forge.close(made.number)
    assert (server.pull.title, server.pull.body, server.pull.comments, server.pull.state) == ("T2", "B2", ["said"], "closed")
    assert forge.find("change", "main").state == "closed"


def test_the_open_one_of_many_pages_is_found(server):
    server.page = 2
    for _ in range(5):
        server.close(server.make("change", "main", "old", ""))
    server.pulls.insert(0, server.pulls.pop())
    wanted = server.make("change", "main", "new", "")
    wanted.number = 0  # the oldest, on the last page
    assert client(server).find("change", "main").title == "new"


def test_a_check_on_the_second_page_counts(server):
    server.page = 2
    server.checks = {f"check-{i}": "passed" for i in range(4)} | {"last": "failed"}
    server.required = list(server.checks)
    forge = client(server)
    pull = forge.open("change", "main", title="T", body="")
    assert forge.readiness(pull, "main").failed == ("check last failed",)


def test_a_reviewer_on_the_last_page_counts(server):
    server.page = 2
    server.reviews = [(f"reviewer-{i}", "APPROVED") for i in range(4)] + [("last", "CHANGES_REQUESTED")]
    forge = client(server)
    pull = forge.open("change", "main", title="T", body="")
    assert forge.readiness(pull, "main").refused


def test_a_status_among_many_is_found(server):
    server.page, commit = 2, server.commit_of_change
    others = [{"context": f"other-{i}", "state": "success", "description": ""} for i in range(5)]
    forge = client(server)
    forge.set_status(commit, passed=True, text="good")
    server.statuses[commit] += others
    forge.set_status(commit, passed=True, text="good")
    assert len(server.statuses[commit]) == 6


@pytest.mark.parametrize("server", ["github"], indirect=True)
def test_rules_without_an_end_are_refused(server):
    server.page, server.required = 1, [f"check-{i}" for i in range(200)]
    pull = (forge := client(server)).open("change", "main", title="T", body="")
    with pytest.raises(OperatorError, match="rules"):
        forge.readiness(pull, "main")


def test_a_status_is_set_once(server):
    forge, commit = client(server), server.commit_of_change
    for passed in (True, True, False, False, True):
        forge.set_status(commit, passed=passed, text="ü" * 500)
    assert [s["state"] for s in server.statuses[commit]] == ["success", "failure" if server.kind == "github" else "failed", "success"]
    assert {s["context"] for s in server.statuses[commit]} == {"taxiway"}


ANSWERS = [
    (401, {"message": "Bad credentials"}, {}, OperatorError, "password of the Airflow git connection"),
    (403, {"message": "Resource not accessible by personal access token"}, {}, OperatorError, "may not do this"),
    (403, {"message": "API rate limit exceeded for user"}, {"x-ratelimit-remaining": "0"}, TransientError, "busy"),
    (403, {"message": "You have exceeded a secondary rate limit"}, {"Retry-After": "60"}, TransientError, "busy"),
    (404, {"message": "Not Found"}, {}, OperatorError, "check the repository's URL"),
    (409, {"message": "conflict"}, {}, StageError, "rules of the repository"),
    (422, {"message": "Validation Failed", "errors": [{"code": "custom", "message": "No commits between"}]}, {}, StageError, "rules"),
    (429, {"message": "Too Many Requests"}, {"Retry-After": "3600"}, TransientError, "busy"),
    (500, b"", {}, TransientError, "broken"),
    (502, b"<html>Bad Gateway</html>", {}, TransientError, "broken"),
    (503, {"message": "x"}, {"Retry-After": "3600"}, TransientError, "broken"),
    (200, b"<html>a login page</html>", {}, TransientError, "`api`"),
    (200, [1, 2], {}, TransientError, "`api`"),
    (0, None, {}, TransientError, "check the network"),
]


def ask(server):
    forge = client(server)
    forge.check("squash")
    forge.find("change", "main")


@pytest.mark.parametrize("path", [r"shop$", r"/(pulls|merge_requests)$"])
@pytest.mark.parametrize(("status", "body", "headers", "kind", "hint"), ANSWERS)
def test_what_an_answer_means(server, path, status, body, headers, kind, hint):  # noqa: PLR0917 - a table
    server.faults = [Fault("GET", path, status, body, headers, times=9)]
    with pytest.raises(kind) as error:
        ask(server)
    assert type(error.value) is kind
    assert hint in error.value.hint
    assert TOKEN not in str(error.value)


LATER = [
    (429, {"Retry-After": "30"}, 30),
    (429, {}, 60),
    (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 60),
    (429, {"Retry-After": "-5"}, 60),
    (429, {"Retry-After": "inf"}, 60),
    (503, {"Retry-After": "30"}, 30),
    (503, {}, 0),
    (429, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "{soon}"}, 100),
    (429, {"RateLimit-Reset": "{soon}"}, 100),
]


@pytest.mark.parametrize(("status", "headers", "wanted"), LATER)
def test_when_to_come_back(server, status, headers, wanted):
    told = {name: value.format(soon=int(time.time()) + 100) for name, value in headers.items()}
    server.faults = [Fault("GET", r"shop$", status, {"message": "x"}, told, times=9)]
    with pytest.raises(TransientError) as error:
        client(server).check("squash")
    assert error.value.after_s == pytest.approx(wanted, abs=5)


def test_a_refusal_repeats_the_forges_words(server):
    server.faults = [Fault("POST", r"/(pulls|merge_requests)$", 422, {"message": "No commits\nbetween main and change"})]
    with pytest.raises(StageError, match="No commits between main and change"):
        client(server).open("change", "main", title="T", body="")


def test_a_wrong_token(server):
    with pytest.raises(OperatorError, match="401") as error:
        client(server, token="wrong").check("squash")
    assert "wrong" not in str(error.value)


def test_nobody_there(server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(TransientError, match="gave no answer"):
            client(server, api=f"http://127.0.0.1:{free.getsockname()[1]}").check("squash")


def test_a_token_does_not_follow_to_another_host(server, tmp_path):
    (tmp_path / "thief").mkdir()
    with serving(server.kind, tmp_path / "thief") as thief:
        elsewhere = thief.api.replace("127.0.0.1", "localhost")
        path = "/repos/team/shop" if server.kind == "github" else "/api/v4/projects/team%2Fshop"
        server.faults = [Fault("GET", r"shop$", status, b"", {"Location": elsewhere + path}, times=1) for status in (301, 302)]
        for _ in range(2):
            with pytest.raises((OperatorError, TransientError)):
                client(server).check("squash")
        assert all(token is None for _, _, token in thief.asked)
        thief.wrong.clear()


SETTINGS = [
    ("github", {}, "merge", ""),
    ("github", {}, "fast-forward", "by fast-forward"),
    ("github", {"allow_squash_merge": False}, "squash", "does not allow strategy squash"),
    ("github", {"allow_rebase_merge": False}, "rebase", "allow_rebase_merge|does not allow strategy rebase"),
    ("github", {"permissions": {"push": False}}, "squash", "may not push"),
    ("gitlab", {}, "merge", ""),
    ("gitlab", {}, "rebase", "merges by merge"),
    ("gitlab", {"merge_method": "ff"}, "rebase", ""),
    ("gitlab", {"merge_method": "ff"}, "merge", "merges by ff"),
    ("gitlab", {"squash_option": "never"}, "squash", "squash: never"),
    ("gitlab", {"squash_option": "always"}, "merge", "squash: always"),
    ("gitlab", {"permissions": {"project_access": {"access_level": 20}, "group_access": None}}, "squash", "may not push"),
    ("gitlab", {"permissions": {"project_access": None, "group_access": None}}, "squash", ""),
]


@pytest.mark.parametrize(("kind", "settings", "strategy", "problem"), SETTINGS)
def test_what_the_repository_allows_is_known_before(tmp_path, kind, settings, strategy, problem):
    with serving(kind, tmp_path) as server:
        server.settings = settings
        if problem:
            with pytest.raises((StageError, OperatorError), match=problem):
                client(server).check(strategy)
        else:
            client(server).check(strategy)


@pytest.mark.parametrize("state", ["", None])
def test_a_gitlab_that_is_too_old(tmp_path, state):
    with serving("gitlab", tmp_path) as server:
        server.git("update-ref", "refs/heads/change", "main")
        forge = client(server)
        pull = forge.open("change", "main", title="T", body="")
        facts = {"iid": 1, "state": "opened", "sha": pull.head, "detailed_merge_status": state}
        server.faults = [Fault("GET", "merge_requests/1$", 200, facts)]
        with pytest.raises(OperatorError, match="does not say"):
            forge.readiness(pull, "main")


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        (None, "there is none"),
        ({"status": "running"}, "its pipeline"),
        ({"status": "manual"}, "somebody to start a job"),
        ({"status": "skipped"}, "not skipped"),
    ],
)
def test_what_gitlabs_pipeline_waits_for(tmp_path, pipeline, words):
    with serving("gitlab", tmp_path) as server:
        server.git("update-ref", "refs/heads/change", "main")
        forge = client(server)
        pull = forge.open("change", "main", title="T", body="")
        server.faults = [Fault("GET", "merge_requests/1$", 200, {"detailed_merge_status": "ci_must_pass", "head_pipeline": pipeline})]
        (waiting,) = forge.readiness(pull, "main").waiting
        assert words in waiting


@pytest.mark.parametrize("state", ["locked_paths", "jira_association_missing", "blocked_status", "external_status_checks"])
def test_what_gitlab_waits_for_is_told_in_its_own_word(tmp_path, state):
    with serving("gitlab", tmp_path) as server:
        server.git("update-ref", "refs/heads/change", "main")
        forge = client(server)
        pull = forge.open("change", "main", title="T", body="")
        server.faults = [Fault("GET", "merge_requests/1$", 200, {"detailed_merge_status": state})]
        assert forge.readiness(pull, "main").waiting == (state.replace("_", " "),)
