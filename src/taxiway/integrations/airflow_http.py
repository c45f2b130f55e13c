"""Airflow's REST API as plain requests: login, retries of what only reads, and every failure as a TaxiwayError."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from taxiway.errors import InputError, OperatorError, TaxiwayError, TransientError

__all__ = ["Credentials", "NotThere", "Wire"]

_PAUSES_S = (0.2, 0.5, 1.0, 2.0)
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
# 500 is among them: SQLite answers so while it is locked.
_AGAIN = {500, 502, 503, 504}
_SHOWN = 500


class NotThere(TaxiwayError):
    """The API answers, and does not know the thing that was asked for."""


@dataclass(frozen=True)
class Credentials:
    """A token, or a name and a password to get one with."""

    token: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)


class Wire:
    """Sends requests to one Airflow. Use as a context manager, from one thread."""

    def __init__(self, url: str, credentials: Credentials, *, pause: Callable[[float], object] | None = None) -> None:
        self.url = _checked(url)
        self._credentials = credentials
        self._pause = pause or threading.Event().wait
        self._token = _checked_token(credentials.token)
        # A proxy named in the environment cannot reach this machine's loopback.
        trust = not _loopback(self.url)
        self._client = httpx.Client(timeout=_TIMEOUT, trust_env=trust, follow_redirects=False, verify=_certificates(self.url))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Read; tried again where another try may help."""
        for pause_s in _PAUSES_S:
            try:
                return self._ask("GET", path, query=query)
            except TransientError:
                self._pause(pause_s)
        return self._ask("GET", path, query=query)

    def need_credentials(self) -> None:
        """Raise OperatorError where there is nothing to log in with."""
        own = self._credentials
        if not (self._token or (own.username and own.password)):
            raise OperatorError(f"no credentials for {self.url}", hint=_CREDENTIALS)

    def greet(self) -> Any:
        """What `/version` says to anybody, without a login."""
        for pause_s in _PAUSES_S:
            try:
                return self._greet()
            except TransientError:
                self._pause(pause_s)
        return self._greet()

    def _greet(self) -> Any:
        answer = self._request("GET", "/api/v2/version", None, None)
        if not answer.is_success:
            raise self._refusal("GET", "/version", answer)
        return self._json(answer)

    def send(self, method: str, path: str, body: Mapping[str, Any], query: Mapping[str, Any] | None = None) -> Any:
        """Change something, once."""
        return self._ask(method, path, body=body, query=query)

    def _ask(self, method: str, path: str, *, body: Mapping[str, Any] | None = None, query: Mapping[str, Any] | None = None) -> Any:
        if not self._token:
            self._login()
        answer = self._request(method, f"/api/v2{path}", body, query)
        if answer.status_code == httpx.codes.UNAUTHORIZED and self._credentials.password:
            self._login()  # the token expired; nothing was done with it
            answer = self._request(method, f"/api/v2{path}", body, query)
        if not answer.is_success:
            raise self._refusal(method, path, answer)
        return self._json(answer)

    def _login(self) -> None:
        self.need_credentials()
        own = self._credentials
        answer = self._request("POST", "/auth/token", {"username": own.username, "password": own.password}, None)
        if answer.status_code in _AGAIN:
            raise self._refusal("POST", "/auth/token", answer)
        if not answer.is_success:
            raise OperatorError(f"{self.url} refuses the login of {own.username!r} ({answer.status_code})", hint=_CREDENTIALS)
        data = self._json(answer)
        token = data.get("access_token") if isinstance(data, dict) else None
        if not isinstance(token, str) or not token:
            raise OperatorError(f"{self.url} gave no token for {own.username!r}", hint=_ADDRESS)
        self._token = token

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, Any] | None) -> httpx.Response:
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {self._token}"} if self._token else {})
        try:
            answer = self._client.request(method, f"{self.url}{path}", json=body, params=query, headers=headers)
        except (httpx.TransportError, httpx.DecodingError) as error:
            text = str(error) or type(error).__name__
            if _insecure(error):
                raise OperatorError(f"no secure connection to {self.url}: {text}", hint=_SECURE) from error
            raise TransientError(f"no answer from Airflow at {self.url}: {text}", hint=_ADDRESS) from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError) as error:
            raise OperatorError(f"cannot ask Airflow at {self.url}: {error}", hint=_ADDRESS) from error
        if answer.is_redirect:
            # Never followed: the token would go along.
            place = answer.headers.get("Location", "").partition("?")[0][:_SHOWN]
            hint = "give the address that it leads to, if that is the Airflow (http or https, the path before /api/v2)"
            raise OperatorError(
                f"{self.url} answers {method} {path} with {answer.status_code}: it leads to {place or 'nowhere'}", hint=hint
            )
        return answer

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json() if answer.content else None
        except ValueError as error:
            raise OperatorError(f"{answer.request.url} answers with something that is no JSON", hint=_ADDRESS) from error

    def _refusal(self, method: str, path: str, answer: httpx.Response) -> TaxiwayError:
        status, said = answer.status_code, _detail(answer)
        problem = f"Airflow answers {method} {path} with {status}: {said}"
        if status in _AGAIN or status == httpx.codes.TOO_MANY_REQUESTS:
            return TransientError(problem, hint="try again; if it stays, read the API server's log")
        if status == httpx.codes.UNAUTHORIZED:
            return OperatorError(f"{self.url} does not accept the token", hint=_EXPIRED if self._credentials.token else _CREDENTIALS)
        if status == httpx.codes.FORBIDDEN:
            return OperatorError(problem, hint="give the user of these credentials the rights to read, trigger and edit DAG runs")
        if status == httpx.codes.NOT_FOUND:
            return NotThere(problem, hint=_ADDRESS)
        if status in (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY) and method != "GET":
            return InputError(f"Airflow refuses it: {said}", hint="compare the params with what the pipeline declares")
        return OperatorError(problem, hint=_ADDRESS)


