"""uv at work on one environment: with this machine's network and settings, or in a sandbox that reaches the index alone."""

from __future__ import annotations

import os
import re
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from taxiway.errors import OperatorError, ProjectError, TaxiwayError, TransientError
from taxiway.integrations import bubblewrap
from taxiway.integrations.execution import Execution, start
from taxiway.integrations.indexes import CREDENTIALS, uv_binary, uv_environment
from taxiway.integrations.requirements import Requirements
from taxiway.integrations.sandbox import run_isolated
from taxiway.ports import Cancellation, Command, CommandResult, Environment

__all__ = ["BASE", "DOOR", "NETWORK", "OPERATOR", "PORT", "Installer", "check_uv"]

_INSTALL_S = 900.0
_COMPILE_S = 300.0
_MEMORY_MB = 4096
_OUTPUT = 200_000
_OK_CODES_OF_COMPILEALL = (0, 1)  # 1: a file of some package is no valid Python, which its author lives with

DOOR = Path(__file__).parent / "egress" / "door.py"
_INSIDE = "/installer"
PORT = 8000  # of a network namespace in which nothing else listens
BASE = f"http://127.0.0.1:{PORT}"

NETWORK = re.compile(
    r"error sending request|dns error|connection (?:refused|reset|closed)|timed? ?out|temporary failure|request or response body|"
    r"unexpected eof|broken pipe|HTTP status (?:server error|client error \(429)|status code:? (?:429|5\d\d)|\((?:429|5\d\d) ",
    re.IGNORECASE,
)
OPERATOR = re.compile(
    r"no space left|disk quota|read-only file system|permission denied|peer certificate|certificate verify|status code:? 40[137]|"
    r"\(40[137] |unauthorized|forbidden|no interpreter found|failed to read `--find-links`",
    re.IGNORECASE,
)


class _Run(Protocol):
    """Runs one command to its end, in a place where uv is at `uv` and the requirements in `folder`."""

    @property
    def uv(self) -> str: ...

    @property
    def folder(self) -> str: ...

    def __call__(self, *argv: str, timeout_s: float) -> CommandResult: ...


@dataclass(frozen=True)
class Installer:
    """Installs wheels with uv, whose cache is `cache`. `environ` holds the machine's settings. Where it is `isolated` nothing of
    the machine is to be seen by what reads the packages, and they come through a proxy that reaches the package index alone."""

    cache: Path
    environ: Mapping[str, str] = field(repr=False)
    isolated: bool

    def install(self, path: Path, requirements: Requirements, stop: Cancellation, lock: int) -> None:
        """Make an environment at `path`, which does not exist. A process that outlives this one holds `lock`."""
        base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
        with tempfile.TemporaryDirectory(prefix="taxiway-install-") as folder:
            Path(folder, "requirements.txt").write_text(requirements.text, encoding="utf-8")
            Path(folder, "constraints.txt").write_text(requirements.constraints_text, encoding="utf-8")
            beside = _Beside(folder, self._environ(), stop, lock)
            # No cache: of one that a sandbox writes nothing is read out here.
            check_uv(beside(beside.uv, "venv", "--no-project", "--no-cache", "--quiet", "--python", base, str(path), timeout_s=_INSTALL_S))
            if not requirements.lines:
                return
            if self.isolated:
                run: _Run = self._install_isolated(path, Path(folder), requirements, stop)
            else:
                run = beside
                check_uv(run(*_pip_install(run, path, requirements), timeout_s=_INSTALL_S))
            _compile(run, path, base)

    def _install_isolated(self, path: Path, folder: Path, requirements: Requirements, stop: Cancellation) -> _Run:
        # Half a second to import, and most stages find their environment made.
        from taxiway.integrations.egress import egress, read_sources  # noqa: PLC0415

        self.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        sources = read_sources(self.environ)
        with egress(sources) as (proxy, door):
            told = sources.uv_environment(BASE, proxy.timeout_s)
            inside = _Inside(folder, path, self.cache, told, stop, door)
            result = inside(*_pip_install(inside, path, requirements), timeout_s=_INSTALL_S)
        notes = [f"{address}: {why}" for address, why in proxy.notes.items()]
        check_uv(replace(result, stderr="\n".join([sources.named(result.stderr, BASE).strip(), *notes])))
        return _Inside(folder, path, None, {}, stop)

    def _environ(self) -> dict[str, str]:
        kept = {name: self.environ[name] for name in ("HOME", "XDG_CONFIG_HOME", "TMPDIR") if name in self.environ}
        own = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_CACHE_DIR": str(self.cache),
        }
        return kept | own | uv_environment(self.environ)


