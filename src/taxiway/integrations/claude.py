"""Anthropic's models, and any server that speaks the Messages API, through the `anthropic` SDK."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxiway.errors import ModelCutOff, ModelError, ModelUnavailable, OperatorError, TaxiwayError
from taxiway.integrations.cassettes import RecordingModel, ReplayedModel
from taxiway.ports import Model, Reply, Usage

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

    def open(self, name: str, *, fallback: str, effort: str) -> Model | None:
        """See `ports.Models`."""
        if self._replay:
            return ReplayedModel(name, Path(self._replay))
        if self._client is None:
            return None
        model = ClaudeModel(self._client, name, fallback=fallback, effort=effort)
        return RecordingModel(model, Path(self._record)) if self._record else model


class ClaudeModel:
    """Implements `ports.Model`. The SDK itself retries what may pass (429, 529, 5xx, lost connections), waiting as the server says.

    `fallback` is asked where `name` stays unavailable. Sampling parameters are never sent: current models refuse them.
    """

    def __init__(self, client: anthropic.Anthropic, name: str, *, fallback: str = "", effort: str = "", retries: int = _RETRIES) -> None:
        self._client, self._name, self._fallback, self._effort, self._retries = client, name, fallback, effort, retries

    @property
    def name(self) -> str:
        """The model that is asked first."""
        return self._name

    def create(self, request: Mapping[str, Any], *, timeout_s: float) -> Reply:
        """Ask; see `ports.Model`."""
        try:
            return self._ask(self._name, request, timeout_s)
        except ModelUnavailable as error:
            if not self._fallback:
                raise
            log.warning("%s; asking %s instead", error.problem, self._fallback)
            return self._ask(self._fallback, request, timeout_s)

    def _ask(self, name: str, request: Mapping[str, Any], timeout_s: float) -> Reply:
        import anthropic  # noqa: PLC0415

        body = {**request, "model": name}
        if self._effort:
            body["output_config"] = {**body.get("output_config", {}), "effort": self._effort}
        try:
            message = self._client.with_options(max_retries=self._retries, timeout=timeout_s).messages.create(**body)
        except anthropic.AnthropicError as error:
            raise _meaning(error, name) from error
        usage = message.usage
        return Reply(
            content=tuple(_sendable(block.model_dump(mode="json", exclude_none=True)) for block in message.content),
            stop_reason=message.stop_reason or "",
            model=message.model,
            usage=Usage(
                usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
            ),
        )


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
        return ModelUnavailable(f"the answer of {name} cannot be read: {said}", hint="is this a server that speaks the Messages API?")
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
