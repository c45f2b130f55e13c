"""Which files of a checkout are whose: Taxiway's own listing, that no ignore file and no setting of the project narrows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from taxiway.manifest import Manifest

__all__ = ["FILES", "Layout", "copy_project", "list_files", "python_files"]

FILES = 20_000
TEST_NAMES = ("test_*.py", "*_test.py")


def list_files(root: Path) -> Iterator[str]:
    """Every file, as a sorted relative path with forward slashes; links to folders are not followed."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            yield Path(folder, name).relative_to(root).as_posix()


def python_files(root: Path, *, suffixes: tuple[str, ...] = (".py", ".pyw")) -> list[str]:
    """The files with Python in them: by suffix, and programs whose first line starts Python."""
    found = [path for path in list_files(root) if path.endswith(suffixes) or (not PurePosixPath(path).suffix and _is_program(root / path))]
    return found[:FILES]


def _is_program(place: Path) -> bool:
    if place.is_symlink() or not place.is_file():
        return False
    with place.open("rb") as file:
        first = file.readline(100)
    return first.startswith(b"#!") and b"python" in first


class Layout:
    """The manifest's folders, asked about one file at a time."""

    def __init__(self, manifest: Manifest) -> None:
        self.tests = _outermost(manifest.test.paths)
        self.sources = _outermost(manifest.test.sources)
        self.code = _outermost(manifest.test.packages) or self.sources
        self.browser_tests = _outermost(manifest.e2e.paths)

    def is_source(self, path: str) -> bool:
        """Whether the manifest counts it as code under test; a test by name inside a folder of tests is none."""
        browser_test = self.in_browser_tests(path) and _is_tests_own(path)
        return _under(path, self.code) and not self.is_test(path) and not browser_test

    def in_tests(self, path: str) -> bool:
        """Whether it is below a tests folder that holds no sources: a project must not call its code tests."""
        return any(_under(path, [t]) and not any(_under(s, [t]) for s in self.code) for t in self.tests)

    def in_browser_tests(self, path: str) -> bool:
        """Whether it is what the e2e agent runs: below a folder of browser tests that holds neither sources nor other tests."""
        return any(_under(path, [e]) and not any(_under(p, [e]) for p in (*self.code, *self.tests)) for e in self.browser_tests)

    def is_test(self, path: str) -> bool:
        """Whether it is a test file, or what pytest loads beside one, in a tests folder."""
        return _under(path, self.tests) and _is_tests_own(path)


def is_test_name(path: str) -> bool:
    """Whether pytest takes the file for tests by default."""
    return any(fnmatchcase(PurePosixPath(path).name, pattern) for pattern in TEST_NAMES)


def _is_tests_own(path: str) -> bool:
    return is_test_name(path) or PurePosixPath(path).name == "conftest.py"


def _under(path: str, folders: Iterable[str]) -> bool:
    return any(folder in (".", path) or path.startswith(folder + "/") for folder in folders)


def _outermost(paths: Iterable[str]) -> list[str]:
    plain = sorted({PurePosixPath(path).as_posix() for path in paths})
    return [p for p in plain if not any(o != p and _under(p, [o]) for o in plain)]


def copy_project(checkout: Path, into: Path) -> None:
    """A copy to run or rewrite, without compiled Python: bytecode may say something else than its source."""
    shutil.copytree(checkout, into, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.pyo"), dirs_exist_ok=True)
