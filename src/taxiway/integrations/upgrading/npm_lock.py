"""package-lock.json as data: what it pins, from where, and its text with addresses exchanged."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from taxiway.errors import ProjectError
from taxiway.ports import Pins

__all__ = ["Lock", "read_json", "read_lock", "with_resolved", "without_resolved"]

_NAME = re.compile(r"(?:@[A-Za-z0-9_~][A-Za-z0-9._~-]*/)?[A-Za-z0-9_~][A-Za-z0-9._~-]*", re.ASCII)
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,100}", re.ASCII)
_HINT = "write it anew: `npm install --package-lock-only --lockfile-version 3`"
_DEEP = 200


@dataclass(frozen=True)
class Lock:
    """`pins` are the packages that come from a registry, `integrities` those of their versions, by name; `bases` the addresses that these
    registries have in the lock, by scope ("" for all names), commonest first, none where it has none. `elsewhere` are packages from git
    or an address; `scripted` says that some package runs a script when it is installed, `direct` whom the project asks for by
    name, each with the folders of its packages that ask, and their ranges; `members` are the folders of its own packages, `aliases` the
    other names that packages are installed under."""

    path: str
    text: str
    version: int
    pins: Pins
    integrities: Mapping[str, Mapping[str, str]]
    bases: Mapping[str, str]
    elsewhere: tuple[str, ...]
    scripted: bool
    direct: Mapping[str, tuple[tuple[str, str], ...]]
    members: tuple[str, ...]
    aliases: Mapping[str, frozenset[str]]


def read_json(text: str, path: str) -> dict[str, Any]:
    """A file that is one JSON object; raise ProjectError for what is none."""
    try:
        found = json.loads(text.removeprefix("\ufeff"))  # npm reads it without, too
    except (ValueError, RecursionError) as error:
        raise ProjectError(f"{path} is not JSON: {error}", hint="mend it: `npm pkg get name` says where") from error
    if not isinstance(found, dict):
        raise ProjectError(f"{path} is no JSON object", hint="npm writes one")
    return found


def read_lock(text: str, path: str) -> Lock:
    """Raise ProjectError for what npm has not written, and for locks of npm 6 and older."""
    data = read_json(text, path)
    packages = data.get("packages")
    if type(data.get("lockfileVersion")) is not int or data["lockfileVersion"] not in (2, 3) or not isinstance(packages, dict):
        raise ProjectError(f"{path} has lockfileVersion {str(data.get('lockfileVersion'))[:20]}, and 2 and 3 are known", hint=_HINT)
    pins: dict[str, set[str]] = {}
    integrities: dict[str, dict[str, str]] = {}
    bases: Counter[tuple[str, str]] = Counter()
    elsewhere: list[str] = []
    direct: dict[str, tuple[tuple[str, str], ...]] = {}
    aliases: dict[str, frozenset[str]] = {}
    scripted = False
    for place, package in packages.items():
        if not isinstance(package, dict):
            raise ProjectError(f"{path} has no package at {place[:80]!r}", hint=_HINT)
        _, inside, name = place.rpartition("node_modules/")
        if not inside:
            for asked, wanted in dict(_asked(package)).items():
                direct[asked] = (*direct.get(asked, ()), (place, wanted))
            continue
        if package.get("link"):
            continue
        alias = _checked(name, _NAME, "name", path)
        name = _checked(package.get("name", name), _NAME, "name", path)
        aliases |= {name: aliases.get(name, frozenset()) | {alias}} if alias != name else {}
        scripted |= bool(package.get("hasInstallScript"))
        resolved = package.get("resolved")
        if package.get("inBundle"):
            continue
        version = _checked(package.get("version"), _VERSION, "version", path)
        base = _base(resolved, name, version)
        if base is None:
            elsewhere.append(f"{name} from {'git' if str(resolved).startswith('git') else 'an address'}")
            continue
        if base:
            bases[name.partition("/")[0] if "/" in name else "", base] += 1
        pins.setdefault(name, set()).add(version)
        integrities.setdefault(name, {})[version] = str(package.get("integrity", ""))
    return Lock(
        path=path,
        text=text,
        version=int(data["lockfileVersion"]),
        pins={name: tuple(sorted(versions)) for name, versions in sorted(pins.items())},
        integrities=integrities,
        bases=dict(_commonest(bases)),
        elsewhere=tuple(sorted(set(elsewhere))),
        scripted=scripted,
        direct=direct,
        members=tuple(place for place in packages if place and "node_modules/" not in place),
        aliases=aliases,
    )


def with_resolved(new: str, old: Lock, tarball: Callable[[str], str | None]) -> str:
    """The new lock with addresses as the old one has them: what `tarball` says that an address of ours stands for becomes one at the base
    that the old lock has for such names. Where that is not known none is written: npm then asks the registry that it is set up with."""
    data = json.loads(new.removeprefix("\ufeff"))

    def home(package: dict[str, Any], name: str) -> None:
        address = tarball(package["resolved"])
        if address is None:
            return
        version = str(package.get("version", ""))
        there = _base(address, name, version)
        base = old.bases.get(name.partition("/")[0] if "/" in name else "") or old.bases.get("")
        package.pop("resolved")
        if base and there:
            _before(package, "resolved", base + address.removeprefix(there))
        elif base and address.startswith(base + "/"):
            _before(package, "resolved", address)

    for package, name in _packages(data):
        home(package, name)
    return _written(data, like=old.text)


def without_resolved(lock: Lock, text: str) -> str:
    """The lock as a sandbox installs it: what is of a registry comes from the one that is at hand, and has to have the locked content."""
    data = json.loads(text)
    for package, name in _packages(data):
        if _base(package["resolved"], name, str(package.get("version", ""))):
            package.pop("resolved")
    return _written(data, like=lock.text)


def _packages(data: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """All that has an address, in both forms that lockfileVersion 2 writes, with its name."""
    for place, package in list(data.get("packages", {}).items()):
        if isinstance(package, dict) and isinstance(package.get("resolved"), str):
            yield package, str(package.get("name", place.rpartition("node_modules/")[2]))
    yield from _nested(data.get("dependencies"), 0)


def _nested(found: Any, depth: int) -> Iterator[tuple[dict[str, Any], str]]:
    for name, package in list(found.items()) if isinstance(found, dict) and depth < _DEEP else ():
        if isinstance(package, dict):
            if isinstance(package.get("resolved"), str):
                version = str(package.get("version", ""))
                alias = re.fullmatch(r"npm:(.+)@[^@]+", version)
                yield package, alias[1] if alias else name
            yield from _nested(package.get("dependencies"), depth + 1)


def _before(package: dict[str, Any], key: str, value: str) -> None:
    """Put it where npm writes it: after the version."""
    rest = {k: package.pop(k) for k in list(package) if k not in ("name", "version")}
    package[key] = value
    package.update(rest)


def _base(resolved: Any, name: str, version: str) -> str | None:
    """The registry's address in that of a tarball, "" where none is given, None where it is no tarball of a registry."""
    if resolved is None:
        return ""
    version = re.sub(r"^npm:.+@", "", version)
    end = f"/{name}/-/{name.rpartition('/')[2]}-{version.partition('+')[0]}.tgz"
    text = str(resolved).partition("#")[0]
    return text.removesuffix(end) if text.startswith(("http://", "https://")) and text.endswith(end) else None


