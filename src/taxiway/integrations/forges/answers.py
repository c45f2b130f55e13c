"""What a forge's refusals mean: the error that says who must act."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from taxiway.errors import OperatorError, StageError, TaxiwayError, TransientError

__all__ = ["LIMIT_BODY", "STATUS", "TIMEOUT_S", "TOKEN_HINT", "ask_for_token", "refusal", "unreachable"]

STATUS = "taxiway"
"""The name of the commit status."""
TIMEOUT_S = 20
LIMIT_BODY = 60_000
"""Characters of a text: GitHub takes 65,536."""
TOKEN_HINT = "put a token that may push and open pull requests into the password of the Airflow git connection that the policy names"  # noqa: S105 - no token

_UNAUTHORISED, _FORBIDDEN, _MISSING, _BUSY, _BROKEN = 401, 403, 404, 429, 500
_WORDS = 1000
_LIMITED_S = 60.0
"""What GitHub asks for where it does not say more."""
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?", re.ASCII)


def ask_for_token(forge: str, project: str) -> OperatorError:
    """The error of a forge without a token."""
    return OperatorError(f"there is no token for {project} at {forge}", hint=TOKEN_HINT)


def refusal(forge: str, project: str, status: int, words: str, headers: Mapping[str, str] | None = None) -> TaxiwayError:
    """The error behind an answer that is none of 2xx; `words` are the forge's own."""
    said = " ".join("".join(c if c.isprintable() else " " for c in words).split())[:_WORDS]
    text = f"{forge} answered {status} for {project}: {said or 'no words'}"
    given = {name.lower(): value for name, value in (headers or {}).items()}
    limited = "retry-after" in given or given.get("x-ratelimit-remaining") == "0" or "rate limit" in said.lower()
    if status == _BUSY or status >= _BROKEN or (status == _FORBIDDEN and limited):
        after_s = _after_s(given, otherwise=0.0 if status >= _BROKEN else _LIMITED_S)
        return TransientError(text, hint="the forge is busy or broken; the next try may succeed", after_s=after_s)
    if status == _UNAUTHORISED:
        return OperatorError(text, hint=f"the token is not taken: {TOKEN_HINT}")
    if status == _FORBIDDEN:
        return OperatorError(text, hint=f"the token may not do this: {TOKEN_HINT}")
    if status == _MISSING:
        return OperatorError(text, hint="check the repository's URL, and that the token may see it")
    return StageError(text, hint=f"let the rules of the repository at {forge} allow it, and clear the stage")


def _after_s(headers: Mapping[str, str], *, otherwise: float) -> float:
    """Seconds until a forge wants to be asked again: `Retry-After`, else the time at which its limit is over."""
    after = _number(headers.get("retry-after"))
    if after is not None:
        return after
    over = _number(headers.get("x-ratelimit-reset") or headers.get("ratelimit-reset"))
    if over is not None and headers.get("x-ratelimit-remaining", "0") == "0":
        return max(1.0, over - time.time())
    return otherwise


def _number(text: str | None) -> float | None:
    return float(text) if text and _SECONDS.fullmatch(text.strip()) else None


def unreachable(forge: str, api: str, error: Exception) -> TaxiwayError:
    """The error behind no answer, or one that is not of the forge's API."""
    said = str(error)[:_WORDS]
    if "certificate" in said.lower():
        return OperatorError(f"{forge} at {api}: {said}", hint="add the server's certificate authority (REQUESTS_CA_BUNDLE)")
    if "redirect" in said.lower():
        return OperatorError(f"{forge} at {api}: {said}", hint="write the address where it is now into the policy, as `api`")
    return TransientError(
        f"{forge} at {api} gave no answer: {said}", hint="check the network and, in the policy, `api`; the next try may succeed"
    )
