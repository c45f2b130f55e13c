"""Where Taxiway's world begins: one Protocol for each thing that an agent can reach.

Agents get all of it as arguments; the classes behind these Protocols live in `taxiway.integrations`
and are put together only where a run begins (`taxiway_airflow.connections`, `taxiway.cli`, tests).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

__all__ = [
    "SOURCE_TRAILER",
    "Advisories",
    "ArtifactStore",
    "Audit",
    "Browser",
    "Cancellation",
    "Change",
    "Command",
    "CommandResult",
    "Conflict",
    "Ending",
    "Environment",
    "Environments",
    "Favor",
    "Forge",
    "Health",
    "Hunk",
    "Lease",
    "Ledger",
    "Level",
    "Merge",
    "Model",
    "Models",
    "PackageManager",
    "Pinned",
    "Pins",
    "Ports",
    "PullRequest",
    "Readiness",
    "Release",
    "Reply",
    "Resolution",
    "Resolve",
    "RunRecord",
    "Sandbox",
    "Server",
    "Servers",
    "ServiceStatus",
    "Severity",
    "Spending",
    "Strategy",
    "Target",
    "TornFile",
    "Upgraded",
    "Usage",
    "Vulnerability",
    "Workspace",
]


class Cancellation(Protocol):
    """Asked before every act that changes the world, and while waiting."""

    @property
    def requested(self) -> bool:
        """Whether somebody stopped the run."""

    def check(self) -> None:
        """Raise Cancelled if somebody stopped the run, StageTimeout or DeadlineExceeded if time is up."""

    def remaining_s(self) -> float:
        """Seconds until the try's or the run's time is up, whichever comes first; never negative."""

    def wait(self, seconds: float) -> None:
        """Sleep, waking at once (and raising as `check` does) when the run is stopped or time is up."""


# --- running commands ---------------------------------------------------------------------------

Ending = Literal["exited", "timeout", "memory", "processes"]


@dataclass(frozen=True)
class Command:
    """A command to run on a checkout, as an argument vector; no shell ever sees it.

    `checkout` is shown at `/project` inside an isolated sandbox (and is the working directory), read-only
    unless `writable`; `reports` is a directory that the command may write to, shown at `/reports`.
    In `argv` and `env` the words `{project}`, `{reports}` and `{environment}` stand for the places as the
    command sees them, so that the same command works with and without isolation. `visible` are folders of this
    machine that an isolated command sees besides, at their own places, read-only.
    """

    argv: tuple[str, ...]
    checkout: Path
    reports: Path | None = None
    environment: Environment | None = None
    tools: Environment | None = None
    writable: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    visible: tuple[Path, ...] = ()
    timeout_s: float = 120.0
    memory_mb: int = 2048
    processes: int = 256
    output_limit: int = 10_000_000


@dataclass(frozen=True)
class CommandResult:
    """How a command ended; `exit_code` is negative for a signal. Output is cut in the middle, never lost silently."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str
    duration_s: float
    ended: Ending = "exited"
    truncated: bool = False

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.ended == "exited" and self.exit_code == 0


class Sandbox(Protocol):
    """Runs commands of a project with a clean environment, limits and, where it can, isolation."""

    @property
    def isolated(self) -> bool:
        """Whether commands see neither this machine's files nor its network."""

    def run(self, command: Command, stop: Cancellation) -> CommandResult:
        """Run to the end; raise Cancelled when stopped, NotTrusted where the code may not run here,
        OperatorError where the command itself cannot be started."""


@dataclass(frozen=True)
class Environment:
    """A Python environment, read-only for what runs in it. `key` is its content's hash; `cached` says it was there already."""

    path: Path
    key: str
    cached: bool

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"


