"""What the switch does with HTTP, against a release that says back what it got."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time

import aiohttp
import httpx
import pytest

# Speaks raw HTTP/1.1, so that a test sees exactly what the switch sent.
APP = """
import asyncio, hashlib, base64, json, sys

async def body_of(reader, head):
    low = head.lower()
    if b"transfer-encoding: chunked" in low:
        body = b""
        while size := int(await reader.readuntil(b"\\r\\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return body
    for line in low.split(b"\\r\\n"):
        if line.startswith(b"content-length:"):
            left, digest = int(line.split(b":")[1]), hashlib.sha256()
            size = left
            while left:
                chunk = await reader.read(min(left, 65536))
                digest.update(chunk); left -= len(chunk)
            return b"%d %s" % (size, digest.hexdigest().encode())
    return b""

gone = 0

async def serve(reader, writer):
    global gone
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            path = head.split(b" ")[1].decode()
            if path == "/early":
                writer.write(b"HTTP/1.1 413 Too Large\\r\\nContent-Length: 3\\r\\nConnection: close\\r\\n\\r\\nbig")
                await writer.drain(); writer.close(); return
            body = await body_of(reader, head)
            if path == "/healthz":
                writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
            elif path == "/204":
                writer.write(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")
            elif path == "/304":
                writer.write(b'HTTP/1.1 304 Not Modified\\r\\nETag: "x"\\r\\n\\r\\n')
            elif path == "/head":
                writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 1234\\r\\n\\r\\n")
            elif path == "/headers":
                writer.write(b"HTTP/1.1 200 Fine\\r\\nSet-Cookie: a=1\\r\\nSet-Cookie: b=2\\r\\nX-Drop: 1\\r\\n"
                             b"Connection: x-drop, keep-alive\\r\\n"
                             b"Keep-Alive: timeout=9\\r\\nContent-Encoding: gzip\\r\\nContent-Length: 4\\r\\n\\r\\n\\x1f\\x8b\\x00\\x00")
            elif path == "/cut":
                writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 100\\r\\n\\r\\nhalf"); await writer.drain(); writer.close(); return
            elif path == "/cut-chunked":
                writer.write(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n4\\r\\nhalf\\r\\n")
                await writer.drain(); writer.close(); return
            elif path == "/garbage":
                writer.write(b"what?\\r\\n\\r\\n"); await writer.drain(); writer.close(); return
            elif path == "/nothing":
                writer.close(); return
            elif path == "/until-close":
                writer.write(b"HTTP/1.0 200 OK\\r\\n\\r\\nall of it"); await writer.drain(); writer.close(); return
            elif path == "/endless":
                writer.write(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
                try:
                    while True:
                        writer.write(b"4\\r\\ntick\\r\\n"); await writer.drain(); await asyncio.sleep(0.02)
                finally:
                    gone += 1
            elif path == "/gone":
                text = str(gone).encode()
                writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(text) + text)
            elif path == "/ws":
                key = [l for l in head.split(b"\\r\\n") if l.lower().startswith(b"sec-websocket-key:")][0].split(b":")[1].strip()
                accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                writer.write(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\n")
                writer.write(b"Connection: Upgrade\\r\\nSec-WebSocket-Accept: " + accept + b"\\r\\n\\r\\n")
                while True:
                    first, second = await reader.readexactly(2)
                    mask = await reader.readexactly(4)
                    data = bytes(c ^ mask[i % 4] for i, c in enumerate(await reader.readexactly(second & 127)))
                    writer.write(bytes([first, len(data)]) + data)
                    if first & 15 == 8:
                        await writer.drain(); writer.close(); return
            else:
                text = json.dumps({"head": head.decode("latin-1"), "body": body.decode("latin-1")}).encode()
                writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(text) + text)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        writer.close()

async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[2])) as server:
        await server.serve_forever()
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    from conftest_local import Local  # noqa: PLC0415 - beside this file, on the path since conftest.py

    from taxiway.home import Home  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("switch")
    made = Local(Home(folder / "home"), folder, isolate=False)
    try:
        yield int(made.deploy("aaa", app=APP).url.rpartition(":")[2])
    finally:
        made.close()


@pytest.fixture
def client(port):
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as made:
        yield made


def raw(port: int, *pieces: bytes, until_closed: bool = True) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.05)
        got = b""
        while chunk := connection.recv(65536):
            got += chunk
            if not until_closed and got.endswith(b"\r\n\r\n"):
                break
        return got


def test_the_request_arrives_as_it_was(client):
    answer = client.request(
        "PATCH",
        "/a%2Fb//c;x?q=%20&q=2&e=",
        content=b"hello",
        headers={"X-One": "1", "Connection": "x-gone", "X-Gone": "1", "TE": "trailers"},
    )
    got = answer.json()
    first, *fields = got["head"].strip().split("\r\n")
    names = {line.partition(":")[0].lower(): line.partition(": ")[2] for line in fields}
    assert first == "PATCH /a%2Fb//c;x?q=%20&q=2&e= HTTP/1.1"
    assert got["body"].startswith("5 ")
    assert names["x-one"] == "1"
    assert names["host"] == client.base_url.netloc.decode()
    assert not {"x-gone", "te", "expect", "keep-alive", "transfer-encoding"} & set(names)


def test_the_release_learns_who_asked_from_the_switch_alone(client):
    lies = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Host": "evil", "X-Forwarded-Proto": "https", "Forwarded": "for=6.6.6.6"}
    head = client.get("/", headers=lies).json()["head"].lower()
    assert "6.6.6.6" not in head
    assert "evil" not in head
    assert "x-forwarded-for: 127.0.0.1" in head
    assert "x-forwarded-proto: http\r\n" in head
    assert f"x-forwarded-host: {client.base_url.netloc.decode()}" in head


def test_the_answer_arrives_as_it_was(port):
    got = raw(port, b"GET /headers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 Fine\r\n")
    assert head.count(b"Set-Cookie: ") == 2
    assert body == b"\x1f\x8b\x00\x00"
    for name in (b"X-Drop", b"Keep-Alive", b"Content-Type", b"Server:"):
        assert name not in head


@pytest.mark.parametrize(("path", "status"), [("/204", 204), ("/304", 304)])
def test_an_answer_without_a_body_keeps_the_connection(client, path, status):
    for _ in range(3):
        answer = client.get(path)
        assert (answer.status_code, answer.content) == (status, b"")
        assert "transfer-encoding" not in answer.headers
    assert client.get("/").status_code == 200


def test_head_keeps_the_length_and_the_connection(client):
    for _ in range(3):
        answer = client.head("/head")
        assert (answer.headers["content-length"], answer.content) == ("1234", b"")
    assert client.get("/").status_code == 200


def test_an_answer_that_ends_with_its_connection(client):
    assert client.get("/until-close").text == "all of it"
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("path", ["/cut", "/cut-chunked"])
def test_an_answer_that_is_not_whole_does_not_look_whole(client, path):
    with pytest.raises(httpx.RemoteProtocolError if path == "/cut-chunked" else httpx.HTTPError):
        client.get(path)


@pytest.mark.parametrize("path", ["/garbage", "/nothing"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_http_answer_is_a_bad_gateway(client, path, method):
    assert client.request(method, path).status_code == 502
    assert client.get("/").status_code == 200


def test_a_big_upload_streams_through(client):
    size = 64 * 1024 * 1024
    got = client.put("/upload", content=(b"x" * 1_048_576 for _ in range(64)), headers={"Content-Length": str(size)}).json()
    assert got["body"].startswith(f"{size} ")


def test_a_chunked_upload_streams_through(client):
    got = client.post("/upload", content=(b"part" for _ in range(100))).json()
    assert got["body"] == "part" * 100


def test_expect_100_continue_is_answered_before_the_body(port):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        got = b""
        while chunk := connection.recv(65536):
            got += chunk
    assert got.startswith(b"HTTP/1.1 200")
    assert json.loads(got.partition(b"\r\n\r\n")[2])["body"].startswith("5 ")


def test_an_answer_before_the_end_of_the_upload(client):
    answer = client.post("/early", content=b"x" * 1000)
    assert (answer.status_code, answer.text) == (413, "big")


def test_http_1_0_clients_get_a_plain_answer(port):
    got = raw(port, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert got.startswith(b"HTTP/1.0 200 OK")
    assert got.endswith(b"\r\n\r\nok")
    assert b"chunked" not in got.lower()


def test_pipelined_requests_are_answered_in_order(port):
    one = b"GET /%s HTTP/1.1\r\nHost: x\r\n%s\r\n"
    got = raw(port, one % (b"healthz", b"") + one % (b"204", b"") + one % (b"healthz", b"Connection: close\r\n"))
    at = [got.index(b"200 OK"), got.index(b"204 No Content"), got.rindex(b"200 OK")]
    assert at == sorted(set(at))
    assert got.count(b"HTTP/1.1 ") == 3


SMUGGLED = [
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n",
    b"GET http://other/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT other:1 HTTP/1.1\r\nHost: other:1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
]


@pytest.mark.parametrize("request_", SMUGGLED, ids=lambda r: repr(r[:60]))
def test_a_request_with_two_meanings_never_reaches_the_release(port, request_):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request_)
        assert connection.recv(65536).startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))


def test_a_client_that_leaves_ends_its_request_at_the_release(port, client):
    before = int(client.get("/gone").text)
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.recv(100)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    until = time.monotonic() + 60
    while int(client.get("/gone").text) == before:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_stream_arrives_piece_by_piece(client):
    with client.stream("GET", "/endless") as answer:
        assert next(answer.iter_raw()).startswith(b"tick")


def test_web_sockets_pass(port):
    async def talk():
        async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{port}/ws") as there:
            await there.send_str("hello")
            assert (await there.receive()).data == "hello"
            await there.send_bytes(b"\x00\x01")
            assert (await there.receive()).data == b"\x00\x01"
            await there.close(code=1000)
            return there.close_code

    assert asyncio.run(talk()) == 1000
