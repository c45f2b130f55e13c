"""npm at work on package-lock.json, in a sandbox; the lock that it leaves names the project's registry, not ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from taxiway.errors import OperatorError, ProjectError
from taxiway.integrations.installing import BASE
from taxiway.integrations.semver import accepts, precedence, within
from taxiway.integrations.upgrading.files import is_plain, text_of
from taxiway.integrations.upgrading.npm_lock import Lock, read_json, read_lock, with_resolved, without_resolved
from taxiway.ports import Cancellation, Level, Pinned, Upgraded

if TYPE_CHECKING:
    from taxiway.integrations.upgrading.npm_inside import NpmInside  # half a second to import, and most stages upgrade nothing

__all__ = ["NpmUpgrades"]

_PROJECT = "package.json"
_LOCKS = ("npm-shrinkwrap.json", "package-lock.json")  # npm reads the first that is there
_LACKING = re.compile(r"No matching version found for (@?[^@\s]+)@(.+?)\.?(?: with a date before .*)?$", re.MULTILINE)
_TRIES = 20
_PLACEHOLDER = "no test specified"
_ASKS = ("optionalDependencies", "peerDependencies")


@dataclass
class _Allowed:
    """Which versions npm may choose. Packages without a lock are free; those of `names` may move within the level from any of their locked
    versions; all others stay. `denied` are versions that ask for what the level does not allow."""

    lock: Lock
    names: frozenset[str]
    level: Level
    denied: set[tuple[str, str]] = field(default_factory=set)

    def __call__(self, name: str, version: str) -> bool:
        if (locked := self.lock.pins.get(name)) is None or version in locked:
            return True
        return self.reachable(name, version) and (name, version) not in self.denied

    def reachable(self, name: str, version: str) -> bool:
        """Whether the level leads there."""
        return name in self.names and any(within(version, one, self.level) for one in self.lock.pins[name])


@dataclass(frozen=True)
class NpmUpgrades:
    """Implements `ports.PackageManager` for package-lock.json and npm-shrinkwrap.json. `environ` holds the machine's settings. Scripts
    of packages never run where there is a way out."""

    environ: Mapping[str, str] = field(repr=False)

    expects = "package-lock.json beside a package.json (npm install --package-lock-only)"

    def find(self, checkout: Path) -> Sequence[Pinned]:
        """See `ports.PackageManager`."""
        path = next((p for p in _LOCKS if is_plain(checkout, p)), None)
        if path is None or not is_plain(checkout, _PROJECT):
            return []
        read_json(text_of(checkout, _PROJECT), _PROJECT)
        return [Pinned(path, read_lock(text_of(checkout, path), path).pins)]

    def spelled(self, name: str) -> str:
        """See `ports.PackageManager`."""
        return name

    def upgrade(self, checkout: Path, pinned: Pinned, *, names: Sequence[str], level: Level, stop: Cancellation) -> Upgraded:
        """See `ports.PackageManager`."""
        from taxiway.integrations.egress import find_npm, read_registries  # noqa: PLC0415 - see above
        from taxiway.integrations.upgrading.npm_inside import npm_inside  # noqa: PLC0415

        old = read_lock(text_of(checkout, pinned.path), pinned.path)
        for place in old.members:
            _check_member(checkout, place, old.path)
        project = read_json(text_of(checkout, _PROJECT), _PROJECT)
        program = find_npm(self.environ)
        allowed = _Allowed(old, frozenset(names), level)
        with npm_inside(checkout, read_registries(program, self.environ), program, stop) as npm:
            # Without names npm looks again at all that there is, also at what comes from elsewhere.
            asked = [*names, *(alias for name in names for alias in sorted(old.aliases.get(name, ())))]
            text, links = _update(npm, old, allowed, asked if len(names) < len(old.pins) or old.elsewhere else ())
            new = read_lock(text, pinned.path)
            held = _held(npm, new, allowed)
            if new.pins == old.pins:
                return Upgraded({}, old.pins, held=held, reasons=_reasons(held, new, project))
            (npm.project / pinned.path).write_text(without_resolved(new, text), encoding="utf-8")
            untested = _test(npm, new, project)
            return Upgraded(
                files={pinned.path: text},
                pins=new.pins,
                links=links,
                held=held,
                reasons=_reasons(held, new, project),
                tested="" if untested else "`npm test`",
                untested=untested,
            )


def _check_member(checkout: Path, place: str, path: str) -> None:
    """That a member is there: npm takes one that is not for one that needs nothing, and writes that down."""
    where = PurePosixPath(place, _PROJECT)
    if where.is_absolute() or ".." in where.parts or not is_plain(checkout, str(where)):
        raise ProjectError(
            f"{path} has {place[:200]}, which is no folder of the project with a {_PROJECT}",
            hint="commit the folder, publish the package, or write the lock anew without it (npm install --package-lock-only)",
        )


def _update(npm: NpmInside, old: Lock, allowed: _Allowed, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The lock as npm writes it anew, and where the changes are told. npm takes the newest version that it is offered and does not go back
    where that one asks for something out of reach: such versions are taken away, one by one."""
    from taxiway.integrations.egress import Offer  # noqa: PLC0415 - see above
    from taxiway.integrations.upgrading.npm_inside import npm_failure  # noqa: PLC0415

    def written() -> str:
        text = with_resolved(text_of(npm.project, old.path), old, npm.tarballs.get)
        if f"{BASE}/npm/" in text:
            raise OperatorError(f"{old.path} would name the proxy of this machine", hint=f"report it, with the project's {old.path}")
        return text

    def changed() -> list[tuple[str, str]]:
        pins = read_lock(written(), old.path).pins
        return [(n, v[0]) for n, v in pins.items() if len(v) == 1 and old.pins.get(n) not in (None, v)]

    argv = ["update", "--package-lock-only", "--ignore-scripts", "--no-save", f"--lockfile-version={old.version}", "--", *names]
    for _ in range(_TRIES):
        (npm.project / old.path).write_text(old.text, encoding="utf-8")
        result, links = npm.run(*argv, offer=Offer(allowed, old.integrities), changed=changed)
        if result.ok:
            return written(), links
        lacking = _LACKING.search(result.stderr)
        asking = _asking(npm, allowed, lacking[1], lacking[2]) if lacking else set()
        if not asking:
            break
        allowed.denied |= asking
    failure = npm_failure(result, npm.notes, "`npm update`")
    if old.elsewhere and isinstance(failure, ProjectError):
        raise ProjectError(
            f"{old.path} cannot be made anew: {', '.join(old.elsewhere)[:300]} cannot be reached from the sandbox, which reaches the"
            f" registry alone. {failure.problem}",
            hint="publish these packages on a registry that the workers know",
        )
    raise failure


