import asyncio
import os
import re
import socket
import warnings
from pathlib import Path

import httpx
import pytest
from fastapi import HTTPException

from taxiway.errors import OperatorError

with warnings.catch_warnings():
    # Airflow's API server imports starlette's test client, which warns of its own future.
    warnings.simplefilter("ignore")
    from taxiway_airflow.ui import build_app

SECRET = b"secret"


class Client:
    """Asks the app in this process, one request after the other."""

    def __init__(self, *arguments):
        self.app = build_app(*arguments)

    def get(self, path, *, method="GET", follow_redirects=True):
        return asyncio.run(self._ask(method, path, follow_redirects))

    async def _ask(self, method, path, follow_redirects):
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://airflow", follow_redirects=follow_redirects) as client:
            return await client.request(method, path)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "artifacts"
    attempt = root / "shop" / "run-1" / "check" / "1"
    attempt.mkdir(parents=True)
    (tmp_path / "secret").write_bytes(SECRET)
    (root / ".bundles").mkdir()
    (root / ".bundles" / "version").write_bytes(SECRET)
    (attempt / "report.html").write_text("<script>alert(document.cookie)</script>")
    (attempt / "log.txt").write_text("all good ü\n")
    (attempt / "x.svg").write_text("<svg onload='alert(1)'/>")
    (attempt / "evil.js").write_text("alert(1)")
    (attempt / "shot.png").write_bytes(b"\x89PNG")
    (attempt / "trace.zip").write_bytes(b"PK")
    (attempt / "<b>&\"'.txt").write_text("x")
    (attempt / "link").symlink_to(tmp_path / "secret")
    (attempt / "folder").symlink_to(tmp_path)
    (attempt / "fifo").touch()
    (attempt / "fifo").unlink()
    os.mkfifo(attempt / "fifo")
    (attempt / ".hidden").write_bytes(SECRET)
    (root / "shop" / "run-1" / "check" / "10").mkdir()
    (root / "shop" / "run-1" / "check" / "2").mkdir()
    return root


@pytest.fixture
def client(root):
    def guard(dag_id: str) -> None:
        if dag_id == "private":
            raise HTTPException(403)

    return Client(lambda: root, guard)


BASE = "/artifacts/shop/run-1/check/1/"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("report.html", "text/html; charset=utf-8"),
        ("log.txt", "text/plain; charset=utf-8"),
        ("x.svg", "text/plain; charset=utf-8"),
        ("evil.js", "text/plain; charset=utf-8"),
        ("shot.png", "image/png"),
        ("trace.zip", "application/octet-stream"),
    ],
)
def test_files_are_served_and_cannot_act(client, root, name, kind):
    answer = client.get(BASE + name)
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.content == (root / "shop/run-1/check/1" / name).read_bytes()
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none';")
    assert "allow-scripts" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers.get("content-disposition", "").startswith("attachment" if name.endswith(".zip") else "")


@pytest.mark.parametrize(
    "path",
    [
        "link",
        "folder/secret",
        "folder/",
        "fifo",
        ".hidden",
        "missing",
        "log.txt/x",
        "%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/secret",
        "..%2f..%2f..%2f..%2f..%2fsecret",
        "%2fetc%2fpasswd",
        "x%00",
        "a" * 5000,
    ],
)
def test_nothing_leads_out(client, path):
    answer = client.get(BASE + path)
    assert answer.status_code == 404
    assert SECRET not in answer.content


@pytest.mark.parametrize(
    "path", ["/artifacts/.bundles/version", "/artifacts/../secret", "/artifacts/%2e%2e/secret", "/artifacts/%2e/secret"]
)
def test_no_other_folder_is_a_pipeline(client, path):
    answer = client.get(path)
    assert answer.status_code in (404, 422)
    assert SECRET not in answer.content


def test_a_listing(client):
    page = client.get(BASE)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert '<a href="log.txt">log.txt</a>' in page.text
    assert '<a href="%3Cb%3E%26%22%27.txt">&lt;b&gt;&amp;&quot;&#x27;.txt</a>' in page.text
    assert client.get(BASE + "%3Cb%3E%26%22%27.txt").text == "x"
    for hidden in ("link", ".hidden", "folder", "fifo"):
        assert f'href="{hidden}' not in page.text


