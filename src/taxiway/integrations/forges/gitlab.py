"""Merge requests at GitLab, by python-gitlab: gitlab.com and servers of one's own (15.6 or newer)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from taxiway.errors import OperatorError, StageError
from taxiway.integrations.forges.answers import LIMIT_BODY, STATUS, TIMEOUT_S, TOKEN_HINT, ask_for_token, refusal, unreachable
from taxiway.ports import Cancellation, PullRequest, Readiness, Strategy
from taxiway.waiting import attended

if TYPE_CHECKING:
    import gitlab
    import requests

__all__ = ["GitLabForge"]

_EXISTS = 409
_DEVELOPER = 30
_DESCRIPTION = 255
_METHODS = {"merge": ("merge", "rebase_merge"), "rebase": ("ff",), "fast-forward": ("ff",), "squash": ("merge", "rebase_merge", "ff")}
# Words of `detailed_merge_status`; whatever else comes is waited for under its own name.
_WAITING = {
    "approvals_syncing": "approvals",
    "checking": "GitLab to find out whether it merges",
    "ci_still_running": "its pipeline",
    "discussions_not_resolved": "discussions to be resolved",
    "not_approved": "an approval",
    "preparing": "GitLab to find out whether it merges",
    "status_checks_must_pass": "status checks",
    "unchecked": "GitLab to find out whether it merges",
}
_PIPELINES = {
    "": "a pipeline, of which there is none",
    "manual": "its pipeline, which waits for somebody to start a job",
    "skipped": "a pipeline that is not skipped",
}
_BAD_PIPELINE = ("failed", "canceled")


class GitLabForge:
    """Implements `ports.Forge` for the project with the path `project` at the GitLab whose address is `api`."""

    name = "GitLab"

    def __init__(self, *, api: str, project: str, token: str, stop: Cancellation | None = None) -> None:
        self._api, self._project, self._token, self._stop = api, project, token, stop
        self._path = f"/projects/{quote(project, safe='')}"
        self._headers: Mapping[str, str] = {}

    def check(self, strategy: Strategy) -> None:
        """Raise where the token cannot merge, or the project does not merge by this strategy."""
        facts = self._get("")
        access = [(facts.get("permissions") or {}).get(f"{kind}_access") or {} for kind in ("project", "group")]
        levels = [one["access_level"] for one in access if "access_level" in one]
        if levels and max(levels) < _DEVELOPER:
            raise OperatorError(f"the token may not push to {self._project} at GitLab", hint=f"{TOKEN_HINT} (role Developer or higher)")
        method, squash = facts.get("merge_method", "merge"), facts.get("squash_option", "default_off")
        if method not in _METHODS[strategy] or squash == ("never" if strategy == "squash" else "always"):
            raise StageError(
                f"{self._project} at GitLab merges by {method} (squash: {squash}), not by strategy {strategy}",
                hint="change the project's merge method or squash option, or use another strategy",
            )

    def find(self, branch: str, into: str) -> PullRequest | None:
        """The merge request from a branch into another: the open one, else the newest."""
        query = {"source_branch": branch, "target_branch": into, "state": "all", "order_by": "created_at", "sort": "desc"}
        found = [_pull(facts) for facts in self._list("/merge_requests", query)]
        return next((pull for pull in found if pull.state == "open"), found[0] if found else None)

    def open(self, branch: str, into: str, *, title: str, body: str) -> PullRequest:
        """Open one; where there is an open one, that is returned."""
        from gitlab import GitlabHttpError  # noqa: PLC0415 - slow to import, and only few attempts need it

        data = {"source_branch": branch, "target_branch": into, "title": title, "description": body[:LIMIT_BODY]}
        with self._speaking():
            try:
                made = self._client.http_post(f"{self._path}/merge_requests", post_data=data, obey_rate_limit=False)
            except GitlabHttpError as error:
                found = self.find(branch, into) if error.response_code == _EXISTS else None
                if found is None or found.state != "open":
                    raise
                return found
            return _pull(made)

    def read(self, number: int) -> PullRequest:
        """One by its number, as it is now."""
        return _pull(self._get(f"/merge_requests/{number}"))

    def readiness(self, pull: PullRequest, into: str) -> Readiness:
        """What it lacks, by GitLab's own judgement; the target `into` has told it its rules."""
        del into
        facts = self._get(f"/merge_requests/{pull.number}")
        state = facts.get("detailed_merge_status")
        if not state:
            raise OperatorError(f"GitLab at {self._api} does not say whether it merges", hint="it needs to be GitLab 15.6 or newer")
        if state == "requested_changes":
            return Readiness(refused=("a reviewer asked for changes",))
        if state == "ci_must_pass":
            status = (facts.get("head_pipeline") or {}).get("status")
            if status in _BAD_PIPELINE:
                return Readiness(failed=self._failed(pull.head))
            return Readiness(waiting=(_PIPELINES.get(status or "", "its pipeline"),))
        if state in ("conflict", "broken_status"):
            return Readiness(conflicts=True)
        if state in ("mergeable", "draft_status"):
            return Readiness()
        return Readiness(behind=True) if state == "need_rebase" else Readiness(waiting=(_WAITING.get(state, str(state).replace("_", " ")),))

    def describe(self, number: int, *, title: str, body: str) -> None:
        """Replace its title and text."""
        self._put(f"/merge_requests/{number}", {"title": title, "description": body[:LIMIT_BODY]})

    def comment(self, number: int, text: str) -> None:
        """Say something below it."""
        self._post(f"/merge_requests/{number}/notes", {"body": text[:LIMIT_BODY]})

    def set_status(self, commit: str, *, passed: bool, text: str) -> None:
        """Set the commit status `taxiway`."""
        state, text = "success" if passed else "failed", text[:_DESCRIPTION]
        known = self._list(f"/repository/commits/{commit}/statuses", {"name": STATUS})
        if not any((s["status"], s.get("description")) == (state, text) for s in known):
            self._post(f"/statuses/{commit}", {"state": state, "name": STATUS, "description": text})

    def merge(self, number: int, *, head: str, strategy: Strategy, title: str, message: str) -> None:
        """Merge it if it still offers `head`. The messages go into the body: a query has no room for them."""
        text = f"{title}\n\n{message}"
        squash = {"squash": True, "squash_commit_message": text} if strategy == "squash" else {"squash": False}
        self._put(f"/merge_requests/{number}/merge", {"sha": head, "merge_commit_message": text, **squash})

    def close(self, number: int) -> None:
        """Close it without merging."""
        self._put(f"/merge_requests/{number}", {"state_event": "close"})

    # --- within ---------------------------------------------------------------------------------

    @cached_property
    def _client(self) -> gitlab.Gitlab:
        import gitlab  # noqa: PLC0415 - slow to import, and only few attempts need it
        import requests  # noqa: PLC0415

        class Session(requests.Session):
            """Asks one question after the other, and none once `stop` says so."""

            def __init__(self, stop: Cancellation | None) -> None:
                super().__init__()
                self._stop = stop

            def request(self, *args: Any, **kwargs: Any) -> requests.Response:
                return attended(partial(super().request, *args, **kwargs), self._stop)

        if not self._token:
            raise ask_for_token(self.name, self._project)
        # As a bearer: unlike a PRIVATE-TOKEN, that header does not follow a redirect to another host.
        session = Session(self._stop)
        client = gitlab.Gitlab(self._api, oauth_token=self._token, timeout=TIMEOUT_S, user_agent="taxiway", per_page=100, session=session)
        # The client's errors have no headers, which say when it may be asked again.
        client.session.hooks["response"].append(self._heard)
        return client

    def _heard(self, response: requests.Response, **_: Any) -> None:
        self._headers = response.headers

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """Turn what the client raises into our errors."""
        import requests  # noqa: PLC0415
        from gitlab import GitlabError  # noqa: PLC0415

        try:
            yield
        except GitlabError as error:
            if not error.response_code:
                raise unreachable(self.name, self._api, error) from error
            raise refusal(self.name, self._project, error.response_code, str(error.error_message), self._headers) from error
        except (requests.RequestException, KeyError, TypeError, ValueError) as error:
            raise unreachable(self.name, self._api, error) from error

    def _get(self, path: str) -> dict[str, Any]:
        with self._speaking():
            return _mapping(self._client.http_get(f"{self._path}{path}", obey_rate_limit=False))

    def _list(self, path: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        with self._speaking():
            found = self._client.http_list(f"{self._path}{path}", query_data=query, get_all=True, obey_rate_limit=False)
            return [_mapping(one) for one in found]

    def _post(self, path: str, data: dict[str, Any]) -> None:
        with self._speaking():
            self._client.http_post(f"{self._path}{path}", post_data=data, obey_rate_limit=False)

    def _put(self, path: str, data: dict[str, Any]) -> None:
        with self._speaking():
            self._client.http_put(f"{self._path}{path}", post_data=data, obey_rate_limit=False)

    def _failed(self, commit: str) -> tuple[str, ...]:
        """The jobs and statuses of a commit that failed and may not."""
        bad = [s for s in self._list(f"/repository/commits/{commit}/statuses", {}) if s["status"] in _BAD_PIPELINE]
        return tuple(f"check {s['name']} {s['status']}" for s in bad if not s.get("allow_failure")) or ("its pipeline failed",)


def _mapping(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise TypeError("the answer is no JSON object")
    return data


def _pull(data: Any) -> PullRequest:
    facts = _mapping(data)
    state = facts["state"]
    return PullRequest(
        number=facts["iid"],
        url=facts.get("web_url") or "",
        state="merged" if state == "merged" else "closed" if state == "closed" else "open",
        head=facts.get("sha") or "",
        title=facts.get("title") or "",
        body=facts.get("description") or "",
        draft=bool(facts.get("draft")),
        merged=(facts.get("merge_commit_sha") or facts.get("squash_commit_sha") or facts.get("sha") or "") if state == "merged" else "",
    )
