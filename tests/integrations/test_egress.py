"""The proxy of the package index, asked over the wire by a client that wants more than it may have."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import sys
import threading
import time
from contextlib import contextmanager
from html import unescape
from pathlib import Path

import httpx
import pytest

from taxiway.errors import OperatorError
from taxiway.integrations.egress import Source, egress, read_sources
from taxiway.integrations.egress.pages import BadPage, read_page, write_page
from taxiway.integrations.egress.upstream import Place, Refused, Upstream, _allowed

sys.path.insert(0, str(Path(__file__).parent))

from index_server import NAME, Answer, index_server, metadata

CLEAN = {"PATH": os.defpath, "PIP_CONFIG_FILE": "/dev/null", "HOME": "/nonexistent"}
SECRET = "planted-secret"


@pytest.fixture
def index(tmp_path):
    with index_server(tmp_path) as server:
        server.login = f"someone:{SECRET}"
        yield server


@contextmanager
def serving(environ):
    """The proxy, and a client of it."""
    with egress(sources := read_sources(CLEAN | environ)) as (proxy, door), socket.create_server(("127.0.0.1", 0)) as listener:
        socket.send_fds(door, [b"listening"], [listener.fileno()])
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=base, trust_env=False, timeout=20) as client:
            client.page = f"{(*sources.indexes, *sources.links)[0].path}tinything/"
            yield proxy, client


@pytest.fixture
def way(index):
    """The proxy of the index, with the index's credentials."""
    with serving({"UV_DEFAULT_INDEX": index.private_url, "UV_HTTP_TIMEOUT": "1"}) as (proxy, client):
        yield proxy, client


def links(page: httpx.Response) -> list[str]:
    assert page.status_code == 200, page.text
    return [unescape(href).partition("#")[0] for href in re.findall('href="([^"]*)"', page.text)]


def wheel_link(client: httpx.Client) -> str:
    return next(link for link in links(client.get(client.page)) if link.endswith(NAME))


# --- pages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written", ["absolute path", "relative", "whole address", "base", "credentials", "json", "json relative", "redirect"]
)
def test_links_lead_through_the_proxy(index, way, written):
    proxy, client = way
    whole = f"{index.root}/files/{NAME}"
    digest = "sha256=" + "a" * 64
    match written:
        case "absolute path":
            index.html(f"/files/{NAME}#{digest}")
        case "relative":
            index.html(f"../../files/{NAME}#{digest}")
        case "whole address":
            index.html(f"{whole}#{digest}")
        case "base":
            index.html(f"{NAME}#{digest}", head='<base href="/files/">')
        case "credentials":
            index.html(f"{whole.replace('://', '://someone:' + SECRET + '@')}#{digest}")
        case "json" | "json relative":
            index.json({"filename": NAME, "url": whole if written == "json" else f"../../files/{NAME}", "hashes": {"sha256": "a" * 64}})
        case "redirect":
            index.html(f"/files/{NAME}#{digest}")
            index.answers["/moved/"] = index.answers["/simple/tinything/"]
            index.answers["/simple/tinything/"] = Answer(status=301, headers={"Location": "/moved/"})
    page = client.get(client.page)
    assert f"#{digest}" in page.text
    assert SECRET not in page.text
    assert "127.0.0.1" not in page.text
    file = client.get(wheel_link(client))
    assert file.content == index.answers[f"/files/{NAME}"].body
    assert proxy.notes == {}


