"""This machine's npm, and where it takes packages from: registries, each with the credentials that its settings give."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from taxiway.errors import OperatorError
from taxiway.integrations.egress.sources import Login, Source, origin_of, split_login
from taxiway.integrations.processes import index_environment

__all__ = ["Program", "Registries", "find_npm", "read_registries"]

_HINT = "install Node.js 20 or newer with npm for the workers, on their PATH; or name in `manager` what else the stage shall update"
_SCOPE = re.compile(r"(@[A-Za-z0-9_.~-]+):registry", re.ASCII)
_VARIABLE = re.compile(r"(?<!\\)\$\{([^${}?]+)(\??)\}")
_TIMEOUT_S = 30


@dataclass(frozen=True)
class Program:
    """npm of this machine: its script, and the node that runs it."""

    node: Path
    script: Path

    @property
    def places(self) -> tuple[Path, ...]:
        """What a sandbox that sees /usr has to see besides."""
        return tuple(p for p in (self.node, self.script.parent.parent) if not p.is_relative_to("/usr"))


@dataclass(frozen=True)
class Registries:
    """The registry of all packages, and those of scopes. `settings` are the machine's for reaching them, as uv's variables."""

    default: Source
    scoped: Mapping[str, Source] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def sources(self) -> tuple[Source, ...]:
        """All of them."""
        return (self.default, *self.scoped.values())

    def of(self, name: str) -> Source:
        """Where a package is looked for."""
        return self.scoped.get(name.partition("/")[0], self.default)


def find_npm(environ: Mapping[str, str]) -> Program:
    """Raise OperatorError where this machine has none."""
    node, npm = (shutil.which(name, path=environ.get("PATH", "")) for name in ("node", "npm"))
    if node is None or npm is None:
        raise OperatorError(f"{'node' if node is None else 'npm'} is not on the PATH of this worker", hint=_HINT)
    script = Path(npm).resolve()
    if script.suffix != ".js":
        raise OperatorError(f"{npm} is no npm as Node.js brings it, but a wrapper", hint=_HINT)
    return Program(Path(node).resolve(), script)


def read_registries(program: Program, environ: Mapping[str, str]) -> Registries:
    """The machine's settings for npm (variables, then files), as npm itself understands them; raise OperatorError where it does not."""
    said = _ask_npm(program, environ)
    keys = dict(_secrets(said, environ))
    found = {m[1]: _source(url, keys) for name, url in said.items() if (m := _SCOPE.fullmatch(name)) and isinstance(url, str)}
    default = _source(str(said.get("registry", "")), keys)
    for source in (default, *found.values()):
        if source.origin is None:
            raise OperatorError("npm's settings name a registry that is no http or https address", hint="check `npm config get registry`")
    return Registries(default, found, _settings(said, environ, (default, *found.values())))


def _ask_npm(program: Program, environ: Mapping[str, str]) -> dict[str, Any]:
    kept = {n: v for n, v in environ.items() if n in ("HOME", "PREFIX") or n.lower().startswith("npm_config_")}
    argv = [str(program.node), str(program.script), "config", "list", "--json", "--long"]
    # At / there is no .npmrc of a project.
    env = {"PATH": f"{program.node.parent}:/usr/bin:/bin", "npm_config_update_notifier": "false", **kept}
    try:
        done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd="/", check=True, timeout=_TIMEOUT_S)
        said = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        raise OperatorError("npm does not say its settings", hint="`npm config list --json` says why") from error
    return said if isinstance(said, dict) else {}


def _settings(said: Mapping[str, Any], environ: Mapping[str, str], sources: tuple[Source, ...]) -> dict[str, str]:
    settings = index_environment(environ)
    told = {
        "SSL_CERT_FILE": said.get("cafile") or environ.get("NODE_EXTRA_CA_CERTS") or settings.get("SSL_CERT_FILE"),
        "HTTPS_PROXY": said.get("https-proxy") or said.get("proxy"),
        "HTTP_PROXY": said.get("proxy"),
        "UV_INSECURE_HOST": "" if said.get("strict-ssl", True) else " ".join(s.origin[1] for s in sources if s.origin),
    }
    return settings | {name: str(value) for name, value in told.items() if value}


def _secrets(said: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """`//host/path/:_authToken` and the like, which npm does not tell; later ones win."""
    for name in ("globalconfig", "userconfig"):
        try:
            text = Path(str(said.get(name, ""))).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for line in text.splitlines():
            key, _, value = line.partition("=")
            if key.strip().startswith("//"):
                yield key.strip(), _VARIABLE.sub(lambda m: environ.get(m[1], "" if m[2] else m[0]), value.strip().strip("\"'"))
    for name, value in environ.items():
        if name.lower().startswith("npm_config_//"):
            yield name[len("npm_config_") :], value


def _source(address: str, keys: Mapping[str, str]) -> Source:
    url, login = split_login(address) if origin_of(address) else ("", None)
    place = urlsplit(url)
    path = place.path.rstrip("/")
    while url:
        at = f"//{place.netloc}{path}/:"
        if token := keys.get(at + "_authToken"):
            return Source(url, bearer=token)
        if found := _login(keys.get(at + "_auth"), keys.get(at + "username"), keys.get(at + "_password")):
            return Source(url, login=found)
        if not path:
            break
        path = path.rpartition("/")[0]
    return Source(url, login=login)


def _login(both: str | None, user: str | None, password: str | None) -> Login | None:
    try:
        if both:
            name, _, word = b64decode(both).decode().partition(":")
            return name, word
        return (user, b64decode(password).decode()) if user and password else None
    except ValueError:
        return None
