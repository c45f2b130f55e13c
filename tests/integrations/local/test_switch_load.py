"""No request fails while releases change: the load comes from a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

# The smallest server that closes no connection by itself and serves streams beside: what is measured is the switch.
APP = """
import asyncio, sys
NAME = sys.argv[1].encode()
async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            if b" /slow" in head.split(b"\\r\\n")[0]:
                writer.write(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
                for _ in range(20):
                    writer.write(b"5\\r\\n" + NAME.ljust(5) + b"\\r\\n")
                    await writer.drain()
                    await asyncio.sleep(0.1)
                writer.write(b"0\\r\\n\\r\\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(NAME) + NAME)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        writer.close()
async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[2]), backlog=512) as server:
        await server.serve_forever()
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("requests", "switches"),
    [pytest.param(5_000, 2, id="small"), pytest.param(100_000, 6, id="large", marks=[pytest.mark.load, pytest.mark.timeout(700)])],
)
def test_no_request_fails_during_blue_green_switches(isolated, requests, switches, capsys):
    port = isolated.deploy("aaa", app=APP).url.rpartition(":")[2]
    argv = [sys.executable, str(Path(__file__).with_name("load_client.py")), port, str(requests), "16", "4"]
    made = 0
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
        try:
            # The load lasts until the switches are made, and the switches until the load has sent its number.
            until = time.monotonic() + 600
            while load.poll() is None and time.monotonic() < until:
                if requests > 10_000:
                    time.sleep(1)
                isolated.deploy("ab"[made % 2 == 0] * 3, app=APP, drain_s=10)
                made += 1
                if made == switches:
                    load.stdin.close()
        finally:
            load.kill() if load.poll() is None else None
        said = json.loads(load.stdout.read())
    with capsys.disabled():
        sent = sum(said["seen"].values())
        sys.stdout.write(f"\n{sent} requests, {said['streams']} streams, {made} switches: {said['per_second']:.0f} requests/s\n")
    assert said["failed"] == []
    assert sent >= requests
    assert set(said["seen"]) == {"aaa", "bbb"}
    assert said["streams"] >= 4
    assert made >= switches
