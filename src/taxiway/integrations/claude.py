"""Anthropic's models, and any server that speaks the Messages API, through the `anthropic` SDK."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxiway.errors import ModelCutOff, ModelError, ModelUnavailable, OperatorError, TaxiwayError
from taxiway.integrations.cassettes import RecordingModel, ReplayedModel
from taxiway.ports import Cancellation, Model, Reply, Usage
from taxiway.waiting import attended

if TYPE_CHECKING:
    import anthropic

__all__ = ["RECORD_VARIABLE", "REPLAY_VARIABLE", "ClaudeModel", "ClaudeModels", "client_from"]

RECORD_VARIABLE = "TAXIWAY_MODEL_RECORD"
"""A folder into which every answer of a model is written."""
REPLAY_VARIABLE = "TAXIWAY_MODEL_REPLAY"
"""A folder of recorded answers: no model is asked then, and no key is needed."""

log = logging.getLogger(__name__)

_KEY = "ANTHROPIC_API_KEY"
_URL = "ANTHROPIC_BASE_URL"
_RETRIES = 4
_MAY_PASS, _BROKEN = (408, 409, 429), 500
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LEAST_S = 0.5, 8.0, 0.001
_MOST_TOKENS = 1_000_000_000
_SHOWN = 300


def client_from(environ: Mapping[str, str]) -> anthropic.Anthropic | None:
    """A client for `ANTHROPIC_API_KEY` and `ANTHROPIC_BASE_URL`; None where neither is set.

    A server of one's own (Ollama, vLLM, llama.cpp) often wants no key: the base URL is then enough.
    """
    import anthropic  # noqa: PLC0415 - takes a second to import, and most stages ask no model

    key, url = environ.get(_KEY, "").strip(), environ.get(_URL, "").strip()
    if not key and not url:
        return None
    return anthropic.Anthropic(api_key=key or "none", base_url=url or None)


class ClaudeModels:
    """Implements `ports.Models`. `connect` makes the client, once, when the first model is opened; None where nothing is configured.

    `environ` may name a folder to record answers into, or one to replay them from. `named` says that a connection is.
    """

    def __init__(
        self, connect: Callable[[], anthropic.Anthropic | None], *, missing: str, environ: Mapping[str, str], named: bool = False
    ) -> None:
        self._connect, self._missing = connect, missing
        self._named = named or any(environ.get(name, "").strip() for name in (_KEY, _URL))
        self._record, self._replay = environ.get(RECORD_VARIABLE, ""), environ.get(REPLAY_VARIABLE, "")

    @property
    def configured(self) -> bool:
        """Whether a model may be asked here, as far as the settings say; nothing is connected for the answer."""
        return self._named or bool(self._replay)

    @cached_property
    def _client(self) -> anthropic.Anthropic | None:
        return self._connect()

    @property
    def missing(self) -> str:
        """What to configure where there is no model."""
        return self._missing

    def close(self) -> None:
        """See `ports.Models`."""
        if client := self.__dict__.pop("_client", None):
            client.close()

    def open(self, name: str, *, fallback: str, effort: str, stop: Cancellation) -> Model | None:
        """See `ports.Models`."""
        if self._replay:
            return ReplayedModel(name, Path(self._replay))
        if self._client is None:
            return None
        model = ClaudeModel(self._client, name, fallback=fallback, effort=effort, stop=stop)
        return RecordingModel(model, Path(self._record)) if self._record else model


class ClaudeModel:
    """Implements `ports.Model`. What may pass (429, 529, 5xx, lost connections) is asked again, waiting as the server says, within the
    time of the call.

    `fallback` is asked where `name` stays unavailable and time is left. `stop` ends a call at once, None where nothing does. Sampling
    parameters are never sent: current models refuse them.
    """

    def __init__(
        self,
        client: anthropic.Anthropic,
        name: str,
        *,
        fallback: str = "",
        effort: str = "",
        retries: int = _RETRIES,
        stop: Cancellation | None = None,
    ) -> None:
        self._client, self._name, self._fallback, self._effort, self._retries = client, name, fallback, effort, retries
        self._stop = stop

    @property
    def name(self) -> str:
        """The model that is asked first."""
        return self._name

    def create(self, request: Mapping[str, Any], *, timeout_s: float) -> Reply:
        """Ask; see `ports.Model`."""
        ends = time.monotonic() + timeout_s
        try:
            return self._ask(self._name, request, ends)
        except ModelUnavailable as error:
            if not self._fallback or time.monotonic() >= ends:
                raise
            log.warning("%s; asking %s instead", error.problem, self._fallback)
            return self._ask(self._fallback, request, ends)

    def _ask(self, name: str, request: Mapping[str, Any], ends: float) -> Reply:
        import anthropic  # noqa: PLC0415

        body = {**request, "model": name}
        if self._effort:
            body["output_config"] = {**body.get("output_config", {}), "effort": self._effort}
        for tried in range(self._retries + 1):
            left_s = max(_LEAST_S, ends - time.monotonic())
            # The SDK would give each of its own retries all of the time again.
            client = self._client.with_options(max_retries=0, timeout=left_s)
            try:
                # Its timeout is for a silence, and some servers are never silent: they send blanks until they know what to say.
                return _reply(attended(partial(client.messages.create, **body), self._stop, most_s=left_s), name)
            except TimeoutError as error:
                raise ModelUnavailable(f"{name} gave {error}", hint="a later try may succeed") from error
            except anthropic.AnthropicError as error:
                if self._stop is not None:
                    self._stop.check()  # the attempt's time may be over too, and that is what its end is called
                pause = _pause_s(error, tried)
                if pause is None or tried == self._retries or time.monotonic() + pause >= ends:
                    raise _meaning(error, name) from error
            self._pause(pause)
        raise AssertionError("the last try returns or raises")

    def _pause(self, seconds: float) -> None:
        if self._stop is None:
            time.sleep(seconds)
        else:
            self._stop.wait(seconds)


def _pause_s(error: anthropic.AnthropicError, tried: int) -> float | None:
    """How long to wait before asking again, as the server says; None where another try cannot help, or it says so."""
    import anthropic  # noqa: PLC0415

    pause: float = min(_FIRST_PAUSE_S * 2**tried, _LONGEST_PAUSE_S)
    if not isinstance(error, anthropic.APIStatusError):
        return pause if isinstance(error, anthropic.APIConnectionError) else None
    headers = error.response.headers
    if headers.get("x-should-retry") == "false" or not (error.status_code in _MAY_PASS or error.status_code >= _BROKEN):
        return None
    with suppress(ValueError):
        return max(0.0, float(headers.get("retry-after", "")))
    return pause


def _reply(message: anthropic.types.Message, name: str) -> Reply:
    """The answer as ours. Servers of one's own may leave out or make up anything, and the SDK checks nothing of it."""
    try:
        usage = message.usage
        counts = (usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0)
        if not all(type(count) is int and 0 <= count <= _MOST_TOKENS for count in counts):
            raise ValueError("it does not say how many tokens it took")
        content = tuple(_block(block.model_dump(mode="json", exclude_none=True, warnings=False)) for block in message.content)
        return Reply(content, str(message.stop_reason or ""), str(message.model or name), Usage(*counts))
    except (AttributeError, TypeError, ValueError) as error:
        raise _unreadable(name, str(error)) from error


