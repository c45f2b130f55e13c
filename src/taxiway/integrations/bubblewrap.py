"""bubblewrap (`bwrap`): a command in namespaces of its own that sees an allow-list of files and no network.

The list is what a command needs and no more: everything that is not named here does not exist inside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from taxiway.errors import OperatorError
from taxiway.ports import Environment

__all__ = ["PROJECT", "REPORTS", "Layout", "available", "search_path", "wrap"]

PROJECT = "/project"
REPORTS = "/reports"

_UID = "1000"
_TMP_BYTES = 1 << 30
_SHM_BYTES = 256 << 20
_OWN_ETC = Path(__file__).parent / "etc"
_HOST_ETC = (
    "alternatives",
    "chromium.d",
    "fonts",
    "ld.so.cache",
    "localtime",
    "mime.types",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
)
# Root on the host owns these files inside too, and owners may write to a sysctl without any capability:
# /proc/sys/kernel/core_pattern would be a way out. The lists are those of container runtimes.
_PROC_READ_ONLY = ("bus", "fs", "irq", "mtrr", "pressure", "sys", "sysrq-trigger")
_PROC_HIDDEN = ("acpi", "asound", "kcore", "keys", "key-users", "kmsg", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats")

_INSTALL_HINT = "install bubblewrap (`apt-get install bubblewrap`); the policy may trust code that no model writes"
_CONTAINER_HINT = (
    "in a container run as a non-root user with --security-opt seccomp=unconfined --security-opt systempaths=unconfined; "
    "on a host allow user namespaces (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0)"
)


@dataclass(frozen=True)
class Layout:
    """What a command sees beside the system: the checkout at `/project`, `reports` at `/reports`, the environments
    and the interpreter below them at their own places, read-only. `extra` holds (host, inside, writable)."""

    checkout: Path
    writable: bool = False
    environment: Environment | None = None
    tools: Environment | None = None
    reports: Path | None = None
    extra: tuple[tuple[Path, str, bool], ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@cache
def available() -> str | None:
    """None if bubblewrap isolates here, which is tried once a process; else why not and what to do."""
    if shutil.which("bwrap") is None:
        return f"bubblewrap (bwrap) is not on the PATH: {_INSTALL_HINT}"
    try:
        tried = subprocess.run(wrap(["true"], Layout(checkout=Path("/usr"))), capture_output=True, timeout=20, check=False, env={})
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not start here: {error}"
    if tried.returncode == 0:
        return None
    words = tried.stderr.decode(errors="replace").strip()[-300:]
    return f"bubblewrap cannot isolate here ({words or f'exit code {tried.returncode}'}): {_CONTAINER_HINT}"


def wrap(argv: Sequence[str], layout: Layout, *, die_with_parent: bool = True) -> list[str]:
    """The argument vector that runs `argv` isolated, with `layout.env` over a minimal environment and nothing else.

    With `die_with_parent` everything inside ends with the *thread* that started it. Raise OperatorError without bwrap.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise OperatorError("bubblewrap (bwrap) is not on the PATH", hint=_INSTALL_HINT)
    # Inside, /proc/1/environ shows the environment that bwrap itself was started with: it starts with none.
    command = ["/usr/bin/env", "-i", bwrap, "--unshare-all", "--unshare-user", "--uid", _UID, "--gid", _UID, "--hostname", "sandbox"]
    command += ["--new-session", "--cap-drop", "ALL", "--clearenv"]
    command += ["--disable-userns"] if _can_disable_userns(bwrap) else []
    command += ["--die-with-parent"] if die_with_parent else []
    command += [*_system(), *_etc(), *_proc(), *_places(layout), *_environ(layout)]
    return [*command, "--remount-ro", "/", "--chdir", PROJECT, "--", *argv]


