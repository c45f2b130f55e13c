"""Browsers of this machine that Playwright can drive: the system's Chromium, and what `playwright install` left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from taxiway.ports import Browser

__all__ = ["CHROMIUMS", "find_browsers"]

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PLAYWRIGHTS = {
    "chromium": "chromium-*/chrome-linux*/chrome",
    "firefox": "firefox-*/firefox/firefox",
    "webkit": "webkit-*/pw_run.sh",
}
"""Where Playwright puts its own builds; Firefox and WebKit cannot be driven by it in any other."""


def find_browsers(environ: Mapping[str, str]) -> dict[str, Browser]:
    """By name. The search path, PLAYWRIGHT_BROWSERS_PATH and HOME come from `environ`."""
    films = shutil.which("ffmpeg", path=environ.get("PATH", os.defpath)) is not None
    found = {browser.name: browser for browser in _playwrights(environ, films=films)}
    if (place := _chromium(environ)) is not None:
        found["chromium"] = Browser("chromium", place, () if place.resolve().is_relative_to("/usr") else (place.resolve().parent,), films)
    return {str(name): browser for name, browser in found.items()}


def _chromium(environ: Mapping[str, str]) -> Path | None:
    for name in CHROMIUMS:
        place = shutil.which(name, path=environ.get("PATH", os.defpath))
        # Ubuntu's is a script that asks snap for the browser, which no sandbox of ours can.
        if place is not None and not Path("/snap/bin", name).exists():
            return Path(place) if Path(place).resolve().is_relative_to("/usr") else Path(place).resolve()
    return None


def _playwrights(environ: Mapping[str, str], *, films: bool) -> Iterator[Browser]:
    root = Path(environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path(environ.get("HOME") or "/nowhere", ".cache", "ms-playwright"))
    for name, pattern in _PLAYWRIGHTS.items():
        builds = sorted(root.glob(pattern), key=lambda p: _revision(p.relative_to(root).parts[0]))
        if builds:
            folder = root / builds[-1].relative_to(root).parts[0]
            yield Browser(name, builds[-1].absolute(), (folder.absolute(),), films)  # type: ignore[arg-type] # the table's own names


def _revision(folder: str) -> int:
    number = folder.rpartition("-")[2]
    return int(number) if number.isdigit() else -1