def _block(data: dict[str, Any]) -> dict[str, Any]:
    if data["type"] == "tool_use":
        data.setdefault("input", {})
        if not (isinstance(data.get("id"), str) and isinstance(data.get("name"), str)):
            raise ValueError("a tool is called without its name, or the call has no id")
    return dict(_sendable(data))


def _unreadable(name: str, said: str) -> TaxiwayError:
    return ModelUnavailable(f"the answer of {name} cannot be read: {said}", hint="is this a server that speaks the Messages API?")


def _sendable(value: Any) -> Any:
    """The same without halves of surrogate pairs, which JSON can hold and nothing can send back, store or show."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_sendable(k): _sendable(v) for k, v in value.items()}
    return [_sendable(v) for v in value] if isinstance(value, list) else value


def _meaning(error: anthropic.AnthropicError, name: str) -> TaxiwayError:
    """Who must act."""
    import anthropic  # noqa: PLC0415

    said = _said(error)
    kinds: list[tuple[tuple[type[Exception], ...], Callable[[], TaxiwayError]]] = [
        (
            (anthropic.AuthenticationError, anthropic.PermissionDeniedError),
            lambda: OperatorError(f"the model's provider refused the credentials: {said}", hint="renew the key of the connection"),
        ),
        (
            (anthropic.NotFoundError,),
            lambda: OperatorError(f"the model's provider does not know {name}: {said}", hint="name another model in the policy"),
        ),
        (
            (anthropic.RequestTooLargeError,),
            lambda: ModelCutOff(f"the request is too large for {name}: {said}", hint="give the stage less to read"),
        ),
        (
            (anthropic.APIConnectionError, anthropic.RateLimitError, anthropic.InternalServerError, anthropic.ConflictError),
            lambda: ModelUnavailable(f"{name} is not available: {said}", hint="a later try may succeed"),
        ),
        ((anthropic.BadRequestError,), lambda: _bad(said, name)),
    ]
    for types, make in kinds:
        if isinstance(error, types):
            return make()
    if isinstance(error, anthropic.APIStatusError):
        return OperatorError(f"the model's provider refused the request ({error.status_code}): {said}", hint="see your account there")
    if isinstance(error, anthropic.APIError):
        return _unreadable(name, said)
    return OperatorError(f"the model's client is not set up: {said}", hint=f"set {_KEY}, or the connection that the policy names")


def _bad(said: str, name: str) -> TaxiwayError:
    if "prompt is too long" in said:
        return ModelCutOff(
            f"the conversation is too long for {name}: {said}", hint="give the stage less to read, or a model with more room"
        )
    if "credit balance" in said:
        return OperatorError(f"the model's provider refused the request: {said}", hint="see your account there")
    return ModelError(f"{name} does not take the request: {said}", hint="name another model in the policy, or report it")


def _said(error: Exception) -> str:
    """The provider's own words, on one line; never the request, which holds the prompt."""
    body = getattr(error, "body", None)
    inner = body.get("error") if isinstance(body, dict) else None
    text = inner.get("message") if isinstance(inner, dict) else None
    words = " ".join(str(text or getattr(error, "message", "") or error).split())
    return words[:_SHOWN] or type(error).__name__