def search_path(*environments: Environment | None) -> str:
    """PATH for a command: the environments' programs before the system's."""
    folders = [str(e.path.absolute() / "bin") for e in environments if e is not None]
    return ":".join([*folders, "/usr/local/bin", "/usr/bin", "/bin"])


@cache
def _can_disable_userns(bwrap: str) -> bool:
    """Whether this bwrap knows the option (0.8 does) and the kernel lets it set the limit."""
    tried = [bwrap, "--unshare-user", "--disable-userns", "--ro-bind", "/", "/", "--proc", "/proc", "--unshare-pid", "true"]
    try:
        return subprocess.run(tried, capture_output=True, timeout=20, check=False, env={"PATH": os.defpath}).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _system() -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        place = Path("/", name)
        if place.is_symlink():
            yield from ("--symlink", str(place.readlink()), str(place))
        elif place.is_dir():
            yield from ("--ro-bind", str(place), str(place))
    # The memory of a tmpfs belongs to nobody's process, so the watchdog would not see it: each has a size.
    yield from ("--dev", "/dev", "--perms", "1777", "--size", str(_SHM_BYTES), "--tmpfs", "/dev/shm", "--remount-ro", "/dev")  # noqa: S108
    yield from ("--perms", "1777", "--size", str(_TMP_BYTES), "--tmpfs", "/tmp", "--dir", "/tmp/home")  # noqa: S108


def _etc() -> Iterator[str]:
    for name in sorted(place.name for place in _OWN_ETC.iterdir()):
        yield from ("--ro-bind", str(_OWN_ETC / name), f"/etc/{name}")
    for name in _HOST_ETC:
        yield from ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")


def _proc() -> Iterator[str]:
    yield from ("--proc", "/proc")
    for name in _PROC_READ_ONLY:
        yield from ("--ro-bind-try", f"/proc/{name}", f"/proc/{name}")
    for name in _PROC_HIDDEN:
        place = Path("/proc", name)
        if place.is_dir():
            yield from ("--tmpfs", str(place), "--remount-ro", str(place))
        elif place.exists():
            yield from ("--ro-bind", "/dev/null", str(place))


def _places(layout: Layout) -> Iterator[str]:
    seen: set[str] = set()
    for environment in (layout.environment, layout.tools):
        if environment is None or str(environment.path) in seen:
            continue
        seen.add(str(environment.path))
        yield from ("--ro-bind", str(environment.path.resolve()), str(environment.path.absolute()))
        for option in _interpreter(environment.python):
            if (key := "\0".join(option)) not in seen:
                seen.add(key)
                yield from option
    yield from ("--bind" if layout.writable else "--ro-bind", str(layout.checkout.resolve()), PROJECT)
    if layout.reports is not None:
        yield from ("--bind", str(layout.reports.resolve()), REPORTS)
    for host, inside, writable in layout.extra:
        yield from ("--bind" if writable else "--ro-bind", str(host), inside)


def _interpreter(python: Path) -> Iterator[tuple[str, str, str]]:
    """The base interpreter behind an environment's `bin/python`: its links, its `bin` and its `lib`, where /usr does not have them."""
    place = Path(os.path.abspath(python))  # noqa: PTH100 - resolve() would follow the links that we walk here
    while place.is_symlink():
        target = Path(os.path.abspath(place.parent / place.readlink()))  # noqa: PTH100
        if place.parent != python.absolute().parent and not _in_usr(place):
            yield ("--symlink", str(target), str(place))
        place = target
    real = place.resolve()
    if _in_usr(real):
        return
    for folder in (real.parent, real.parent.parent / "lib"):
        yield ("--ro-bind", str(folder), str(folder))


def _in_usr(place: Path) -> bool:
    return place.is_relative_to("/usr")


def _environ(layout: Layout) -> Iterator[str]:
    environ = {"PATH": search_path(layout.environment, layout.tools), "HOME": "/tmp/home", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108
    for name, value in (environ | dict(layout.env)).items():
        yield from ("--setenv", name, value)