def _asking(npm: NpmInside, allowed: _Allowed, name: str, wanted: str) -> set[tuple[str, str]]:
    """The versions on offer, beyond the locked ones, that ask for this; and those that would be next, for what they ask for is as
    plainly out of reach."""
    offered = {package: [v for v in versions if v and allowed(package, v)] for package, versions in npm.seen.items()}

    def unmet(package: str, text: object) -> bool:
        if (package, text) == (name, wanted):
            return True
        # No answer for one version (None) is an answer for all: it is a form of range that only npm reads.
        return isinstance(text, str) and package in offered and all(accepts(text, v) is False for v in offered[package])

    return {
        (package, version)
        for package, versions in npm.seen.items()
        for version in set(offered[package]).difference(allowed.lock.pins.get(package, ()))
        if any(unmet(*asked) for asked in _table(versions[version], "dependencies"))
        or any(asked == (name, wanted) for kind in _ASKS for asked in _table(versions[version], kind))
    }


def _table(manifest: Mapping[str, object], kind: str) -> Iterable[tuple[str, object]]:
    found = manifest.get(kind)
    return found.items() if isinstance(found, dict) else ()


def _held(npm: NpmInside, new: Lock, allowed: _Allowed) -> dict[str, str]:
    """What the project itself asks for, and is not as new as the level has it."""
    found = {}
    for name in sorted(new.direct.keys() & allowed.names & new.pins.keys()):
        now = max(filter(None, map(precedence, new.pins[name])), default=None)
        newer = [v for v in npm.seen.get(name, ()) if v and allowed.reachable(name, v) and (p := precedence(v)) and now and p > now]
        if newer:
            found[name] = max(newer, key=lambda v: precedence(v) or now)  # type: ignore[arg-type, return-value] # all are versions
    return found


def _reasons(held: Mapping[str, str], new: Lock, project: Mapping[str, object]) -> dict[str, str]:
    """Which ranges of the project do not accept these versions, and where they stand. `overrides` may stand instead of any."""
    return {
        name: f"{wanted} in {PurePosixPath(place, _PROJECT)}"
        for name, version in held.items()
        for place, wanted in new.direct.get(name, ())
        if not project.get("overrides") and accepts(wanted, version) is False
    }


def _test(npm: NpmInside, new: Lock, project: Mapping[str, object]) -> str:
    """Why the project's own tests were not run with the new lock, "" where they passed; raise ProjectError where they fail."""
    from taxiway.integrations.egress import Offer  # noqa: PLC0415 - see above
    from taxiway.integrations.upgrading.npm_inside import npm_failure  # noqa: PLC0415

    scripts = project.get("scripts")
    script = scripts.get("test") if isinstance(scripts, dict) else None
    if not isinstance(script, str) or not script.strip() or _PLACEHOLDER in script:
        return "package.json has no test script"
    offer = Offer(lambda name, version: version in new.pins.get(name, ()), new.integrities)
    result, _ = npm.run("ci", "--ignore-scripts", offer=offer)
    if not result.ok:
        failure = npm_failure(result, npm.notes, "`npm ci`")
        if isinstance(failure, ProjectError) and new.elsewhere:
            return f"{', '.join(new.elsewhere)[:200]} cannot be reached from the sandbox"
        raise failure
    # From here on code of packages and of the project runs, and there is no way out.
    for argv in (["rebuild"] if new.scripted else [], ["test"]):
        if argv and not (result := npm.run_alone(*argv)).ok:
            _refuse(argv[0], result.ended, result.exit_code, f"{result.stdout[-1500:]}\n{result.stderr[-1500:]}".strip())
    return ""


def _refuse(what: str, ended: str, code: int, words: str) -> None:
    if ended in ("memory", "processes"):
        raise OperatorError(f"`npm {what}` was stopped for its {ended}: {words}", hint="give the machine more memory")
    how = f"exit code {code}" if ended == "exited" else ended
    raise ProjectError(
        f"with the new versions `npm {what}` fails ({how}), and nothing was updated: {words}",
        hint="run it without the update too; name packages in `only`, or take a lower level, to find which one breaks it",
    )
