"""What `taxiway doctor` looks at. It reads and tries; it changes nothing and asks no server."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from taxiway.agents import registry
from taxiway.cli.models import way_to
from taxiway.cli.project import Project
from taxiway.compiler.files import POLICIES, load_policies
from taxiway.integrations import bubblewrap
from taxiway.integrations.airflow_settings import foreign
from taxiway.integrations.browsers import find_browsers
from taxiway.integrations.servers import LocalServers
from taxiway.spec.thinking import NONE

__all__ = ["Finding", "examine"]

_PYTHON = (3, 11)
_GIT = (2, 38)
_AIRFLOW = (3, 3)
_SPACE_GB = 2.0
_INDEX = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")


@dataclass(frozen=True)
class Finding:
    """One fact. `missing` stops pipelines from running; `note` only some."""

    level: Literal["ok", "note", "missing"]
    what: str
    found: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.level:<7}  {self.what}: {self.found}"
        return f"{text}\n         hint: {self.hint}" if self.hint else text


def examine(project: Project, environ: Mapping[str, str]) -> list[Finding]:
    """Everything, in the order in which it is needed."""
    return [
        _python(),
        _git(),
        _uv(),
        _airflow(),
        _sandbox(),
        _browser(environ),
        *_servers(environ),
        *_models(project, environ),
        _home(project.home.path),
        _space(project.home.path),
        _loopback(),
        *_settings(environ),
    ]


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < _PYTHON:
        return Finding("missing", "python", found, "install Python 3.11 or newer and make the environment anew")
    return Finding("ok", "python", f"{found} ({sys.executable})")


def _git() -> Finding:
    path = shutil.which("git")
    hint = "install git 2.38 or newer (`apt-get install git`)"
    if path is None:
        return Finding("missing", "git", "not on the PATH", hint)
    said = _output([path, "--version"])
    numbers = _numbers(said)
    if numbers < _GIT:
        return Finding("missing", "git", f"{said or 'does not run'}: too old for merges without a work tree", hint)
    return Finding("ok", "git", said)


def _uv() -> Finding:
    beside = Path(sys.executable).with_name("uv")
    path = str(beside) if beside.exists() else shutil.which("uv")
    if path is None or not (said := _output([path, "--version"])):
        return Finding("missing", "uv", "does not run", "install it into Taxiway's environment (`make setup`)")
    return Finding("ok", "uv", said)


def _airflow() -> Finding:
    hint = "install Taxiway with its pinned dependencies (`make setup`)"
    try:
        found = version("apache-airflow")
    except PackageNotFoundError:
        return Finding("missing", "airflow", "not installed", hint)
    if _numbers(found) < _AIRFLOW:
        return Finding("missing", "airflow", f"{found} is too old", hint)
    return Finding("ok", "airflow", found)


def _sandbox() -> Finding:
    if problem := bubblewrap.available():
        what, _, hint = problem.partition(": ")
        return Finding("note", "sandbox", f"{what}; only code that the policy trusts runs", hint)
    return Finding("ok", "sandbox", "bubblewrap isolates")


def _browser(environ: Mapping[str, str]) -> Finding:
    found = find_browsers({"PATH": os.environ.get("PATH", os.defpath), **environ})
    if "chromium" not in found:
        return Finding("note", "browser", "no Chromium on the PATH; e2e cannot test in it", "`apt-get install chromium`")
    others = [name for name in found if name != "chromium"]
    return Finding("ok", "browser", ", ".join([str(found["chromium"].executable), *others]))


def _servers(environ: Mapping[str, str]) -> Iterator[Finding]:
    servers = LocalServers({"PATH": os.environ.get("PATH", os.defpath), **environ})
    names: tuple[tuple[Literal["postgres", "redis"], str], ...] = (("postgres", "postgresql"), ("redis", "redis-server"))
    for name, package in names:
        if found := servers.find(name):
            yield Finding("ok", name, ", ".join(f"{s.version} ({s.programs})" for s in found))
        else:
            yield Finding("note", name, "not here; tests of projects that declare it are not measured", f"`apt-get install {package}`")


def _models(project: Project, environ: Mapping[str, str]) -> Iterator[Finding]:
    """By policy, what it asks, and whether there is a way to it. A key is looked for, never shown; no provider is asked."""
    policies, broken = load_policies(project.pipelines / POLICIES, registry())
    if broken:
        yield Finding("note", "models", "a policy cannot be read", "`taxiway check` says why")
    asking = {name: policy.spec.models for name, policy in policies.items() if policy.spec.models}
    if not asking:
        yield Finding("ok", "models", "no policy names one: templates and measurements alone")
    for name, models in asking.items():
        named = dict.fromkeys(m for m in (models.model, *(a.model for a in models.agents.values())) if m and m != NONE)
        if named:
            yield _way_to_models(f"policy {name}: {', '.join(named)}", models.connection, environ)
        else:
            yield Finding("ok", "models", f"policy {name} wants none: templates and measurements alone")


def _way_to_models(asks: str, connection: str, environ: Mapping[str, str]) -> Finding:
    way = way_to(connection, environ)
    if not way.through:
        return Finding("note", "models", f"{asks}, and {way.missing}; what needs a model fails, and nothing is repaired", way.hint)
    return Finding("ok", "models", f"{asks}, through {way.through}")


def _home(home: Path) -> Finding:
    place = next(p for p in (home, *home.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return Finding("missing", "home", f"cannot write {place}: {error.strerror}", "mend the folder's rights, or set TAXIWAY_HOME")
    if len(os.fsencode(home)) and any(c in str(home) for c in "?#%$\n"):
        return Finding("missing", "home", f"Airflow cannot use {home}", "set TAXIWAY_HOME to a path without ? # % $")
    return Finding("ok", "home", str(home))


def _space(home: Path) -> Finding:
    place = next(p for p in (home, *home.parents) if p.exists())
    free = shutil.disk_usage(place).free / 1e9
    if free < _SPACE_GB:
        return Finding("missing", "disk", f"{free:.1f} GB free in {place}", f"free at least {_SPACE_GB:.0f} GB, or set TAXIWAY_HOME")
    return Finding("ok", "disk", f"{free:.0f} GB free")


def _loopback() -> Finding:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=2):
            return Finding("ok", "ports", "servers can listen on 127.0.0.1")
    except OSError as error:
        return Finding(
            "missing", "ports", f"nothing can listen on 127.0.0.1: {error}", "bring the loopback interface up (`ip link set lo up`)"
        )


def _settings(environ: Mapping[str, str]) -> Iterator[Finding]:
    # Addresses may hold credentials: names only.
    named = [name for name in _INDEX if environ.get(name)]
    yield Finding("ok", "package index", f"from {', '.join(named)}" if named else "from pip's and uv's own settings")
    if others := foreign(environ):
        yield Finding(
            "note",
            "environment",
            f"{', '.join(others)}: of another Airflow, not used by the embedded one",
            "unset them if you meant this one",
        )
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        if environ.get(name) and "127.0.0.1" not in environ.get("no_proxy", environ.get("NO_PROXY", "")):
            hint = "add 127.0.0.1 and localhost to no_proxy"
            yield Finding("note", "proxy", f"{name} is set; Airflow's own parts may ask it for 127.0.0.1", hint)
            return


def _output(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _numbers(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
