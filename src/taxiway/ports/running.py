"""Running commands: where they run, in which environment, and who may end them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

__all__ = ["Browser", "Cancellation", "Command", "CommandResult", "Ending", "Environment", "Environments", "Sandbox", "Server", "Servers"]


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
