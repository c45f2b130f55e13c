"""A model that says what a test wants, over real HTTP: the Messages API with tools, streaming, errors, usage and the prompt cache."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

__all__ = ["Failure", "Hang", "Script", "ScriptedClaude", "Turn", "say", "use"]

_BYTES_PER_TOKEN = 4
_LOOKBACK = 20
"""Blocks before a mark in which the API looks for what it has cached; from its documentation of prompt caching."""
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


@dataclass(frozen=True)
class Turn:
    """One answer. `stop_reason` "" stands for what the content implies: `tool_use` where a tool is called, else `end_turn`."""

    content: tuple[Mapping[str, Any], ...]
    stop_reason: str = ""

    def __add__(self, other: Turn) -> Turn:
        return Turn(self.content + other.content, other.stop_reason or self.stop_reason)


@dataclass(frozen=True)
class Failure:
    """An answer with an error status. `retry_after_s` goes out as a header where it is not None; a `final` one tells the client not
    to ask again."""

    status: int
    message: str = "scripted failure"
    retry_after_s: float | None = None
    final: bool = False


@dataclass(frozen=True)
class Hang:
    """No answer for that long, then a closed connection."""

    seconds: float = 0.0


Answer = Turn | Failure | Hang
Script = Sequence[Answer] | Callable[[Mapping[str, Any]], Answer]
"""Answers in the order of the requests, or a function of the request's JSON (for agents that ask side by side)."""


def say(text: str, *, stop_reason: str = "") -> Turn:
    """An answer of text alone."""
    return Turn(({"type": "text", "text": text},), stop_reason)


def use(tool: str, /, **arguments: Any) -> Turn:
    """An answer that calls a tool. Turns add up with `+`, for text before a call and for several calls."""
    return Turn(({"type": "tool_use", "name": tool, "input": arguments},))


