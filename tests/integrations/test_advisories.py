"""The audit against a local advisory server: what it says, and all the ways in which it may say nothing."""

from __future__ import annotations

import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from taxiway.errors import Cancelled, OperatorError
from taxiway.integrations.advisories import INDEX_VARIABLE, URL_VARIABLE, OsvAdvisories, advisories
from taxiway.integrations.indexes import installers_index
from taxiway.integrations.severity import severity
from taxiway.stop import Stop

sys.path.insert(0, str(Path(__file__).parents[1]))

from advisory_server import AdvisoryServer, answer, cvss3, record, serving

CRITICAL = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
LOW = "CVSS:3.1/AV:L/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N"
V4_HIGH = "CVSS:4.0/AV:L/AC:L/AT:N/PR:L/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"
GOOD, BAD = ("good", "1.0"), ("bad", "1.5")


@pytest.fixture
def server():
    with serving() as state:
        state.published = {GOOD, BAD}
        yield state


def audit(server: AdvisoryServer, *packages: tuple[str, str], timeout_s: float = 30):
    return OsvAdvisories(server.url, server.url, timeout_s).audit(packages or (GOOD, BAD), Stop())


def test_names_of_one_vulnerability_count_once_at_their_worst(server):
    server.found["bad"] = ["PYSEC-1", "GHSA-1", "GHSA-2", "OLD-1"]
    server.records = {
        "PYSEC-1": record("PYSEC-1", "bad", aliases=["CVE-1", "GHSA-1"], **cvss3(LOW)),
        "GHSA-1": record("GHSA-1", "Bad", aliases=["CVE-1"], summary="Runs\nanything", database_specific={"severity": "HIGH"}),
        "GHSA-2": record("GHSA-2", "bad", **cvss3(CRITICAL)),
        "OLD-1": record("OLD-1", "bad", withdrawn="2020-01-01T00:00:00Z", **cvss3(CRITICAL)),
    }
    told = audit(server)
    assert (told.unknown, told.failed, told.vulnerabilities[GOOD]) == ({}, {}, ())
    one, two = told.vulnerabilities[BAD]
    assert (one.ids, one.severity, one.summary, one.fixed) == (("GHSA-1", "PYSEC-1", "CVE-1"), "high", "Runs anything", ("2.0",))
    assert (two.ids, two.severity) == (("GHSA-2",), "critical")


def test_another_database_rates_what_this_one_does_not(server):
    server.found["bad"] = ["PYSEC-1", "PYSEC-2"]
    server.records = {
        "PYSEC-1": record("PYSEC-1", "bad", aliases=["CVE-1"]),
        "PYSEC-2": record("PYSEC-2", "bad", aliases=["CVE-2"]),
        "CVE-1": record("CVE-1", "bad", **cvss3(CRITICAL)),
    }
    assert [v.severity for v in audit(server).vulnerabilities[BAD]] == ["critical", "unrated"]


def test_an_index_that_knows_no_package_has_answered_nothing(server):
    server.published = set()
    told = audit(server)
    assert (told.vulnerabilities, told.unknown, set(told.failed)) == ({}, {}, {GOOD, BAD})
    assert "JSON API" in told.failed[GOOD]


def test_a_version_that_the_index_does_not_know_is_not_taken_for_safe(server):
    told = audit(server, GOOD, ("good", "9.9"), ("acme-internal", "1.0"))
    assert set(told.unknown) == {("good", "9.9"), ("acme-internal", "1.0")}
    assert told.vulnerabilities == {GOOD: ()}


def test_without_an_index_every_version_is_taken_for_a_published_one(server):
    told = OsvAdvisories(server.url).audit([("acme-internal", "1.0")], Stop())
    assert (told.vulnerabilities, server.asked) == ({("acme-internal", "1.0"): ()}, ["/v1/querybatch"])


def test_all_pages_are_read(server):
    def pages(path, body):
        (query,) = [q for q in body["queries"] if q["package"]["name"] == "bad"] or [None]
        if query is None or "page_token" in query:
            return None
        return answer({"results": [{"vulns": [{"id": "A-1"}], "next_page_token": "more"} if q is query else {} for q in body["queries"]]})

    server.faults["/v1/querybatch"] = pages
    server.found["bad"] = ["A-2"]
    server.records = {i: record(i, "bad", **cvss3(LOW)) for i in ("A-1", "A-2")}
    assert [v.ids for v in audit(server).vulnerabilities[BAD]] == [("A-1",), ("A-2",)]


