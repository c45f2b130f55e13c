"""GitHub's REST, as far as pull requests need it: paths, bodies and refusals as its reference documents them."""

from __future__ import annotations

import re
from urllib.parse import unquote

REPOSITORY = "/repos/team/shop"


def handle(forge, method, path, query, data, refused):  # noqa: PLR0917 - what a request has
    """Status and body; None for what GitHub does not know."""
    if not path.startswith(REPOSITORY):
        raise refused(404, {"message": "Not Found"})
    at = (method, path.removeprefix(REPOSITORY))
    for verb, pattern, keys, action in ROUTES:
        if verb == method and (match := re.fullmatch(pattern, at[1])):
            if set(data) - set(keys):
                raise refused(422, {"message": f"Invalid request: {sorted(set(data) - set(keys))}"})
            return action(forge, query, data, refused, *(unquote(word) for word in match.groups()))
    return None


def repository(forge, _query, _data, _refused):
    url = f"{forge.api}{REPOSITORY}"
    allowed = {"allow_merge_commit": True, "allow_squash_merge": True, "allow_rebase_merge": True}
    facts = {"id": 1, "name": "shop", "full_name": "team/shop", "url": url, "owner": {"login": "team", "id": 2, "type": "Organization"}}
    return 200, {**facts, **allowed, "permissions": {"pull": True, "push": True}, **forge.settings}


def shown(forge, pull, *, whole=True):
    url = f"{forge.api}{REPOSITORY}/pulls/{pull.number}"
    facts = {
        "id": pull.number,
        "number": pull.number,
        "url": url,
        "issue_url": f"{forge.api}{REPOSITORY}/issues/{pull.number}",
        "html_url": f"{forge.url}/team/shop/pull/{pull.number}",
        "state": "open" if pull.state == "open" else "closed",
        "title": pull.title,
        "body": pull.body,
        "draft": pull.draft,
        "merged_at": "2026-01-02T03:04:05Z" if pull.state == "merged" else None,
        # While it is open this is the merge that GitHub tried, and no commit of the target.
        "merge_commit_sha": pull.merged or "f" * 40,
        "head": {"ref": pull.branch, "sha": forge.head_of(pull), "label": f"team:{pull.branch}"},
        "base": {"ref": pull.into, "sha": forge.head(pull.into), "label": f"team:{pull.into}"},
    }
    return facts | judged(forge, pull) if whole else facts


def judged(forge, pull):
    if pull.state != "open":
        return {"merged": pull.state == "merged", "mergeable": None, "mergeable_state": "unknown"}
    if forge.computing > 0:
        forge.computing -= 1
        return {"merged": False, "mergeable": None, "mergeable_state": "unknown"}
    if not forge.tree(pull):
        return {"merged": False, "mergeable": False, "mergeable_state": "dirty"}
    blocked = set(forge.states(pull).values()) - {"passed"} or not forge.approved()
    behind = forge.strict and not forge.on_top(pull)
    state = "draft" if pull.draft else "blocked" if blocked else "behind" if behind else "clean"
    return {"merged": False, "mergeable": True, "mergeable_state": state}


def of(forge, number, refused):
    found = next((p for p in forge.pulls if p.number == int(number)), None)
    if found is None:
        raise refused(404, {"message": "Not Found"})
    return found


def listed(forge, query, _data, _refused):
    owner, _, branch = query.get("head", "").partition(":")
    chosen = [p for p in forge.pulls if (owner, p.branch) == ("team", branch) and p.into == query["base"]]
    # A closed one of another branch is never in the way of the reader, and GitHub shows all where `head` names no owner.
    found = chosen if owner and branch else forge.pulls
    assert query["state"] == "all"
    return 200, [shown(forge, p, whole=False) for p in sorted(found, key=lambda p: -p.number)]


def opened(forge, _query, data, refused):
    forge.happen("open")
    if not forge.head(data["head"]) or not forge.head(data["base"]):
        raise refused(422, {"message": "Validation Failed", "errors": [{"resource": "PullRequest", "field": "head", "code": "invalid"}]})
    if any(p.state == "open" and (p.branch, p.into) == (data["head"], data["base"]) for p in forge.pulls):
        fault = {"resource": "PullRequest", "code": "custom", "message": f"A pull request already exists for team:{data['head']}."}
        raise refused(422, {"message": "Validation Failed", "errors": [fault]})
    made = forge.make(data["head"], data["base"], data["title"], data.get("body", ""))
    return 201, shown(forge, made)


def read(forge, _query, _data, refused, number):
    forge.happen("look")
    return 200, shown(forge, of(forge, number, refused))


