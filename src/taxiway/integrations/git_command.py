"""One git command: a fixed environment, an argument vector, a time limit, and an error that says who must act."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from taxiway.errors import OperatorError, ProjectError, TaxiwayError, TransientError
from taxiway.integrations.git_process import Bounds, Done, run
from taxiway.integrations.git_url import Remote
from taxiway.ports import Cancellation

__all__ = ["Done", "Git", "GitCredentials"]

_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.autocrlf=false",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "color.ui=false",
    "commit.gpgSign=false",
    "push.gpgSign=false",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "push.recurseSubmodules=no",
    "http.lowSpeedLimit=100",
    "http.lowSpeedTime=30",
    "protocol.allow=never",
    "protocol.ext.allow=never",
)
# libcurl's builds differ in which of these they read; git itself reads only the first.
_CERTIFICATES = ("GIT_SSL_CAINFO", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
_KEPT = ("PATH", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "http_proxy", "https_proxy", "all_proxy", "no_proxy")
_KEPT_UPPER = ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

# The token goes only to the host that it belongs to, whatever a server redirects to.
_ASKPASS = """#!/bin/sh
case "$1" in
  *"://$TAXIWAY_GIT_HOST'"* | *"@$TAXIWAY_GIT_HOST'"*) ;;
  *) exit 1 ;;
esac
case "$1" in
  Username*) printf '%s\\n' "$TAXIWAY_GIT_USER" ;;
  Password*) printf '%s\\n' "$TAXIWAY_GIT_TOKEN" ;;
  *) exit 1 ;;