@pytest.mark.parametrize(
    "told",
    [
        (503, b"{}", {}),
        (429, b"{}", {}),
        (400, b"{}", {}),
        (404, b"{}", {}),
        (302, b"", {"Location": "/elsewhere"}),
        (200, b"<html>captive portal</html>", {}),
        (200, b"[]", {}),
        (200, b"{}", {}),
        (200, b'{"results": [{}]}', {}),
        (200, b'{"results": [{}, {}, {}]}', {}),
        (200, b'{"results": [{}, {"vulns": [{"name": "no id"}]}]}', {}),
        (200, b'{"results": [{}, {"vulns": 7}]}', {}),
        (200, b'{"results": [{}, {}]}', {"Content-Length": "5000", "Connection": "close"}),
        (200, b'{"results": [{"next_page_token": "x"}, {"next_page_token": "x"}]}', {}),
    ],
    ids=[
        "503",
        "429",
        "400",
        "404",
        "redirect",
        "html",
        "list",
        "empty",
        "too-few",
        "too-many",
        "no-id",
        "no-list",
        "cut-short",
        "endless",
    ],
)
def test_no_whole_answer_is_no_audit(server, told):
    server.faults["/v1/querybatch"] = lambda _path, _body: told
    found = audit(server)
    assert found.vulnerabilities == {}
    assert set(found.failed) == {GOOD, BAD}
    assert all(found.failed.values())


@pytest.mark.parametrize(
    ("begin", "told"),
    [
        ("/v1/vulns/", (500, b"", {})),
        ("/v1/vulns/", (404, b"{}", {})),
        ("/v1/vulns/", answer({"id": "ANOTHER"})),
        ("/pypi/bad", (503, b"", {})),
        ("/pypi/bad", (200, b"<html>", {})),
        ("/pypi/bad", answer({"info": {"name": "another"}})),
    ],
    ids=["record-500", "record-404", "record-of-another", "index-503", "index-html", "index-of-another"],
)
def test_half_an_answer_fails_the_package_that_it_is_about(server, begin, told):
    server.found["bad"] = ["GHSA-1"]
    server.records["GHSA-1"] = record("GHSA-1", "bad", **cvss3(LOW))
    server.faults[begin] = lambda _path, _body: told
    found = audit(server)
    assert (set(found.failed), found.vulnerabilities) == ({BAD}, {GOOD: ()})


def test_a_busy_service_is_asked_again(server):
    answers = [(503, b"", {})]
    server.faults["/v1/querybatch"] = lambda _path, _body: answers.pop() if answers else None
    assert audit(server).failed == {}


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        found = OsvAdvisories(url, "").audit([GOOD], Stop())
    assert "no answer (ConnectError)" in found.failed[GOOD]


def test_a_service_that_never_answers_does_not_hold_the_run_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = OsvAdvisories(f"http://127.0.0.1:{silent.getsockname()[1]}", "", timeout_s=0.2).audit([GOOD], Stop())
    assert "ReadTimeout" in found.failed[GOOD]


def test_a_service_that_never_answers_does_not_keep_a_stopped_run():
    stop = Stop()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Timer(0.2, stop.cancel).start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            OsvAdvisories(f"http://127.0.0.1:{silent.getsockname()[1]}", "", timeout_s=600).audit([GOOD], stop)
    assert time.monotonic() - began < 4.2


def test_a_stopped_run_stops_asking(server):
    stop = Stop()
    stop.cancel()
    with pytest.raises(Cancelled):
        OsvAdvisories(server.url, server.url).audit([GOOD], stop)
    assert server.asked == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (cvss3(CRITICAL), "critical"),
        ({"severity": [{"type": "CVSS_V4", "score": V4_HIGH}]}, "high"),
        ({"severity": [{"type": "CVSS_V2", "score": "AV:N/AC:L/Au:N/C:P/I:P/A:P"}]}, "high"),
        ({"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/nonsense"}]}, "unrated"),
        ({"severity": [{"type": "CVSS_V9", "score": CRITICAL}]}, "unrated"),
        ({"severity": "HIGH"}, "unrated"),
        ({"database_specific": {"severity": "MODERATE"}}, "medium"),
        ({"database_specific": {"severity": "LOW"}} | cvss3(CRITICAL), "critical"),
        ({"affected": [{"ecosystem_specific": {"severity": "high"}}]}, "high"),
        ({}, "unrated"),
    ],
)
def test_severity_is_the_worst_that_a_record_says(said, expected):
    assert severity({"id": "X"} | said) == expected


def test_settings_of_the_machine_choose_the_service():
    assert advisories({URL_VARIABLE: "off"}) is None
    assert advisories({URL_VARIABLE: "http://127.0.0.1:1/", INDEX_VARIABLE: "OFF"}) == OsvAdvisories("http://127.0.0.1:1", "")
    with pytest.raises(OperatorError, match=INDEX_VARIABLE):
        advisories({INDEX_VARIABLE: "mirror"})


@pytest.mark.parametrize("setting", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"])
def test_without_a_setting_the_installers_index_is_asked(server, setting):
    source = advisories({URL_VARIABLE: server.url, setting: f"{server.url}/simple/", "PIP_CONFIG_FILE": "/dev/null"})
    told = source.audit([GOOD, ("good", "2.0")], Stop())
    assert told.vulnerabilities == {GOOD: ()}
    assert list(told.unknown) == [("good", "2.0")]


def test_the_installer_has_a_default_of_its_own():
    assert installers_index({"PIP_CONFIG_FILE": "/dev/null"}).startswith("https://")
    with pytest.raises(OperatorError, match="off"):
        installers_index({"UV_DEFAULT_INDEX": "http://"})