def edited(forge, _query, data, refused, number):
    pull = of(forge, number, refused)
    pull.title, pull.body = data.get("title", pull.title), data.get("body", pull.body)
    if data.get("state") == "closed":
        forge.close(pull)
    return 200, shown(forge, pull)


def merged(forge, _query, data, refused, number):
    forge.happen("merge")
    pull = of(forge, number, refused)
    state = judged(forge, pull)["mergeable_state"]
    if data["sha"] != forge.head_of(pull):
        raise refused(409, {"message": "Head branch was modified. Review and try the merge again."})
    if pull.state != "open" or state != "clean":
        raise refused(405, {"message": "Pull Request is not mergeable"})
    message = f"{data.get('commit_title', f'Merge pull request #{number}')}\n\n{data.get('commit_message', '')}"
    return 200, {"sha": forge.merge(pull, data["merge_method"], message), "merged": True, "message": "Pull Request successfully merged"}


def commented(forge, _query, data, refused, number):
    of(forge, number, refused).comments.append(data["body"])
    return 201, {"id": 1, "body": data["body"]}


def commit(forge, _query, _data, refused, sha):
    if forge.git("cat-file", "-t", sha, ok=(0, 128)) != "commit":
        raise refused(422, {"message": f"No commit found for SHA: {sha}"})
    return 200, {"sha": sha, "url": f"{forge.api}{REPOSITORY}/commits/{sha}", "commit": {"message": ""}}


def status_set(forge, _query, data, refused, sha):
    if len(data["description"]) > 140 or data["state"] not in ("error", "failure", "pending", "success"):
        raise refused(422, {"message": "Validation Failed", "errors": [{"code": "custom", "message": "description is too long"}]})
    forge.statuses.setdefault(sha, []).append(data)
    return 201, {"id": 1, **data}


def statuses(forge, _query, _data, _refused, sha):
    return 200, [{"id": i, **s} for i, s in reversed(list(enumerate(forge.statuses.get(sha, []))))]


def check_runs(forge, _query, _data, _refused, _sha):
    return 200, {"total_count": len(forge.checks), "check_runs": [run(name, state) for name, state in forge.checks.items()]}


def run(name, state):
    done = state != "waiting"
    conclusion = {"passed": "success", "failed": "failure"}.get(state)
    return {"id": 1, "name": name, "status": "completed" if done else "in_progress", "conclusion": conclusion}


def reviews(forge, _query, _data, _refused, _number):
    return 200, [{"id": i, "user": {"login": who, "id": i}, "state": state, "body": ""} for i, (who, state) in enumerate(forge.reviews)]


def branch(forge, _query, _data, refused, name):
    if not forge.head(name):
        raise refused(404, {"message": "Branch not found"})
    contexts = [] if forge.rulesets else forge.required
    protection = {
        "enabled": bool(contexts),
        "required_status_checks": {"enforcement_level": "everyone", "contexts": contexts, "checks": []},
    }
    return 200, {"name": name, "protected": bool(contexts), "protection": protection}


def rules(forge, _query, _data, refused, _name):
    if not forge.rulesets:
        raise refused(404, {"message": "Not Found"})
    # As of so many rulesets, each of which asks for one check.
    checks = [{"type": "required_status_checks", "parameters": {"required_status_checks": [{"context": name}]}} for name in forge.required]
    return 200, [{"type": "deletion"}, *checks]


PULL, COMMIT = r"/pulls/(\d+)", r"/commits/([0-9a-f]{40})"
ROUTES = [
    ("GET", "", (), repository),
    ("GET", "/pulls", (), listed),
    ("POST", "/pulls", ("title", "body", "head", "base"), opened),
    ("GET", PULL, (), read),
    ("PATCH", PULL, ("title", "body", "state"), edited),
    ("PUT", f"{PULL}/merge", ("commit_title", "commit_message", "merge_method", "sha"), merged),
    ("GET", f"{PULL}/reviews", (), reviews),
    ("POST", r"/issues/(\d+)/comments", ("body",), commented),
    ("GET", COMMIT, (), commit),
    ("GET", "/statuses/([0-9a-f]{40})", (), statuses),  # the address before /commits/{ref}/statuses, which GitHub keeps
    ("GET", f"{COMMIT}/check-runs", (), check_runs),
    ("POST", "/statuses/([0-9a-f]{40})", ("state", "description", "context"), status_set),
    ("GET", "/branches/([^/]+)", (), branch),
    ("GET", "/rules/branches/([^/]+)", (), rules),
]
