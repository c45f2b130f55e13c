"""What runs committed, read from the repositories of a home, or fetched into one: no credentials, no ref moved elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taxiway.home import Home
from taxiway.integrations.git_command import Git
from taxiway.integrations.git_refs import RemoteRefs
from taxiway.integrations.git_url import parse_url, slug

__all__ = ["Change", "Changes", "fetched"]

_TRAILERS = "%(trailers:key=Taxiway-Run,valueonly,separator=%x2C)%x00%(trailers:key=Taxiway-Stage,valueonly,separator=%x2C)"
_OPTIONS = ("--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=none")
_MOST_BYTES = 200_000_000
_NETWORK_S = 120.0


@dataclass(frozen=True)
class Change:
    """From one commit to another, in a repository of the home."""

    git: Git
    base: str
    commit: str

    def diff(self, *, stat: bool = False) -> bytes:
        """As git writes it, fit for `git apply`; with `stat` only how much changed in which file; empty where nothing did."""
        form = ("--stat=100",) if stat else ("--binary",)
        return self.git("diff", *_OPTIONS, *form, self.base, self.commit, "--", limit=_MOST_BYTES).out


@dataclass(frozen=True)
class Changes:
    """The repositories of a home: those that runs made, and the mirrors of those that they were given.

    Runs are named by their key (`taxiway.stage.run_key`). `commits` are those that the run's stages handed on, in order: a
    mirror has the commits of its runs, and not their branches.
    """

    home: Home
    environ: Mapping[str, str]

    def of_run(self, pipeline: str, run: str, commits: Sequence[str]) -> Change | None:
        """All that the run committed on its branch; None where its commits are in no repository of the home."""
        for git in self._repositories(pipeline, run):
            branch, start = f"refs/heads/taxiway/{slug(pipeline)}/{slug(run)}", f"refs/taxiway/runs/{slug(run)}/start"
            refs = _refs(git, branch, start)
            if start in refs:
                return Change(git, refs[start], refs.get(branch, refs[start]))
            own = [commit for commit in commits if _stage_of(git, commit, run)]
            if own:
                base = _parent(git, own[0])
                return Change(git, base, next(c for c in reversed(own) if _leads(git, base, c, run)))
        return None

    def of_stage(self, pipeline: str, run: str, stage: str, commit: str) -> Change | None:
        """What one stage committed: `commit`, if it made the one that it handed on, else that of its last try; None where there is none."""
        for git in self._repositories(pipeline, run):
            tries = _refs(git, f"refs/taxiway/runs/{slug(run)}/stages/{slug(stage)}")
            last = max(tries, key=lambda name: int(name.rsplit("/", 1)[1].partition("-")[0]), default="")
            for made in filter(None, (commit, tries.get(last, ""))):
                if _stage_of(git, made, run) == stage:
                    return Change(git, _parent(git, made), made)
        return None

    def knows(self, pipeline: str, run: str, commits: Sequence[str]) -> bool:
        """Whether a repository of the home has the run."""
        if self.of_run(pipeline, run, commits):
            return True
        asked = [(git, f"{commit}^{{commit}}") for git in self._repositories(pipeline, run) for commit in commits]
        return any(git.attempt("cat-file", "-e", wanted).code == 0 for git, wanted in asked)

    def _repositories(self, pipeline: str, run: str) -> Iterator[Git]:
        own = self.home.repositories / slug(pipeline) / f"{slug(run)}.git"
        for folder in (own, *sorted((self.home.repositories / "mirrors").glob("*.git"))):
            if _readable(folder):
                yield Git(folder, environ=self.environ, identity={})


def fetched(url: str, pipeline: str, run: str, home: Home, environ: Mapping[str, str]) -> Changes:
    """The run's branch and refs from the repository that it worked on, in a home that holds nothing else; without Airflow's
    credentials. Raises TaxiwayError where it cannot be reached so."""
    remote = parse_url(url)
    git = Git(home.repositories / "mirrors" / f"{slug(run)}.git", environ=environ, identity={}, remote=remote)
    git.initialise()
    there = RemoteRefs(git, remote.url).read([f"refs/heads/taxiway/{slug(pipeline)}/{slug(run)}", f"refs/taxiway/runs/{slug(run)}/*"])
    if there:
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        git("fetch", *options, "--", remote.url, *(f"+{name}:{name}" for name in there), timeout_s=_NETWORK_S)
    return Changes(home, environ)


def _readable(folder: Path) -> bool:
    return (folder / "HEAD").is_file()


def _refs(git: Git, *names: str) -> dict[str, str]:
    lines = git("for-each-ref", "--format=%(refname) %(objectname)", *names).text.splitlines()
    return dict(line.split(" ", 1) for line in lines)


def _stage_of(git: Git, commit: str, run: str) -> str:
    """The stage of this run that made the commit; "" where it was made otherwise, or is not here."""
    done = git.attempt("log", "-1", f"--format={_TRAILERS}", commit, "--")
    of, _, stage = done.text.partition("\0")
    return stage if done.code == 0 and of == run else ""


def _parent(git: Git, commit: str) -> str:
    done = git.attempt("rev-parse", "--verify", "--quiet", f"{commit}^1")
    return done.text if done.code == 0 else git("hash-object", "-t", "tree", "--stdin").text


def _leads(git: Git, base: str, commit: str, run: str) -> bool:
    """Whether nothing but this run's commits lies between: a merge into a branch that moved brings others' along."""
    lines = git("log", "--first-parent", f"--format={_TRAILERS}", f"{base}..{commit}", "--").text.splitlines()
    return bool(lines) and all(line.partition("\0")[0] == run for line in lines)
