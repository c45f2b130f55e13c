"""What a project says about itself in its packaging files: name, version, dependencies, extras, groups, entry points.

pyproject.toml (PEP 621 and 735, uv, Poetry), setup.cfg and setup.py are parsed, never run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packaging.dependency_groups import DependencyGroupResolver, InvalidDependencyGroupObject
from packaging.requirements import InvalidRequirement
from packaging.utils import canonicalize_name

from taxiway.errors import ProjectError
from taxiway.project.files import as_dict, as_list, exists, read_ini, read_text, read_toml
from taxiway.project.poetry import poetry_metadata
from taxiway.project.setup_py import setup_arguments

__all__ = ["Metadata", "read_metadata"]

_SHARED = ("name", "version", "dependencies", "extras", "entry_points")


@dataclass(frozen=True)
class Metadata:
    """Names of extras and groups are normalized; requirements are texts in PEP 508's form, not yet checked. `computed`
    names what only running the project's build would tell; `elsewhere` the packages that do not come from an index,
    `fields` more of the core metadata, in its own words."""

    file: str
    name: str = ""
    version: str = ""
    dependencies: tuple[str, ...] = ()
    extras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    entry_points: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    computed: frozenset[str] = frozenset()
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    compiled: str = ""
    fields: tuple[tuple[str, str], ...] = ()


def read_metadata(checkout: Path) -> Metadata | None:
    """From the files that packaging tools read, the first that has a field before the others; None without any. Raise
    ProjectError for a file that cannot be read."""
    found = [m for read in (_pyproject, _setup_cfg, _setup_py) if (m := read(checkout)) is not None]
    if not found:
        return None
    first = next((m for m in found if m.name), found[0])
    taken: dict[str, Any] = {}
    computed: set[str] = set()
    for name in _SHARED:
        # What pyproject.toml does not call dynamic is final: no build tool looks further.
        final = first.file == "pyproject.toml" and first.name and name not in first.computed
        holders = [first] if final else found
        taken[name] = next((value for m in holders if (value := getattr(m, name))), getattr(first, name))
        others = [m for m in holders if m.file != "pyproject.toml"] or holders
        if not taken[name] and any(name in m.computed for m in others):
            computed.add(name)
    groups = {n: r for m in reversed(found) for n, r in m.groups.items()}
    elsewhere = {n: w for m in reversed(found) for n, w in m.elsewhere.items()}
    compiled = next((m.compiled for m in found if m.compiled), "")
    return replace(first, **taken, computed=frozenset(computed), groups=groups, elsewhere=elsewhere, compiled=compiled)


# --- pyproject.toml -------------------------------------------------------------------------------


def _pyproject(checkout: Path) -> Metadata | None:
    data = read_toml(checkout, "pyproject.toml")
    project, tool = as_dict(data.get("project")), as_dict(data.get("tool"))
    poetry = as_dict(tool.get("poetry"))
    if not project and not poetry and not data.get("dependency-groups"):
        return None
    found = _pep621(checkout, project, tool) if project else Metadata("pyproject.toml")
    if poetry:
        found = _with(found, poetry_metadata(poetry))
    uv = as_dict(tool.get("uv"))
    groups = {**found.groups, **_groups(as_dict(data.get("dependency-groups"))), **_pdm(tool)}
    if uv.get("dev-dependencies"):
        groups["dev"] = (*groups.get("dev", ()), *as_list(uv["dev-dependencies"]))
    sources = {str(canonicalize_name(n)): _where(s) for n, s in as_dict(uv.get("sources")).items() if _where(s)}
    return replace(found, groups=groups, elsewhere={**found.elsewhere, **sources}, compiled=_compiled(data))


def _with(first: Metadata, poetry: Mapping[str, Any]) -> Metadata:
    """Poetry's tables beside PEP 621's: each field from where it stands."""
    taken = {n: v for n, v in poetry.items() if v and not getattr(first, n)}
    return replace(first, **taken, computed=first.computed - taken.keys())


def _pep621(checkout: Path, project: Mapping[str, Any], tool: Mapping[str, Any]) -> Metadata:
    dynamic = {n.replace("optional-dependencies", "extras") for n in as_list(project.get("dynamic"))}
    setuptools = as_dict(as_dict(tool.get("setuptools")).get("dynamic"))
    hatch = as_dict(as_dict(as_dict(as_dict(tool.get("hatch")).get("metadata")).get("hooks")).get("requirements_txt"))
    dependencies = as_list(project.get("dependencies")) or _from_files(checkout, as_dict(setuptools.get("dependencies")).get("file"))
    dependencies = dependencies or _from_files(checkout, hatch.get("files"))
    extras = {n: as_list(v) for n, v in as_dict(project.get("optional-dependencies")).items()}
    extras |= {n: _from_files(checkout, as_dict(v).get("file")) for n, v in as_dict(setuptools.get("optional-dependencies")).items()}
    points = {n: as_dict(v) for n, v in as_dict(project.get("entry-points")).items()}
    points |= {n: as_dict(project[k]) for k, n in (("scripts", "console_scripts"), ("gui-scripts", "gui_scripts")) if project.get(k)}
    settled = {n for n, v in (("dependencies", dependencies), ("extras", extras)) if v}
    return Metadata(
        "pyproject.toml",
        name=str(project.get("name") or ""),
        version=str(project.get("version") or ""),
        dependencies=tuple(dependencies),
        extras=_normal(extras),
        entry_points={g: {str(n): str(t) for n, t in p.items()} for g, p in points.items()},
        fields=tuple(_fields(project)),
        computed=frozenset((dynamic & {"version", "dependencies", "extras"}) - settled),
    )


def _fields(project: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What tests of a package's own metadata ask for."""
    for word, name in (("description", "Summary"), ("requires-python", "Requires-Python")):
        if isinstance(text := project.get(word), str):
            yield name, text
    people = [as_dict(a) for a in project.get("authors") or [] if isinstance(project.get("authors"), list)]
    if names := [str(a["name"]) for a in people if a.get("name") and not a.get("email")]:
        yield "Author", ", ".join(names)
    if mails := [f"{a['name']} <{a['email']}>" if a.get("name") else str(a["email"]) for a in people if a.get("email")]:
        yield "Author-email", ", ".join(mails)
    if isinstance(text := project.get("license"), str):
        yield "License-Expression", text
    yield from (("Project-URL", f"{label}, {url}") for label, url in as_dict(project.get("urls")).items())


