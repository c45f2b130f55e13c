"""What may stand where git expects an address, a branch or a part of a ref: checked before git sees it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from taxiway.errors import InputError

__all__ = ["Remote", "check_branch", "parse_url", "slug"]

Scheme = Literal["https", "http", "ssh", "file"]

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}|[0-9a-fA-F:]{2,45}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_SCP = re.compile(r"(?:(?P<user>[^@:/]*)@)?(?P<host>[^@:/]+):(?P<path>[^:].*)")
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]")
_FORBIDDEN_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_CONNECTION = "make an Airflow git connection that holds the credentials, and leave them out of the URL"
_LONGEST = 2000


@dataclass(frozen=True)
class Remote:
    """A repository elsewhere: its address without credentials, how git reaches it, and the host ("" for a path)."""

    url: str
    scheme: Scheme
    host: str


def parse_url(url: str) -> Remote:
    """The remote behind a URL; raise InputError where it is not one that Taxiway speaks to."""
    if not url or len(url) > _LONGEST or url.startswith("-"):
        raise _refused(url, "it is empty, too long or begins with a dash")
    if _CONTROL.search(url) and not url.startswith("/"):
        raise _refused(url, "it holds blanks or control characters")
    if "://" in url:
        return _parse_standard(url)
    if url.startswith("/"):
        return _local(url)
    if "::" in url:
        raise _refused(url, "remote helpers (`name::address`) run commands")
    if match := _SCP.fullmatch(url):
        return _ssh(url, match["user"], match["host"], match["path"])
    raise _refused(url, "it is neither a URL nor an absolute path")


def _parse_standard(url: str) -> Remote:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused(url, str(error)) from None
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise _refused(url, "a file URL names no host")
        return _local(unquote(parts.path))
    if parts.query or parts.fragment:
        raise _refused(url, "a repository has no query and no fragment", _CONNECTION)
    if parts.scheme == "ssh":
        if parts.password is not None:
            raise _refused(url, "it holds a password", _CONNECTION)
        return _ssh(url, parts.username, parts.hostname or "", parts.path.lstrip("/"))
    return _http(url, parts, port)


def _http(url: str, parts: SplitResult, port: int | None) -> Remote:
    if parts.scheme not in ("https", "http"):
        raise _refused(url, f"{parts.scheme}:// is not spoken here")
    if "@" in parts.netloc:
        raise _refused(url, "it holds credentials", _CONNECTION)
    host = parts.hostname or ""
    if not _HOST.fullmatch(host) or not parts.path.strip("/"):
        raise _refused(url, "it names no host or no repository")
    _refuse_dots(url, parts.path)
    if parts.scheme == "http" and not _loopback(host):
        raise _refused(url, "http:// shows everything to everyone on the way", "use https://")
    shown = f"[{host}]" if ":" in host else host
    return Remote(url, "https" if parts.scheme == "https" else "http", f"{shown}:{port}" if port else shown)


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ssh(url: str, user: str | None, host: str, path: str) -> Remote:
    # A host or user that begins with a dash would be an option of ssh.
    plain = bool(_HOST.fullmatch(host)) and host not in ("file", "http", "https", "ssh")  # a URL that lost its slashes
    if not plain or (user is not None and not _USER.fullmatch(user)):
        raise _refused(url, "its host or user is not a plain name")
    if not path.strip("/") or path.startswith("-"):
        raise _refused(url, "it names no repository")
    _refuse_dots(url, path)
    return Remote(url, "ssh", host)


def _refuse_dots(url: str, path: str) -> None:
    # A policy matches the text, and libcurl or the server resolves it: `trusted/../other` is another repository.
    if any(part in (".", "..") for part in unquote(path).split("/")):
        raise _refused(url, "its path holds `.` or `..`")


def _local(path: str) -> Remote:
    if not path.startswith("/") or path.startswith("//") or ".." in path.split("/") or re.search(r"[\x00-\x1f\x7f]", path):
        raise _refused(path, "a path must be absolute, without `..` and control characters")
    return Remote(path.rstrip("/") or "/", "file", "")


def _refused(
    url: str, why: str, hint: str = "use https://host/path, ssh://user@host/path, user@host:path or an absolute path"
) -> InputError:
    shown = re.sub(r"//[^/]*@", "//***@", url)
    shown = re.sub(r"[?#].*", "?***", shown)
    return InputError(f"repository {shown[:200]!r} cannot be used: {why}", hint=hint)


def check_branch(name: str) -> str:
    """`name` if git allows it as a branch; raise InputError otherwise (the rules of git-check-ref-format)."""
    parts = name.split("/")
    bad = (
        not name
        or len(name) > 200  # noqa: PLR2004 - leaves room in a file name for git's prefix and suffix
        or name in ("@", "HEAD")
        or name.startswith("-")
        or name.endswith(".")
        or bool(_FORBIDDEN_IN_REF.search(name))
        or any(not part or part.startswith(".") or part.endswith(".lock") for part in parts)
    )
    if bad:
        raise InputError(f"{name[:200]!r} cannot be the name of a branch", hint="see `git help check-ref-format`")
    return name


def slug(text: str) -> str:
    """`text` as one part of a ref and of a path; different texts give different slugs, plain ones stay as they are."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", text)
    if plain == text and 0 < len(text) <= 100 and not text.startswith("-"):  # noqa: PLR2004 - a file name has 255 bytes
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:10]
    return f"{plain[:80].strip('-') or 'x'}-{digest}"
