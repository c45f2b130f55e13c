"""Secrets out of what is sent to a model and of what is written down."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any
from urllib.parse import quote, quote_plus

__all__ = ["MASKED", "Mask"]

# What looks like a credential by its issuer's own prefix, and private keys. High entropy alone is no sign: commits and hashes have it too.
_LOOKS = re.compile(
    r"sk-ant-[A-Za-z0-9_-]{20,}|sk-[A-Za-z0-9]{32,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{35}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
    # Also one whose end was cut off, with the numbers that lines are shown with.
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.{0,20000}?-----END [A-Z ]*PRIVATE KEY-----|(?:\s+(?:[0-9]+\s+)?[A-Za-z0-9+/=]{16,})+)",
    re.DOTALL,
)
_LEAST, _LEAST_ENCODED = 6, 8
MASKED = "[secret]"


class Mask:
    """Replaces known secrets, and what looks like one, by `[secret]`; known ones also as URLs, JSON, HTML and base64 write them, the
    last also within something longer (a login, say). Shorter known ones than 6 characters stay."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        found = sorted(
            {form for value in known for line in (value, *value.splitlines()) if len(line.strip()) >= _LEAST for form in _forms(line)},
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


def _forms(secret: str) -> Iterator[str]:
    """The secret as it is and as others write it."""
    plain = secret.encode("utf-8", "replace")
    yield from (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], escape(secret))
    for written in (quote(plain), quote(plain, safe=""), quote_plus(plain)):
        yield from (written, re.sub("%..", lambda found: found[0].lower(), written))
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(plain).decode().rstrip("=")
        # Within something longer it begins at one of three places of four characters; those at its ends are shared with what is around.
        for before in range(3):
            inner = encode(b"\0" * before + plain).decode()[-(-before * 8 // 6) : (before + len(plain)) * 8 // 6]
            if len(inner) >= _LEAST_ENCODED:
                yield inner
