"""Sends requests over keep-alive connections, and slow streams beside them; says as JSON what became of them.

It sends REQUESTS at least and goes on until its standard input ends, so that what the caller does meanwhile happens
under load however fast the machine is.

python load_client.py PORT REQUESTS CONNECTIONS STREAMS
"""

from __future__ import annotations

import asyncio
import json
import sys
import time


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """One whole answer; anything that is not one raises."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    if fields.get(b"connection") == b"close":
        raise ConnectionError("the switch closed a kept connection")
    if b"content-length" in fields:
        return status, await reader.readexactly(int(fields[b"content-length"]))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return status, body


class Left:
    """What is still to be sent: a number of requests, and whatever fits in until the caller has enough."""

    def __init__(self, requests: int) -> None:
        self.requests = requests
        self.enough = False
        self.failed: list[str] = []

    def more(self) -> bool:
        return self.requests > 0 or not (self.enough or self.failed)

    async def until_enough(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        self.enough = True


async def connection(port: int, left: Left, seen: dict[str, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while left.more():
            left.requests -= 1
            writer.write(b"GET / HTTP/1.1\r\nHost: greeter\r\n\r\n")
            status, body = await asyncio.wait_for(answer(reader), 30)
            if status == 200 and body:
                seen[body.decode()] = seen.get(body.decode(), 0) + 1
            else:
                left.failed.append(f"{status} {body[:100]!r}")
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is a failed request
        left.failed.append(f"{type(error).__name__}: {error}")
    finally:
        writer.close()


async def stream(port: int, left: Left, whole: list[int]) -> None:
    while left.more():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"GET /slow=20 HTTP/1.1\r\nHost: greeter\r\n\r\n")
            status, body = await asyncio.wait_for(answer(reader), 30)
            if status == 200 and len(body) == 100 and body == body[:5] * 20:
                whole[0] += 1
            else:
                left.failed.append(f"stream {status} {body[:100]!r}")
        except Exception as error:  # noqa: BLE001
            left.failed.append(f"stream {type(error).__name__}: {error}")
        finally:
            writer.close()


async def main(port: int, requests: int, connections: int, streams: int) -> None:
    left, whole, seen = Left(requests), [0], {}
    began = time.monotonic()
    await asyncio.gather(
        left.until_enough(),
        *(connection(port, left, seen) for _ in range(connections)),
        *(stream(port, left, whole) for _ in range(streams)),
    )
    took = time.monotonic() - began
    said = {"seen": seen, "streams": whole[0], "failed": left.failed[:20], "seconds": took, "per_second": sum(seen.values()) / took}
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
