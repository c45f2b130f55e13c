"""Poetry's own tables in pyproject.toml, in the words of PEP 621."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packaging.utils import canonicalize_name

from taxiway.errors import ProjectError
from taxiway.project.files import as_dict, as_list

__all__ = ["poetry_metadata"]

_ELSEWHERE = ("git", "url", "path", "file")


def poetry_metadata(poetry: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of Metadata from `[tool.poetry]`; raise ProjectError for a version that Poetry would not read either."""
    main, elsewhere = _requirements(as_dict(poetry.get("dependencies")))
    optional = {str(canonicalize_name(n)) for n, v in as_dict(poetry.get("dependencies")).items() if as_dict(v).get("optional")}
    groups: dict[str, tuple[str, ...]] = {}
    tables = {"dev": as_dict(poetry.get("dev-dependencies"))}
    tables |= {n: as_dict(as_dict(v).get("dependencies")) for n, v in as_dict(poetry.get("group")).items()}
    for name, table in tables.items():
        if table:
            found, more = _requirements(table)
            groups[str(canonicalize_name(name))] = tuple(found.values())
            elsewhere |= more
    extras = {n: [str(canonicalize_name(w)) for w in as_list(v)] for n, v in as_dict(poetry.get("extras")).items()}
    scripts = {str(n): str(t) for n, t in as_dict(poetry.get("scripts")).items() if isinstance(t, str)}
    plugins = {str(g): {str(n): str(t) for n, t in as_dict(p).items()} for g, p in as_dict(poetry.get("plugins")).items()}
    return {
        "name": str(poetry.get("name") or ""),
        "version": str(poetry.get("version") or ""),
        "dependencies": tuple(r for n, r in main.items() if n not in optional),
        "extras": {str(canonicalize_name(n)): tuple(main[w] for w in words if w in main) for n, words in extras.items()},
        "groups": groups,
        "entry_points": plugins | ({"console_scripts": scripts} if scripts else {}),
        "elsewhere": elsewhere,
    }


def _requirements(table: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Requirements by normalized name, and the packages that do not come from an index with where they come from."""
    from poetry.core.factory import Factory  # noqa: PLC0415 - takes a third of a second, and few projects need it

    found: dict[str, str] = {}
    elsewhere: dict[str, str] = {}
    for name, wanted in table.items():
        if name == "python":
            continue
        for one in wanted if isinstance(wanted, list) else [wanted]:
            key = str(canonicalize_name(name))
            if kinds := [k for k in _ELSEWHERE if k in as_dict(one)]:
                elsewhere[key] = kinds[0]
                continue
            try:
                plain = (
                    {k: v for k, v in one.items() if k not in ("optional", "develop", "source", "allow-prereleases")}
                    if isinstance(one, dict)
                    else one
                )
                found[key if key not in found else f"{key} {len(found)}"] = _pep508(Factory.create_dependency(name, plain).to_pep_508())
            except Exception as error:  # poetry-core raises errors of many kinds, ValueError to KeyError
                raise ProjectError(
                    f"pyproject.toml: [tool.poetry] {name} = {one!r}: {error}", hint="Poetry cannot read it either"
                ) from error
    return found, elsewhere


def _pep508(text: str) -> str:
    # A choice of ranges has no form in PEP 508; the lock, where there is one, says which version it is.
    name, bracket, rest = text.partition(" (")
    ranges, _, marker = rest.partition(")")
    if bracket and "||" in ranges:
        return name + marker
    return text
