"""What a run or one of its stages changed, as a diff."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import typer
from rich.console import Console
from rich.text import Text

from taxiway.cli.logs import chosen_tasks, visible
from taxiway.cli.project import Project
from taxiway.cli.reach import Records
from taxiway.cli.watching import LEAF
from taxiway.errors import OperatorError, TaxiwayError
from taxiway.home import Home
from taxiway.integrations.airflow_rest import Run
from taxiway.integrations.git_changes import Changes, fetched
from taxiway.integrations.git_url import slug
from taxiway.stage import run_key

__all__ = ["diff_of", "show_diff"]

_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def diff_of(known: Records, run: Run, stage: str, project: Project | None, environ: Mapping[str, str], *, stat: bool) -> bytes:
    """The diff, from this machine's home, else from the repository that the run worked on; empty where nothing was changed.
    Raises OperatorError where neither has the run."""
    tasks = [t for t in chosen_tasks(known, run, stage) if t.id != LEAF]
    results = [(t.id, known.result(run.dag, run.id, t.id, map_index=t.map_index)) for t in tasks]
    wanted = _Wanted(run, run_key(run.dag, run.id), [(name, result.commit if result else "") for name, result in results], stage, stat)
    if project and (content := wanted.diff(Changes(project.home, environ))) is not None:
        return content
    url = str(run.conf.get("repository") or "")
    if not url:
        raise wanted.not_here()
    with TemporaryDirectory(prefix="taxiway-diff-", ignore_cleanup_errors=True) as scratch:
        typer.echo(f"fetching {wanted.branch} from {url} ...", err=True)
        try:
            content = wanted.diff(fetched(url, run.dag, wanted.key, Home(Path(scratch)), environ))
        except TaxiwayError as error:
            raise wanted.not_here(f", and cannot be fetched: {error.problem}") from error
    if content is None:
        raise wanted.not_here(", nor in the repository that it worked on")
    return content


@dataclass(frozen=True)
class _Wanted:
    """What is to be shown of a run: `commits` are its stages with what each handed on, `stage` is "" for all of them."""

    run: Run
    key: str
    commits: Sequence[tuple[str, str]]
    stage: str
    stat: bool

    @property
    def branch(self) -> str:
        return f"taxiway/{slug(self.run.dag)}/{slug(self.key)}"

    def diff(self, changes: Changes) -> bytes | None:
        """As bytes; None where these repositories do not have the run."""
        dag, commits = self.run.dag, [commit for _, commit in self.commits if commit]
        if not changes.knows(dag, self.key, commits):
            return None
        if not self.stage:
            change = changes.of_run(dag, self.key, commits)
            return change.diff(stat=self.stat) if change else b""
        found = [changes.of_stage(dag, self.key, name, commit) for name, commit in self.commits]
        return b"".join(change.diff(stat=self.stat) for change in found if change)

    def not_here(self, why: str = "") -> OperatorError:
        run, url = self.run, str(self.run.conf.get("repository") or "")
        if url:
            hint = f"read it there: git fetch {url} {self.branch} && git log -p FETCH_HEAD"
            return OperatorError(f"the commits of run {run.id} of {run.dag} are not on this machine{why}", hint=hint)
        place = f"in its Taxiway home under repositories/, on branch {self.branch}"
        hint = f"if it committed anything, that is on the machine that ran it, {place}"
        return OperatorError(f"the repository of run {run.id} of {run.dag} is not on this machine", hint=hint)


def show_diff(console: Console, content: bytes) -> None:
    """As it is into a pipe; coloured, and without what would steer it, on a terminal."""
    if not console.is_terminal:
        typer.echo(content, nl=False)
        return
    for line in content.decode("utf-8", "replace").splitlines():
        head = line.startswith(("+++", "---", "diff ", "index "))
        console.print(Text(visible(line), style="bold" if head else _STYLES.get(line[:1], "")), soft_wrap=True)
