"""The machine's package indexes as uv understands them: uv does not read pip's settings, so they are translated."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import uv

from taxiway.errors import OperatorError
from taxiway.integrations.processes import index_environment

__all__ = ["CREDENTIALS", "ask_uv", "installers_index", "json_root", "uv_binary", "uv_environment"]

CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
"""The part of an address that nobody is to read."""

_SECTIONS = ("global", "install")
_OPTIONS = ("index-url", "extra-index-url", "find-links", "no-index", "cert", "trusted-host", "proxy", "timeout", "default-timeout")


def uv_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`index_environment`, with pip's settings (configuration files, then PIP_*) as UV_* where uv has none of its own."""
    found = {name: value for name, value in index_environment(environ).items() if not name.upper().startswith("PIP_")}
    pip = _pip_settings(environ)
    extra = _existing(pip.get("extra-index-url", ""))
    translated = {
        "UV_DEFAULT_INDEX": " ".join(_existing(pip.get("index-url", ""))[:1]),
        "UV_INDEX": " ".join(extra),
        # pip looks in all indexes alike. This looks in all of them too, but the operator's own come before the public one.
        "UV_INDEX_STRATEGY": "unsafe-first-match" if extra else "",
        "UV_FIND_LINKS": ",".join(_existing(pip.get("find-links", ""))),
        "UV_NO_INDEX": "1" if pip.get("no-index", "").lower() in ("1", "true", "yes", "on") else "",
        "SSL_CERT_FILE": pip.get("cert") or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE") or "",
        "UV_INSECURE_HOST": " ".join(pip.get("trusted-host", "").split()),
        "ALL_PROXY": pip.get("proxy", ""),
        "UV_HTTP_TIMEOUT": pip.get("timeout", ""),
    }
    same = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL", "ALL_PROXY": "all_proxy"}
    return found | {n: v for n, v in translated.items() if v and n not in found and same.get(n) not in found}


def uv_binary() -> str:
    """Where uv is; OperatorError where it is not installed."""
    try:
        return uv.find_uv_bin()
    except FileNotFoundError as error:
        raise OperatorError(f"uv is not installed: {error}", hint="install Taxiway with its dependencies") from error


def installers_index(environ: Mapping[str, str]) -> str:
    """The address of the index that uv takes packages from on this machine, its own default where nothing is set."""
    try:
        said, why = ask_uv(environ), "no index is allowed here"
    except OperatorError as error:
        said, why = {}, error.problem
    if index := said.get("--index-url"):
        return index[0]
    raise OperatorError(
        f"uv does not say which index it takes packages from: {why}",
        hint="set TAXIWAY_ADVISORIES_INDEX to the root of an index with PyPI's JSON API, or to 'off'",
    )


def ask_uv(environ: Mapping[str, str]) -> dict[str, list[str]]:
    """The addresses that uv takes packages from, by the option that names each: `--index-url`, `--extra-index-url`, `--find-links`."""
    # uv itself is asked: its default, and what its configuration files say, are its own matter.
    argv = [uv_binary(), "pip", "compile", "--quiet", "--no-header", "--emit-index-url", "--emit-find-links", "--offline"]
    kept = {name: environ[name] for name in ("HOME", "XDG_CONFIG_HOME") if name in environ}
    settings = {**kept, **uv_environment(environ), "UV_PYTHON_DOWNLOADS": "never"}
    argv += ["--no-cache", "--python", sys.executable, "-"]
    done = subprocess.run(argv, input="", capture_output=True, text=True, env=settings, cwd="/", check=False)
    if done.returncode != 0:
        words = CREDENTIALS.sub("***@", done.stderr.strip())[:300]
        raise OperatorError(f"uv does not take its settings: {words}", hint="check uv.toml, UV_* and PIP_*")
    said: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        option, _, address = line.partition(" ")
        said.setdefault("--index-url" if option == "-i" else option, []).append(address.strip())
    return said


def json_root(index: str) -> str:
    """The root of the JSON API of an index, which lies beside its `/simple` pages (warehouse, devpi, Artifactory, Nexus)."""
    return index.rstrip("/").removesuffix("/simple")


def _pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """In pip's own order: site, user, PIP_CONFIG_FILE, environment; later ones win."""
    settings: dict[str, str] = {}
    for place in _pip_files(environ):
        # pip's files know no interpolation, and a broken one must not keep us from the others.
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(place.read_text(encoding="utf-8", errors="replace"))
        except (OSError, configparser.Error):
            continue
        for section in _SECTIONS:
            if parser.has_section(section):
                settings |= {n: v for n, v in parser.items(section) if n in _OPTIONS and v}
    for option in _OPTIONS:
        if value := environ.get("PIP_" + option.upper().replace("-", "_")):
            settings[option] = value
    if "default-timeout" in settings:
        settings.setdefault("timeout", settings["default-timeout"])
    return settings


def _pip_files(environ: Mapping[str, str]) -> list[Path]:
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == "/dev/null":  # pip's word for: read no file at all
        return []
    home = Path(environ.get("HOME") or "/nonexistent")
    shared = [Path(p, "pip/pip.conf") for p in reversed((environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")) if p]
    user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [*shared, Path("/etc/pip.conf"), home / ".pip/pip.conf", user / "pip/pip.conf"]
    return [*files, Path(named)] if named else files


def _existing(value: str) -> list[str]:
    """The addresses in a setting, without local folders that are not there: pip passes over them, uv would fail."""
    return [address for address in value.split() if (place := _local(address)) is None or place.exists()]


def _local(address: str) -> Path | None:
    if address.startswith("file:"):
        return Path(unquote(urlsplit(address).path))
    return None if "://" in address else Path(address).expanduser()
