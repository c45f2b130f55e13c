"""How far a Python package may go, and what it did not reach."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from taxiway.ports import Level, Pins

if TYPE_CHECKING:
    from taxiway.integrations.egress.pages import Link  # half a second to import, and most stages upgrade nothing

__all__ = ["bounds", "canonical", "forbidding", "held", "kept", "wheel_of"]


def bounds(pins: Pins, names: Iterable[str], level: Level) -> Iterator[str]:
    """Requirements that hold each package within the level. One that is pinned at several versions stays: one bound cannot hold for
    all of them."""
    for name in names:
        if (version := _only(pins.get(name, ()))) is not None:
            yield f"{name}>={version.public},{_above(version, level)}".rstrip(",")


def kept(pins: Pins, names: Iterable[str]) -> Iterator[str]:
    """Requirements that hold all other packages where they are: what is pinned is a preference only, and a resolver leaves it for a package
    that moves. Those that are pinned at several versions are left to that."""
    for name in sorted(pins.keys() - set(names)):
        if (version := _only(pins[name])) is not None:
            yield f"{name}=={version}"


def held(pins: Pins, names: Iterable[str], level: Level, pages: Mapping[str, Sequence[Link]]) -> dict[str, str]:
    """Of the packages `names`, by now at `pins`, the newest wheel within the level that is newer still. `pages` are by name."""
    found = {}
    for name in names:
        if (version := _only(pins.get(name, ()))) is None:
            continue
        within = SpecifierSet(_above(version, level))
        newer = [v for v in _offered(pages.get(name, ())) if v > version and not v.is_prerelease and v in within]
        if newer:
            found[name] = str(max(newer))
    return found


def forbidding(held: Mapping[str, str], asked: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Of the requirements `asked`, each with its file, those that do not allow these versions, by name. What a marker limits is left out:
    it may not hold here."""
    found: dict[str, str] = {}
    for text, path in asked:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        name = canonical(requirement.name)
        if name in held and requirement.marker is None and Version(held[name]) not in requirement.specifier:
            found.setdefault(name, f"{name}{requirement.specifier} in {path}")
    return found


def wheel_of(links: Sequence[Link], version: str) -> Link | None:
    """A wheel of this version, one that offers its metadata before others."""
    wheels = [link for link in links if link.is_wheel and str(_version_of(link)) == version]
    return next((link for link in wheels if link.metadata), wheels[0] if wheels else None)


def _offered(links: Sequence[Link]) -> Iterator[Version]:
    yield from (v for link in links if link.is_wheel and link.yanked is None and (v := _version_of(link)) is not None)


def _version_of(link: Link) -> Version | None:
    try:
        return parse_wheel_filename(link.name)[1]
    except (InvalidWheelFilename, InvalidVersion):
        return None


def _only(versions: Sequence[str]) -> Version | None:
    try:
        (version,) = {Version(v) for v in versions}
    except (InvalidVersion, ValueError):
        return None
    return version


def _above(version: Version, level: Level) -> str:
    epoch = f"{version.epoch}!" if version.epoch else ""
    if level == "patch":
        return f"<{epoch}{version.major}.{version.minor + 1}"
    return f"<{epoch}{version.major + 1}" if level == "minor" else ""


def canonical(name: str) -> str:
    """A name as indexes and lock files spell it."""
    return str(canonicalize_name(name))
