"""Which database servers a project's tests may need: told from the drivers that it depends on. Nothing is started for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from packaging.utils import canonicalize_name

from taxiway.errors import ProjectError
from taxiway.manifest import MANIFEST, Install, Needed
from taxiway.project.files import exists, read_text
from taxiway.project.metadata import Metadata

__all__ = ["server_reasons"]

_DRIVERS = {
    "postgres": ("psycopg", "psycopg2", "psycopg2-binary", "asyncpg", "pg8000", "aiopg"),
    "redis": ("redis", "aioredis", "django-redis", "rq", "arq"),
}
_NAME = re.compile(r"\s*([A-Za-z0-9][\w.-]*)")


def server_reasons(checkout: Path, metadata: Metadata | None, install: Install, declared: list[Needed]) -> Iterator[str]:
    """A line for each server that the manifest declares, and for each that it does not and the tests may need."""
    for needed in declared:
        yield f"{MANIFEST}: tests run beside {needed.server}{f' {needed.version}' if needed.version else ''}, as {needed.variable}"
    names = {str(canonicalize_name(m[1])) for text in _requirements(checkout, metadata, install) if (m := _NAME.match(text))}
    for server, drivers in _DRIVERS.items():
        found = [d for d in drivers if d in names]
        if found and server not in [n.server for n in declared]:
            yield f"{found[0]}: tests that need a {server} get one by test: {{services: [{server}]}} in {MANIFEST}; none is started unasked"


def _requirements(checkout: Path, metadata: Metadata | None, install: Install) -> Iterator[str]:
    """Direct dependencies, those of the tests too, as texts."""
    yield from install.packages
    if metadata is not None and install.source:
        yield from metadata.dependencies
        for table, chosen in ((metadata.extras, install.extras), (metadata.groups, install.groups)):
            yield from (text for name in chosen for text in table.get(str(canonicalize_name(name)), ()))
    for file in install.requirements:
        with suppress(ProjectError):  # what is wrong with it the installation tells
            yield from read_text(checkout, file).splitlines() if exists(checkout, file) else ()