class Environments(Protocol):
    """Installs environments once and shares them by content and trust."""

    def project(self, checkout: Path, stop: Cancellation) -> Environment:
        """The dependencies that the project's manifest names; raise ProjectError if they cannot be installed."""

    def tools(self, stop: Cancellation) -> Environment:
        """Taxiway's own pinned tools (ruff, mypy, pytest, coverage)."""

    def tool(self, name: str, version: str, stop: Cancellation) -> Environment:
        """One tool in a version of a project's choice, from the index; raise ProjectError where it is not to be had."""

    def browser_tools(self, stop: Cancellation) -> Environment:
        """Taxiway's own pinned Playwright, its pytest plugin and axe-core; no browser."""


@dataclass(frozen=True)
class Browser:
    """A browser of this machine that Playwright can drive. `folders` are what it needs to see beside the system;
    `films` says whether it can be filmed (ffmpeg is there)."""

    name: Literal["chromium", "firefox", "webkit"]
    executable: Path
    folders: tuple[Path, ...] = ()
    films: bool = False


@dataclass(frozen=True)
class Server:
    """A database server that tests can use: programs of this machine in `programs`, to be started beside the tests, which
    `folders` they need to see beside the system; or, with `url`, one that runs elsewhere and is reached by `socket`, with
    `{port}` in the URL for the port that leads there. `secrets` are parts of the URL that no log may show."""

    name: Literal["postgres", "redis"]
    version: int
    programs: Path = Path()
    folders: tuple[Path, ...] = ()
    url: str = ""
    socket: Path | None = None
    secrets: tuple[str, ...] = ()


class Servers(Protocol):
    """Has the database servers that tests of projects need."""

    def lend(self, name: Literal["postgres", "redis"], version: int | None, stop: Cancellation) -> AbstractContextManager[Server]:
        """One for the time of a `with`; raise OperatorError where there is none of this major version."""


Level = Literal["patch", "minor", "major"]
"""How far an update may go: 1.2.3 to 1.2.x, to 1.x, to whatever is newest."""

Pins = Mapping[str, tuple[str, ...]]
"""Name of a package, as its manager spells it -> its pinned versions: more than one where several are installed, or markers tell
them apart."""


@dataclass(frozen=True)
class Pinned:
    """A file of a checkout that pins dependencies, by its path there, and what it pins."""

    path: str
    pins: Pins


@dataclass(frozen=True)
class Upgraded:
    """Pins made anew. `files` are the checkout's files (path -> text) that differ now, `pins` is what the pinning one pins now.

    By name of a package: `links` are addresses of changelogs that changed packages name themselves, `held` newer versions within the level
    that something (a range of the project, another package) forbids. `tested` says that the project's own tests passed with
    the new pins, None that they were not run, and then `untested` says why, "" where a stage of its own does that.
    """

    files: Mapping[str, str]
    pins: Pins
    links: Mapping[str, str] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    tested: Literal[True] | None = None
    untested: str = ""


class PackageManager(Protocol):
    """Writes a project's pins anew, with a package manager's own commands."""

    @property
    def expects(self) -> str:
        """The files that it looks for, and how a project gets them, in one line."""

    def find(self, checkout: Path) -> Sequence[Pinned]:
        """The files of a checkout that hold its pins, in the order in which they are to be written; raise ProjectError for one that
        cannot be read."""

    def spelled(self, name: str) -> str:
        """A person's name of a package as it stands in `Pinned.pins`."""

    def upgrade(self, checkout: Path, pinned: Pinned, *, names: Sequence[str], level: Level, stop: Cancellation) -> Upgraded:
        """The file made anew: the packages `names` as new as the level and the project allow, all others as they are. Raise
        ProjectError where that cannot be met or breaks the project's own tests, TransientError where the index does not answer,
        OperatorError where this machine lacks the manager or the index, NotTrusted where it has no isolation."""


# --- what is known about packages ----------------------------------------------------------------

Severity = Literal["critical", "high", "medium", "low", "unrated"]


