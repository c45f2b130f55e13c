"""Keeps one service's live release running and changes which one is live, one change at a time, newest lease first."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taxiway.errors import LeaseLost, OperatorError, ProjectError, TaxiwayError
from taxiway.integrations.local.instance import Instance, ending
from taxiway.integrations.local.logs import OutputLog
from taxiway.integrations.local.state import State, StoredRelease, write_state

__all__ = ["Supervisor"]

_BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_STEADY_S = 60.0
_CANDIDATE_S = 30.0
_FRESH_S = 3600.0


class Supervisor:
    """The releases of the service in `folder`. Lives in one event loop; the state on disk is written before anything switches."""

    def __init__(self, folder: Path, state: State, log: OutputLog) -> None:
        self.folder = folder
        self.state = state
        self.live: Instance | None = None
        self.restarts = 0
        self._log = log
        self._scratch = folder / "scratch"
        self._candidate: Instance | None = None
        self._candidate_seen = 0.0
        self._draining: dict[Instance, asyncio.Task[None]] = {}
        self._changing = asyncio.Lock()
        # Numbers are never used again, by the next daemon neither.
        self._number = time.time_ns() // 1_000_000
        self._failures = 0
        self._keeper: asyncio.Task[None] | None = None
        self._janitor: asyncio.Task[None] | None = None
        self._touched = time.monotonic()

    # --- its own life -----------------------------------------------------------------------------

    async def open(self) -> None:
        """Start what the state says is live."""
        # What a killed daemon left.
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)
        self._janitor = asyncio.create_task(self._tidy())
        if self.state.live and not self.state.stopped:
            await self._revive()

    async def close(self) -> None:
        """Stop everything that runs."""
        if self._janitor is not None:
            self._janitor.cancel()
        async with self._changing:
            await self._drop_candidate()
            live, self.live = self.live, None
            await self._stop_keeping()
            for task in self._draining.values():
                task.cancel()
            old = list(self._draining)
            await asyncio.gather(*(i.stop(5.0) for i in ([live] if live else []) + old), return_exceptions=True)

    @property
    def unused(self) -> bool:
        """Whether nothing runs, nothing begins, and nobody asked for a while."""
        busy = self.live or self._candidate or self._draining or self._keeper or self._changing.locked()
        return not busy and time.monotonic() - self._touched > _CANDIDATE_S

    # --- what is asked over the control socket -------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """All that a client needs to know."""
        self._touched = self._candidate_seen = time.monotonic()
        live = self.live
        return {
            "live": self.state.live,
            "previous": self.state.previous,
            "stopped": self.state.stopped,
            "since": self.state.since,
            "restarts": self.restarts,
            "fence": self.state.fence,
            "pid": live.pid if live else None,
            "number": live.number if live else 0,
            "state": self._word(),
            "problem": live.problem if live and not live.healthy else "",
            "releases": [r.id for r in self.state.releases],
            "candidate": self._candidate_status(),
            "draining": sum(i.inflight for i in self._draining),
            "old": len(self._draining),
        }

    def _word(self) -> str:
        if self.live is None:
            return "unhealthy" if self._keeper else "stopped"
        if self.live.healthy:
            return "running"
        waited = time.monotonic() - self.live.started
        return "starting" if not self.live.was_healthy and waited < self.live.release.health.within_s else "unhealthy"

    async def claim(self, fence: int) -> None:
        """From now on only this lease or a newer one may change the service; raise LeaseLost for an older one."""
        if fence < self.state.fence:
            raise LeaseLost(f"service {self.state.service} has seen a newer lease ({self.state.fence}, this one is {fence})")
        if fence > self.state.fence:
            self._save(self.state.model_copy(update={"fence": fence}))

    async def prepare(self, fence: int, release: StoredRelease) -> None:
        """Start a release beside the live one (`recreate`: instead of it). An earlier candidate goes."""
        async with self._changing:
            await self.claim(fence)
            await self._drop_candidate()
            if release.strategy == "recreate":
                await self._halt()
            self._candidate_seen = time.monotonic()
            try:
                self._candidate = await self._start(release)
            except TaxiwayError:
                await self._revive_after(release)
                raise

    async def switch(self, fence: int, number: int, drain_s: float) -> None:
        """Make the candidate live; what was live gets no new request, and `drain_s` seconds for those it has."""
        async with self._changing:
            await self.claim(fence)
            candidate = self._candidate
            if candidate is None or candidate.number != number:
                if self.live is not None and self.live.number == number:
                    return
                raise ProjectError("the release to switch to is not there any more", hint="deploy again")
            if not candidate.healthy:
                raise ProjectError(f"the release is not healthy any more: {candidate.problem}", hint="see its log")
            await self._stop_keeping()
            try:
                self._save(self.state.switched(candidate.release, time.time()))
            except OperatorError:
                self._keep()
                raise
            old, self.live, self._candidate = self.live, candidate, None
            self.restarts = self._failures = 0
            self._keep()
            self._log.write("-", f"release {candidate.release.id} is live")
            if old is not None:
                self._draining[old] = asyncio.create_task(self._retire(old, drain_s))
            used = {r.id for r in self.state.releases} | {i.release.id for i in self._draining}
            await asyncio.to_thread(_prune, self.folder / "releases", used)

    async def abandon(self, fence: int, number: int) -> None:
        """Stop a candidate; what was live runs again if it was stopped for it."""
        async with self._changing:
            await self.claim(fence)
            if self._candidate is not None and self._candidate.number == number:
                await self._drop_candidate()

    async def remove(self, fence: int) -> None:
        """Stop the service as if it had never been: nothing is live."""
        async with self._changing:
            await self.claim(fence)
            await self._drop_candidate()
            previous = self.state.live or self.state.previous
            self._save(self.state.model_copy(update={"live": "", "previous": previous, "stopped": True, "since": time.time()}))
            await self._halt()

    async def begin(self) -> None:
        """An operator's start: run what is live."""
        async with self._changing:
            if not self.state.live:
                raise OperatorError(f"service {self.state.service} has no release", hint="run a pipeline that deploys it")
            if self.state.stopped:
                self._save(self.state.model_copy(update={"stopped": False, "since": time.time()}))
            if self.live is None and self._keeper is None:
                await self._revive()

    async def rest(self) -> None:
        """An operator's stop: the state says so; the daemon ends afterwards."""
        self._save(self.state.model_copy(update={"stopped": True, "since": time.time()}))

    # --- how ------------------------------------------------------------------------------------------

    def _save(self, state: State) -> None:
        write_state(self.folder, state)
        self.state = state

    async def _start(self, release: StoredRelease) -> Instance:
        project = self.folder / "releases" / release.id / "project"
        if not project.is_dir():
            raise ProjectError(f"the files of release {release.id} are gone", hint="deploy its commit again")
        if release.environment and not Path(release.environment).is_dir():  # noqa: ASYNC240
            raise ProjectError(f"the environment of release {release.id} is gone", hint="deploy its commit again")
        self._number += 1
        try:
            self._scratch.mkdir(exist_ok=True, mode=0o700)
            instance = Instance(self._number, release, project, self._scratch, self._log)
        except OSError as error:
            raise OperatorError(f"release {release.id} cannot be started: {error}", hint="free disk space") from error
        try:
            await instance.start()
        except (OSError, TaxiwayError) as error:
            await instance.stop(0.0)
            raise OperatorError(f"release {release.id} cannot be started: {error}") from error
        self._log.write("-", f"release {release.id} starts")
        return instance

    async def _revive(self) -> None:
        """Start the live release as the state has it; the keeper tries again where it cannot."""
        release = self.state.release(self.state.live)
        if release is None:
            return
        try:
            self.live = await self._start(release)
        except TaxiwayError as error:
            self._log.write("-", error.problem)
        self._keep()

    def _keep(self) -> None:
        if self._keeper is None and self.state.live and not self.state.stopped:
            self._keeper = asyncio.create_task(self._keep_running())

    async def _keep_running(self) -> None:
        """Start the live release again whenever it ends, waiting longer each time."""
        while True:
            dead = self.live
            if dead is not None:
                await dead.exited.wait()
                if time.monotonic() - dead.started > _STEADY_S:
                    self._failures = 0
            wait_s = _BACKOFF_S[min(self._failures, len(_BACKOFF_S) - 1)]
            self._failures += 1
            ended = ending(dead.exit_code or 0) if dead else "a failed start"
            self._log.write("-", f"release {self.state.live} ended with {ended}; it starts again in {wait_s:g} s")
            await asyncio.sleep(wait_s)
            # Whoever cancels this task holds the lock, so a replacement is never cut in the middle.
            async with self._changing:
                await self._replace(dead)

    async def _replace(self, dead: Instance | None) -> None:
        release = self.state.release(self.state.live)
        if release is None:
            return
        try:
            fresh = await self._start(release)
        except TaxiwayError as error:
            self._log.write("-", error.problem)
            fresh = None
        self.live = fresh
        self.restarts += 1
        if dead is not None:
            await dead.stop(0.0)

    async def _stop_keeping(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _halt(self) -> None:
        """Stop what is live, without forgetting it."""
        await self._stop_keeping()
        live, self.live = self.live, None
        if live is not None:
            await live.stop()

    async def _drop_candidate(self) -> None:
        candidate, self._candidate = self._candidate, None
        if candidate is not None:
            await candidate.stop(5.0)
            self._log.write("-", f"release {candidate.release.id} was given up")
            await self._revive_after(candidate.release)

    async def _revive_after(self, failed: StoredRelease) -> None:
        if failed.strategy == "recreate" and self.live is None and not self.state.stopped:
            await self._revive()

    async def _retire(self, old: Instance, drain_s: float) -> None:
        try:
            if not await old.drain(drain_s):
                self._log.write("-", f"{old.inflight} requests of release {old.release.id} were cut after {drain_s:g} s")
            await old.stop()
        finally:
            self._draining.pop(old, None)

    def _candidate_status(self) -> Mapping[str, Any] | None:
        candidate = self._candidate
        if candidate is None:
            return None
        word, problem = "starting", candidate.problem
        if candidate.exit_code is not None:
            ended = f"it ended with {ending(candidate.exit_code)}; it must stay in the foreground and listen"
            word, problem = "failed", f"it {candidate.over}" if candidate.over else ended
        elif candidate.healthy:
            word = "healthy"
        elif time.monotonic() - candidate.started > candidate.release.health.within_s:
            word = "failed"
        return {
            "number": candidate.number,
            "release": candidate.release.id,
            "state": word,
            "problem": problem,
            "tail": list(candidate.tail),
        }

    async def _tidy(self) -> None:
        """A candidate that nobody asks for belonged to a task that was killed."""
        while True:
            await asyncio.sleep(_CANDIDATE_S / 6)
            if self._candidate is not None and time.monotonic() - self._candidate_seen > _CANDIDATE_S:
                async with self._changing:
                    if time.monotonic() - self._candidate_seen > _CANDIDATE_S:
                        await self._drop_candidate()


def _prune(folder: Path, keep: set[str]) -> None:
    """Remove the files of forgotten releases; fresh ones may just be being copied."""
    for place in folder.iterdir():
        try:
            old = time.time() - place.stat().st_mtime > _FRESH_S
            known = place.name.partition(".")[0] in keep
            if not known and (old or "." not in place.name):
                shutil.rmtree(place, ignore_errors=True)
        except OSError:
            continue
