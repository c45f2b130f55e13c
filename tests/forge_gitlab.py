"""GitLab's REST, as far as merge requests need it: paths, bodies and refusals as its reference documents them."""

from __future__ import annotations

import re

PROJECT = "/projects/team%2Fshop"


def handle(forge, method, path, query, data, refused):  # noqa: PLR0917 - what a request has
    """Status and body; None for what GitLab does not know."""
    if not path.startswith(PROJECT):
        raise refused(404, {"message": "404 Project Not Found"})
    for verb, pattern, keys, action in ROUTES:
        if verb == method and (match := re.fullmatch(pattern, path.removeprefix(PROJECT))):
            if set(data) - set(keys):
                raise refused(400, {"error": f"{sorted(set(data) - set(keys))} are unknown"})
            return action(forge, query, data, refused, *match.groups())
    return None


def settings(forge):
    return {"merge_method": "merge", "squash_option": "default_off", **forge.settings}


def project(forge, _query, _data, _refused):
    access = {"project_access": None, "group_access": {"access_level": 30, "notification_level": 3}}
    return 200, {"id": 1, "path_with_namespace": "team/shop", "permissions": access, **settings(forge)}


def shown(forge, pull):
    return {
        "id": 100 + pull.number,
        "iid": pull.number,
        "web_url": f"{forge.url}/team/shop/-/merge_requests/{pull.number}",
        "state": {"open": "opened"}.get(pull.state, pull.state),
        "source_branch": pull.branch,
        "target_branch": pull.into,
        "sha": forge.head_of(pull),
        "title": pull.title,
        "description": pull.body,
        "draft": pull.draft or pull.title.startswith("Draft:"),
        "detailed_merge_status": judged(forge, pull),
        "head_pipeline": {"id": 5, "status": "failed" if "failed" in forge.states(pull).values() else "running"}
        if forge.required
        else None,
        # A fast-forward makes no merge commit.
        "merge_commit_sha": pull.merged if settings(forge)["merge_method"] != "ff" and pull.merged else None,
        "squash_commit_sha": pull.squashed or None,
    }


def judged(forge, pull):  # noqa: PLR0911 - a list of words
    states = set(forge.states(pull).values())
    if pull.state != "open":
        return "not_open"
    if forge.computing > 0:
        forge.computing -= 1
        return "checking"
    if pull.draft or pull.title.startswith("Draft:"):
        return "draft_status"
    if settings(forge)["merge_method"] in ("ff", "rebase_merge") and not forge.on_top(pull):
        return "need_rebase"
    if not forge.tree(pull):
        return "conflict"
    if "failed" in states:
        return "ci_must_pass"
    if "waiting" in states:
        return "ci_still_running"
    if "CHANGES_REQUESTED" in dict(forge.reviews).values():
        return "requested_changes"
    return "mergeable" if forge.approved() else "not_approved"


def of(forge, number, refused):
    found = next((p for p in forge.pulls if p.number == int(number)), None)
    if found is None:
        raise refused(404, {"message": "404 Not found"})
    return found


def listed(forge, query, _data, _refused):
    assert query["state"] == "all"
    found = [p for p in forge.pulls if (p.branch, p.into) == (query["source_branch"], query["target_branch"])]
    return 200, [shown(forge, p) for p in sorted(found, key=lambda p: -p.number)]


def opened(forge, _query, data, refused):
    forge.happen("open")
    open_ = [p for p in forge.pulls if p.state == "open" and p.branch == data["source_branch"] and p.into == data["target_branch"]]
    if open_:
        raise refused(409, {"message": [f"Another open merge request already exists for this source branch: !{open_[0].number}"]})
    if not forge.head(data["source_branch"]):
        raise refused(422, {"message": {"source_branch": ["does not exist"]}})
    return 201, shown(forge, forge.make(data["source_branch"], data["target_branch"], data["title"], data["description"]))


def read(forge, _query, _data, refused, number):
    forge.happen("look")
    return 200, shown(forge, of(forge, number, refused))


def edited(forge, _query, data, refused, number):
    pull = of(forge, number, refused)
    pull.title, pull.body = data.get("title", pull.title), data.get("description", pull.body)
    if data.get("state_event") == "close":
        forge.close(pull)
    return 200, shown(forge, pull)


def merged(forge, query, data, refused, number):
    forge.happen("merge")
    pull = of(forge, number, refused)
    assert query == {}
    if data["sha"] != forge.head_of(pull):
        raise refused(409, {"message": "SHA does not match HEAD of source branch"})
    if judged(forge, pull) != "mergeable":
        raise refused(405, {"message": "405 Method Not Allowed"})
    fast = settings(forge)["merge_method"] == "ff"
    if data["squash"]:
        forge.merge(pull, "squash", data["squash_commit_message"])
        pull.squashed = pull.merged
        if not fast:
            base = forge.git("rev-parse", f"{pull.squashed}^")
            tree = f"{pull.squashed}^{{tree}}"
            pull.merged = forge.git("commit-tree", tree, "-p", base, "-p", pull.squashed, stdin=data["merge_commit_message"])
            forge.git("update-ref", f"refs/heads/{pull.into}", pull.merged)
    else:
        forge.merge(pull, "fast-forward" if fast else "merge", data["merge_commit_message"])
    return 200, shown(forge, pull)


def noted(forge, _query, data, refused, number):
    of(forge, number, refused).comments.append(data["body"])
    return 201, {"id": 1, "body": data["body"]}


def status_set(forge, _query, data, refused, sha):
    if len(data["description"]) > 255 or data["state"] not in ("pending", "running", "success", "failed", "canceled", "skipped"):
        raise refused(400, {"message": {"description": ["is too long (maximum is 255 characters)"]}})
    entry = {"context": data["name"], "state": data["state"], "description": data["description"]}
    forge.statuses.setdefault(sha, []).append(entry)
    return 201, {"id": 1, "status": data["state"], "name": data["name"]}


def statuses(forge, query, _data, _refused, sha):
    # The latest of each name.
    latest = {s["context"]: s for s in forge.statuses.get(sha, [])}.values()
    own = [{"name": s["context"], "status": s["state"], "description": s["description"]} for s in latest]
    words = {"passed": "success", "failed": "failed", "waiting": "running"}
    jobs = [{"name": n, "status": words[s], "description": None, "allow_failure": False} for n, s in forge.checks.items()]
    return 200, [s for s in (*own, *jobs) if query.get("name") in (None, s["name"])]


MR = r"/merge_requests/(\d+)"
ROUTES = [
    ("GET", "", (), project),
    ("GET", "/merge_requests", (), listed),
    ("POST", "/merge_requests", ("source_branch", "target_branch", "title", "description"), opened),
    ("GET", MR, (), read),
    ("PUT", MR, ("title", "description", "state_event"), edited),
    ("PUT", f"{MR}/merge", ("sha", "squash", "squash_commit_message", "merge_commit_message"), merged),
    ("POST", f"{MR}/notes", ("body",), noted),
    ("GET", "/repository/commits/([0-9a-f]{40})/statuses", (), statuses),
    ("POST", "/statuses/([0-9a-f]{40})", ("state", "name", "description"), status_set),
]
