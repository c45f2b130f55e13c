"""npm in a sandbox: with the machine's registries as its only way out, or with none."""

from __future__ import annotations

import asyncio
import re
import tempfile
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from taxiway.errors import OperatorError, ProjectError, TaxiwayError, TransientError
from taxiway.integrations import bubblewrap
from taxiway.integrations.egress import Offer, Program, Registries, RegistryProxy, serving
from taxiway.integrations.indexes import CREDENTIALS
from taxiway.integrations.installing import BASE, DOOR, NETWORK, OPERATOR
from taxiway.integrations.sandbox import run_isolated
from taxiway.integrations.upgrading.changelogs import from_manifest
from taxiway.integrations.upgrading.files import copy_of, is_plain, text_of
from taxiway.integrations.upgrading.inside import INSIDE, check_isolation, through_the_door
from taxiway.ports import Cancellation, Command, CommandResult, Environment

__all__ = ["NpmInside", "npm_failure", "npm_inside"]

_TIMEOUT_S = 600.0
_MEMORY_MB = 4096
_PROCESSES = 512
_LINKS = 100
_LINKS_S = 20.0
# What of a project's .npmrc decides over its lock. The rest, registries and programs above all, is the machine's.
_SETTINGS = re.compile(
    r"(?:legacy-peer-deps|strict-peer-deps|prefer-dedupe|install-strategy|engine-strict|save-prefix|save-exact|before|min-release-age)"
    r"\s*=\s*[\w.:^~+-]*",
    re.ASCII,
)
_SCOPED = re.compile(r"\s*(@[A-Za-z0-9_.~-]+):registry\s*=\s*(\S+)\s*", re.ASCII)


