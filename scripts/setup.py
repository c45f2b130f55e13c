"""Install what constraints.txt pins, and Taxiway itself, into `.venv`; do nothing when that is done already.

Standard library only, and started by setup.sh. The machine's own settings for pip and uv (index, certificates,
proxy) stay in force: nothing of the environment is cleared but PYTHONDONTWRITEBYTECODE.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
MARK = VENV / ".taxiway-setup"
UNFINISHED = "unfinished"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONAL = ("bubblewrap", "chromium", "ffmpeg")


class SetupError(Exception):
    """What is missing, and the command that gets it."""


def say(text: str) -> None:
    """One line of progress."""
    print(f"set-up: {text}", flush=True)


def run(*argv: str | Path) -> None:
    """Run a command to its end; its output is the progress."""
    command = [str(a) for a in argv]
    if (code := subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode) != 0:
        raise SetupError(f"this failed with exit code {code}: {' '.join(command)}\n  try again; the next set-up begins anew where needed")


# --- what the system must have --------------------------------------------------------------------


def missing_packages() -> dict[str, str]:
    """Debian package -> why it is needed, for everything that this machine lacks."""
    missing = {}
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        missing[f"python3.{sys.version_info.minor}-venv"] = "the venv module makes .venv"
    if shutil.which("git") is None:
        missing["git"] = "a run's code lives in git"
    if shutil.which("bwrap") is None:
        missing["bubblewrap"] = "without it only trusted code runs"
    if not any(map(shutil.which, CHROMIUMS)):
        missing["chromium"] = "without it no page is tested in a browser"
    if shutil.which("ffmpeg") is None:
        missing["ffmpeg"] = "without it browser tests are not filmed"
    return missing


def get_packages(packages: Sequence[str]) -> None:
    """As root on Debian or Ubuntu, install them; say so where that fails, and go on."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    say(f"installing {', '.join(packages)} with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"]
    # One by one: Ubuntu has no chromium of this kind, and that must not keep it from the others.
    for command in (["apt-get", "update", "-qq"], *([*install, package] for package in packages)):
        code = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
        if code != 0:
            say(f"`{' '.join(command)}` failed with exit code {code} (no network?)")


def check_system(*, install: bool) -> None:
    """Raise SetupError for what nothing works without; only name what some things work without."""
    if (missing := missing_packages()) and install:
        get_packages(list(missing))
        importlib.invalidate_caches()
        missing = missing_packages()
    fatal = [p for p in missing if p not in OPTIONAL]
    for package in missing:
        say(f"{package} is missing ({missing[package]}); get it: sudo apt-get install {package}")
    if fatal:
        raise SetupError(f"cannot go on without {', '.join(fatal)}")


# --- the environment ------------------------------------------------------------------------------


def venv_version() -> str:
    """Version of the interpreter in .venv; "" where there is none that runs and is new enough."""
    if Path(sys.prefix) == VENV:
        return sys.version.split()[0]
    code = "import sys; print(sys.version.split()[0] if sys.version_info >= (3, 11) else '')"
    try:
        done = subprocess.run([VENV / "bin" / "python", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def key(version: str) -> str:
    """Changes with everything that an installed environment depends on; its scripts hold the folder's path."""
    digest = hashlib.sha256(f"{version}\n{ROOT}\n".encode())
    for name in ("constraints.txt", "pyproject.toml", "scripts/setup.py"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def mark() -> str:
    """What the last set-up left: the key of a finished one, `unfinished`, or "" for an environment that is not ours."""
    try:
        return MARK.read_text().strip()
    except OSError:
        return ""


def must_rebuild(version: str) -> bool:
    """Whether the environment is broken, of a killed set-up, of a moved folder, or of another Python than PYTHON= names."""
    asked = bool(os.environ.get("PYTHON"))
    other = asked and version.split(".")[:2] != [str(n) for n in sys.version_info[:2]]
    scripts = VENV / "bin" / "activate"
    moved = scripts.is_file() and str(VENV) not in scripts.read_text(errors="replace")
    return not version or mark() == UNFINISHED or other or moved


def uv_requirement() -> tuple[str, str]:
    """The pinned version of uv, and its lines of constraints.txt, hashes and all."""
    match = re.search(r"^uv==(\S+)(?: *\\\n +--hash=\S+)+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    if match is None:
        raise SetupError("constraints.txt does not pin uv with hashes; see CONTRIBUTING.md on how to write it anew")
    return match[1], match[0]


def install_uv(version: str, requirement: str) -> None:
    """Install uv at the pinned version by pip, unless it is there already."""
    python, uv = VENV / "bin" / "python", VENV / "bin" / "uv"
    if uv.is_file():
        done = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False)
        if done.stdout.split()[1:2] == [version]:
            return
    if subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode != 0:
        run(python, "-m", "ensurepip", "--default-pip")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirement)
        file.flush()
        run(
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "--only-binary=:all:",
            "-r",
            file.name,
        )


def install() -> None:
    """Make .venv what constraints.txt says, and put Taxiway into it."""
    uv_version, uv_lines = uv_requirement()
    version = venv_version()
    if must_rebuild(version):
        shutil.rmtree(VENV, ignore_errors=True)
    VENV.mkdir(exist_ok=True)
    # Stands until all is done: a set-up that is killed leaves packages of which uv cannot tell that they are half there.
    MARK.write_text(UNFINISHED)
    if not (VENV / "bin" / "python").exists():
        say(f"[1/4] making .venv with Python {sys.version.split()[0]}")
        # Not sys.executable: that may be the interpreter of the environment that was just removed.
        run(getattr(sys, "_base_executable", sys.executable), "-m", "venv", VENV)
    python, uv = VENV / "bin" / "python", VENV / "bin" / "uv"
    say("[2/4] installing uv")
    install_uv(uv_version, uv_lines)
    say("[3/4] installing what constraints.txt pins, with hashes, and compiling it")
    # sync, not install: what is no longer pinned goes, so that nothing works here by accident.
    quiet = () if sys.stderr.isatty() else ("--quiet",)
    run(uv, "pip", "sync", *quiet, "--python", python, "--require-hashes", "--compile-bytecode", "constraints.txt")
    say("[4/4] installing Taxiway")
    # Without isolation: hatchling is pinned and there; isolation would fetch one that nobody pinned.
    run(uv, "pip", "install", "--quiet", "--python", python, "--no-deps", "--no-build-isolation", "--editable", ".")
    MARK.write_text(key(venv_version()))


def ready() -> bool:
    """Whether nothing is left to do."""
    version = venv_version()
    return not must_rebuild(version) and mark() == key(version) and (VENV / "bin" / "taxiway").is_file()


def main() -> int:
    """Set up; 0 when `.venv` is ready."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Two `make` at once: the second waits and finds the work done. The lock ends with the process, however it ends.
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another set-up of this folder")
        fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        done = ready()
        check_system(install=not done)
        if done:
            return 0
        start = time.monotonic()
        install()
        say(f"done in {time.monotonic() - start:.0f} s")
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up: stopped; the next one begins anew", file=sys.stderr)
        return 130
    finally:
        os.close(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