def test_what_a_page_says_of_its_files_is_handed_on():
    page = {
        "files": [
            {
                "filename": NAME,
                "url": "x/" + NAME,
                "hashes": {"blake2b": "00", "sha256": "b" * 64},
                "requires-python": '>=3.8,<"4',
                "yanked": 'it "broke" <all>',
                "core-metadata": {"sha256": "c" * 64},
            },
            {
                "filename": "tinything-2.0.tar.gz",
                "url": "https://b.example/tinything-2.0.tar.gz",
                "hashes": {},
                "yanked": False,
                "core-metadata": False,
            },
            {"filename": "tinything-3-py3-none-any.whl", "url": "//[", "hashes": {}},
            {"filename": "../../etc/passwd", "url": "x"},
            {"filename": 'a"><script>.whl', "url": "x"},
            {"filename": 7, "url": "x"},
            "nonsense",
        ]
    }
    found = read_page(json.dumps(page).encode(), "application/vnd.pypi.simple.v1+json; charset=utf-8", "https://a.example/simple/t/")
    assert [f.name for f in found] == [NAME, "tinything-2.0.tar.gz"]
    assert (found[0].url, found[0].digest) == (f"https://a.example/simple/t/x/{NAME}", "sha256=" + "b" * 64)
    # Our own page, read again, says the same.
    again = read_page(write_page(found, lambda link: link.url), "text/html", "https://a.example/")
    assert again == found


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"{", "application/json"), (b"[]", "application/json"), (b'{"files": 7}', "application/json"), (b"[" * 100_000, "text/json")],
)
def test_a_page_that_is_none(index, way, body, kind):
    proxy, client = way
    index.answers["/simple/tinything/"] = Answer(body, kind)
    assert client.get(client.page).status_code == 403
    assert "no files" in str(proxy.notes)


@pytest.mark.parametrize("unit", ["<a ", "<a 'x\" ", '<a "<a " ', "<!--", "&#", '<a href="x" ', "<a href=", "<a >"])
def test_a_page_that_would_keep_a_parser_busy(unit):
    began = time.monotonic()
    for tail in ("", ">", "'>", '">'):
        assert read_page((unit * (1_000_000 // len(unit)) + tail).encode(), "text/html", "https://a.example/") == []
    assert time.monotonic() - began < 20  # it would be hours


def test_html_as_indexes_write_it():
    page = (
        f"<HTML><base target=x><A HREF='a/{NAME}'\n data-requires-python='>=3.8,<4' data-yanked>x</A><!-- <a href='b/{NAME}'> -->"
        f'<a class=x href=c/{NAME}#sha256={"d" * 64}&amp;x data-dist-info-metadata=true><abbr href="d/{NAME}"><a name="e/{NAME}">'
        f'<a href="f/{NAME}?a=1&amp;b=2" data-core-metadata="sha256={"e" * 64}" href="g">'
    )
    found = read_page(page.encode(), "text/html", "https://a.example/s/")
    assert [(f.url.removeprefix("https://a.example/s/"), f.requires_python, f.yanked, f.metadata) for f in found] == [
        (f"a/{NAME}", ">=3.8,<4", "", ""),
        (f"c/{NAME}", "", None, "true"),
        (f"f/{NAME}?a=1&b=2", "", None, "sha256=" + "e" * 64),
    ]
    with pytest.raises(BadPage):
        read_page(b'<a href="&#' + b"9" * 6000 + b';">', "text/html", "https://a.example/")


def test_a_page_without_end_is_cut(index, way):
    proxy, client = way
    index.answers["/simple/tinything/"] = Answer(gzip.compress(bytes(65 << 20)), "text/html", headers={"Content-Encoding": "gzip"})
    assert client.get(client.page).status_code == 403
    assert "bytes" in str(proxy.notes)


# --- what cannot be fetched ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/admin",
        "/simple/",
        "/simple/tinything/",
        "/simple/{key}/",
        "/simple/{key}/../admin/",
        "/simple/{key}/%2e%2e/",
        "/simple/{key}/tinything/../../admin",
        "/simple/{key}/tinything%2f..%2f..%2fadmin/",
        "/simple/{key}/tinything/?next=/admin",
        "/simple/{key}/Tiny.Thing/",
        "/simple/0123456789abcdef/tinything/",
        "/links/{key}/",
        "/files/" + NAME,
        "/files/" + "0" * 32 + "/" + NAME,
        "/files/{token}/a/b",
        "/files/{token}x/" + NAME,
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:5432/",
        "//127.0.0.1:5432/",
    ],
)
def test_other_paths_are_refused(index, way, path):
    _, client = way
    key, token = client.page.split("/")[2], wheel_link(client).split("/")[2]
    asked = len(index.requests)
    target = path.format(key=key, token=token)
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: index\r\nConnection: close\r\n\r\n".encode())
        status = connection.makefile("rb").readline().split()[1]
    assert status == b"403"
    assert len(index.requests) == asked


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"])
def test_other_methods_are_refused(index, way, method):
    _, client = way
    for path in (client.page, wheel_link(client)):
        asked = len(index.requests)
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            target = f"{index.root.removeprefix('http://')}" if method == "CONNECT" else path
            connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: index\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
            status = connection.makefile("rb").readline().split()[1]
        assert status in (b"400", b"403")
        assert len(index.requests) == asked


def test_a_file_that_no_page_linked_is_refused_and_so_is_what_is_no_wheel(index, way):
    _, client = way
    index.html(f"/files/{NAME}", "/files/tinything-1.0.tar.gz", "/files/tinything-2.0.exe", "/admin?x=y.whl", "/files/x.html")
    page = client.get(client.page)
    assert [link.rpartition("/")[2] for link in links(page)] == [NAME, "tinything-1.0.tar.gz"]
    assert [client.get(link).status_code for link in links(page)] == [200, 403]
    other = "f" * 32
    assert client.get(f"/files/{other}/{NAME}").status_code == 403
    assert index.paths.count("/files/tinything-1.0.tar.gz") == 0


@pytest.fixture
def victim():
    """A server of loopback that must not be asked."""
    reached = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                reached.append(connection.recv(1000))
                connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1], reached
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