_ADDRESS = "check that this is the address of an Airflow 3 (without /api/v2) and that it runs"
_SECURE = "name the certificate authority in SSL_CERT_FILE, or check the address: http or https, and the port"
_EXPIRED = "it expired, or belongs to another Airflow: get a new one (POST /auth/token), or set a username and a password instead"
_CREDENTIALS = "set TAXIWAY_AIRFLOW_TOKEN, or TAXIWAY_AIRFLOW_USERNAME and TAXIWAY_AIRFLOW_PASSWORD"


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        named = parts.port is None or parts.port > 0
    except ValueError:
        named, parts = False, urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or not named or parts.query or parts.fragment:
        raise OperatorError("this is no address of an Airflow", hint="write it like http://127.0.0.1:8080 or https://airflow.example.com")
    if parts.username or parts.password:
        raise OperatorError("the address holds credentials, which would show up in logs", hint=_CREDENTIALS)
    return url.rstrip("/").removesuffix("/api/v2").rstrip("/")


def _checked_token(token: str) -> str:
    found = token.strip()
    # A header cannot hold it, and the error about that would show it.
    if not found.isascii() or not found.isprintable() or " " in found:
        raise OperatorError("this is no token: it holds spaces or characters that no header can carry", hint=_CREDENTIALS)
    return found


def _certificates(url: str) -> ssl.SSLContext | bool:
    """Those of this machine, or of SSL_CERT_FILE. Reading them takes 0.2 s, and plain HTTP, which cannot be redirected here, needs none."""
    if not url.startswith("https:"):
        return False
    try:
        return httpx.create_ssl_context()
    except (OSError, ValueError) as error:
        raise OperatorError(f"the certificates that SSL_CERT_FILE names cannot be read: {error}", hint="mend the variable") from error


def _insecure(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _detail(answer: httpx.Response) -> str:
    """What Airflow says is wrong: `detail` is a text, an object, or a list of validation errors."""
    try:
        data = answer.json()
    except ValueError:
        return answer.reason_phrase or "no reason given"
    detail = data.get("detail", data) if isinstance(data, dict) else data
    if isinstance(detail, list):
        detail = "; ".join(f"{'.'.join(map(str, d.get('loc', ())))}: {d.get('msg', d)}" if isinstance(d, dict) else str(d) for d in detail)
    elif isinstance(detail, dict):
        detail = detail.get("reason") or detail.get("message") or detail
    return str(detail)[:_SHOWN]
