"""`uv pip compile` at work on the pins of requirement files: a project's files say much to a resolver, so it sits in a sandbox."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taxiway.integrations.installing import check_uv
from taxiway.integrations.upgrading.files import is_plain, text_of
from taxiway.integrations.upgrading.levels import bounds, canonical, held, kept
from taxiway.ports import Cancellation, Level, Pinned, Pins, Upgraded

__all__ = ["PipUpgrades"]

_NAME = r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
_PIN = re.compile(rf"^{_NAME}(?:\[[^\]\n]*\])?==([^\s;\\\n]+)", re.MULTILINE)
_ASKED = re.compile(rf"^[ \t]*{_NAME}", re.MULTILINE)
_COMMAND = re.compile(r"^#    (\S.*)$", re.MULTILINE)


@dataclass(frozen=True)
class PipUpgrades:
    """Implements `ports.PackageManager` for *.in files. Of what has no wheel no version is taken. `environ` holds the machine's
    settings."""

    environ: Mapping[str, str] = field(repr=False)

    expects = "*.in file with a *.txt of pins beside it (uv pip compile requirements.in -o requirements.txt)"

    def find(self, checkout: Path) -> Sequence[Pinned]:
        """See `ports.PackageManager`. Shorter names first: what others constrain themselves by is written before them."""
        found = [p.relative_to(checkout) for pattern in ("*.in", "requirements/*.in") for p in checkout.glob(pattern)]
        sources = sorted(found, key=lambda p: (len(p.name), p.as_posix()))
        pairs = [(s.as_posix(), s.with_suffix(".txt").as_posix()) for s in sources]
        return [Pinned(t, _pins(text_of(checkout, t))) for s, t in pairs if is_plain(checkout, s) and is_plain(checkout, t)]

    def spelled(self, name: str) -> str:
        """See `ports.PackageManager`."""
        return canonical(name)

    def upgrade(self, checkout: Path, pinned: Pinned, *, names: Sequence[str], level: Level, stop: Cancellation) -> Upgraded:
        """See `ports.PackageManager`."""
        # Half a second to import, and most stages upgrade nothing.
        from taxiway.integrations.egress import read_sources  # noqa: PLC0415
        from taxiway.integrations.upgrading.inside import INSIDE, uv_inside  # noqa: PLC0415

        source = Path(pinned.path).with_suffix(".in").as_posix()
        old = text_of(checkout, pinned.path)
        if not (allowed := list(bounds(pinned.pins, names, level))):
            return Upgraded({}, pinned.pins)
        with uv_inside(checkout, read_sources(self.environ), stop) as uv:
            (uv.folder / "pins.txt").write_text(old, encoding="utf-8")
            check_uv(uv.run(*_compile(source, f"{INSIDE}/out/pins.txt", old, allowed), env={}))
            text = text_of(uv.folder, "pins.txt")
            pins = _pins(text)
            asked = {canonical(name) for name in _ASKED.findall(text_of(checkout, source))} & set(names)
            return Upgraded(
                files={pinned.path: text} if pins != pinned.pins else {},
                pins=pins,
                links=uv.changelogs(pinned.pins, pins),
                held=held(pins, sorted(asked), level, uv.pages()),
            )


def _pins(text: str) -> Pins:
    found: dict[str, tuple[str, ...]] = {}
    for name, version in _PIN.findall(text):
        key = canonical(name)
        found[key] = (*found.get(key, ()), version)
    return found


def _compile(source: str, target: str, old: str, allowed: Sequence[str]) -> Iterator[str]:
    """The command, in the form that the old pins were written in."""
    yield from ("pip", "compile", source, "--output-file", target, "--quiet", "--color", "never")
    yield from ("--only-binary", ":all:", "--no-emit-index-url", "--no-emit-find-links")
    for bound in allowed:
        yield from ("--upgrade-package", bound)
    yield from ["--generate-hashes"] if "--hash=" in old else []
    yield from ["--universal"] if re.search(r"^[^#\n]*;", old, re.MULTILINE) else []
    yield from [] if "# via" in old else ["--no-annotate"]
    yield from ["--custom-compile-command", said[1]] if (said := _COMMAND.search(old)) else ["--no-header"]
