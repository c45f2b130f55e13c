"""The client against a server on a real socket that answers what the case says."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from airflow_replay import serving

from taxiway.errors import InputError, OperatorError, TransientError
from taxiway.integrations.airflow_rest import AirflowClient, Credentials, NotThere, Run
from taxiway.records import Result

OWN = Credentials(username="admin", password="secret")
RUN = {"dag_id": "d", "dag_run_id": "r", "state": "queued", "start_date": None, "end_date": None, "conf": None}
TASK = {"task_id": "t", "state": None, "try_number": 0, "start_date": "2026-01-01T00:00:00Z", "end_date": None, "map_index": -1}
RUNS = "/api/v2/dags/d/dagRuns"


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def client(server):
    with AirflowClient(server.url, OWN, pause=lambda _: None) as client:
        yield client


def test_logs_in_once_and_again_when_the_token_expired(server, client):
    server.answers["GET", "/api/v2/version"] = [(200, {"version": "3.3.2"}), (401, {}), (200, {"version": "3.3.2"})]
    server.answers["POST", "/auth/token"] = [(201, {"access_token": "T1"}), (201, {"access_token": "T2"})]
    assert [client.version(), client.version()] == ["3.3.2", "3.3.2"]
    assert [(a[1].rsplit("/")[-1], a[4]) for a in server.asked] == [
        ("token", None),
        ("version", "Bearer T1"),
        ("version", "Bearer T1"),
        ("token", "Bearer T1"),
        ("version", "Bearer T2"),
    ]


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (400, {"detail": "number: 'x' is not an integer"}, InputError, "not an integer"),
        (422, {"detail": [{"loc": ["body", "conf"], "msg": "wrong"}, "odd"]}, InputError, "body.conf: wrong; odd"),
        (401, {"detail": "no"}, OperatorError, "does not accept the token"),
        (403, {"detail": "Forbidden"}, OperatorError, "rights"),
        (404, {"detail": "gone"}, NotThere, "gone"),
        (409, {"detail": {"reason": "Unique constraint violation"}}, OperatorError, "Unique constraint"),
        (302, b"", OperatorError, "302"),
        (429, b"slow down", TransientError, "429"),
        (503, b"<html>", TransientError, "503"),
        (200, b"<html>hello</html>", OperatorError, "no JSON"),
        (200, b"", OperatorError, "unknown form"),
        (200, {"a": 1}, OperatorError, "unknown form"),
        (200, [], OperatorError, "unknown form"),
        (200, {**RUN, "start_date": "yesterday"}, OperatorError, "unknown form"),
    ],
)
def test_says_what_is_wrong_and_starts_one_run(server, client, status, body, kind, text):  # noqa: PLR0917 - the columns of the table
    server.answers["POST", RUNS] = [(status, body)]
    with pytest.raises(kind, match=text) as caught:
        client.trigger("d", {})
    assert caught.value.hint
    assert "secret" not in str(caught.value)
    # A refused token is worth a second login, a busy server four more tries of the same run; nothing else is sent twice.
    sent = [a[3]["dag_run_id"] for a in server.asked if a[:2] == ("POST", RUNS)]
    assert len(sent) == {401: 2, 429: 5, 503: 5}.get(status, 1)
    assert len(set(sent)) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        ((401, {}), OperatorError, "refuses the login of 'admin'"),
        ((404, {}), OperatorError, "refuses the login"),
        ((201, {}), OperatorError, "gave no token"),
        ((201, []), OperatorError, "gave no token"),
        ((201, b"hello"), OperatorError, "no JSON"),
        ((503, {}), TransientError, "503"),
    ],
)
def test_says_why_it_cannot_log_in(server, client, answer, kind, text):
    server.answers["POST", "/auth/token"] = [answer]
    with pytest.raises(kind, match=text):
        client.version()


def test_reads_again_on_a_bad_connection(server, client):
    server.answers["GET", f"{RUNS}/r"] = [(0, None), (500, {}), (502, {}), (200, RUN)]
    assert client.run("d", "r") == Run("d", "r", "queued", 0.0, 0.0, {})


def test_gives_up_reading_after_some_tries(server, client):
    server.answers["GET", f"{RUNS}/r"] = [(500, {"detail": "database is locked"})]
    with pytest.raises(TransientError, match="database is locked"):
        client.run("d", "r")
    assert len([a for a in server.asked if a[0] == "GET"]) == 5


@pytest.mark.parametrize("started", [True, False])
def test_a_lost_answer_is_told_from_a_lost_request(server, client, started):
    server.answers["POST", RUNS] = [(0, None)]
    server.answers = Started(server.answers) if started else server.answers
    if started:
        assert client.trigger("d", {"a": 1}).id.startswith("taxiway__")
    else:
        with pytest.raises(TransientError):
            client.trigger("d", {"a": 1})
    sent, *again = [a[3] for a in server.asked if a[:2] == ("POST", RUNS)]
    assert again == ([] if started else [sent] * 4)
    assert sent == {"dag_run_id": sent["dag_run_id"], "logical_date": None, "conf": {"a": 1}}


class Started(dict):
    """Knows every run that is asked for."""

    def get(self, key, default=None):
        method, path = key
        if method == "GET" and path.startswith(f"{RUNS}/"):
            return [(200, {**RUN, "dag_run_id": path.rsplit("/", 1)[1]})]
        return super().get(key, default)


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with AirflowClient(f"http://127.0.0.1:{port}", OWN, pause=lambda _: None) as client, pytest.raises(TransientError, match="no answer"):
        client.version()


@pytest.mark.parametrize(
    "url",
    ["", "airflow", "ftp://a", "http://", "http://a:b", "http://a:99999", "http://u:p@a", "http://a/?x=1", "http://a/#x", "http://[::1"],
)
def test_refuses_a_bad_address_without_repeating_it(url):
    with pytest.raises(OperatorError) as caught:
        AirflowClient(url, OWN)
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize("token", ["a b", "a\nb", "ä", "\x00"])
def test_a_token_that_no_header_can_carry_is_not_shown(server, token):
    with pytest.raises(OperatorError, match="no token") as caught:
        AirflowClient(server.url, Credentials(f"hush{token}hush"))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("ending", ["/", "//", "/api/v2", "/api/v2/"])
def test_what_people_add_to_the_address(server, ending):
    server.answers["GET", "/base/api/v2/version"] = [(200, {"version": "3.3.2"})]
    with AirflowClient(f"{server.url}/base{ending}", Credentials(" T0\n")) as client:
        assert client.version() == client.recognise() == "3.3.2"
    assert {a[4] for a in server.asked} == {"Bearer T0"}


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        ((404, {"detail": "Not Found"}), OperatorError, "is no Airflow 3"),
        ((200, {"hello": 1}), OperatorError, "does not say its version"),
        ((200, [1]), OperatorError, "does not say its version"),
        ((200, b"<html>"), OperatorError, "no JSON"),
        ((200, {"version": "2.11.0"}), OperatorError, "is an Airflow 2.11.0"),
        ((401, {}), OperatorError, "does not accept the token"),
        ((403, {"detail": "Forbidden"}), OperatorError, "rights"),
        ((503, b""), TransientError, "503"),
        ((0, None), TransientError, "no answer"),
    ],
)
def test_says_what_is_no_airflow(server, client, answer, kind, text):
    server.answers["GET", "/api/v2/version"] = [answer]
    with pytest.raises(kind, match=text) as caught:
        client.recognise()
    assert caught.value.hint
    assert [a[4] for a in server.asked][:1] == [None], "nobody is shown a password before it is known to be an Airflow"


def test_a_redirect_is_named_and_not_followed(server, client):
    server.headers["Location"] = "https://login.example.com/start?state=hush"
    server.answers["GET", "/api/v2/version"] = [(302, b"")]
    with pytest.raises(OperatorError, match=r"it leads to https://login.example.com/start\n") as caught:
        client.recognise()
    assert "hush" not in str(caught.value)


def test_http_where_https_was_meant(server):
    with (
        AirflowClient(server.url.replace("http:", "https:"), OWN) as client,
        pytest.raises(OperatorError, match="no secure connection") as e,
    ):
        client.recognise()
    assert "SSL_CERT_FILE" in e.value.hint


def test_certificates_that_are_not_there(server, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(OperatorError, match="SSL_CERT_FILE"):
        AirflowClient("https://airflow.example.com", OWN)


def test_an_expired_token_says_so(server):
    server.answers["GET", "/api/v2/version"] = [(401, {})]
    with AirflowClient(server.url, Credentials("old")) as client, pytest.raises(OperatorError, match="expired"):
        client.version()


def test_no_credentials(server):
    with AirflowClient(server.url, Credentials()) as client, pytest.raises(OperatorError, match="no credentials"):
        client.version()
    assert "secret" not in repr(OWN)


def test_names_are_quoted(server, client):
    assert client.dag("a/../b?c#d") is None
    assert server.asked[-1][1] == "/api/v2/dags/a%2F..%2Fb%3Fc%23d"


def test_reads_all_pages(server, client):
    pages = [[{**TASK, "task_id": f"t{i}"} for i in range(n, n + 2)] for n in (0, 2)]
    server.answers["GET", f"{RUNS}/r/taskInstances"] = [(200, {"task_instances": p, "total_entries": 4}) for p in pages]
    assert [t.id for t in client.tasks("d", "r")] == ["t0", "t1", "t2", "t3"]
    assert "offset=2" in server.asked[-1][2]
    assert client.tasks("d", "r")[0].seconds(1767225610.0) == 10.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("text", None),
        ({"outcome": "won"}, None),
        ({"outcome": "failed", "summary": "x"}, Result(outcome="failed", summary="x")),
        ('{"summary": "y"}', Result(summary="y")),
    ],
)
def test_results(server, client, value, expected):
    server.answers["GET", f"{RUNS}/r/taskInstances/t/xcomEntries/return_value"] = [(200, {"value": value})]
    assert client.result("d", "r", "t") == expected


@pytest.mark.parametrize(
    ("dag", "errors", "text"),
    [
        (None, [], "no DAG d"),
        (None, [{"filename": "d.py", "stack_trace": "pipelines/d.yaml:3:1: error: bad"}], "d.yaml:3:1: error: bad"),
        (None, [{"filename": "x-1.py", "stack_trace": "/p/d.yaml:3:1: error: bad"}], "d.yaml:3:1: error: bad"),
        (None, [{"filename": "e.py", "stack_trace": "/p/e.yaml:3:1: error: bad"}], "no DAG d"),
        ({"is_stale": True}, [], "no DAG d"),
        ({"is_stale": False}, [], "still has an older version"),
        ({"is_stale": False, "is_paused": True, "new": True}, [], "is paused"),
    ],
)
def test_says_why_a_dag_is_not_there(server, client, dag, errors, text):
    if dag:
        server.answers["GET", "/api/v2/dags/d"] = [(200, dag)]
    server.answers["GET", "/api/v2/dagSources/d"] = [(200, {"content": "the digest is abc" if dag and "new" in dag else ""})]
    server.answers["GET", "/api/v2/importErrors"] = [(200, {"import_errors": errors, "total_entries": len(errors)})]
    with pytest.raises(OperatorError, match=text):
        client.wait_for_dag("d", digest="abc", file="d.yaml", timeout_s=0)


def test_runs_are_limited_and_literal(server, client):
    found = [{**RUN, "dag_run_id": name} for name in ("a_b", "axb", "a_bc")]
    server.answers["GET", RUNS] = [(200, {"dag_runs": found, "total_entries": 500})]
    assert [r.id for r in client.runs("d", containing="a_b", limit=3)] == ["a_b", "a_bc"]
    (asked,) = [a[2] for a in server.asked if a[1] == RUNS]
    assert "limit=3" in asked
    assert "run_id_pattern=%25a_b%25" in asked


def test_cancel_leaves_what_ended(server, client):
    server.answers["GET", f"{RUNS}/r"] = [(200, {**RUN, "state": "running"}), (200, {**RUN, "state": "success"})]
    server.answers["PATCH", f"{RUNS}/r"] = [(200, RUN)]
    client.cancel("d", "r")
    client.cancel("d", "r")
    assert [a[2:4] for a in server.asked if a[0] == "PATCH"] == [("update_mask=state", {"state": "failed"})]


def test_waiting_is_bounded(server, client):
    server.answers["GET", f"{RUNS}/r"] = [(200, RUN)]
    seen = []
    with pytest.raises(TransientError, match="still queued"):
        client.wait("d", "r", timeout_s=0, each=seen.append)
    assert len(seen) == 1


def test_order_and_params(server, client):
    tasks = [
        {"task_id": "b", "downstream_task_ids": ["c"]},
        {"task_id": "c", "downstream_task_ids": []},
        {"task_id": "a", "downstream_task_ids": ["b"]},
    ]
    server.answers["GET", "/api/v2/dags/d/tasks"] = [(200, {"tasks": tasks})]
    assert client.order("d") == ["a", "b", "c"]
    params = {"n": {"value": 1, "schema": {"type": "integer"}}, "s": {"value": None, "schema": {"type": "string"}}}
    server.answers["GET", "/api/v2/dags/d/details"] = [(200, {"params": params})]
    assert client.params("d") == {"n": {"type": "integer", "default": 1}, "s": {"type": "string"}}