HOSTILE = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://127.1:{port}/",
    "http://2130706433:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::1]:{port}/",
    "http://0.0.0.0:{port}/",
    "http://169.254.169.254/latest/",
    "http://192.0.2.1/",
    "file:///etc/",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/",
    "javascript:alert(1)/",
    "http://[/",
    "http://127.0.0.1:99999/",
]


@pytest.mark.parametrize("how", ["html", "json", "redirect"])
@pytest.mark.parametrize("address", HOSTILE)
def test_a_hostile_page_leads_nowhere(index, way, victim, address, how):
    proxy, client = way
    port, reached = victim
    target = address.format(port=port) + NAME
    if how == "html":
        index.html(target)
    elif how == "json":
        index.json({"filename": NAME, "url": target, "hashes": {}})
    else:
        index.answers[f"/files/{NAME}"] = Answer(status=302, headers={"Location": target})
    for link in links(client.get(client.page)):
        for path in (link, link + ".metadata") if how != "redirect" else (link,):
            answer = client.get(path)
            assert answer.status_code == 403
            assert answer.content == b""
    assert reached == []
    assert how != "redirect" or "refused" in str(proxy.notes)


def test_pages_are_not_fetched_from_elsewhere(index, way, victim):
    proxy, client = way
    port, reached = victim
    index.answers["/simple/tinything/"] = Answer(status=302, headers={"Location": f"http://localhost:{port}/simple/tinything/"})
    assert client.get(client.page).status_code == 403
    index.answers["/simple/tinything/"] = Answer(status=302, headers={"Location": "/simple/tinything/"})
    assert client.get(client.page).status_code == 403
    assert "more than 5 redirects" in str(proxy.notes)
    assert reached == []


def test_https_never_leads_to_http():
    upstream = Upstream({})
    source = Source("https://index.example/simple")
    with pytest.raises(Refused, match="from https to http"):
        upstream._check(Place(source, f"http://index.example/{NAME}"), f"http://index.example/{NAME}")
    upstream._check(Place(source, f"https://files.example/{NAME}"), f"https://files.example/{NAME}")


