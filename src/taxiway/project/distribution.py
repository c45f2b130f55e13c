"""A project as installed Python sees one: its name, version and entry points, without building it.

`importlib.metadata.version("name")` and console scripts work in many projects' tests only if the project is installed, and a
version that the build takes from git is in no file. What is written here stands beside the sources, never in the checkout.
"""

from __future__ import annotations

import ast
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from taxiway.errors import ProjectError
from taxiway.project.files import as_dict, exists, read_ini, read_text, read_toml
from taxiway.project.layout import Code
from taxiway.project.metadata import Metadata

__all__ = ["UNKNOWN_VERSION", "Distribution", "find_distribution"]

UNKNOWN_VERSION = "0.0.0"
_ENTRY = re.compile(r"[^\r\n=]{1,200}")
_LITERAL = re.compile(r"""^(?:__version__|VERSION|version)\s*(?::\s*\w+\s*)?(?:=\s*\w+\s*)*=\s*["']([^"']{1,60})["']""", re.MULTILINE)


@dataclass(frozen=True)
class Distribution:
    """`generated` are the files that the project's build would write and that its code imports, by path in the checkout."""

    name: str
    version: str
    why: str
    entry_points: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    generated: Mapping[str, str] = field(default_factory=dict)
    fields: tuple[tuple[str, str], ...] = ()

    def metadata(self) -> dict[str, str]:
        """The files of a `.dist-info` folder, by path, for a folder on `sys.path`."""
        info = f"{canonicalize_name(self.name).replace('-', '_')}-{self.version}.dist-info"
        fields = "".join(f"{name}: {' '.join(text.split())}\n" for name, text in self.fields)
        points = "".join(f"[{g}]\n" + "".join(f"{n} = {t}\n" for n, t in sorted(p.items())) for g, p in sorted(self.entry_points.items()))
        return {
            f"{info}/METADATA": f"Metadata-Version: 2.4\nName: {self.name}\nVersion: {self.version}\n{fields}",
            f"{info}/entry_points.txt": points,
            f"{info}/INSTALLER": "taxiway\n",
        }

    def write_metadata(self, folder: Path) -> None:
        """Make `folder`, which goes on `sys.path`, and the `.dist-info` in it."""
        folder.mkdir()
        for path, text in self.metadata().items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)

    def write_generated(self, project: Path) -> None:
        """Make what the build would write in a copy of the project; what is there stays."""
        for path, text in self.generated.items():
            file = project / path
            # A link of the project would lead what we write out of the copy.
            if file.parent.is_dir() and file.parent.resolve().is_relative_to(project.resolve()) and not os.path.lexists(file):
                file.write_text(text)


def find_distribution(checkout: Path, metadata: Metadata | None, code: Code | None) -> Distribution | None:
    """What would be installed; None for a project that is no distribution."""
    if metadata is None or not metadata.name or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,100}", metadata.name):
        return None
    version, why = _version(checkout, metadata, code)
    generated = {p: _version_file(version) for p in _generated(checkout, code) if not exists(checkout, p)}
    points = {
        group: {n: t for n, t in found.items() if _ENTRY.fullmatch(n) and _ENTRY.fullmatch(t)}
        for group, found in metadata.entry_points.items()
        if _ENTRY.fullmatch(group) and "]" not in group
    }
    return Distribution(metadata.name, version, why, points, generated, metadata.fields)


def _version(checkout: Path, metadata: Metadata, code: Code | None) -> tuple[str, str]:
    found = [(metadata.version, metadata.file)] if metadata.version else []
    for text, why in (*found, *_named(checkout), *_packages(checkout, code), *_sdist(checkout)):
        with suppress(InvalidVersion):
            return str(Version(text)), why
    return UNKNOWN_VERSION, "no file says it: it comes from git tags or from the build"