esac
"""

_Cause = tuple[str, type[TaxiwayError], str]
_CAUSES: tuple[_Cause, ...] = (
    (
        r"No space left|Disk quota exceeded|Read-only file system|insufficient permission for adding",
        OperatorError,
        "make room, or let this user write to the Taxiway home",
    ),
    (r"dubious ownership", OperatorError, "let the repository belong to the user that Taxiway runs as"),
    (
        r"certificate|SSL_ERROR|gnutls_handshake|Host key verification failed",
        OperatorError,
        "add the server's certificate authority (SSL_CERT_FILE) or its SSH host key (known_hosts)",
    ),
    (
        (
            r"Authentication failed|could not read (Username|Password)|Permission denied \(|returned error: 40[13]"
            r"|invalid credentials|Load key|Permission denied, please try again"
        ),
        OperatorError,
        "make an Airflow git connection with a token or an SSH key that may read and push",
    ),
    (
        (
            r"Could not resolve|Name or service not known|Temporary failure|Connection (refused|reset|timed out)|Failed to connect"
            r"|timed out|Network is unreachable|No route to host|early EOF|RPC failed|remote end hung up|returned error: (429|5\d\d)"
            r"|unexpected disconnect|Empty reply|transfer closed|Operation too slow|GnuTLS recv error|Connection closed by"
        ),
        TransientError,
        "the network or the server did not answer; the next try may",
    ),
    (
        r"Unable to create '.*\.lock'|cannot lock ref|unable to lock|index file open failed: File exists",
        TransientError,
        "another git holds the repository; the next try may succeed",
    ),
    (
        r"not found|does not exist|does not appear to be a git repository|Could not read from remote|returned error: 404",
        OperatorError,
        "check the repository's URL, and that the credentials may see it",
    ),
)


@dataclass(frozen=True)
class GitCredentials:
    """How to log in: `user` and `token` (https), or the text of a private key (ssh).

    `known_hosts` replaces the user's own file; `check_host` False takes any host key.
    """

    user: str = "git"
    token: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)
    known_hosts: Path | None = None
    check_host: bool = True


@dataclass(frozen=True)
class Git:
    """Runs git on the bare repository `folder`, and against `remote` where there is one.

    `environ` is where the search path, proxies and certificates come from; nothing else of it reaches git.
    `identity` are the variables that name author, committer and their dates. `stop` ends commands that may take long, as soon as it
    says so: those that are `stoppable`.
    """

    folder: Path
    environ: Mapping[str, str] = field(repr=False)
    identity: Mapping[str, str]
    remote: Remote | None = None
    credentials: GitCredentials | None = None
    stop: Cancellation | None = None

    def __call__(
        self,
        *args: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ok: tuple[int, ...] = (0,),
        timeout_s: float = 120.0,
        limit: int = 64_000_000,
        stoppable: bool = False,
    ) -> Done:
        """Run `git args`; raise the error that says who must act where its exit code is not in `ok`."""
        done = self.attempt(*args, stdin=stdin, env=env, cwd=cwd, timeout_s=timeout_s, limit=limit, stoppable=stoppable)
        if done.code not in ok:
            raise self.error(args[0], done)
        return done

    def attempt(
        self,
        *args: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 120.0,
        limit: int = 64_000_000,
        stoppable: bool = False,
    ) -> Done:
        """Run `git args` and return however it ended."""
        with self._in_use() as held, self._login() as login:
            bounds = Bounds(timeout_s, limit, held, cwd, self.stop if stoppable else None)
            return run(self._argv(args), {**self._env(), **login, **(env or {})}, stdin, bounds)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for an index or a key; what a kill leaves of it goes with the stale lock files."""
        try:
            (self.folder / "scratch").mkdir(mode=0o700, exist_ok=True)
            with self._in_use(), tempfile.TemporaryDirectory(dir=self.folder / "scratch") as name:
                yield Path(name)
        except OSError as error:
            raise _unusable(self.folder, error) from error

    def error(self, what: str, done: Done) -> TaxiwayError:
        """The error behind a command that failed, in git's own words."""
        said = self._scrub(done.err.strip())[-2000:] or f"exit code {done.code}"
        place = self.remote.url if self.remote else str(self.folder)
        for pattern, kind, hint in _CAUSES:
            if re.search(pattern, said, re.IGNORECASE):
                return kind(f"git {what} on {place} failed: {said}", hint=hint)
        if done.code < 0:
            return TransientError(f"git {what} on {place} was killed by signal {-done.code}")
        return ProjectError(f"git {what} on {place} failed: {said}")

    def version(self) -> str:
        """What `git --version` says."""
        return run(("git", "--version"), self._env(), b"", Bounds(20, 10_000, None)).out.decode("utf-8", "replace").strip()

    def initialise(self) -> None:
        """Make the bare repository where it is missing, and remove lock files that a killed git left there."""
        if not (self.folder / "HEAD").is_file():
            self._make()
        _remove_leftovers(self.folder)

    def _make(self) -> None:
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder.parent, prefix=".new-", ignore_cleanup_errors=True) as temporary:
                fresh = Path(temporary) / "repository"
                env = {k: v for k, v in self._env().items() if k != "GIT_DIR"}
                words = ("git", "init", "--quiet", "--bare", "--template=", "--initial-branch=main", "--", str(fresh))
                done = run(words, env, b"", Bounds(60, 10_000, None))
                if done.code:
                    raise self.error("init", done)
                (fresh / "info").mkdir(exist_ok=True)
                # Bytes go in and come out as they are, whatever the .gitattributes of a tree ask for.
                (fresh / "info" / "attributes").write_text("* -text -eol -filter -ident -working-tree-encoding -export-subst\n")
                (fresh / "askpass").write_text(_ASKPASS)
                (fresh / "askpass").chmod(0o700)
                (fresh / "in-use").touch()
                with contextlib.suppress(FileExistsError, IsADirectoryError):
                    fresh.rename(self.folder)
        except OSError as error:
            if not (self.folder / "HEAD").is_file():
                raise _unusable(self.folder, error) from error

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[int | None]:
        """Hold the repository shared for a command. Its child inherits the lock, so the lock lasts as long, even if we are killed."""
        held = _open_lock(self.folder)
        try:
            fcntl.flock(held, fcntl.LOCK_SH)
            yield held
        finally:
            os.close(held)

    def _argv(self, args: tuple[str, ...]) -> tuple[str, ...]:
        settings = (*_SETTINGS, f"protocol.{self.remote.scheme}.allow=always") if self.remote else _SETTINGS
        return ("git", *(word for setting in settings for word in ("-c", setting)), *args)

    def _env(self) -> dict[str, str]:
        kept = {name: value for name, value in self.environ.items() if name in (*_KEPT, *_KEPT_UPPER)}
        env = {
            "PATH": os.defpath,
            **kept,
            **self.identity,
            "LC_ALL": "C",
            "HOME": "/dev/null",
            "XDG_CONFIG_HOME": "/dev/null",
            "GIT_DIR": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "SSH_ASKPASS": "/bin/false",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_MERGE_AUTOEDIT": "no",
            "GIT_EDITOR": "/bin/false",
            "GIT_PAGER": "cat",
        }
        if authority := next((self.environ[name] for name in _CERTIFICATES if self.environ.get(name)), ""):
            env["GIT_SSL_CAINFO"] = authority
        return env

    @contextlib.contextmanager
    def _login(self) -> Iterator[dict[str, str]]:
        given = self.credentials or GitCredentials()
        if self.remote is None or self.remote.scheme == "file":
            yield {}
        elif self.remote.scheme == "ssh" and given.private_key:
            with self.scratch() as folder:
                key = folder / "key"
                key.touch(mode=0o600)
                key.write_text(given.private_key.strip() + "\n")
                yield {"GIT_SSH_COMMAND": _ssh_command(given, key), "GIT_SSH_VARIANT": "ssh"}
        elif self.remote.scheme == "ssh":
            agent = {name: self.environ[name] for name in ("SSH_AUTH_SOCK",) if name in self.environ}
            yield {"GIT_SSH_COMMAND": _ssh_command(given, None), "GIT_SSH_VARIANT": "ssh", **agent}
        elif given.token:
            yield {
                "GIT_ASKPASS": str(self.folder / "askpass"),
                "TAXIWAY_GIT_HOST": self.remote.host,
                "TAXIWAY_GIT_USER": given.user,
                "TAXIWAY_GIT_TOKEN": given.token,
            }
        else:
            yield {}

    def _scrub(self, text: str) -> str:
        token = self.credentials.token if self.credentials else ""
        return text.replace(token, "***") if token else text


