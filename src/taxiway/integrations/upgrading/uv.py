"""`uv lock` at work on a project, in a sandbox; the lock that it leaves names the project's index, not ours."""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxiway.errors import OperatorError, ProjectError
from taxiway.integrations.installing import BASE, check_uv
from taxiway.integrations.upgrading.files import is_plain, text_of
from taxiway.integrations.upgrading.levels import bounds, canonical, forbidding, held, kept
from taxiway.integrations.upgrading.uv_lock import Lock, read_lock, with_old_files, with_registries
from taxiway.ports import Cancellation, Level, Pinned, Upgraded

if TYPE_CHECKING:
    from taxiway.integrations.egress import Source  # half a second to import, and most stages upgrade nothing
    from taxiway.integrations.egress.pages import Link
    from taxiway.integrations.upgrading.inside import UvInside

__all__ = ["UvUpgrades"]

_LOCK, _PROJECT, _OWN = "uv.lock", "pyproject.toml", "uv.toml"
_FILE = re.compile(re.escape(BASE) + r"(/files/[0-9a-f]{32}/[^\"#\s]+)")
_PYTHON = re.compile(r"interpreter resolved to Python (\S+), which is incompatible with the project's Python requirement: `([^`]*)`")
# What of the settings decides over the lock beside the workspace's own tables. The rest, indexes above all, is the machine's.
_SETTINGS = ("resolution", "prerelease", "fork-strategy", "exclude-newer")
_A_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_COOL_DOWNS = "exclude-newer-package"


@dataclass(frozen=True)
class UvUpgrades:
    """Implements `ports.PackageManager` for uv.lock. Of what has no wheel no version is taken. `environ` holds the machine's
    settings."""

    environ: Mapping[str, str] = field(repr=False)

    expects = "uv.lock beside a pyproject.toml (uv lock)"

    def find(self, checkout: Path) -> Sequence[Pinned]:
        """See `ports.PackageManager`."""
        if not all(is_plain(checkout, path) for path in (_LOCK, _PROJECT)):
            return []
        return [Pinned(_LOCK, read_lock(text_of(checkout, _LOCK)).pins)]

    def spelled(self, name: str) -> str:
        """See `ports.PackageManager`."""
        return canonical(name)

    def upgrade(self, checkout: Path, pinned: Pinned, *, names: Sequence[str], level: Level, stop: Cancellation) -> Upgraded:
        """See `ports.PackageManager`."""
        from taxiway.integrations.egress import read_sources  # noqa: PLC0415 - see above
        from taxiway.integrations.upgrading.inside import uv_inside  # noqa: PLC0415
        from taxiway.integrations.upgrading.origins import matched  # noqa: PLC0415

        old, settings = read_lock(text_of(checkout, pinned.path)), _settings(checkout)
        if not (allowed := list(bounds(old.pins, names, level))):
            return Upgraded({}, old.pins)
        sources = read_sources(self.environ)
        named = {name: url for name, url, _ in _named(settings)}
        strict = [url for _, url, is_default in _named(settings) if not is_default]
        indexes = matched({*old.registries, *named.values()}, strict, sources.indexes)
        # Only those that the lock knows: from another one a package would be another package.
        used = [s for s in sources.indexes if s in indexes.values()]
        env = {"UV_INDEX": " ".join(_told(sources.indexes, used[:-1], named, indexes))} if named or used[:-1] else {}
        with uv_inside(checkout, replace(sources, indexes=tuple(used), links=()), stop, copied=True) as uv:
            inner = uv.checkout / _LOCK
            inner.write_text(with_registries(old.text, lambda address: _address(indexes.get(address), address)), encoding="utf-8")
            argv = ["lock", "--quiet", "--color", "never", "--no-build", "--python", uv.python, *_options(settings, old)]
            argv += [word for bound in (*allowed, *kept(old.pins, names)) for word in ("--upgrade-package", bound)]
            result = uv.run(*argv, env=env)
            if not result.ok and old.elsewhere:
                raise ProjectError(
                    f"uv.lock cannot be made anew: {', '.join(old.elsewhere)[:300]} cannot be reached from the sandbox, which reaches"
                    f" the package index alone. uv said: {result.stderr[-1000:]}",
                    hint="publish these packages on an index that the workers know",
                )
            if not result.ok and (python := _PYTHON.search(result.stderr)):
                raise OperatorError(
                    f"the project needs Python {python[2][:50]}, and Taxiway runs on Python {python[1]} here",
                    hint="run the stage on workers with such a Python",
                )
            check_uv(result)
            text = _homely(text_of(uv.checkout, _LOCK), old, indexes, uv)
            new = read_lock(text)
            stopped = held(new.pins, sorted(new.direct & set(names)), level, uv.pages())
            return Upgraded(
                files={_LOCK: text} if new.pins != old.pins else {},
                pins=new.pins,
                links=uv.changelogs(old.pins, new.pins),
                held=stopped,
                reasons=forbidding(stopped, _asked(checkout, new.members)),
            )


