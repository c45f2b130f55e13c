"""Secrets out of what is sent to a model and of what is written down."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

__all__ = ["MASKED", "Mask"]

# What looks like a credential by its issuer's own prefix, and private keys. High entropy alone is no sign: commits and hashes have it too.
_LOOKS = re.compile(
    r"sk-ant-[A-Za-z0-9_-]{20,}|sk-[A-Za-z0-9]{32,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{35}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----",
    re.DOTALL,
)
_LEAST = 6
MASKED = "[secret]"


class Mask:
    """Replaces known secrets, and what looks like one, by `[secret]`; known ones also as a URL or base64 writes them alone, not
    as a part of something longer that is encoded. Shorter known ones than 6 characters stay."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        found = sorted(
            {
                form
                for value in known
                for line in (value, *value.splitlines())
                if len(line.strip()) >= _LEAST
                for form in (line, quote(line, safe=""), base64.b64encode(line.encode("utf-8", "replace")).decode().rstrip("="))
            },
            key=len,
            reverse=True,
        )
        self._known = re.compile("|".join(re.escape(v) for v in found)) if found else None

    def text(self, text: str) -> str:
        """The text without secrets."""
        return _LOOKS.sub(MASKED, self._known.sub(MASKED, text) if self._known else text)

    def data(self, value: Any) -> Any:
        """The same for every text in JSON-like data, names of keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(k)): self.data(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.data(v) for v in value]
        return value