def _ssh_command(given: GitCredentials, key: Path | None) -> str:
    options = ["BatchMode=yes", "ConnectTimeout=20", f"StrictHostKeyChecking={'yes' if given.check_host else 'no'}"]
    if given.known_hosts:
        options.append(f"UserKnownHostsFile={given.known_hosts}")
    elif not given.check_host:
        options.append("UserKnownHostsFile=/dev/null")
    words = ["ssh"]
    if key:
        words += ["-F", "/dev/null", "-i", str(key)]
        options.append("IdentitiesOnly=yes")
    return shlex.join([*words, *(word for option in options for word in ("-o", option))])


def _unusable(folder: Path, error: OSError) -> OperatorError:
    return OperatorError(f"{folder} cannot be used: {error}", hint="make room, or let this user write to the Taxiway home")


def _open_lock(folder: Path) -> int:
    try:
        return os.open(folder / "in-use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(folder, error) from error


def _remove_leftovers(folder: Path) -> None:
    """Remove lock files and scratch folders if nothing of ours uses the repository: then only the dead have left them."""
    held = _open_lock(folder)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for lock in (*folder.glob("*.lock"), *(folder / "refs").rglob("*.lock")):
            lock.unlink(missing_ok=True)
        for left in (folder / "scratch").glob("*"):
            shutil.rmtree(left, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(held)
