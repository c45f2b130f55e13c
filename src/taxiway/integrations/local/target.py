"""`LocalTarget`: services as supervised processes of this machine, each behind a switch on loopback."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from taxiway.errors import Cancelled, NotTrusted, OperatorError, ProjectError, TaxiwayError, TransientError
from taxiway.home import Home
from taxiway.integrations import bubblewrap
from taxiway.integrations.local.client import Client, NotRunning
from taxiway.integrations.local.state import State, StoredRelease, read_state
from taxiway.ports import Cancellation, Environment, Lease, Release, ServiceStatus

__all__ = ["LocalTarget"]

_NAME = re.compile(r"[a-z][a-z0-9-]{1,39}")
_RELEASE = re.compile(r"[0-9A-Za-z_-]{1,64}")
_POLL_S = 0.1
_DRAINS_S = 15.0

Say = Callable[[str], None]


class LocalTarget:
    """Implements `ports.Target`. Code that is not `trusted` runs only where bubblewrap isolates it;
    `isolate=False` runs trusted code without isolation even where there is some."""

    def __init__(self, home: Home, *, trusted: bool = False, isolate: bool = True) -> None:
        self._home = home
        self._trusted = trusted
        self._isolate = isolate

    def status(self, service: str) -> ServiceStatus | None:
        """What runs now; a service whose daemon was killed is started again."""
        client = self._client(service)
        state = read_state(client.folder)
        if state is None or not (state.live or state.previous):
            return None
        said = client.status()
        if said is None and state.live and not state.stopped:
            client.start()
            said = client.status()
        return _status(read_state(client.folder) or state, said)

    def revive(self) -> list[str]:
        """Start the daemons of services that are to run and have none (after a restart of the machine); their names.

        Raises the first OperatorError after all were tried.
        """
        started, problems = [], []
        for folder in sorted(self._home.services.iterdir()) if self._home.services.is_dir() else ():
            state = read_state(folder) if _NAME.fullmatch(folder.name) else None
            client = Client(self._home, folder.name)
            if state and state.live and not state.stopped and client.status() is None:
                try:
                    client.start()
                    started.append(folder.name)
                except OperatorError as error:
                    problems.append(error)
        if problems:
            raise problems[0]
        return started

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
        say: Say,
    ) -> ServiceStatus:
        """Make `release` live and healthy; see `ports.Target.deploy`."""
        client = self._client(release.service)
        if not _RELEASE.fullmatch(release.id):
            raise OperatorError(f"{release.id!r} is no release id")
        stored = StoredRelease.of(release, environment=environment, isolated=self._isolated(), strategy=strategy)
        said = self._claim(client, lease, stop)
        state = _state(client)
        live = state.release(state.live)
        if said["state"] == "running" and live is not None and live.same_as(stored):
            say(f"release {release.id} is live and healthy already")
            return _status(state, said)
        _copy(files, client.folder / "releases", release.id)
        return self._change(client, stored, drain_s, lease, stop, say)

    def restore(self, service: str, release: str, *, lease: Lease, stop: Cancellation, say: Say) -> ServiceStatus:
        """Make an earlier release live and healthy again, or none; see `ports.Target.restore`."""
        client = self._client(service)
        state = read_state(client.folder)
        if not release:
            return self._remove(client, state, lease, stop, say)
        stored = state.release(release) if state else None
        if stored is None:
            raise ProjectError(f"release {release} of service {service} is not kept any more", hint="deploy its commit again")
        said = self._claim(client, lease, stop)
        state = _state(client)
        if said["state"] == "running" and said["live"] == release:
            say(f"release {release} is live and healthy already")
            return _status(state, said)
        # Beside what is live, whatever it was deployed with: what is live may still answer.
        stored = stored.model_copy(update={"strategy": "blue-green"})
        return self._change(client, stored, _DRAINS_S, lease, stop, say)

    def _client(self, service: str) -> Client:
        if not _NAME.fullmatch(service):
            raise OperatorError(f"{service!r} is no name of a service", hint="lower case letters, digits and dashes, at most 40")
        return Client(self._home, service)

    def _isolated(self) -> bool:
        lacking = bubblewrap.available() if self._isolate else "isolation is switched off"
        if lacking is not None and not self._trusted:
            raise NotTrusted(f"the service's code is not trusted and nothing isolates it: {lacking}")
        return lacking is None

    def _claim(self, client: Client, lease: Lease, stop: Cancellation) -> dict[str, Any]:
        stop.check()
        lease.check()
        client.start()
        return client.call("claim", fence=lease.fence)

    def _remove(self, client: Client, state: State | None, lease: Lease, stop: Cancellation, say: Say) -> ServiceStatus:
        if state is None or (not state.live and client.status() is None):
            return ServiceStatus(client.service, _url(state), None, "stopped")
        self._claim(client, lease, stop)
        stop.check()
        lease.check()
        client.call("remove", fence=lease.fence)
        client.stop(rest=True)
        say(f"service {client.service} was not there before and is stopped")
        return _status(_state(client), None)

    def _change(  # noqa: PLR0917
        self, client: Client, release: StoredRelease, drain_s: float, lease: Lease, stop: Cancellation, say: Say
    ) -> ServiceStatus:
        """Start the release beside, wait for its health, switch, wait until the old one is gone."""
        stop.check()
        lease.check()
        number = 0
        try:
            number = client.call("prepare", fence=lease.fence, release=release.model_dump())["candidate"]["number"]
            say(f"release {release.id} starts {'in place of' if release.strategy == 'recreate' else 'beside'} what is live")
            self._await_health(client, number, stop, say)
            stop.check()
            lease.check()
            said = self._switch(client, lease, number, drain_s)
        except BaseException:
            self._give_up(client, lease, number)
            raise
        state = _state(client)
        say(f"release {release.id} is live at {_url(state)}")
        return _status(state, self._await_drained(client, said, drain_s, stop, say))

    def _await_health(self, client: Client, number: int, stop: Cancellation, say: Say) -> None:
        began = said_at = time.monotonic()
        while True:
            candidate = client.call("status")["candidate"]
            if candidate is None or candidate["number"] != number:
                raise TransientError("the daemon gave the starting release up", hint="a newer attempt may have taken over")
            if candidate["state"] == "healthy":
                say(f"healthy after {time.monotonic() - began:.1f} s")
                return
            if candidate["state"] == "failed":
                raise _not_healthy(candidate)
            if time.monotonic() - said_at > 5.0:  # noqa: PLR2004 - seconds between two lines of the log
                said_at = time.monotonic()
                say(f"not healthy yet: {candidate['problem']}")
            stop.wait(_POLL_S)

    def _switch(self, client: Client, lease: Lease, number: int, drain_s: float) -> dict[str, Any]:
        try:
            return client.call("switch", fence=lease.fence, number=number, drain_s=drain_s)
        except NotRunning:
            # The answer was lost; the daemon's word counts, not the connection's.
            client.start()
            said = client.call("status")
            if said["number"] != number:
                raise
            return said

    def _give_up(self, client: Client, lease: Lease, number: int) -> None:
        with contextlib.suppress(TaxiwayError):
            said = client.call("abandon", fence=lease.fence, number=number)
            if said["state"] == "stopped":
                client.stop(rest=False)

    def _await_drained(self, client: Client, said: dict[str, Any], drain_s: float, stop: Cancellation, say: Say) -> dict[str, Any]:
        """The switch is done: a stop from here on ends the waiting, not the deployment."""
        until = time.monotonic() + drain_s + _DRAINS_S
        try:
            while said["old"] and time.monotonic() < until:
                stop.wait(_POLL_S)
                said = client.call("status")
        except (Cancelled, TaxiwayError):
            say("requests of the old release still drain in the background")
        return said


def _not_healthy(candidate: dict[str, Any]) -> ProjectError:
    tail = "\n".join(f"    {line}" for line in candidate["tail"][-10:])
    said = f"\n  its last lines:\n{tail}" if tail else "\n  it said nothing"
    return ProjectError(
        f"release {candidate['release']} did not become healthy: {candidate['problem']}{said}",
        hint="`start`, `port` and `health` in .taxiway.yaml say how it starts, where it listens and what answers 2xx",
    )


def _state(client: Client) -> State:
    return read_state(client.folder) or State(service=client.service)


def _url(state: State | None) -> str:
    return f"http://127.0.0.1:{state.port}" if state and state.port else ""


def _status(state: State, said: dict[str, Any] | None) -> ServiceStatus:
    live = state.release(state.live)
    return ServiceStatus(
        service=state.service,
        url=_url(state),
        live=live.release() if live else None,
        state=said["state"] if said else "stopped",
        since=state.since,
        restarts=said["restarts"] if said else 0,
        pid=said["pid"] if said else None,
    )


def _copy(files: Path, releases: Path, release: str) -> None:
    """Keep the files of a release, without compiled Python: bytecode may say something else than the source that was measured. What
    is there under its id already came from the same commit."""
    place = releases / release
    if (place / "project").is_dir():
        return
    try:
        releases.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = Path(tempfile.mkdtemp(prefix=f"{release}.", dir=releases))
    except OSError as error:
        raise OperatorError(f"cannot write to {releases}: {error.strerror}", hint="free disk space, or mend its permissions") from error
    try:
        shutil.copytree(files, fresh / "project", symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.pyo"))
        fresh.replace(place)
    except (OSError, shutil.Error) as error:
        if getattr(error, "errno", None) in (errno.ENOTEMPTY, errno.EEXIST) and (place / "project").is_dir():
            return
        raise OperatorError(
            f"cannot keep the files of release {release}: {error}", hint="free disk space, or mend its permissions"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