def _named(checkout: Path) -> Iterator[tuple[str, str]]:
    """From the file or attribute that the packaging files name."""
    tool = as_dict(read_toml(checkout, "pyproject.toml").get("tool"))
    setuptools: Any = as_dict(as_dict(as_dict(tool.get("setuptools")).get("dynamic")).get("version"))
    hatch, pdm = as_dict(as_dict(tool.get("hatch")).get("version")), as_dict(as_dict(tool.get("pdm")).get("version"))
    cfg = read_ini(checkout, "setup.cfg").get("metadata", "version", fallback="")
    attribute = setuptools.get("attr") or (cfg.removeprefix("attr:").strip() if cfg.startswith("attr:") else "")
    file = setuptools.get("file") or (cfg.removeprefix("file:").strip() if cfg.startswith("file:") else "")
    for path in (hatch.get("path"), pdm.get("path")):
        if isinstance(path, str):
            yield from _literal(checkout, path)
    for path in file if isinstance(file, list) else [file]:
        if isinstance(path, str) and path and exists(checkout, path):
            with suppress(ProjectError):
                yield read_text(checkout, path).strip(), path
    if isinstance(attribute, str) and attribute:
        place = attribute.rpartition(".")[0].replace(".", "/")
        for base in ("", "src/", "lib/"):
            for path in (f"{base}{place}.py", f"{base}{place}/__init__.py"):
                yield from _literal(checkout, path, attribute.rpartition(".")[2])


def _packages(checkout: Path, code: Code | None) -> Iterator[tuple[str, str]]:
    for root in code.roots if code else ():
        for package in code.packages if code and code.packages else [p.name for p in sorted((checkout / root).iterdir())]:
            base = package if root == "." else f"{root}/{package}"
            names = (
                [base]
                if base.endswith(".py")
                else [f"{base}/{n}.py" for n in ("__init__", "_version", "__version__", "version", "__about__")]
            )
            for path in names:
                yield from _literal(checkout, path)


def _literal(checkout: Path, path: str, name: str = "") -> Iterator[tuple[str, str]]:
    if not exists(checkout, path):
        return
    with suppress(ProjectError):
        text = read_text(checkout, path)
        if name and (value := _assigned(text, name)):
            yield value, path
        if found := _LITERAL.search(text):
            yield found[1], path


def _assigned(text: str, name: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            body = ast.parse(text).body
        except (SyntaxError, ValueError, RecursionError):
            return ""
    for node in body:
        names = [t.id for t in node.targets if isinstance(t, ast.Name)] if isinstance(node, ast.Assign) else []
        if name in names and isinstance(node, ast.Assign):
            with suppress(ValueError):
                value = ast.literal_eval(node.value)
                return ".".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return ""


def _sdist(checkout: Path) -> Iterator[tuple[str, str]]:
    """A source distribution carries what its build said."""
    if exists(checkout, "PKG-INFO"):
        with suppress(ProjectError):
            if found := re.search(r"^Version:\s*(\S+)", read_text(checkout, "PKG-INFO"), re.MULTILINE):
                yield found[1], "PKG-INFO"


def _generated(checkout: Path, code: Code | None) -> Iterator[str]:
    tool = as_dict(read_toml(checkout, "pyproject.toml").get("tool"))
    scm = as_dict(tool.get("setuptools_scm"))
    hooks = as_dict(as_dict(as_dict(tool.get("hatch")).get("build")).get("hooks"))
    named = [scm.get("version_file"), scm.get("write_to"), as_dict(hooks.get("vcs")).get("version-file")]
    if isinstance(beside := as_dict(as_dict(tool.get("pdm")).get("version")).get("write_to"), str) and code:
        named += [beside if root == "." else f"{root}/{beside}" for root in code.roots]
    for path in named:
        if isinstance(path, str) and path.endswith(".py") and not path.startswith("/") and ".." not in path.split("/"):
            yield path


def _version_file(version: str) -> str:
    release = Version(version).release
    return f"__version__ = version = {version!r}\n__version_tuple__ = version_tuple = {release!r}\n__commit_id__ = commit_id = None\n"
