"""The run's repository through the git command line: bare, hardened, without a work tree of its own."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path

from taxiway.errors import InputError, OperatorError, ProjectError, StageError, TransientError
from taxiway.home import Home
from taxiway.integrations.git_command import Git, GitCredentials
from taxiway.integrations.git_merge import How, format_message, merge
from taxiway.integrations.git_refs import LocalRefs, Refs, RemoteRefs
from taxiway.integrations.git_url import Remote, check_branch, parse_url, slug
from taxiway.ports import Cancellation, Favor, Lease, Merge, Resolve, Strategy
from taxiway.records import COMMIT

__all__ = ["GitCredentials", "GitWorkspace"]

_OLDEST_GIT = (2, 38)
_DIFF_LIMIT = 200_000
_MOST_BYTES = 2_000_000_000
_MOST_ENTRIES_TEXT = 64_000_000


class GitWorkspace:
    """Implements `ports.Workspace`.

    Without a `url` the run gets a repository of its own under the Taxiway home; with one, the commits of the run go to
    that repository, so that a worker on any machine finds them, and a bare mirror under the home keeps what was fetched.
    All dates are `started`, so the same content gives the same commit. `stop` ends what may take long, such as a fetch or a push.
    """

    def __init__(
        self,
        *,
        home: Home,
        pipeline: str,
        run: str,
        started: datetime,
        url: str = "",
        credentials: GitCredentials | None = None,
        environ: Mapping[str, str] | None = None,
        stop: Cancellation | None = None,
    ) -> None:
        remote = parse_url(url) if url else None
        if remote:
            _refuse_inside(home, remote)
            folder = home.repositories / "mirrors" / f"{hashlib.sha256(remote.url.encode()).hexdigest()[:16]}.git"
        else:
            folder = home.repositories / slug(pipeline) / f"{slug(run)}.git"
        self._git = Git(
            folder,
            environ=os.environ if environ is None else environ,
            identity=_identity(started),
            remote=remote,
            credentials=credentials,
            stop=stop,
        )
        self._refs: Refs = RemoteRefs(self._git, remote.url) if remote else LocalRefs(self._git)
        self._url = remote.url if remote else str(folder)
        self._branch = f"taxiway/{slug(pipeline)}/{slug(run)}"
        self._pulls = f"taxiway/{slug(pipeline)}/pull/{slug(run)}"
        self._run_refs = f"refs/taxiway/runs/{slug(run)}"
        self._ready = False

    @property
    def url(self) -> str:
        """Where the repository is, without credentials."""
        return self._url

    @property
    def branch(self) -> str:
        """The run's branch."""
        return self._branch

    def start(self) -> str:
        """The commit that the run starts from, the same for every call of the run, wherever the branch goes later."""
        self._prepare()
        mark = f"{self._run_refs}/start"
        for _ in range(3):
            if marked := self._refs.read((mark,)).get(mark, ""):
                return self._fetched(marked)
            head = self._refs.default_head()
            if head:
                moves = {mark: ("", head)}
            else:
                head = self._empty_commit()
                moves = {"refs/heads/main": ("", head), mark: ("", head)}
            self._fetched(head)
            if self._refs.move(moves):
                return head
        raise TransientError(f"the start of the run in {self._url} keeps moving", hint="another try may succeed")

    def checkout(self, commit: str, into: Path) -> None:
        """Write the files of a commit into an empty directory, without a `.git`."""
        self._fetched(commit)
        if any(into.iterdir()):
            raise OperatorError(f"{into} is not empty", hint="a checkout goes into an empty folder")
        self._refuse_too_large(commit)
        with self._git.scratch() as scratch:
            env = {"GIT_INDEX_FILE": str(scratch / "index"), "GIT_WORK_TREE": str(into.resolve())}
            self._git("read-tree", f"{commit}^{{tree}}", env=env)
            self._git("checkout-index", "--all", env=env, timeout_s=600, stoppable=True)

    def commit(self, files: Path, *, parent: str, message: str, trailers: Mapping[str, str], lease: Lease) -> str:
        """Commit what `files` differs in from `parent`, move the run's branch there, and return the commit."""
        self._fetched(parent)
        tree = self._write_tree(files, parent)
        if tree == self._tree(parent):
            return parent
        attempts = f"{self._run_refs}/stages/{slug(trailers.get('Taxiway-Stage', 'stage'))}"
        run_branch = f"refs/heads/{self._branch}"
        known = self._refs.read((run_branch, f"{attempts}/*"))
        head = known.get(run_branch, "")
        made = self._made_before(known.values(), parent, tree, trailers)
        if not made:
            text = format_message(self._git, message, trailers)
            made = self._git("commit-tree", tree, "-p", parent, stdin=text.encode()).text
        if head == made:
            return made
        lease.check()
        attempt = f"{attempts}/{slug(trailers.get('Taxiway-Attempt', '1'))}-{made[:12]}"
        moves = {run_branch: (head, made)} | ({} if attempt in known else {attempt: ("", made)})
        if not self._refs.move(moves) and self._refs.read((run_branch,)).get(run_branch) != made:
            raise TransientError(f"branch {self._branch} moved meanwhile", hint="the next try starts from what is there now")
        return made

    def changed(self, files: Path, *, parent: str) -> tuple[str, ...]:
        """The paths in which `files` differs from `parent`, as `commit` would have them; a renamed file is two."""
        self._fetched(parent)
        out = self._git("diff-tree", "-r", "-z", "--no-renames", "--name-only", parent, self._write_tree(files, parent), "--").out
        return tuple(os.fsdecode(name) for name in out.split(b"\0") if name)

    def diff(self, base: str, commit: str) -> str:
        """One line of totals, statistics by file, and the unified diff, cut after 200 kB."""
        self._fetched(commit)
        before = self._fetched(base) if base else self._empty_tree()
        options = ("--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=none")
        totals = self._git("diff", *options, "--shortstat", before, commit, "--").text
        try:
            body = self._git("diff", *options, "--stat=120", "--patch", before, commit, "--", limit=20_000_000).out
        except ProjectError:
            body = b"(more than 20 MB)\n"
        text = f"{totals}\n{body.decode('utf-8', 'replace')}"
        return text if len(text) <= _DIFF_LIMIT else f"{text[:_DIFF_LIMIT]}\n... cut: {len(text) - _DIFF_LIMIT} more characters\n"

    def head(self, branch: str) -> str:
        """The commit at the head of a branch of the shared repository; "" where there is none."""
        self._prepare()
        ref = f"refs/heads/{check_branch(branch)}"
        found = self._refs.read((ref,)).get(ref, "")
        if found:
            self._refs.fetch(found, (ref,))
        return found

    def default_branch(self) -> str:
        """The name of the default branch; "" for a repository without files, such as one that this run began."""
        self._prepare()
        name = self._refs.default_branch()
        return name if name and self._tree(self.head(name)) != self._empty_tree() else ""

    def contains(self, commit: str, branch: str) -> bool:
        """Whether a branch of the shared repository holds a commit, at its head or below."""
        head = self.head(branch)
        # A commit that is not here cannot be below a head that was just fetched.
        return bool(head) and self._git.attempt("merge-base", "--is-ancestor", commit, head).code == 0

    def merge(
        self,
        commit: str,
        *,
        into: str,
        strategy: Strategy,
        message: str,
        trailers: Mapping[str, str],
        favor: Favor = "fail",
        resolve: Resolve | None = None,
        costs: Callable[[], Mapping[str, str]] = dict,
    ) -> Merge:
        """Try a merge with no work tree and move no branch."""
        self._fetched(commit)
        how = How(message, trailers, favor, resolve, costs)
        return merge(self._git, commit, base=self.head(into), into=into, strategy=strategy, how=how)

    def push(self, commit: str, *, branch: str, expected: str, lease: Lease) -> None:
        """Move a branch from `expected` to `commit`, once and forwards only."""
        self._fetched(commit)
        ref = f"refs/heads/{check_branch(branch)}"
        kept = f"{self._run_refs}/pushed/{commit[:12]}"
        if expected and self._git.attempt("merge-base", "--is-ancestor", expected, commit).code:
            raise StageError(f"{commit[:12]} does not build on {expected[:12]}: {branch} would lose commits", hint="merge again")
        lease.check()
        known = self._refs.read((ref, kept))
        if known.get(ref) == commit:
            return
        # A merge's commit is on no branch of the run: the extra ref lets other machines fetch it when the branch has moved on.
        moves = {ref: (expected, commit)} | ({} if kept in known else {kept: ("", commit)})
        if not self._refs.move(moves) and self._refs.read((ref,)).get(ref) != commit:
            raise TransientError(f"branch {branch} of {self._url} moved meanwhile", hint="merge again on its new head")

    def offered(self, into: str) -> str:
        """The branch that a pull request of this run into a branch offers."""
        return f"{self._pulls}/{slug(check_branch(into))}"

    def offer(self, commit: str, *, into: str, measured: str, lease: Lease) -> None:
        """Move `offered(into)` to `commit` from wherever this run has put it before. Both commits stay to be had by other machines."""
        self._fetched(commit)
        ref = f"refs/heads/{self.offered(into)}"
        ours, kept = f"{self._run_refs}/offered/{commit[:12]}", f"{self._run_refs}/pushed/{measured[:12]}"
        lease.check()
        known = self._refs.read((ref, f"{self._run_refs}/*"))
        head = known.get(ref, "")
        if head and f"{self._run_refs}/offered/{head[:12]}" not in known:
            raise StageError(
                f"{self.offered(into)} stands at {head[:12]}, which this run did not push there",
                hint="somebody added to the pull request: merge it by hand, or take that commit back and clear the stage",
            )
        moves = {name: ("", to) for name, to in ((ours, commit), (kept, measured)) if name not in known}
        if head != commit:
            moves[ref] = (head, commit)
        if moves and not self._refs.move(moves):
            raise TransientError(f"branch {self.offered(into)} of {self._url} moved meanwhile", hint="the next try looks at it again")

    def drop_run(self) -> bool:
        """Delete the run's branches and refs from the shared repository; whether there were any. Other branches stay."""
        self._prepare()
        found = self._refs.read((f"refs/heads/{self._branch}", f"refs/heads/{self._pulls}/*", f"{self._run_refs}/*"))
        self._refs.drop(found)
        return bool(found)

    # --- within ---------------------------------------------------------------------------------

    def _prepare(self) -> None:
        if not self._ready:
            _require_git(self._git.version())
            self._git.initialise()
            self._ready = True

    def _fetched(self, commit: str) -> str:
        """`commit`, made sure to be in the local repository."""
        self._prepare()
        if not COMMIT.fullmatch(commit):
            raise ProjectError(f"{commit[:80]!r} is no commit", hint="start the run again from its first stage")
        self._refs.fetch(commit, (f"refs/heads/{self._branch}", f"{self._run_refs}/*"))
        return commit

    def _tree(self, commit: str) -> str:
        return self._git("rev-parse", f"{commit}^{{tree}}").text

    def _empty_tree(self) -> str:
        return self._git("hash-object", "-t", "tree", "-w", "--stdin").text

    def _empty_commit(self) -> str:
        return self._git("commit-tree", self._empty_tree(), stdin=b"Begin\n").text

    def _refuse_too_large(self, commit: str) -> None:
        """Trees of a few bytes can unpack to billions of files: count before writing."""
        listed = self._git("ls-tree", "-r", "-z", "--long", "--full-tree", commit, limit=_MOST_ENTRIES_TEXT).out
        sizes = (entry.split(b"\t", 1)[0].split()[3] for entry in listed.split(b"\0") if entry)
        total = sum(int(size) for size in sizes if size != b"-")
        if total > _MOST_BYTES:
            raise ProjectError(f"the files of {commit[:12]} are {total} bytes, more than {_MOST_BYTES}", hint="keep large files elsewhere")

    def _write_tree(self, files: Path, parent: str) -> str:
        with self._git.scratch() as scratch:
            env = {"GIT_INDEX_FILE": str(scratch / "index"), "GIT_WORK_TREE": str(files.resolve())}
            self._git("read-tree", f"{parent}^{{tree}}", env=env)
            self._refuse_repositories(files, env)
            self._git("add", "--all", "--", ".", env=env, cwd=files, timeout_s=600, stoppable=True)
            return self._git("write-tree", env=env).text

    def _refuse_repositories(self, files: Path, env: Mapping[str, str]) -> None:
        """Refuse a `.git` that would be committed as a submodule or left out silently; one in an ignored folder does not matter."""
        found = []
        for folder, folders, names in os.walk(files):
            found += [Path(folder).relative_to(files) for name in (*folders, *names) if name.lower() == ".git"]
            folders[:] = [name for name in folders if name.lower() != ".git"]
        if not found:
            return
        inside = [path for path in found if path != Path()]
        given = b"".join(os.fsencode(path) + b"\0" for path in inside)
        done = self._git("check-ignore", "-z", "--stdin", stdin=given, env=env, cwd=files, ok=(0, 1)) if inside else None
        ignored = {os.fsdecode(path) for path in done.out.split(b"\0")} if done else set()
        for path in found:
            if str(path) not in ignored:
                raise ProjectError(f"{path / '.git'} is a repository inside the project", hint="remove it, or ignore its folder")

    def _made_before(self, heads: Iterable[str], parent: str, tree: str, trailers: Mapping[str, str]) -> str:
        """The commit of an earlier try of the same stage with the same content; "" where there is none."""
        wanted = [parent, tree, trailers.get("Taxiway-Run", ""), trailers.get("Taxiway-Stage", "")]
        keys = "%P%x00%T%x00%(trailers:key=Taxiway-Run,valueonly,separator=%x2C)%x00%(trailers:key=Taxiway-Stage,valueonly,separator=%x2C)"
        for head in dict.fromkeys(heads):
            self._fetched(head)
            if self._git("log", "-1", f"--format={keys}", head, "--").text.split("\0") == wanted:
                return head
        return ""


def _refuse_inside(home: Home, remote: Remote) -> None:
    """Reports and checkouts lie in the home, and a project writes them: git believes the settings of a repository on this machine,
    and those can name commands."""
    if remote.scheme != "file":
        return
    place = Path(remote.url).resolve()
    if place.is_relative_to(home.path.resolve()) and not place.is_relative_to(home.repositories.resolve()):
        raise InputError(f"repository {remote.url!r} lies in the Taxiway home, where projects write", hint="clone it elsewhere")


def _identity(started: datetime) -> dict[str, str]:
    date = f"@{int(started.timestamp())} +0000"
    author = {"GIT_AUTHOR_NAME": "Taxiway", "GIT_AUTHOR_EMAIL": "taxiway@localhost", "GIT_AUTHOR_DATE": date}
    return author | {name.replace("AUTHOR", "COMMITTER"): value for name, value in author.items()}


def _require_git(version: str) -> None:
    numbers = re.search(r"(\d+)\.(\d+)", version)
    if not numbers or (int(numbers[1]), int(numbers[2])) < _OLDEST_GIT:
        raise OperatorError(f"{version or 'git'} is too old", hint="install git 2.38 or newer")
