"""A Postgres or Redis of this machine, started on a port of its own of the loopback, with a password."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from taxiway.agents.validate import inside_servers
from taxiway.integrations.servers import LocalServers
from taxiway.integrations.servers_elsewhere import Address, Name

__all__ = ["PASSWORD", "SERVERS", "running"]

SERVERS = LocalServers(os.environ)
PASSWORD = "s3cret/+word"
_SHOW = "import os, sys; print(os.environ['URL'], flush=True); sys.stdin.read()"
_PACKAGES = {"postgres": "postgresql", "redis": "redis-server"}


@contextmanager
def running(name: Name) -> Iterator[Address]:
    """Where it is; skips who asks where the machine has none."""
    if not (found := SERVERS.find(name)):
        pytest.skip(f"no {name}: apt-get install {_PACKAGES[name]}")
    # Not below pytest's own folders, which nobody but root may enter: as root the servers run as nobody.
    with TemporaryDirectory() as folder, TemporaryDirectory() as room:
        server = {"name": name, "env": "URL", "port": 0, "password": PASSWORD, "programs": str(found[0].programs), "socket": ""}
        Path(folder, "servers.json").write_text(json.dumps([server]))
        process = subprocess.Popen(
            [sys.executable, "-I", inside_servers.__file__, f"{folder}/servers.json", sys.executable, "-c", _SHOW],
            env={"PATH": os.defpath, "TMPDIR": room, "LANG": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout
            port = process.stdout.readline().rpartition("@")[2].partition("/")[0].rpartition(":")[2]
            yield Address("127.0.0.1", int(port), *(("postgres", PASSWORD, "postgres") if name == "postgres" else ("", PASSWORD, "3")))
        finally:
            process.communicate(timeout=20)