@dataclass(frozen=True)
class Vulnerability:
    """A known vulnerability of one version of a package. `ids` are all its names, that of the advisory first; `severity` is
    the worst that any of its records gives, `unrated` where none gives one; `fixed` are versions that mend it."""

    ids: tuple[str, ...]
    severity: Severity
    summary: str = ""
    fixed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audit:
    """What an advisory service said about packages, by (name, version). Each that was asked for is in exactly one of these:
    `vulnerabilities`, an empty tuple where the service knows the version and nothing against it; `unknown`, where the
    service does not know it; `failed`, where it gave no usable answer; the last two say why."""

    vulnerabilities: Mapping[tuple[str, str], tuple[Vulnerability, ...]]
    unknown: Mapping[tuple[str, str], str]
    failed: Mapping[tuple[str, str], str]


class Advisories(Protocol):
    """Knows the vulnerabilities of published packages."""

    def audit(self, packages: Sequence[tuple[str, str]], stop: Cancellation) -> Audit:
        """Ask about packages by normalised name and version. A service that does not answer, or badly, is in the Audit and
        raises nothing; raise only as `stop` does."""


# --- code ---------------------------------------------------------------------------------------

Strategy = Literal["merge", "squash", "rebase", "fast-forward"]


SOURCE_TRAILER = "Taxiway-Source"
"""The trailer that says which commit of a run a merge brought in: a second attempt finds the first one's work by it."""

Favor = Literal["fail", "ours", "theirs"]
"""Who decides a hunk that both sides changed: nobody, the branch merged into (ours), or the change (theirs)."""


@dataclass(frozen=True)
class Conflict:
    """A place that does not merge by itself. `line` counts in the branch's own file; `kind` is git's word (contents, binary,
    modify/delete, ...), `reason` a sentence."""

    path: str
    line: int
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Merge:
    """A merge tried without touching anything: the commit that it would make, or its conflicts.

    `base` is the target branch's head that it was tried on ("" where the branch does not exist yet). `decided` are
    the conflicts that one side won; with `conflicts` there is no commit.
    """

    commit: str
    base: str
    conflicts: tuple[Conflict, ...] = ()
    up_to_date: bool = False
    decided: tuple[Conflict, ...] = ()


@dataclass(frozen=True)
class Hunk:
    """Lines that both sides changed: as they were, as the branch that is merged into has them (ours), and as the change has them
    (theirs). `line` is as in Conflict."""

    line: int
    base: str
    ours: str
    theirs: str


@dataclass(frozen=True)
class TornFile:
    """A text file that does not merge by itself: what does, as text, and the hunks in between. The messages are those of the
    commits that changed it, newest first."""

    path: str
    parts: tuple[str | Hunk, ...]
    ours_messages: str = ""
    theirs_messages: str = ""

    @property
    def hunks(self) -> tuple[Hunk, ...]:
        """What has to be decided, from the top."""
        return tuple(part for part in self.parts if isinstance(part, Hunk))

    def mended(self, texts: Sequence[str]) -> str:
        """The file with a text in place of each hunk; nothing else of it changes."""
        given = iter(texts)
        return "".join(part if isinstance(part, str) else next(given) for part in self.parts)


@dataclass(frozen=True)
class Resolution:
    """The lines that a hunk becomes, None where it stays a conflict; and why, in one line."""

    text: str | None
    reason: str


Resolve = Callable[[TornFile], Sequence[Resolution]]
"""Decides the hunks of a file, each of them, from the top."""


