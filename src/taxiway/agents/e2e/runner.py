"""Runs in the sandbox: starts the app, waits until it is healthy, has its pages looked at and its tests run, ends it.

Started by path with `-I` in the interpreter of Taxiway's browser tools; standard library only. What it starts afterwards is handed
over as memory, not as a file that the app could rewrite meanwhile. What it found goes into a signed file, as in
`validate/inside.py`, whose text is beside it as `recording.py`.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

_PR_SET_DUMPABLE = 4
_HEAD_BYTES = 2_000_000
_TAIL_BYTES = 200_000
_LOOK_BYTES = 8_000_000
_END_S = 5.0
_BOOT = (
    "import json,os,sys;payload=json.loads(os.fdopen(int(sys.argv[1]),'rb').read());"
    "exec(compile(payload['programs'][payload['run']],'<taxiway>','exec'),{'__name__':'taxiway_e2e','payload':payload})"
)


class App:
    """The project's program on `port`, its output kept in `log` within bounds."""

    def __init__(self, start: list[str], port: int, log: Path, path: list[str]) -> None:
        self.port = port
        own = {"PORT": str(port), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(path)}
        environ = {**os.environ, **own}
        self._process = subprocess.Popen(
            start, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._pump = threading.Thread(target=_keep, args=(self._process.stdout, log), daemon=True)
        self._pump.start()

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.poll()

    def wait_until_healthy(self, path: str, within_s: float) -> str:
        """An empty text once `path` answers 2xx; else why it never did."""
        deadline, last = time.monotonic() + within_s, "nothing listens"
        while time.monotonic() < deadline:
            if self.code is not None:
                return f"the app ended with exit code {self.code} before it was healthy"
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", path)
                status = connection.getresponse().status
                connection.close()
                if 200 <= status < 300:  # noqa: PLR2004 - HTTP's own numbers
                    return ""
                last = f"it answered {status}"
            except (OSError, http.client.HTTPException) as error:
                last = f"{type(error).__name__}: {error}"
            time.sleep(0.1)
        return f"the app was not healthy within {within_s:.0f} s: {path} on port {self.port}: {last}"[:500]

    def end(self) -> None:
        """Ask it to end, then end it; all of its session."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
        self._pump.join(_END_S)


def _keep(output: IO[bytes], place: Path) -> None:
    """The output's head as it comes and its tail at the end: an app that never stops talking fills no disk."""
    written, cut, rest = 0, 0, b""
    with place.open("wb", buffering=0) as file:
        while data := os.read(output.fileno(), 1 << 16):
            head = data[: max(0, _HEAD_BYTES - written)]
            file.write(head)
            written += len(head)
            rest += data[len(head) :]
            if len(rest) > 2 * _TAIL_BYTES:
                cut += len(rest) - _TAIL_BYTES
                rest = rest[-_TAIL_BYTES:]
        file.write((f"\n[... {cut} bytes cut ...]\n".encode() if cut else b"") + rest)


def _free(wanted: int) -> int:
    """The port that the project names, where it is free, else any."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as server:
            return int(server.getsockname()[1])
    raise OSError("no port is free on 127.0.0.1")


def _fill(words: list[str], places: Mapping[str, str]) -> list[str]:
    filled = []
    for word in words:
        for name, value in places.items():
            word = word.replace(name, value)  # noqa: PLW2901
        filled.append(word)
    return filled


def _run(payload: Mapping[str, Any], timeout_s: float | None, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    """A Python that gets its program and its settings as memory that only it sees."""
    fd = os.memfd_create("taxiway")
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(json.dumps(payload).encode())
        os.lseek(fd, 0, os.SEEK_SET)
        argv = [sys.executable, "-I", "-B", "-X", f"pycache_prefix={payload['reports']}/no-bytecode", "-c", _BOOT, str(fd)]
        return subprocess.run(argv, pass_fds=(fd,), stdin=subprocess.DEVNULL, check=False, timeout=timeout_s, **streams)
    finally:
        os.close(fd)


def _look(payload: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """What look.py says of the browser and the pages; `problem` where it says nothing."""
    try:
        done = _run({**payload, "run": "look"}, timeout_s, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except subprocess.TimeoutExpired:
        return {"problem": f"looking at the pages took over {timeout_s:.0f} s"}
    try:
        found = json.loads(done.stdout[:_LOOK_BYTES])
    except ValueError:
        words = done.stderr.decode(errors="replace").strip()[-500:]
        return {"problem": f"the browser cannot be driven (exit code {done.returncode}): {words}"}
    return found if isinstance(found, dict) else {"problem": "the browser cannot be driven"}


def _browsers(folder: Path, revision: str) -> None:
    """Where Playwright looks for the one thing that it does not take from us by name: the program that writes videos."""
    if (found := shutil.which("ffmpeg")) is None:
        return
    place = folder / f"ffmpeg-{revision}"
    place.mkdir(parents=True)
    (place / "ffmpeg-linux").symlink_to(found)
    (place / "INSTALLATION_COMPLETE").touch()


def main(place: str) -> int:
    """Run; the exit code is pytest's, or 0 where it came not so far: the record says how far."""
    folder = Path(place).parent
    settings = json.loads(Path(place).read_text())
    Path(place).unlink()
    programs = {name: (folder / f"{name}.py").read_text() for name in ("recording", "look", "inside", "breaking")}
    # No process of the project may read this one's memory, where the key is.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    recording = types.ModuleType("recording")
    exec(compile(programs["recording"], "<taxiway>", "exec"), recording.__dict__)  # noqa: S102 - our own file, read before the app runs
    say = recording.record(folder / "rounds", bytes.fromhex(settings["key"]))
    os.environ["PLAYWRIGHT_BROWSERS_PATH"] = str(Path(os.environ["TMPDIR"], "taxiway-browsers"))
    _browsers(Path(os.environ["PLAYWRIGHT_BROWSERS_PATH"]), settings["ffmpeg"])
    port, project = _free(settings["port"]), str(Path.cwd())
    places = {"{port}": str(port), "{project}": project, "{environment}": settings["environment"]}
    code = 0
    try:
        path = [*(str(Path(project, source)) for source in settings["payload"]["sources"]), str(folder / "installed")]
        app = App(_fill(settings["start"], places), port, folder / "app.log", path)
    except OSError as error:
        say("app", problem=f"the app cannot be started: {error}")
        say("end", code=0, digests={})
        return 0
    try:
        problem = app.wait_until_healthy(settings["health"], settings["healthy_within_s"])
        say("app", problem=problem)
        if not problem:
            url = f"http://127.0.0.1:{port}"
            payload = {**settings["payload"], "programs": programs, "url": url, "project": project, "reports": str(folder)}
            code = _measure(payload, settings, say)
            say("app", problem="" if app.code is None else f"the app ended with exit code {app.code} while it was tested")
    finally:
        app.end()
    say("end", code=code, digests={})
    return code


def _measure(payload: dict[str, Any], settings: Mapping[str, Any], say: Any) -> int:
    found = _look(payload, settings["look_within_s"])
    say("look", **found)
    if found.get("problem"):
        return 0
    if not settings["test"]:
        say("tests", code=0)
        return 0
    done = _run({**payload, "run": "inside", "key": settings["tests_key"]}, None)
    say("tests", code=done.returncode)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
