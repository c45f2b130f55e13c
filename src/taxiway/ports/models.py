"""Language models, in the vocabulary of the Messages API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from taxiway.ports.running import Cancellation

__all__ = ["Model", "Models", "Reply", "Usage"]


@dataclass(frozen=True)
class Usage:
    """Tokens of one call, or of many added up. `input_tokens` are those that were neither read from the cache nor written to it."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )

    @property
    def prompt_tokens(self) -> int:
        """All that the model read."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def tokens(self) -> int:
        """All that the model read and wrote."""
        return self.prompt_tokens + self.output_tokens


@dataclass(frozen=True)
class Reply:
    """One answer: its content blocks and `stop_reason` as in the Messages API, and the model that gave it; `replayed` where it was
    recorded earlier and nobody was asked."""

    content: tuple[Mapping[str, Any], ...]
    stop_reason: str
    model: str
    usage: Usage
    replayed: bool = False

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        return "".join(str(b.get("text", "")) for b in self.content if b.get("type") == "text")


class Model(Protocol):
    """A language model behind the Messages API's vocabulary."""

    @property
    def name(self) -> str:
        """The model's id, as its provider names it."""

    def create(self, request: Mapping[str, Any], *, timeout_s: float) -> Reply:
        """Answer a Messages API request (`system`, `messages`, `tools`, `max_tokens`, ...; the model's id is filled in).

        Raises ModelUnavailable where another try may help or no whole answer came within `timeout_s`, OperatorError for credentials and
        settings, ModelError for a request that the provider does not take; at once what `stop.check` raises where it was opened with one.
        """


class Models(Protocol):
    """The models that this installation can ask."""

    def open(self, name: str, *, fallback: str, effort: str, stop: Cancellation) -> Model | None:
        """The model of that id, whose calls `stop` ends; None where neither a key nor a server is configured."""

    def close(self) -> None:
        """Drop all connections. The models that were opened are of no more use; others may be opened."""

    @property
    def missing(self) -> str:
        """What to configure where `open` gives None, in one line."""