def _asked(checkout: Path, members: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What the project's own packages ask for, with the files that say it; overrides stand instead of what they override."""
    overridden: set[str] = set()
    for path in dict.fromkeys((_PROJECT, *(posixpath.normpath(f"{place}/{_PROJECT}") for place in members))):
        if path.startswith("../") or not is_plain(checkout, path):
            continue
        try:
            data = tomllib.loads(text_of(checkout, path))
        except (ValueError, RecursionError):
            continue
        own = _table(_table(data, "tool"), "uv")
        overrides = list(_texts(own.get("override-dependencies")))
        overridden |= {canonical(name[0]) for text in overrides if (name := _A_NAME.match(text))}
        project = _table(data, "project")
        groups = [
            project.get("dependencies"),
            *_table(project, "optional-dependencies").values(),
            *_table(data, "dependency-groups").values(),
        ]
        asked = [text for group in (*groups, own.get("dev-dependencies")) for text in _texts(group)]
        limits = [*overrides, *_texts(own.get("constraint-dependencies"))]
        yield from ((text, path) for text in limits)
        yield from ((t, path) for t in asked if (name := _A_NAME.match(t)) and canonical(name[0]) not in overridden)


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = data.get(key)
    return found if isinstance(found, dict) else {}


def _texts(group: Any) -> Iterator[str]:
    yield from (text for text in (group if isinstance(group, list) else ()) if isinstance(text, str))


def _settings(checkout: Path) -> Mapping[str, Any]:
    """[tool.uv], and what uv.toml says instead of it: where both are, uv reads the settings of uv.toml alone, and of the other one what
    makes the workspace (its sources)."""
    try:
        found = tomllib.loads(text_of(checkout, _PROJECT)).get("tool", {}).get("uv", {})
    except (ValueError, RecursionError, AttributeError) as error:
        raise ProjectError(f"pyproject.toml cannot be read: {error}", hint="mend it: `uv lock` says where") from error
    found = found if isinstance(found, dict) else {}
    if not is_plain(checkout, _OWN):
        return found
    try:
        return tomllib.loads(text_of(checkout, _OWN))
    except (ValueError, RecursionError) as error:
        raise ProjectError(f"{_OWN} cannot be read: {error}", hint="mend it: `uv lock` says where") from error


def _options(settings: Mapping[str, Any], locked: Lock) -> Iterator[str]:
    """What the project says, else what the lock was made with: where the two differ uv begins anew, as if nothing was pinned."""
    for name in _SETTINGS:
        if isinstance(value := settings.get(name, locked.options.get(name)), str):
            yield f"--{name}={value}"
    packages = settings.get(_COOL_DOWNS, locked.cool_downs)
    for package, moment in packages.items() if isinstance(packages, dict) else ():
        yield f"--{_COOL_DOWNS}={package}={'false' if moment is False else moment}"


def _named(settings: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """The project's indexes that have a name, by which its sources call them: name, address, whether it is the default one."""
    indexes = settings.get("index", [])
    for index in indexes if isinstance(indexes, list) else []:
        if isinstance(index, dict) and isinstance(index.get("url"), str):
            name = str(index.get("name", ""))
            if re.fullmatch(r"[\w.-]+", name, re.ASCII):
                yield name, index["url"], bool(index.get("default"))


def _told(machine: Sequence[Source], extra: Sequence[Source], named: Mapping[str, str], indexes: Mapping[str, Source]) -> Iterator[str]:
    """The value of UV_INDEX: where the project's names lead, then the others, in the machine's order."""
    yield from (f"{name}={BASE}{indexes[address].path}" for name, address in named.items())
    taken = {indexes[address].key for address in named.values()}
    yield from (BASE + s.path for s in machine if s in extra and s.key not in taken)


def _address(source: Source | None, otherwise: str) -> str:
    return otherwise if source is None else (BASE + source.path).rstrip("/")


def _homely(text: str, old: Lock, indexes: Mapping[str, Source], uv: UvInside) -> str:
    """The lock with the addresses that the project's own index has, where ours stood."""
    from taxiway.integrations.egress.sources import split_login  # noqa: PLC0415 - see above

    names = {_address(source, ""): address for address, source in indexes.items()}
    text = with_old_files(with_registries(text, lambda address: names.get(address.rstrip("/"), address)), old.text)
    places = {uv.proxy.path(s, link): (s, project, link) for s in indexes.values() for project, link in _shown(uv, s)}
    beginnings: dict[str, tuple[str, str]] = {}

    def home(found: re.Match[str]) -> str:
        if (place := places.get(found[1])) is None:
            return found[0]
        source, project, link = place
        address, _ = split_login(link.url)
        if source.key not in beginnings:
            beginnings[source.key] = _difference(source, old, indexes, uv)
        ours, theirs = beginnings[source.key]
        if ours != theirs and project in old.files:
            _check_same(project, source, old, uv)
        if not address.startswith((theirs + "/") if theirs else ("http://", "https://")):
            raise _elsewhere(source)
        return ours + address.removeprefix(theirs)

    text = _FILE.sub(home, text)
    if BASE in text:
        raise OperatorError("uv.lock would name the proxy of this machine", hint="report it, with the project's uv.lock")
    return text


def _shown(uv: UvInside, source: Source) -> Iterator[tuple[str, Link]]:
    return ((project, link) for (path, project), links in uv.proxy.pages.items() if path == source.path for link in links)


def _difference(source: Source, old: Lock, indexes: Mapping[str, Source], uv: UvInside) -> tuple[str, str]:
    """("", "") where the machine's index is the lock's, else the beginnings of their files' addresses; raise OperatorError where these
    are not known."""
    from taxiway.integrations.upgrading.origins import mirrored, same_address  # noqa: PLC0415 - see above

    if all(same_address(address) == same_address(source.url) for address, s in indexes.items() if s == source):
        return "", ""
    pairs = {
        pair
        for (path, project), links in uv.proxy.pages.items()
        if path == source.path
        for pair in mirrored(old.files.get(project, {}), links)
    }
    if len(pairs) != 1 or pairs == {("", "")}:
        raise _elsewhere(source)
    return pairs.pop()


def _check_same(project: str, source: Source, old: Lock, uv: UvInside) -> None:
    """That the machine's index has one of the very files that the lock has of this project: else it is another project of the name."""
    from taxiway.integrations.upgrading.origins import mirrored  # noqa: PLC0415 - see above

    if not list(mirrored(old.files[project], uv.proxy.pages.get((source.path, project), ()))):
        raise _elsewhere(source, f": of {project} it has none of the locked files")


def _elsewhere(source: Source, why: str = "") -> OperatorError:
    from taxiway.integrations.egress.sources import shown  # noqa: PLC0415 - see above

    return OperatorError(
        f"uv.lock names another index than {shown(source.url)}, this machine's, which is no mirror of it that keeps its addresses{why}",
        hint="configure the index of the lock for the workers (UV_DEFAULT_INDEX, UV_INDEX), or lock the project with theirs",
    )