MARKDOWN = """# Validation

full\\_repair <script>alert(1)</script> <b>bold</b>

| file | line |
|---|---|
| a\\|b | 1 |

- [web](https://example.org/x) [beside](conflicts.json) [below](e2e/shot.png) [here](#a) <https://example.org>
- [js](javascript:alert(1)) [coded](java&#115;cript:alert(1)) [data](data:text/html,x) [file](file:///etc)
- [rooted](/auth/logout) [host](//evil.example)
- ![picture](https://evil.example/seen.png) [up](..\\\\x) [q](x" onclick="alert(1))
"""


def test_markdown_is_a_page_and_cannot_act(client, root):
    (root / "shop/run-1/check/1/report.md").write_text(MARKDOWN)
    answer = client.get(BASE + "report.md")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none';")
    escaped = "full_repair &lt;script&gt;alert(1)&lt;/script&gt; &lt;b&gt;bold"
    for shown in ("<h1>Validation</h1>", escaped, "<td>a|b</td>", "shop / run-1 / check / 1"):
        assert shown in answer.text
    for hidden in ("<script", "<b>", "<img", 'onclick="'):
        assert hidden not in answer.text
    links = re.findall(r'href="([^"]*)"', answer.text)
    assert links[:2] == ["./", "?raw"]
    assert links[2:7] == ["https://example.org/x", "conflicts.json", "e2e/shot.png", "#a", "https://example.org"]
    # A picture is a link: nothing is fetched before somebody follows it.
    assert links[7:] == ["https://evil.example/seen.png", "..%5Cx"]
    raw = client.get(BASE + "report.md?raw")
    assert (raw.headers["content-type"], raw.text) == ("text/plain; charset=utf-8", MARKDOWN)


def test_long_markdown_is_shown_as_it_is(client, root):
    (root / "shop/run-1/check/1/report.md").write_text("x" * 200_001)
    assert client.get(BASE + "report.md").headers["content-type"] == "text/plain; charset=utf-8"


def test_what_people_read_comes_first(client, root):
    attempt = root / "shop/run-1/check/1"
    for name in ("report.md", "report.json", "summary.md", "gates.json", "a.json", "z.html", "decided.md"):
        (attempt / name).write_text("x")
    (attempt / "e2e").mkdir()
    names = re.findall(r'<td><a href="([^"]*)"', client.get(BASE).text)
    first = ["report.html", "report.md", "summary.md", "gates.json", "decided.md", "z.html", "e2e/"]
    assert names[: len(first)] == first
    assert names.index("a.json") < names.index("report.json")


def test_attempts_stand_in_their_order(client):
    page = client.get("/artifacts/shop/run-1/check/").text
    assert page.index('"1/"') < page.index('"2/"') < page.index('"10/"')


@pytest.mark.parametrize("path", ["/artifacts/shop", "/artifacts/shop/run-1", "/artifacts/shop/run-1/check/1"])
def test_a_folder_gets_its_slash(client, path):
    answer = client.get(path, follow_redirects=False)
    assert answer.status_code == 307
    assert client.get(path).url.path == path + "/"


def test_the_guard_decides(client):
    assert client.get("/artifacts/private/x").status_code == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(client, method):
    assert client.get(BASE + "log.txt", method=method).status_code == 405


def test_without_a_home_it_says_what_to_do():
    def no_home() -> Path:
        raise OperatorError("no pipelines/ folder", hint="set TAXIWAY_HOME")

    answer = Client(no_home, lambda: None).get("/artifacts/shop/x")
    assert answer.status_code == 503
    assert "TAXIWAY_HOME" in answer.text


def test_without_a_login_there_is_nothing(root):
    assert Client(lambda: root).get(BASE + "log.txt").status_code == 401


def test_a_socket_is_no_artifact(client, root, monkeypatch):
    monkeypatch.chdir(root / "shop")  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        assert client.get("/artifacts/shop/socket").status_code == 404