@pytest.mark.parametrize(
    ("address", "from_public", "from_private"),
    [
        ("1.1.1.1", True, True),
        ("2606:4700::1111", True, True),
        ("10.1.2.3", False, True),
        ("192.168.0.1", False, True),
        ("fd00::1", False, True),
        ("::ffff:10.1.2.3", False, True),
        ("127.0.0.1", False, False),
        ("127.8.8.8", False, False),
        ("::1", False, False),
        ("::ffff:127.0.0.1", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("fe80::1%eth0", False, False),
        ("64:ff9b::1.1.1.1", True, True),
        ("64:ff9b::10.1.2.3", False, True),
        ("64:ff9b::127.0.0.1", False, False),
        ("64:ff9b:1::169.254.169.254", False, False),
        ("2002:7f00:1::", False, False),
        ("::127.0.0.1", False, False),
        ("100.100.100.200", False, False),
        ("224.0.0.1", False, False),
    ],
)
def test_addresses_that_may_be_linked(address, from_public, from_private):
    assert (_allowed(address, private=False), _allowed(address, private=True)) == (from_public, from_private)


# --- files --------------------------------------------------------------------------------------------


def test_ranges_and_conditions_pass(index, way):
    _, client = way
    whole = index.answers[f"/files/{NAME}"]
    whole.headers["ETag"] = '"one"'
    link = wheel_link(client)
    part = client.get(link, headers={"Range": "bytes=3-9"})
    assert (part.status_code, part.content) == (206, whole.body[3:10])
    assert part.headers["Content-Range"] == f"bytes 3-9/{len(whole.body)}"
    head = client.head(link)
    assert (head.status_code, head.headers["Content-Length"], head.headers["Accept-Ranges"]) == (200, str(len(whole.body)), "bytes")
    assert (head.headers["ETag"], head.headers["Cache-Control"]) == ('"one"', "max-age=31536000, immutable")
    assert client.get(link + ".metadata").text == metadata()
    index.answers[f"/files/{NAME}"] = Answer(status=304)
    assert client.get(link, headers={"If-None-Match": '"one"', "Cookie": "a=b", "X-Own": "y"}).status_code == 304
    told = index.requests[-1].headers
    assert told["If-None-Match"] == '"one"'
    assert {"Cookie", "X-Own"}.isdisjoint(told)


@pytest.mark.parametrize("how", ["too long", "compressed", "cut"])
def test_a_file_that_is_not_whole_or_too_large(index, way, how):
    proxy, client = way
    link = wheel_link(client)

    def cut(handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(70_000))

    headers = {"too long": {"Content-Length": str(3 << 30)}, "compressed": {"Content-Encoding": "gzip"}, "cut": {}}[how]
    index.answers[f"/files/{NAME}"] = Answer(cut if how == "cut" else gzip.compress(b"x"), headers=headers)
    if how == "cut":
        with pytest.raises(httpx.HTTPError):
            client.get(link)
    else:
        assert client.get(link).status_code == 403
    assert f"/files/{NAME}" in str(proxy.notes)


@pytest.mark.parametrize(
    ("status", "noted"),
    [(401, "status code 401"), (403, "status code 403"), (404, ""), (410, ""), (429, "429"), (500, "500"), (503, "503")],
)
def test_what_the_index_answers_is_answered(index, way, status, noted):
    proxy, client = way
    link = wheel_link(client)
    index.answers[f"/files/{NAME}"] = Answer(f"{SECRET} was wrong", status=status)
    index.answers["/simple/tinything/"] = Answer(f"{SECRET} was wrong", status=status)
    for path in (client.page, link):
        answer = client.get(path)
        assert answer.status_code == status
        assert SECRET not in answer.text
    assert noted in str(proxy.notes)
    assert len(proxy.notes) == (2 if noted else 0)
    assert SECRET not in str(proxy.notes)


def test_a_slow_server(index, way):
    proxy, client = way
    index.answers["/simple/tinything/"] = Answer(lambda _: index.released.wait(60))
    assert client.get(client.page).status_code == 504
    assert "timed out" in str(proxy.notes)
    index.html(f"/files/{NAME}")
    assert client.get(client.page).status_code == 200
    assert proxy.notes == {}


def test_nobody_answers(tmp_path):
    with serving({"UV_DEFAULT_INDEX": f"http://someone:{SECRET}@127.0.0.1:9/simple?token={SECRET}"}) as (proxy, client):
        assert client.get(client.page).status_code == 502
    assert "connection refused" in str(proxy.notes)
    assert SECRET not in str(proxy.notes)
    with serving({"UV_DEFAULT_INDEX": "http://no-such-host.invalid/simple"}) as (proxy, client):
        assert client.get(client.page).status_code == 502
    assert "dns error" in str(proxy.notes)


# --- the machine's settings ---------------------------------------------------------------------------


def test_credentials_go_to_their_own_origin_and_through_the_machines_proxy(index):
    """The server is a forward proxy here, so that hosts of any name answer."""
    login, index.login = index.login, ""
    body = index.answers[f"/files/{NAME}"].body
    page = "".join(f'<a href="{host}/{NAME}"></a>' for host in ("http://index.example", "http://files.example", "http://a:b@own.example"))
    index.answers["http://index.example/simple/tinything/"] = Answer(page, "text/html")
    index.answers[f"http://index.example/{NAME}"] = Answer(body)
    index.answers[f"http://files.example/{NAME}"] = Answer(status=307, headers={"Location": "http://store.example/signed?key=1"})
    index.answers["http://store.example/signed?key=1"] = Answer(body)
    index.answers[f"http://own.example/{NAME}"] = Answer(body)
    proxy = index.root.replace("://", f"://operator:{SECRET}@")
    environ = {"UV_DEFAULT_INDEX": f"http://{login}@index.example/simple", "http_proxy": proxy, "NO_PROXY": "direct.example"}
    with serving(environ) as (_, client):
        assert [client.get(link).content for link in links(client.get(client.page))] == [body] * 3
    sent = {r.path: r.authorization for r in index.requests}
    assert len(sent) == 5
    with_login = {path for path, authorization in sent.items() if authorization}
    assert with_login == {"http://index.example/simple/tinything/", f"http://index.example/{NAME}", f"http://own.example/{NAME}"}
    assert all(r.headers.get("Proxy-Authorization", "").startswith("Basic ") for r in index.requests)


def test_a_proxy_does_not_take_to_addresses_that_are_refused(index):
    index.login = ""
    for target in ("http://169.254.169.254/", "http://127.0.0.1:5432/"):
        index.answers["http://index.example/simple/tinything/"] = Answer(f'<a href="{target}{NAME}"></a>', "text/html")
        with serving({"UV_DEFAULT_INDEX": "http://index.example/simple", "ALL_PROXY": index.root}) as (_, client):
            assert client.get(wheel_link(client)).status_code == 403
    assert set(index.paths) == {"http://index.example/simple/tinything/"}


NO_NAMES = ["127.1", "0x7f.1", "2130706433", "0177.0.0.1", "127.0.0.1.", "①②⑦.0.0.1", "１２７。0。0。1", "localhost", "a.LOCALHOST."]


@pytest.mark.parametrize("host", NO_NAMES)
def test_what_a_socket_takes_for_an_address_is_none_of_a_link(index, host):
    """Neither a resolver nor a proxy would be asked about it, or the proxy would find itself."""
    index.login = ""
    index.answers["http://index.example/simple/tinything/"] = Answer(
        f'<a href="http://{host}:5432/{NAME}"></a>', "text/html; charset=utf-8"
    )
    with serving({"UV_DEFAULT_INDEX": "http://index.example/simple", "ALL_PROXY": index.root}) as (_, client):
        assert [client.get(link).status_code for link in links(client.get(client.page))] in ([403], [])
    assert set(index.paths) == {"http://index.example/simple/tinything/"}
    with pytest.raises(Refused):
        Upstream({})._check(Place(Source("http://index.example/simple"), f"http://{host}/{NAME}"), f"http://{host}/{NAME}")


@pytest.mark.parametrize("address", ["http://a\\b/", "http://x@443é/", "http://a:0x1/"])
def test_what_no_client_can_ask_for_is_refused(index, way, address):
    proxy, client = way
    index.answers[f"/files/{NAME}"] = Answer(status=302, headers={"Location": address + NAME})
    assert client.get(wheel_link(client)).status_code == 403
    assert "refused" in str(proxy.notes)


@pytest.mark.parametrize("address", ["socks5://127.0.0.1:9", "nonsense://x"])
def test_a_proxy_that_cannot_be_used(address):
    with pytest.raises(OperatorError, match="proxy"), serving({"ALL_PROXY": address}):
        pass


def test_certificates_that_cannot_be_read(tmp_path):
    (tmp_path / "bad.pem").write_text("nonsense")
    for file in ("bad.pem", "missing.pem"):
        with pytest.raises(OperatorError, match="certificates"), serving({"SSL_CERT_FILE": str(tmp_path / file)}):
            pass


def test_local_indexes_and_folders(tmp_path, index):
    page = tmp_path / "simple/tinything/index.html"
    page.parent.mkdir(parents=True)
    (tmp_path / "passwd").write_text("planted")
    (tmp_path / "link.whl").symlink_to(tmp_path / "passwd")
    page.write_text(
        f'<a href="../../{NAME}">x</a><a href="../../passwd">x</a><a href="../../link.whl">x</a><a href="{index.root}/{NAME}">x</a>'
    )
    with serving({"UV_DEFAULT_INDEX": (tmp_path / "simple").as_uri()}) as (_, client):
        found = links(client.get(client.page))
        assert [client.get(link).status_code for link in found] == [200, 404, 403]
        assert client.get(found[0], headers={"Range": "bytes=0-1"}).content == b"PK"
        assert client.get(client.page.replace("tinything", "other")).status_code == 404
    with serving({"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(tmp_path)}) as (_, client):
        found = links(client.get(client.page.removesuffix("tinything/")))
        assert [link.rpartition("/")[2] for link in found] == ["link.whl", NAME]
        assert [client.get(link).status_code for link in found] == [404, 200]
    assert index.requests == []


def test_a_page_of_the_network_names_no_file_of_this_machine(index, way, tmp_path):
    _, client = way
    index.html((tmp_path / NAME).as_uri())
    assert client.get(wheel_link(client)).status_code == 403


def test_reads_the_machines_settings(tmp_path):
    config = tmp_path / ".config/uv"
    config.mkdir(parents=True)
    (config / "uv.toml").write_text(
        'index-strategy = "unsafe-best-match"\n[[index]]\nname = "in-file"\nurl = "https://file.example/simple/"\n'
        '[[index]]\nname = "flat"\nurl = "https://d.example/simple"\ndefault = true\n'
    )
    (tmp_path / ".netrc").write_text(f"machine extra.example login n password {SECRET}\n")
    environ = CLEAN | {
        "HOME": str(tmp_path),
        "UV_INDEX": "corp=https://corp.example/simple https://extra.example/simple https://u:p%40q@own.example/s",
        "UV_INDEX_CORP_USERNAME": "c",
        "UV_INDEX_CORP_PASSWORD": SECRET,
        "UV_INDEX_IN_FILE_PASSWORD": SECRET,
        "UV_FIND_LINKS": "https://links.example/page.html,/usr",
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    found = read_sources(environ)
    assert [(s.url, s.login) for s in found.indexes] == [
        ("https://corp.example/simple", ("c", SECRET)),
        ("https://extra.example/simple", ("n", SECRET)),
        ("https://own.example/s", ("u", "p@q")),
        ("https://file.example/simple/", ("", SECRET)),
        ("https://d.example/simple", None),
    ]
    assert [(s.url, s.flat) for s in found.links] == [("https://links.example/page.html", True), ("file:///usr", True)]
    told = found.uv_environment("http://proxy", 30)
    assert told["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert len(told["UV_INDEX"].split()) == 4
    assert SECRET not in str(told) + repr(found)
    assert "example" not in str(told)


def test_an_offline_machine_and_one_without_an_index():
    assert read_sources(CLEAN | {"UV_NO_INDEX": "1"}).uv_environment("http://proxy", 30)["UV_NO_INDEX"] == "1"
    assert read_sources(CLEAN).indexes[0].url.startswith("https://")
    assert read_sources(CLEAN | {"UV_OFFLINE": "1"}).indexes == ()


def test_settings_that_uv_refuses():
    with pytest.raises(OperatorError) as raised:
        read_sources(CLEAN | {"UV_DEFAULT_INDEX": f"http://someone:{SECRET}@"})
    assert SECRET not in str(raised.value)


# --- a client that wants all of the machine -----------------------------------------------------------


def test_connections_without_number_are_closed_and_the_others_answered(index, way, caplog):
    proxy, client = way
    index.html(f"/files/{NAME}")
    place = (client.base_url.host, client.base_url.port)
    held = []
    try:
        while len(held) < 450:
            held.append(socket.create_connection(place, timeout=20))
        # A burst is taken whole.
        wait_until(lambda: sum(map(is_closed, held)) >= 450 - (256 + 100))
        assert len([r for r in caplog.records if "connections to its proxy" in r.getMessage()]) == 1
        assert "connections" in proxy.notes["the proxy"]
    finally:
        for connection in held:
            connection.close()
    wait_until(lambda: answers(client))


def is_closed(connection):
    """Whether the other side ended it; one that it keeps says nothing."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def answers(client):
    try:
        return client.get(client.page).status_code == 200
    except httpx.HTTPError:
        return False


def wait_until(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_pages_count_too(index, way):
    proxy, client = way
    index.html(f"/files/{NAME}")
    proxy._wire._left = 100
    assert client.get(client.page).status_code == 403
    assert "more was fetched than an install may fetch" in str(proxy.notes)