def _commonest(bases: Counter[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for scope, base in [key for key, _ in reversed(bases.most_common())]:
        yield scope, base
    everywhere: Counter[str] = Counter()
    for (_, base), count in bases.items():
        everywhere[base] += count
    if everywhere and not any(scope == "" for scope, _ in bases):
        yield "", everywhere.most_common(1)[0][0]


def _asked(package: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for kind in ("peerDependencies", "optionalDependencies", "devDependencies", "dependencies"):
        found = package.get(kind, {})
        for name, wanted in found.items() if isinstance(found, dict) else ():
            alias = re.fullmatch(r"npm:(.+)@([^@]+)", str(wanted))
            yield (alias[1], alias[2]) if alias else (name, str(wanted))


def _checked(value: Any, pattern: re.Pattern[str], what: str, path: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ProjectError(f"{path} has {str(value)[:80]!r} as the {what} of a package", hint=_HINT)
    return value


def _written(data: Any, *, like: str) -> str:
    indent = re.match(r"\s*\{\r?\n([ \t]+)", like)
    text = json.dumps(data, indent=indent[1] if indent else 2, ensure_ascii=False) + "\n"
    text = text.replace("\n", "\r\n") if re.match(r"\s*\{\r\n", like) else text
    # Half of a surrogate pair is no character that a file could hold; JavaScript writes it like this.
    return re.sub(r"[\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text)