class Workspace(Protocol):
    """The run's git repository: one branch a run, one commit a stage that changed something."""

    @property
    def url(self) -> str:
        """Where the repository is, without credentials."""

    @property
    def branch(self) -> str:
        """The run's branch."""

    def start(self) -> str:
        """The commit that the run starts from: the default branch's head; a new repository gets an empty first commit."""

    def checkout(self, commit: str, into: Path) -> None:
        """Write the files of a commit into an empty directory, without a `.git`."""

    def commit(self, files: Path, *, parent: str, message: str, trailers: Mapping[str, str], lease: Lease) -> str:
        """Commit what `files` differs in from `parent` on the run's branch and return the commit; `parent`
        where nothing differs. Doing it again with the same content gives the commit that is already there."""

    def changed(self, files: Path, *, parent: str) -> tuple[str, ...]:
        """The paths in which `files` differs from `parent`, as `commit` would have them; a renamed file is two."""

    def diff(self, base: str, commit: str) -> str:
        """The change as a unified diff with statistics, bounded in length."""

    def head(self, branch: str) -> str:
        """The commit at the head of a branch of the shared repository; "" where there is none."""

    def contains(self, commit: str, branch: str) -> bool:
        """Whether a branch of the shared repository holds a commit, at its head or below."""

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
        """Try a merge with no work tree and move no branch. What `favor` cannot decide (a file that one side deleted) stays a conflict.
        With `resolve` that is asked, where all that does not merge are lines of text files; `costs` are trailers that are known
        only afterwards."""

    def push(self, commit: str, *, branch: str, expected: str, lease: Lease) -> None:
        """Move a branch from `expected` to `commit`, once; raise TransientError if it moved meanwhile,
        LeaseLost if a newer attempt took over. A branch that already stands at `commit` is success."""

    def offered(self, into: str) -> str:
        """The branch that a pull request of this run into a branch offers."""

    def offer(self, commit: str, *, into: str, measured: str, lease: Lease) -> None:
        """Move `offered(into)` to `commit`, wherever this run has put it before, and keep the merge that was measured for it.
        Raise StageError where somebody else has pushed to that branch."""


# --- pull requests --------------------------------------------------------------------------------


@dataclass(frozen=True)
class PullRequest:
    """A pull request (merge request at GitLab) as its forge shows it. `head` is the commit that it offers; `merged` the commit
    that it became on its target, "" while it is none."""

    number: int
    url: str
    state: Literal["open", "closed", "merged"]
    head: str
    title: str
    body: str
    draft: bool = False
    merged: str = ""


@dataclass(frozen=True)
class Readiness:
    """What an open pull request still lacks, each as words for people.

    `failed` are required checks that failed, `refused` reviewers who asked for changes; `waiting` is what may still
    come (checks that run, approvals). `conflicts` and `behind` mean that the target has moved: the forge cannot merge, or does
    not merge what is not on top of the target.
    """

    failed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    conflicts: bool = False
    behind: bool = False


class Forge(Protocol):
    """Where a repository has its pull requests.

    Raises TransientError where the forge does not answer or asks to come back later, OperatorError for tokens, rights and
    addresses, StageError with the forge's words for what it refuses.
    """

    @property
    def name(self) -> str:
        """What people call it: GitHub, GitLab."""

    def check(self, strategy: Strategy) -> None:
        """Raise where the token cannot do this, or the repository does not merge by this strategy."""

    def find(self, branch: str, into: str) -> PullRequest | None:
        """The pull request from a branch into another: the open one, else the newest."""

    def open(self, branch: str, into: str, *, title: str, body: str) -> PullRequest:
        """Open one; where there is an open one, that is returned."""

    def read(self, number: int) -> PullRequest:
        """One by its number, as it is now."""

    def readiness(self, pull: PullRequest, into: str) -> Readiness:
        """What it lacks."""

    def describe(self, number: int, *, title: str, body: str) -> None:
        """Replace its title and text."""

    def comment(self, number: int, text: str) -> None:
        """Say something below it."""

    def set_status(self, commit: str, *, passed: bool, text: str) -> None:
        """Set the commit status `taxiway`; one that says the same already stays."""

    def merge(self, number: int, *, head: str, strategy: Strategy, title: str, message: str) -> None:
        """Merge it if it still offers `head`; the commit that comes to be has this title and message where the forge makes one."""

    def close(self, number: int) -> None:
        """Close it without merging."""


class ArtifactStore(Protocol):
    """Immutable files by URI."""

    def put(self, key: str, content: bytes | Path) -> str:
        """Store a file under a relative key, atomically, and return its URI; the same key again must hold the same run's attempt."""

    def get(self, uri: str) -> bytes:
        """The content; raise OperatorError where it is gone."""