@dataclass(frozen=True)
class _Beside:
    """Runs commands as processes of this machine, in exactly this environment."""

    folder: str
    environ: Mapping[str, str]
    stop: Cancellation
    lock: int

    @property
    def uv(self) -> str:
        return uv_binary()

    def __call__(self, *argv: str, timeout_s: float) -> CommandResult:
        # At / there is no uv.toml or pyproject.toml above that somebody else could have put there.
        command = Command(argv, Path("/"), timeout_s=timeout_s, memory_mb=_MEMORY_MB, output_limit=_OUTPUT)
        process = start("supervise", list(argv), cwd=command.checkout, environ=self.environ, keep=(self.lock,))
        return Execution(process, command, own_processes=1).follow(self.stop)


@dataclass(frozen=True)
class _Inside:
    """Runs commands in a sandbox that sees the requirements, uv, the interpreter, and, writable, the environment and `cache`.
    Its only way out is the listening socket that it hands out through `door`."""

    place: Path
    environment: Path
    cache: Path | None
    environ: Mapping[str, str]
    stop: Cancellation
    door: socket.socket | None = None
    uv: str = f"{_INSIDE}/uv"
    folder: str = bubblewrap.PROJECT

    def __call__(self, *argv: str, timeout_s: float) -> CommandResult:
        extra = [(self.environment.resolve(), str(self.environment.absolute()), True)]
        extra += [(Path(uv_binary()), self.uv, False), (DOOR, f"{_INSIDE}/door.py", False)] if self.door else []
        extra += [(self.cache, f"{_INSIDE}/cache", True)] if self.cache else []
        environment = Environment(self.environment, "", cached=False)
        layout = bubblewrap.Layout(
            self.place, environment=environment, extra=tuple(extra), env={**self.environ, "UV_CACHE_DIR": f"{_INSIDE}/cache"}
        )
        if self.door is not None:
            python = str(environment.python.absolute())
            argv = (python, "-I", "-S", f"{_INSIDE}/door.py", str(self.door.fileno()), str(PORT), *argv)
        command = Command(argv, self.place, timeout_s=timeout_s, memory_mb=_MEMORY_MB, output_limit=_OUTPUT)
        return run_isolated(command, layout, self.stop, hand=(self.door,) if self.door else ())


def _pip_install(run: _Run, path: Path, requirements: Requirements) -> Iterator[str]:
    yield from (run.uv, "pip", "install", "--python", str(path.absolute() / "bin" / "python"))
    # Copies: a hard link would let what writes into one environment write into uv's cache and so into all others.
    yield from ("--only-binary", ":all:", "--link-mode", "copy", "--no-progress", "--color", "never")
    yield from ["--require-hashes"] if requirements.hashed else []
    yield from ("-r", f"{run.folder}/requirements.txt", "-c", f"{run.folder}/constraints.txt")


def _compile(run: _Run, path: Path, base: str) -> None:
    if os.path.realpath(path / "bin" / "python") != base:
        raise ProjectError("a package replaces the environment's interpreter", hint="find it with `uv pip show --files`, and drop it")
    packages = sysconfig.get_path("purelib", "venv", {"base": str(path), "platbase": str(path)})
    compiled = run(base, "-I", "-S", "-m", "compileall", "-q", "-j", "2", packages, timeout_s=_COMPILE_S)
    if compiled.ended != "exited" or compiled.exit_code not in _OK_CODES_OF_COMPILEALL:
        raise ProjectError(f"the packages cannot be compiled ({compiled.ended}, exit code {compiled.exit_code}): {compiled.stderr[-500:]}")


def check_uv(result: CommandResult) -> None:
    """Raise, by who must act, for a run of uv that failed."""
    if result.ok:
        return
    words = CREDENTIALS.sub("***@", result.stderr.strip())[-3000:]
    raise _failure(result, words)


def _failure(result: CommandResult, words: str) -> TaxiwayError:
    if result.ended == "timeout":
        return TransientError(f"installing took over {_INSTALL_S:.0f} s: {words}", hint="is the package index reachable and fast?")
    if result.ended != "exited" or result.exit_code < 0:
        return OperatorError(
            f"the installer was killed ({result.ended}, exit code {result.exit_code}): {words}", hint="give the machine more memory"
        )
    if OPERATOR.search(words):
        return OperatorError(
            f"dependencies cannot be installed on this machine: {words}",
            hint="check disk, index credentials and certificates (PIP_*, UV_*, SSL_CERT_FILE)",
        )
    if NETWORK.search(words):
        return TransientError(f"the package index did not answer: {words}", hint="check the network and the index settings (PIP_*, UV_*)")
    return ProjectError(
        f"the project's requirements cannot be installed: {words}",
        hint="change its requirements; only wheels are installed, nothing is built",
    )