@dataclass
class NpmInside:
    """npm on a copy of a project, which it may change. `seen` and `tarballs` are as in RegistryProxy, of all commands so far."""

    project: Path
    registries: Registries
    program: Program
    _folder: Path
    _environment: Environment
    _stop: Cancellation
    seen: dict[str, Mapping[str, Mapping[str, object]]] = field(default_factory=dict)
    tarballs: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def run(
        self, *argv: str, offer: Offer, changed: Callable[[], Sequence[tuple[str, str]]] = tuple
    ) -> tuple[CommandResult, dict[str, str]]:
        """Run npm, which sees what `offer` says. Besides, where it succeeds, the addresses that the packages of `changed` (name, version),
        asked for after it, name for themselves."""
        proxy = RegistryProxy(self.registries.sources, self.registries.settings, BASE, offer)
        with serving(proxy) as (thread, door):
            full = through_the_door(self._environment.python, door, self._npm(argv))
            command = Command(full, self.project, timeout_s=_TIMEOUT_S, memory_mb=_MEMORY_MB)
            result = run_isolated(command, self._layout(proxy.timeout_s), self._stop, hand=(door,))
            self.seen |= proxy.seen
            self.tarballs |= proxy.tarballs
            self.notes = dict(proxy.notes)
            wanted = changed()[:_LINKS] if result.ok else ()
            links = thread.ask(self._links(proxy, wanted), within_s=_LINKS_S + 1, stop=self._stop) if wanted else None
        return result, links or {}

    def run_alone(self, *argv: str) -> CommandResult:
        """Run npm, and what it runs of the project and its packages, without any way out."""
        command = Command(self._npm(argv), self.project, timeout_s=_TIMEOUT_S, memory_mb=_MEMORY_MB, processes=_PROCESSES)
        return run_isolated(command, self._layout(1.0), self._stop)

    def _npm(self, argv: Sequence[str]) -> tuple[str, ...]:
        return (str(self.program.node), str(self.program.script), *argv)

    def _layout(self, timeout_s: float) -> bubblewrap.Layout:
        path = f"{self.program.node.parent}:{bubblewrap.search_path(self._environment)}"
        env = {
            "PATH": path,
            "CI": "true",
            "npm_config_userconfig": f"{INSIDE}/out/npmrc",
            "npm_config_globalconfig": f"{INSIDE}/out/none",
            "npm_config_cache": f"{INSIDE}/cache",
            "npm_config_fetch_timeout": str(int(timeout_s + 5) * 1000),  # the proxy is the one to give up, for it can say on whom
        }
        extra = [(DOOR, f"{INSIDE}/door.py", False)]
        extra += [(self._folder / name, f"{INSIDE}/{name}", True) for name in ("out", "cache")]
        extra += [(place, str(place), False) for place in self.program.places]
        return bubblewrap.Layout(self.project, writable=True, environment=self._environment, extra=tuple(extra), env=env)

    async def _links(self, proxy: RegistryProxy, changed: Sequence[tuple[str, str]]) -> dict[str, str]:
        found: dict[str, str] = {}

        async def one(name: str, version: str) -> None:
            found[name] = from_manifest(await proxy.manifest(self.registries.of(name), name, version))

        tasks = [asyncio.ensure_future(one(*each)) for each in changed]
        _, late = await asyncio.wait(tasks, timeout=_LINKS_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return {name: address for name, address in found.items() if address}


@contextmanager
def npm_inside(checkout: Path, registries: Registries, program: Program, stop: Cancellation) -> Iterator[NpmInside]:
    """Everything for npm on a copy of a checkout. Raise NotTrusted where this machine cannot isolate, OperatorError where the project takes
    packages from a registry that the machine's settings do not name."""
    check_isolation()
    # Of what is fetched nothing is kept: what one project's packages wrote there is nothing for another's.
    with tempfile.TemporaryDirectory(prefix="taxiway-upgrade-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "cache").mkdir()
        (folder / "out").mkdir()
        (folder / "out" / "npmrc").write_text("\n".join(_npmrc(registries)) + "\n", encoding="utf-8")
        venv.EnvBuilder(symlinks=True).create(folder / "env")
        project = copy_of(checkout, folder / "project")
        own = text_of(checkout, ".npmrc").splitlines() if is_plain(checkout, ".npmrc") else []
        _check_scopes(own, registries)
        (project / ".npmrc").unlink(missing_ok=True)
        (project / ".npmrc").write_text("".join(f"{line}\n" for line in map(str.strip, own) if _SETTINGS.fullmatch(line)), encoding="utf-8")
        yield NpmInside(project, registries, program, folder, Environment(folder / "env", "", cached=False), stop)


def npm_failure(result: CommandResult, notes: Mapping[str, str], what: str) -> TaxiwayError:
    """The error of a command that failed, by who must act. Inside nothing but the registry can be reached, so only the proxy
    knows whether the network failed."""
    said = "\n".join(f"{address}: {why}" for address, why in notes.items())
    words = CREDENTIALS.sub("***@", f"{result.stderr.strip()[-2000:]}\n{said}".strip())
    if result.ended == "timeout":
        return TransientError(f"{what} took over {_TIMEOUT_S:.0f} s: {words}", hint="is the registry reachable and fast?")
    if result.ended != "exited":
        return OperatorError(f"{what} was stopped for its {result.ended}: {words}", hint="give the machine more memory")
    if OPERATOR.search(said) or "ENOSPC" in result.stderr:
        return OperatorError(
            f"{what} failed on this machine: {words}", hint="check disk, npm's credentials and certificates (npm config list)"
        )
    if NETWORK.search(said):
        return TransientError(f"the registry did not answer: {words}", hint="check the network and npm's settings (npm config list)")
    return ProjectError(
        f"{what} failed: {words}", hint="only packages of the registry are reached; what npm says here it says elsewhere too"
    )


def _npmrc(registries: Registries) -> Iterator[str]:
    yield f"registry={BASE}/npm/{registries.default.key}/"
    yield from (f"{scope}:registry={BASE}/npm/{source.key}/" for scope, source in registries.scoped.items())
    yield from ("audit=false", "fund=false", "update-notifier=false", "progress=false", "color=false", "loglevel=warn")
    # The proxy answers at once where nothing is to be had.
    yield from ("fetch-retries=1", "fetch-retry-mintimeout=200", "fetch-retry-maxtimeout=1000", "omit-lockfile-registry-resolved=false")


def _check_scopes(lines: Sequence[str], registries: Registries) -> None:
    """That what the project takes from a registry of a scope is not looked for at another one, where anybody may have the name."""
    for line in lines:
        if found := _SCOPED.fullmatch(line):
            ours = registries.of(found[1] + "/")
            if ours.url.rstrip("/").lower() != found[2].strip("\"'").rstrip("/").lower():
                raise OperatorError(
                    f"the project takes {found[1]} from {CREDENTIALS.sub('***@', found[2])}, which this machine's npm is not set up with",
                    hint=f"`npm config set {found[1]}:registry ...` for the workers, with its credentials",
                )
