"""A real HTTP server on loopback with one bare repository behind it: git over HTTP, and as much of GitHub's or GitLab's REST as
pull requests need. It answers what the real ones document; a request that they would not understand stands in `wrong`."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import forge_github
import forge_gitlab
from git_http import read_body, serve_git

TOKEN = "s3cret-token"
PROJECT = "team/shop"
IDENTITY = {f"GIT_{who}_{what}": f"forge-{what.lower()}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


class Refused(Exception):
    """An answer that is none of 2xx."""

    def __init__(self, status, body, headers=None):
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers or {}


@dataclass
class Pull:
    number: int
    branch: str
    into: str
    title: str
    body: str
    state: str = "open"
    draft: bool = False
    head: str = ""  # frozen once it is not open
    merged: str = ""
    squashed: str = ""
    comments: list = field(default_factory=list)


@dataclass
class Fault:
    """Replaces the next `times` answers to a request; with `after` the request still does its work."""

    method: str
    path: str
    status: int = 0  # 0: the connection is closed, after `hangs_s`
    body: object = None
    headers: dict = field(default_factory=dict)
    times: int = 1
    after: bool = False
    hangs_s: float = 0.0


class ForgeServer:
    """`checks` are passed, failed or waiting, whatever the commit; `required` those that the branch asks for."""

    def __init__(self, kind, root):
        self.kind, self.root, self.url = kind, root, ""
        self.repository = root / f"{PROJECT}.git"
        self.pulls, self.statuses, self.reviews = [], {}, []
        self.checks, self.required, self.approvals, self.strict, self.rulesets = {}, [], 0, False, True
        self.settings = {}
        self.computing = 0  # so many looks until it knows whether a pull request merges
        self.page = 100
        self.faults, self.before, self.asked, self.wrong = [], {}, [], []
        self.lock, self.over = threading.RLock(), threading.Event()

    @property
    def git_url(self):
        return f"{self.url}/{PROJECT}.git"

    @property
    def api(self):
        return f"{self.url}/api/v3" if self.kind == "github" else self.url

    # --- the repository ---

    def git(self, *args, stdin="", ok=(0,)):
        command = ["git", "--git-dir", str(self.repository), *args]
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", **IDENTITY, "GIT_INDEX_FILE": str(self.root / "index")}
        done = subprocess.run(command, input=stdin, env=env, capture_output=True, text=True, check=False)
        assert done.returncode in ok, done.stderr
        return done.stdout.strip()

    def head(self, branch):
        return self.git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")

    def commit(self, branch, files, message="somebody else's"):
        """What somebody pushes to a branch."""
        parent = self.head(branch)
        self.git("read-tree", parent)
        for path, text in files.items():
            blob = self.git("hash-object", "-w", "--stdin", stdin=text)
            self.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
        made = self.git("commit-tree", self.git("write-tree"), "-p", parent, stdin=message)
        self.git("update-ref", f"refs/heads/{branch}", made, parent)
        return made

    def tree(self, pull):
        """The tree of its merge; "" where it conflicts."""
        told = self.git("merge-tree", "--write-tree", self.head(pull.into), self.head_of(pull), ok=(0, 1)).splitlines()
        return told[0] if len(told) == 1 else ""

    def head_of(self, pull):
        return pull.head or self.head(pull.branch)

    def on_top(self, pull):
        base = self.head(pull.into)
        return self.git("merge-base", base, self.head_of(pull)) == base

    def merge(self, pull, method, message):
        base, head, tree = self.head(pull.into), self.head_of(pull), self.tree(pull)
        if method == "rebase":
            made = base
            for commit in self.git("rev-list", "--reverse", "--no-merges", f"{base}..{head}").splitlines():
                text = self.git("log", "-1", "--format=%B", commit)
                made = self.git("commit-tree", f"{commit}^{{tree}}", "-p", made, stdin=text)
        elif method == "fast-forward":
            made = head
        else:
            parents = ["-p", base] if method == "squash" else ["-p", base, "-p", head]
            made = self.git("commit-tree", tree, *parents, stdin=message)
        self.git("update-ref", f"refs/heads/{pull.into}", made, base)
        self.close(pull, "merged")
        pull.merged = made
        return made

    def close(self, pull, state="closed"):
        pull.head, pull.state = self.head_of(pull), state

    def make(self, branch, into, title, body):
        self.pulls.append(Pull(len(self.pulls) + 1, branch, into, title, body))
        return self.pulls[-1]

    # --- what people do ---

    @property
    def pull(self):
        assert len(self.pulls) == 1, self.pulls
        return self.pulls[0]

    def once(self, event, action):
        """Do something right before the server handles a request: "merge", "open", "look"."""
        self.before.setdefault(event, []).append(action)

    def after_looks(self, action, count=6):
        """Do something once it was looked at a few times: then somebody is waiting."""
        self.before.setdefault("look", []).extend([lambda: None] * count + [action])

    def happen(self, event):
        if actions := self.before.get(event):
            actions.pop(0)()

    # --- judging ---

    def state_of(self, name, commit):
        own = next((s["state"] for s in reversed(self.statuses.get(commit, [])) if s["context"] == name), "waiting")
        return self.checks.get(name, {"success": "passed", "failure": "failed", "failed": "failed"}.get(own, own))

    def states(self, pull):
        return {name: self.state_of(name, self.head_of(pull)) for name in self.required}

    def approved(self):
        latest = dict(self.reviews)
        return list(latest.values()).count("APPROVED") >= self.approvals and "CHANGES_REQUESTED" not in latest.values()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names that http.server looks for

    def answer(self):
        forge = self.server.forge
        if not self.path.startswith("/api/"):
            self.close_connection = True
            wanted = "Basic " + base64.b64encode(f"git:{TOKEN}".encode()).decode()
            if self.headers.get("Authorization") == wanted:
                self.protocol_version = "HTTP/1.0"
                serve_git(self, forge.root)
            else:
                self.send(401, {}, {"WWW-Authenticate": 'Basic realm="git"'})
            return
        raw = read_body(self)
        parts = urlsplit(self.path)
        with forge.lock:
            forge.asked.append((self.command, parts.path, self.headers.get("Authorization")))
            fault = next((f for f in forge.faults if f.times and f.method == self.command and re.search(f.path, parts.path)), None)
            if fault:
                fault.times -= 1
            if fault is None or fault.after:
                status, body, headers = self.handled(forge, parts, raw)
            if fault is None:
                self.send(status, body, headers)
            elif fault.status:
                self.send(fault.status, fault.body, fault.headers)
            else:
                self.close_connection = True
        if fault and fault.hangs_s:
            forge.over.wait(fault.hangs_s)

    def handled(self, forge, parts, raw):
        try:
            data = json.loads(raw) if raw else {}
            dialect = forge_github if forge.kind == "github" else forge_gitlab
            if self.headers.get("Authorization") not in (f"token {TOKEN}", f"Bearer {TOKEN}"):
                raise Refused(401, {"message": "Bad credentials"} if forge.kind == "github" else {"message": "401 Unauthorized"})
            query = {k: v[-1] for k, v in parse_qs(parts.query).items()}
            # GitLab's projects are one part of the path, with their slash encoded.
            path = parts.path.removeprefix("/api/v3" if forge.kind == "github" else "/api/v4")
            found = dialect.handle(forge, self.command, path, query, data, Refused)
            if found is None:
                forge.wrong.append(f"{self.command} {self.path} {data}")
                return 404, {"message": "Not Found"}, {}
            status, body = found
            if isinstance(body, dict) and "check_runs" in body:
                runs, headers = self.paged(forge, parts, query, body["check_runs"])
                return status, {**body, "check_runs": runs}, headers
            return (status, *self.paged(forge, parts, query, body)) if isinstance(body, list) else (status, body, {})
        except Refused as refused:
            return refused.status, refused.body, refused.headers

    def paged(self, forge, parts, query, items):
        size = min(forge.page, int(query.get("per_page", 30)))
        page = int(query.get("page", 1))
        headers = {"X-Page": str(page), "X-Per-Page": str(size), "X-Total": str(len(items))}
        if page * size < len(items):
            rest = "&".join(f"{k}={v}" for k, v in {**query, "page": page + 1}.items())
            headers["Link"] = f'<{forge.url}{parts.path}?{rest}>; rel="next"'
            headers["X-Next-Page"] = str(page + 1)
        return items[(page - 1) * size : page * size], headers

    def send(self, status, body, headers=None):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def serving(kind, root):
    """The server with a bare repository whose `main` has one commit; at the end nothing wrong was asked."""
    forge = ForgeServer(kind, root)
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(forge.repository)], check=True)
    forge.git("config", "http.receivepack", "true")
    tree = forge.git("mktree", stdin=f"100644 blob {forge.git('hash-object', '-w', '--stdin', stdin='shop')}\tREADME")
    forge.git("update-ref", "refs/heads/main", forge.git("commit-tree", tree, stdin="Begin"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.forge = True, forge
    forge.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield forge
    finally:
        forge.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
    assert not forge.wrong, forge.wrong
