"""One process of git: its outputs bounded, its time limited, its children killed with it."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from taxiway.errors import OperatorError, ProjectError, TransientError
from taxiway.ports import Cancellation

__all__ = ["Bounds", "Done", "run"]

_LOOK_S = 0.1
_GRACE_S = 1.0


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """The output as text, without blanks around it."""
        return self.out.decode("utf-8", "surrogateescape").strip()


@dataclass(frozen=True)
class Bounds:
    """Seconds, bytes of each output, a descriptor that the child inherits, where it starts, and what may end it early."""

    timeout_s: float
    limit: int
    held: int | None
    cwd: Path | None = None
    stop: Cancellation | None = None


def run(argv: tuple[str, ...], env: Mapping[str, str], stdin: bytes, bounds: Bounds) -> Done:
    """Run to the end; whatever ends it early takes its children with it.

    Raises TransientError when time is up, ProjectError for more output than the limit, and what `stop.check` raises.
    """
    with tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        try:
            process = subprocess.Popen(
                argv,
                env=dict(env),
                cwd=bounds.cwd or "/",
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=() if bounds.held is None else (bounds.held,),
            )
        except FileNotFoundError as error:
            raise OperatorError("git is not installed", hint="apt-get install git (2.38 or newer)") from error
    with process:
        try:
            out, err = _read(process, bounds)
            process.wait(bounds.timeout_s)
        except (TransientError, ProjectError):
            _signal(process, signal.SIGKILL)
            raise
        except BaseException:
            # It removes its lock files, here and in a repository of this machine that it pushes to.
            _signal(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
            _signal(process, signal.SIGKILL)
            raise
    return Done(process.returncode, out, err.decode("utf-8", "replace"))


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _read(process: subprocess.Popen[bytes], bounds: Bounds) -> tuple[bytes, bytes]:
    """Both outputs to their ends; raise TransientError when time is up, ProjectError when there is more than the limit."""
    assert process.stdout is not None  # noqa: S101 - for mypy: both are pipes
    assert process.stderr is not None  # noqa: S101
    out, err = bytearray(), bytearray()
    until = time.monotonic() + bounds.timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, out)
        selector.register(process.stderr, selectors.EVENT_READ, err)
        while selector.get_map():
            left = until - time.monotonic()
            if left <= 0:
                raise TransientError(
                    f"git did not end within {bounds.timeout_s:g} s and was killed", hint="check the network, and the repository's size"
                )
            if bounds.stop is not None:
                bounds.stop.check()
            for key, _ in selector.select(left if bounds.stop is None else min(left, _LOOK_S)):
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(key.fileobj)
                key.data.extend(chunk)
                if len(key.data) > bounds.limit:
                    raise ProjectError(f"git gave more than {bounds.limit} bytes", hint="the repository is too large for Taxiway")
    return bytes(out), bytes(err)