# --- acting once --------------------------------------------------------------------------------


class Lease(Protocol):
    """The right to act on one key, with a fence that grows with every new holder."""

    @property
    def key(self) -> str:
        """What it is the right to act on."""

    @property
    def fence(self) -> int:
        """Grows with every new holder of the key."""

    def check(self) -> None:
        """Raise LeaseLost if another holder took over. Called right before every step that changes the world."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


ChangeState = Literal["intended", "done", "undone"]


@dataclass(frozen=True)
class Change:
    """What a run changes in the world, written before it acts: `before` is what to bring back."""

    run: str
    stage: str
    kind: Literal["deploy", "push"]
    key: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    state: ChangeState = "intended"


@dataclass(frozen=True)
class RunRecord:
    """What the ledger knows of a run, so that it can be asked for, settled and cleaned up after it ended.

    `run` is its short name, `run_id` Airflow's; `born` (seconds since the epoch) tells it from a deleted one of the same id.
    `version` is the bundle's that it runs with; `recovers` holds what each recovery covers. `entered` is when a
    stage of it last began, `closed` when nothing was left to settle (0: not yet).
    """

    run: str
    pipeline: str
    run_id: str
    born: float
    url: str = ""
    connection: str = ""
    version: str = ""
    recovers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    entered: float = 0.0
    closed: float = 0.0


@dataclass(frozen=True)
class Usage:
    """Tokens of one call, or of many added up. `input_tokens` are those that were neither read from the cache nor written to it."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )

    @property
    def prompt_tokens(self) -> int:
        """All that the model read."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def tokens(self) -> int:
        """All that the model read and wrote."""
        return self.prompt_tokens + self.output_tokens


SpendingState = Literal["reserved", "settled", "replayed", "failed", "returned"]


@dataclass(frozen=True)
class Spending:
    """One call of a model, written down before it is made. Money is in millionths of a US dollar.

    A `reserved` call counts with `most_tokens` and `most_micros` while its attempt lives; a `settled` one with what it took, a
    `replayed` one (answered from a recording) with its tokens alone;
    a `failed` one, which the provider did not answer, and a `returned` one count nothing.
    """

    run: str
    stage: str
    attempt: int
    model: str
    most_tokens: int
    most_micros: int
    usage: Usage = Usage()
    micros: int = 0
    state: SpendingState = "reserved"
    at: float = 0.0
    id: int = 0

    @property
    def answered(self) -> bool:
        """Whether there is an answer, given now or recorded."""
        return self.state in ("settled", "replayed")


class Ledger(Protocol):
    """What the machines of one installation agree on: leases, recorded changes, what models cost, and which runs there are."""

    def enter(self, run: RunRecord) -> None:
        """Write down that a stage of the run begins, before it takes its lease. What a deleted run of the same id left is put
        aside: it stays to be settled, and neither counts as this run's nor refuses its tries."""

    def lease(self, key: str, *, holder: str, attempt: int, stop: Cancellation, ttl_s: float = 30.0) -> Lease:
        """Hold `key`. A newer attempt of the same holder takes over at once; another holder waits until it is
        released or its holder has not renewed it for `ttl_s`. An older attempt gets LeaseLost."""

    def intend(self, change: Change, lease: Lease) -> Change:
        """Write down what is about to change. Where this run already recorded a change of the same stage, kind and key,
        that one's `before` stays: a second attempt must not take the first one's work for what was live."""

    def settle(self, change: Change, state: ChangeState, after: Mapping[str, Any], lease: Lease) -> Change:
        """Write down how it ended."""

    def changes(self, run: str) -> Sequence[Change]:
        """Everything that a run recorded, oldest first."""

    def reserve(self, call: Spending, admit: Callable[[Sequence[Spending]], None], lease: Lease) -> Spending:
        """Write a call down before it is made, unless `admit` raises, which is shown all calls of the run that count so far:
        nobody else reserves in between. Reservations of attempts that live no more are returned first."""

    def settle_call(self, call: Spending) -> None:
        """Write down how a reserved call ended, even where a newer attempt took over meanwhile: what was spent was spent."""

    def spending(self, run: str) -> Sequence[Spending]:
        """Every call of a run, oldest first."""


