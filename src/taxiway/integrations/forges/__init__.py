"""Forges: which one a repository has, by the policy's word or by its host, and how its API is reached."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import unquote, urlsplit

from taxiway.errors import OperatorError
from taxiway.integrations.forges.github import GitHubForge
from taxiway.integrations.forges.gitlab import GitLabForge
from taxiway.integrations.git_url import parse_url
from taxiway.ports import Cancellation, Forge

__all__ = ["find_forge"]

Kind = Literal["github", "gitlab"]

_PUBLIC: dict[str, tuple[Kind, str]] = {
    "github.com": ("github", "https://api.github.com"),
    "gitlab.com": ("gitlab", "https://gitlab.com"),
}


def find_forge(
    url: str, *, kind: Kind | Literal[""] = "", api: str = "", token: str = "", stop: Cancellation | None = None
) -> Forge | None:
    """The forge of the repository at `url`; None where nothing says that it has one. Nothing is asked yet.

    `kind` and `api` are the policy's word; without `api` a forge's own is where the repository is. `stop` ends every question at once.
    Raises OperatorError where the URL names no project of a forge.
    """
    remote = parse_url(url)
    public = _PUBLIC.get(remote.host.lower())
    if public and kind in ("", public[0]):
        kind, api = public[0], api or public[1]
    if not kind:
        return None
    project = _project(remote.url, remote.scheme)
    if kind == "github":
        if project.count("/") != 1:
            raise OperatorError(f"{remote.url} is no repository of a GitHub", hint="its path is owner/name")
        return GitHubForge(api=api or f"{_origin(remote.scheme, remote.host)}/api/v3", project=project, token=token, stop=stop)
    return GitLabForge(api=api or _origin(remote.scheme, remote.host), project=project, token=token, stop=stop)


def _origin(scheme: str, host: str) -> str:
    return f"{'http' if scheme == 'http' else 'https'}://{host}"


def _project(url: str, scheme: str) -> str:
    """`owner/name`, or a longer path at GitLab."""
    if scheme == "file":
        raise OperatorError(
            f"{url} is a path, and no forge has it", hint="give the run the repository's URL at its forge, or use `mode: push`"
        )
    # The short form of ssh, host:path, has no scheme; everything else is a URL.
    path = urlsplit(url).path if "://" in url else url.partition(":")[2]
    return re.sub(r"\.git$", "", unquote(path).strip("/"))
