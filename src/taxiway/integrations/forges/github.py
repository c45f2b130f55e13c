"""Pull requests at GitHub, by PyGithub: github.com and GitHub Enterprise Server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from taxiway.errors import OperatorError, StageError
from taxiway.integrations.forges.answers import LIMIT_BODY, STATUS, TIMEOUT_S, TOKEN_HINT, ask_for_token, refusal, unreachable
from taxiway.ports import Cancellation, PullRequest, Readiness, Strategy
from taxiway.waiting import attended

if TYPE_CHECKING:
    import github.PullRequest
    import github.Repository

__all__ = ["GitHubForge"]

_MISSING, _INVALID = 404, 422
_SETTINGS = {"merge": "allow_merge_commit", "squash": "allow_squash_merge", "rebase": "allow_rebase_merge"}
_STATES = {"success": "passed", "neutral": "passed", "skipped": "passed", "pending": "waiting"}
_DESCRIPTION = 140
_PAGE, _MOST_PAGES = 100, 100
# What the client stumbles over in an answer that is none of GitHub's, and its word for a redirect (RuntimeError).
_SURPRISES = (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError)


Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


def _attended(method: Callable[Concatenate[GitHubForge, Asked], Answer]) -> Callable[Concatenate[GitHubForge, Asked], Answer]:
    """The method, given up at once when the run is stopped: from then on it gets no token for a next request."""

    @wraps(method)
    def ask(forge: GitHubForge, /, *args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
        return attended(partial(method, forge, *args, **kwargs), forge.stop)

    return ask


class GitHubForge:
    """Implements `ports.Forge` for the repository `project` (owner/name) behind the API root `api`."""

    name = "GitHub"

    def __init__(self, *, api: str, project: str, token: str, stop: Cancellation | None = None) -> None:
        self._api, self._project, self._token, self.stop = api, project, token, stop

    @_attended
    def check(self, strategy: Strategy) -> None:
        """Raise where the token cannot push, or GitHub or the repository does not merge by this strategy."""
        if strategy == "fast-forward":
            raise StageError("GitHub does not merge a pull request by fast-forward", hint="use strategy rebase, squash or merge")
        with self._speaking():
            facts = self._repository.raw_data
            pushes, allowed = facts.get("permissions", {}).get("push"), facts.get(_SETTINGS[strategy])
        if pushes is False:
            raise OperatorError(f"the token may not push to {self._project} at GitHub", hint=TOKEN_HINT)
        if allowed is False:
            raise StageError(
                f"{self._project} at GitHub does not allow strategy {strategy}",
                hint=f"allow it in the repository's settings ({_SETTINGS[strategy]}), or use another strategy",
            )

    @_attended
    def find(self, branch: str, into: str) -> PullRequest | None:
        """The pull request from a branch into another: the open one, else the newest."""
        with self._speaking():
            owner = self._repository.owner.login
            listed = self._repository.get_pulls(state="all", head=f"{owner}:{branch}", base=into, sort="created", direction="desc")
            # A head that GitHub cannot read is no filter at all.
            found = [p for p in listed if p.head.ref == branch and p.base.ref == into]
            chosen = next((p for p in found if p.state == "open"), found[0] if found else None)
            return _pull(chosen) if chosen else None

    @_attended
    def open(self, branch: str, into: str, *, title: str, body: str) -> PullRequest:
        """Open one; where there is an open one, that is returned."""
        from github import GithubException  # noqa: PLC0415 - slow to import, and only few attempts need it

        with self._speaking():
            try:
                return _pull(self._repository.create_pull(into, branch, title=title, body=body[:LIMIT_BODY]))
            except GithubException as error:
                found = self.find(branch, into) if error.status == _INVALID else None
                if found is None or found.state != "open":
                    raise
                return found

    @_attended
    def read(self, number: int) -> PullRequest:
        """One by its number, as it is now."""
        with self._speaking():
            return _pull(self._repository.get_pull(number))

    @_attended
    def readiness(self, pull: PullRequest, into: str) -> Readiness:
        """What it lacks, by the rules of the branch and by GitHub's own judgement."""
        with self._speaking():
            facts = self._repository.get_pull(pull.number)
            reviews = {
                r.user.login: r.state for r in facts.get_reviews() if r.user and r.state in ("APPROVED", "CHANGES_REQUESTED", "DISMISSED")
            }
            refused = tuple(f"{name} asked for changes" for name, state in reviews.items() if state == "CHANGES_REQUESTED")
            states = self._states(pull.head)
            required = self._required(into)
            failed = tuple(f"check {name} failed" for name in required if states.get(name) == "failed")
            waiting = [f"check {name}" for name in required if states.get(name, "waiting") == "waiting"]
            judged = facts.mergeable_state
            if facts.mergeable is None or judged == "unknown":
                waiting.append("GitHub to find out whether it merges")
            elif judged == "blocked" and not (failed or refused or waiting):
                waiting.append("an approving review, or another rule of the branch")
            conflicts = facts.mergeable is False and judged == "dirty"
            return Readiness(failed=failed, refused=refused, waiting=tuple(waiting), conflicts=conflicts, behind=judged == "behind")

    @_attended
    def describe(self, number: int, *, title: str, body: str) -> None:
        """Replace its title and text."""
        with self._speaking():
            self._repository.get_pull(number).edit(title=title, body=body[:LIMIT_BODY])

    @_attended
    def comment(self, number: int, text: str) -> None:
        """Say something below it."""
        with self._speaking():
            self._repository.get_pull(number).create_issue_comment(text[:LIMIT_BODY])

    @_attended
    def set_status(self, commit: str, *, passed: bool, text: str) -> None:
        """Set the commit status `taxiway`."""
        state, text = "success" if passed else "failure", text[:_DESCRIPTION]
        with self._speaking():
            at = self._repository.get_commit(commit)
            known = next((s for s in at.get_statuses() if s.context == STATUS), None)
            if known is None or (known.state, known.description) != (state, text):
                at.create_status(state, description=text, context=STATUS)

    @_attended
    def merge(self, number: int, *, head: str, strategy: Strategy, title: str, message: str) -> None:
        """Merge it if it still offers `head`."""
        with self._speaking():
            pull = self._repository.get_pull(number)
            if strategy == "rebase":
                pull.merge(merge_method=strategy, sha=head)
            else:
                pull.merge(commit_title=title, commit_message=message, merge_method=strategy, sha=head)

    @_attended
    def close(self, number: int) -> None:
        """Close it without merging."""
        with self._speaking():
            self._repository.get_pull(number).edit(state="closed")

    # --- within ---------------------------------------------------------------------------------

    @cached_property
    def _repository(self) -> github.Repository.Repository:
        import github  # noqa: PLC0415 - slow to import, and only few attempts need it

        stop = self.stop

        class Token(github.Auth.Token):
            """Goes into the headers of each request, right before it is sent."""

            def authentication(self, headers: dict[str, Any]) -> None:
                if stop is not None:
                    stop.check()
                super().authentication(headers)

        if not self._token:
            raise ask_for_token(self.name, self._project)
        # The pauses are ours: whoever waits is stopped at once, and the next try of the stage is one more try.
        client = github.Github(
            auth=Token(self._token),
            base_url=self._api,
            timeout=TIMEOUT_S,
            user_agent="taxiway",
            per_page=_PAGE,
            retry=None,
            seconds_between_requests=None,
            seconds_between_writes=None,
        )
        return client.get_repo(self._project)

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """Turn what the client raises into our errors."""
        import requests  # noqa: PLC0415
        from github import BadAttributeException, GithubException  # noqa: PLC0415

        try:
            yield
        except GithubException as error:
            raise refusal(self.name, self._project, error.status, _words(error.data), error.headers) from error
        except (requests.RequestException, BadAttributeException, *_SURPRISES) as error:
            raise unreachable(self.name, self._api, error) from error

    def _states(self, commit: str) -> dict[str, str]:
        """Check or status -> passed, failed or waiting."""
        at = self._repository.get_commit(commit)
        # Newest first, with all that were there before.
        statuses = {s.context: _STATES.get(s.state, "failed") for s in reversed(list(at.get_statuses()))}
        runs = {r.name: _STATES.get(r.conclusion or "", "failed") if r.status == "completed" else "waiting" for r in at.get_check_runs()}
        return {**statuses, **runs}

    def _required(self, branch: str) -> list[str]:
        """The checks that a branch asks for: by its protection, and by rulesets."""
        protection = self._get(f"branches/{_quoted(branch)}")[1].get("protection") or {}
        names = list((protection.get("required_status_checks") or {}).get("contexts") or ())
        for rule in self._rules(branch):
            if rule.get("type") == "required_status_checks":
                names += [check["context"] for check in rule.get("parameters", {}).get("required_status_checks", ())]
        return list(dict.fromkeys(names))

    def _rules(self, branch: str) -> Iterator[dict[str, Any]]:
        """The rules of all rulesets that are for a branch, page by page."""
        from github import GithubException  # noqa: PLC0415

        for page in range(1, _MOST_PAGES + 1):
            try:
                headers, found = self._get(f"rules/branches/{_quoted(branch)}", per_page=_PAGE, page=page)
            except GithubException as error:
                # Servers older than rulesets do not know their address.
                if error.status == _MISSING and page == 1:
                    return
                raise
            yield from found
            if 'rel="next"' not in headers.get("link", ""):
                return
        raise OperatorError(f"branch {branch} of {self._project} has more than {_MOST_PAGES * _PAGE} rules", hint="report it")

    def _get(self, path: str, **query: Any) -> tuple[dict[str, Any], Any]:
        """What the client has no method for: the answer's headers, in small letters, and its data."""
        return self._repository.requester.requestJsonAndCheck("GET", f"{self._repository.url}/{path}", parameters=query)


def _pull(facts: github.PullRequest.PullRequest) -> PullRequest:
    merged = bool(facts.merged_at)
    return PullRequest(
        number=facts.number,
        url=facts.html_url,
        state="merged" if merged else "open" if facts.state == "open" else "closed",
        head=facts.head.sha,
        title=facts.title or "",
        body=facts.body or "",
        draft=bool(facts.draft),
        merged=facts.merge_commit_sha or "" if merged else "",
    )


def _quoted(branch: str) -> str:
    from urllib.parse import quote  # noqa: PLC0415

    return quote(branch, safe="")


def _words(data: Any) -> str:
    """GitHub's message, and the faults that it lists."""
    if not isinstance(data, dict):
        return str(data or "")
    faults = [e.get("message") or e.get("code") or "" if isinstance(e, dict) else str(e) for e in data.get("errors") or ()]
    return "; ".join(str(word) for word in (data.get("message"), *faults) if word)