# --- running services ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Health:
    """When a release counts as healthy: `needed` answers of 2xx in a row on `path`, within `within_s`."""

    path: str = "/healthz"
    within_s: float = 60.0
    every_s: float = 0.2
    needed: int = 3
    timeout_s: float = 5.0


@dataclass(frozen=True)
class Release:
    """One version of a service. `id` is derived from the commit; the rest says how to start it."""

    id: str
    service: str
    commit: str
    start: tuple[str, ...]
    port: int
    health: Health
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ServiceStatus:
    """What a target knows of a service. `live` is the release that gets the requests."""

    service: str
    url: str
    live: Release | None
    state: Literal["running", "starting", "unhealthy", "stopped"]
    since: float = 0.0
    restarts: int = 0
    pid: int | None = None


class Target(Protocol):
    """Where services run."""

    def status(self, service: str) -> ServiceStatus | None:
        """What runs now; None where the service was never deployed."""

    def deploy(
        self,
        release: Release,
        *,
        files: Path,
        environment: Environment | None,
        strategy: Literal["blue-green", "recreate"],
        drain_s: float,
        lease: Lease,
        stop: Cancellation,
        say: Callable[[str], None],
    ) -> ServiceStatus:
        """Make `release` live and healthy, keeping what it needs to bring it back later. Already live and healthy is
        success. On failure (ProjectError) the release is stopped; with blue-green what was live stays live throughout."""

    def restore(self, service: str, release: str, *, lease: Lease, stop: Cancellation, say: Callable[[str], None]) -> ServiceStatus:
        """Make an earlier release (by id) live and healthy again; "" means: the service was not there before, stop it."""


# --- models -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """One answer: its content blocks and `stop_reason` as in the Messages API, and the model that gave it; `replayed` where it was
    recorded earlier and nobody was asked."""

    content: tuple[Mapping[str, Any], ...]
    stop_reason: str
    model: str
    usage: Usage
    replayed: bool = False

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        return "".join(str(b.get("text", "")) for b in self.content if b.get("type") == "text")


class Model(Protocol):
    """A language model behind the Messages API's vocabulary."""

    @property
    def name(self) -> str:
        """The model's id, as its provider names it."""

    def create(self, request: Mapping[str, Any], *, timeout_s: float) -> Reply:
        """Answer a Messages API request (`system`, `messages`, `tools`, `max_tokens`, ...; the model's id is filled in).

        Raises ModelUnavailable where another try may help, OperatorError for credentials and settings, ModelError for a
        request that the provider does not take.
        """


class Models(Protocol):
    """The models that this installation can ask."""

    def open(self, name: str, *, fallback: str, effort: str) -> Model | None:
        """The model of that id; None where neither a key nor a server is configured."""

    def close(self) -> None:
        """Drop all connections. The models that were opened are of no more use; others may be opened."""

    @property
    def missing(self) -> str:
        """What to configure where `open` gives None, in one line."""


@dataclass(frozen=True)
class Ports:
    """All that an agent can reach. `trusted` says that the policy trusts this run's code and no model writes any of it; `forge` has
    its pull requests; `secrets` are what no prompt and no trace may hold."""

    sandbox: Sandbox
    environments: Environments
    workspace: Workspace
    artifacts: ArtifactStore
    ledger: Ledger
    targets: Mapping[str, Target]
    advisories: Advisories | None = None
    trusted: bool = False
    browsers: Mapping[str, Browser] = field(default_factory=dict)
    models: Models | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)
    servers: Servers | None = None
    forge: Forge | None = None
    upgrades: Mapping[str, PackageManager] = field(default_factory=dict)