def _groups(table: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    try:
        resolver = DependencyGroupResolver(table)
        return {str(canonicalize_name(n)): tuple(str(r) for r in resolver.resolve(n)) for n in table}
    except (ValueError, TypeError, LookupError, InvalidRequirement, InvalidDependencyGroupObject, ExceptionGroup) as error:
        said = "; ".join(map(str, error.exceptions)) if isinstance(error, ExceptionGroup) else str(error)
        raise ProjectError(f"pyproject.toml: [dependency-groups]: {said}", hint="PEP 735 says how groups are written") from error


def _pdm(tool: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    table = as_dict(as_dict(tool.get("pdm")).get("dev-dependencies"))
    return {str(canonicalize_name(n)): tuple(r for r in as_list(v) if not r.startswith("-e ")) for n, v in table.items()}


def _where(source: object) -> str:
    """Where a package of `tool.uv.sources` comes from, "" for an index."""
    tables = source if isinstance(source, list) else [source]
    kinds = [k for table in tables for k in ("git", "url", "path", "workspace") if k in as_dict(table)]
    return kinds[0] if kinds else ""


def _compiled(data: Mapping[str, Any]) -> str:
    backend = str(as_dict(data.get("build-system")).get("build-backend") or "")
    known = ("maturin", "scikit_build_core", "mesonpy", "setuptools_rust")
    if name := next((n for n in known if backend.startswith(n)), ""):
        return f"pyproject.toml builds with {name}"
    if as_dict(as_dict(data.get("tool")).get("setuptools")).get("ext-modules"):
        return "pyproject.toml names ext-modules"
    requires = as_list(as_dict(data.get("build-system")).get("requires"))
    return next((f"pyproject.toml builds with {n}" for n in ("cython", "mypyc", "pybind11") if any(n in r.lower() for r in requires)), "")


# --- setup.cfg, setup.py --------------------------------------------------------------------------


def _setup_cfg(checkout: Path) -> Metadata | None:
    parser = read_ini(checkout, "setup.cfg")
    if not parser.has_section("metadata") and not parser.has_section("options"):
        return None
    version = parser.get("metadata", "version", fallback="")
    extras = {n: as_list(v) for n, v in parser.items("options.extras_require")} if parser.has_section("options.extras_require") else {}
    if tests := as_list(parser.get("options", "tests_require", fallback="")):
        extras.setdefault("test", tests)
    dependencies = parser.get("options", "install_requires", fallback="").strip()
    if dependencies.startswith("file:"):
        dependencies = "\n".join(_from_files(checkout, dependencies.removeprefix("file:").split(",")))
    points = {n: _assignments(v) for n, v in parser.items("options.entry_points")} if parser.has_section("options.entry_points") else {}
    return Metadata(
        "setup.cfg",
        name=parser.get("metadata", "name", fallback=""),
        version="" if ":" in version else version,
        dependencies=tuple(as_list(dependencies)),
        extras=_normal(extras),
        entry_points=points,
    )


def _setup_py(checkout: Path) -> Metadata | None:
    if not exists(checkout, "setup.py"):
        return None
    try:
        found, computed = setup_arguments(read_text(checkout, "setup.py").encode())
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ProjectError(f"setup.py is not valid Python: {error}", hint="mend it, or name what to install in .taxiway.yaml") from error
    names = {"install_requires": "dependencies", "extras_require": "extras"}
    extras = {n: as_list(v) for n, v in as_dict(found.get("extras_require")).items()}
    if tests := as_list(found.get("tests_require")):
        extras.setdefault("test", tests)
    points = as_dict(found.get("entry_points"))
    return Metadata(
        "setup.py",
        name=str(found.get("name") or ""),
        version=str(found.get("version") or ""),
        dependencies=tuple(as_list(found.get("install_requires"))),
        extras=_normal(extras),
        entry_points={str(g): _assignments("\n".join(as_list(v))) for g, v in points.items()},
        computed=frozenset(names[n] for n in computed if n in names),
        compiled="setup.py names compiled modules" if found.get("compiled") else "",
    )


def _assignments(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): target.strip() for name, _, target in pairs}


def _from_files(checkout: Path, files: object) -> list[str]:
    """Requirements of the files that a setting names; comments and options are left out."""
    found: list[str] = []
    for file in as_list(files):
        with suppress(ProjectError):
            lines = read_text(checkout, file).splitlines()
            found += [text for line in lines if (text := line.split(" #")[0].strip()) and not text.startswith(("#", "-"))]
    return found


def _normal(extras: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """By normalized name; setuptools' `extra:marker` and `:marker` are taken apart."""
    found: dict[str, tuple[str, ...]] = {}
    for name, requirements in extras.items():
        word, _, marker = name.partition(":")
        texts = tuple(f"{r} ; {marker}" if marker else r for r in requirements)
        key = str(canonicalize_name(word)) if word else ""
        found[key] = (*found.get(key, ()), *texts)
    return found