@dataclass
class ScriptedClaude:
    """Serves on a free port of 127.0.0.1 within its `with`.

        with ScriptedClaude([use("read", path="app.py"), say("It is fine.")]) as claude:
            client = anthropic.Anthropic(base_url=claude.url, api_key="test")

    `requests` holds every request's JSON in the order of arrival, failed ones too. A request that the script has no answer for gets
    status 500 and `error` says so, so that a test can assert that it is "". Messages and texts that are empty are refused, as the API
    does. Token counts are bytes / 4: good for comparing, not for
    prices. What stands before a `cache_control` mark counts as written to the cache the first time and as read afterwards.
    """

    script: Script
    requests: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._told = 0
        self._cache: set[str] = set()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._end = threading.Event()

    @property
    def url(self) -> str:
        """The base URL for clients."""
        if self._server is None:
            raise RuntimeError("ScriptedClaude serves only within its `with`")
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def left(self) -> int:
        """How many answers of the script were not asked for; 0 where the script is a function."""
        return 0 if callable(self.script) else max(0, len(self.script) - self._told)

    def __enter__(self) -> Self:
        self._server = _Server(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="scripted model", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def answer(self, request: dict[str, Any]) -> Answer:
        """The script's next word on a request."""
        with self._lock:
            self.requests.append(request)
            if callable(self.script):
                return self.script(request)
            self._told += 1
            if self._told <= len(self.script):
                return self.script[self._told - 1]
            self.error = self.error or f"request {self._told} has no answer: the script has {len(self.script)}"
        return Failure(500, self.error, final=True)

    def message(self, request: Mapping[str, Any], turn: Turn) -> dict[str, Any]:
        """A turn as the API's JSON."""
        with self._lock:
            number = len(self.requests)
            usage = self._usage(request, turn)
        content = [{"id": f"toolu_{number}_{i}", **b} if b["type"] == "tool_use" else dict(b) for i, b in enumerate(turn.content)]
        calls = any(b["type"] == "tool_use" for b in content)
        return {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "model": request.get("model", ""),
            "content": content,
            "stop_reason": turn.stop_reason or ("tool_use" if calls else "end_turn"),
            "stop_sequence": None,
            "usage": usage,
        }

    def wait(self, seconds: float) -> None:
        """Sleep, but not beyond the server's end."""
        self._end.wait(seconds)

    def _usage(self, request: Mapping[str, Any], turn: Turn) -> dict[str, int]:
        parts = list(_parts(request))
        read = written = prefix = 0
        seen = hashlib.sha256()
        ends: list[tuple[str, int]] = []
        new: list[str] = []
        for text, marked in parts:
            prefix += len(text)
            seen.update(text)
            ends.append((seen.hexdigest(), prefix))
            if marked:
                # As the API does: what was cached up to here, or up to one of the blocks shortly before, is read.
                read = max([read, *(size for end, size in ends[-_LOOKBACK:] if end in self._cache)])
                new.append(ends[-1][0])
                written = prefix - read
        self._cache.update(new)
        whole = sum(len(text) for text, _ in parts)
        output = len(json.dumps(turn.content))
        return {
            "input_tokens": _tokens(whole - read - written),
            "cache_read_input_tokens": _tokens(read),
            "cache_creation_input_tokens": _tokens(written),
            "output_tokens": _tokens(output),
        }


def _tokens(size: int) -> int:
    return -(-size // _BYTES_PER_TOKEN)


def _parts(request: Mapping[str, Any]) -> Iterator[tuple[bytes, bool]]:
    """The prompt in the cache's order (tools, system, messages): each block's bytes, and whether the cache may end after it."""
    system = request.get("system") or []
    blocks = [*(request.get("tools") or []), *([{"type": "text", "text": system}] if isinstance(system, str) else system)]
    for message in request.get("messages") or []:
        content = message["content"]
        blocks += [{"type": "text", "text": content}] if isinstance(content, str) else content
    for block in blocks:
        plain = {k: v for k, v in block.items() if k != "cache_control"}
        yield json.dumps(plain, sort_keys=True).encode(), "cache_control" in block


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, claude: ScriptedClaude) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.claude = claude


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        claude: ScriptedClaude = self.server.claude  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.split("?")[0] != "/v1/messages":
            self._json(404, _error(404, f"no such path: {self.path}"))
            return
        request = json.loads(body)
        if fault := _fault(request):
            self._json(400, _error(400, fault))
            return
        answer = claude.answer(request)
        if isinstance(answer, Hang):
            claude.wait(answer.seconds)
            self.close_connection = True
        elif isinstance(answer, Failure):
            after = {} if answer.retry_after_s is None else {"retry-after": f"{answer.retry_after_s:g}"}
            self._json(
                answer.status, _error(answer.status, answer.message), {**after, **({"x-should-retry": "false"} if answer.final else {})}
            )
        elif request.get("stream"):
            self._stream(claude.message(request, answer))
        else:
            self._json(200, claude.message(request, answer))

    def _json(self, status: int, data: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, message: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in _events(message):
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Nothing: a test's output is the test's own."""


def _fault(request: Mapping[str, Any]) -> str:
    """What the API does not take of a conversation, in its words; "" where it takes it."""
    messages = request.get("messages") or []
    system = request.get("system") or []
    texts = [] if isinstance(system, str) else list(system)
    for index, message in enumerate(messages):
        if not message["content"] and (index < len(messages) - 1 or message["role"] != "assistant"):
            return f"messages.{index}: all messages must have non-empty content except for the optional final assistant message"
        texts += [] if isinstance(message["content"], str) else message["content"]
    if any(block.get("type") == "text" and not block["text"].strip() for block in texts):
        return "messages: text content blocks must contain non-whitespace text"
    return ""


def _error(status: int, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": _KINDS.get(status, "api_error"), "message": message}}


def _events(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The message as the API streams it."""
    usage = message["usage"]
    yield {"type": "message_start", "message": {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}}
    for index, block in enumerate(message["content"]):
        if block["type"] == "tool_use":
            start, delta = {**block, "input": {}}, {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        else:
            start, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
        yield {"type": "content_block_start", "index": index, "content_block": start}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    stop = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": stop, "usage": {"output_tokens": usage["output_tokens"]}}
    yield {"type": "message_stop"}
