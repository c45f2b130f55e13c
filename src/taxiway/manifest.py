"""`.taxiway.yaml`: what a project tells Taxiway about itself. Read as data, never run."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from taxiway.errors import ProjectError
from taxiway.records import Model

__all__ = ["MANIFEST", "EndToEnd", "Install", "Manifest", "Needed", "RelativePath", "Source", "Tests", "read_inside", "read_manifest"]

MANIFEST = ".taxiway.yaml"
_LIMIT = 1_048_576


def _stays_below(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError("must be a path inside the project")
    return path


# The lengths stand apart: `\w{1,200}` holds all of Unicode 200 times, and takes a tenth of a second to import.
RelativePath = Annotated[str, StringConstraints(pattern=r"^[\w./-]+$", max_length=200), AfterValidator(_stays_below)]
Argument = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=61)]
Source = Literal["uv.lock", "poetry.lock", "pyproject.toml", "setup.cfg", "setup.py"]


class Install(Model):
    """What the project needs to run and to be tested."""

    requirements: list[RelativePath] = Field(
        default_factory=list, max_length=10, description="Files of pinned requirements, in pip's format"
    )
    source: Source | None = Field(
        default=None,
        alias="from",
        description="File that names the project's own dependencies, read as data; a lock also says the versions",
    )
    extras: list[Word] = Field(default_factory=list, max_length=20, description="Extras of the project to install too; needs `from`")
    groups: list[Word] = Field(
        default_factory=list, max_length=20, description="Dependency groups (PEP 735, uv, Poetry) to install too; needs `from`"
    )
    packages: list[Argument] = Field(default_factory=list, max_length=100, description="Further packages of the index, such as `pytest>=8`")

    @model_validator(mode="after")
    def _needs_a_file(self) -> Self:
        if self.source is None and (self.extras or self.groups):
            raise ValueError("extras and groups need `from`, the file that names them")
        return self


_VARIABLES = {"postgres": "DATABASE_URL", "redis": "REDIS_URL"}
_TAKEN = ("PATH", "HOME", "LANG", "TMPDIR", "PORT")
_TAKEN_PREFIXES = ("PG", "PYTHON", "PYTEST", "LD_", "COV", "PLAYWRIGHT")


def _is_free(name: str) -> str:
    if name in _TAKEN or name.startswith(_TAKEN_PREFIXES):
        raise ValueError("is taken: it says how programs run")
    return name


Variable = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{1,60}$"), AfterValidator(_is_free)]


class Needed(Model):
    """A server that the tests need. Its name alone says it all with the defaults: `services: [postgres]`."""

    server: Literal["postgres", "redis"] = Field(description="Which")
    env: Variable | None = Field(
        default=None, description="Environment variable that gets its URL; without it DATABASE_URL for postgres, REDIS_URL for redis"
    )
    version: Annotated[int, Field(ge=1, le=99)] | None = Field(
        default=None, description="Major version that it must have; without it the newest that is there"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_a_name(cls, data: Any) -> Any:
        return {"server": data} if isinstance(data, str) else data

    @property
    def variable(self) -> str:
        """The environment variable that gets its URL."""
        return self.env or _VARIABLES[self.server]


class Tests(Model):
    """Where the tests and the code under test are, and what they need beside them."""

    paths: list[RelativePath] = Field(
        default_factory=lambda: ["tests"], min_length=1, max_length=20, description="Folders and files of tests"
    )
    sources: list[RelativePath] = Field(
        default_factory=lambda: ["src"], min_length=1, max_length=20, description="Folders that imports start from"
    )
    packages: list[RelativePath] = Field(
        default_factory=list,
        max_length=50,
        description="Folders and files of the code under test; empty takes all of `sources`. Code that the tests import counts in any case",
    )
    services: list[Needed] = Field(
        default_factory=list, max_length=2, description="Servers to start beside the tests: `postgres`, `redis`; one of each"
    )

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        for names in ([s.server for s in self.services], [s.variable for s in self.services]):
            if len(set(names)) < len(names):
                raise ValueError(f"services: {names[0]} stands there twice")
        return self


class EndToEnd(Model):
    """Where the browser tests are: pytest files that use Playwright's fixtures. `validate` leaves them to `e2e`."""

    paths: list[RelativePath] = Field(
        default_factory=lambda: ["e2e"], min_length=1, max_length=20, description="Folders and files of browser tests"
    )


class Manifest(Model):
    """The whole file. `start` is an argument vector; `{port}` in it stands for the port to listen on, on 127.0.0.1."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{1,39}$")] = Field(description="Name of the service")
    install: Install = Field(default_factory=Install, description="What to install")
    test: Tests = Field(default_factory=Tests, description="What to test")
    e2e: EndToEnd = Field(default_factory=EndToEnd, description="What to test in a browser")
    start: list[Argument] = Field(
        default_factory=list, max_length=50, description="Command that serves in the foreground; `{port}` stands for the port"
    )
    port: int = Field(default=8000, ge=1024, le=65535, description="Port that it listens on, on 127.0.0.1")
    health: Annotated[str, StringConstraints(pattern=r"^/[\w./~%-]*$", max_length=201)] = Field(
        default="/healthz", description="Path that answers 2xx when it is healthy"
    )


def read_inside(root: Path, path: str, *, limit: int = _LIMIT) -> bytes:
    """A file of an untrusted checkout; raise ProjectError if it is missing, no plain file, a link that leaves
    the checkout, or over `limit` bytes. FileNotFoundError never escapes."""
    try:
        place = (root / path).resolve(strict=True)
        if not place.is_relative_to(root.resolve()):
            raise ProjectError(f"{path} leads out of the project", hint="replace the link by the file that it names")
        # O_NONBLOCK: a named pipe must not hold us up before fstat can refuse it.
        fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ProjectError(f"{path} is not a plain file")
            content = file.read(limit + 1)
    except OSError as error:
        raise ProjectError(f"cannot read {path}: {error.strerror or error}", hint="commit the file") from error
    if len(content) > limit:
        raise ProjectError(f"{path} is over {limit} bytes")
    return content


def read_manifest(checkout: Path) -> Manifest:
    """The project's manifest; raise ProjectError if it is missing or wrong, naming every field that is."""
    try:
        data = yaml.safe_load(read_inside(checkout, MANIFEST).decode())
        return Manifest.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ProjectError(f"{MANIFEST}: {faults}", hint="docs/reference.md lists the manifest's fields") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ProjectError(f"{MANIFEST} is not valid YAML: {error}", hint="write name, install, test, start, port, health") from error
