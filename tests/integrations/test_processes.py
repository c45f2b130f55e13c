"""Process trees and the settings that reach an installer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from taxiway.integrations.processes import index_environment, kill_tree, tree, usage

STUBBORN = (
    "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.fork(); os.fork()\nprint('up', flush=True)\ntime.sleep(60)"
)


@pytest.fixture
def start():
    started = []

    def start(code: str, lines: int = 1) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        started.append(process)
        for _ in range(lines):
            process.stdout.readline()
        return process

    yield start
    for process in started:
        kill_tree(process.pid, 0)
        process.wait(60)
        process.stdout.close()


def test_tree_holds_all_descendants_parents_first(start):
    process = start(STUBBORN, lines=4)
    members = tree(process.pid)
    assert members[0].pid == process.pid
    assert len(members) == 4
    positions = {p.pid: n for n, p in enumerate(members)}
    assert all(positions[p.parent] < positions[p.pid] for p in members[1:])


def test_kill_tree_kills_what_ignores_sigterm(start):
    process = start(STUBBORN, lines=4)
    members = [p.pid for p in tree(process.pid)]
    began = time.monotonic()
    assert kill_tree(process.pid, 0.2)
    assert time.monotonic() - began >= 0.2
    assert process.wait(60) == -signal.SIGKILL
    assert not any(p.alive for pid in members for p in tree(pid))


def test_kill_tree_gives_time_to_clean_up(start):
    process = start(
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\nprint('up', flush=True)\ntime.sleep(60)"
    )
    assert kill_tree(process.pid, 30)
    assert process.wait(60) == 5


def test_kill_tree_finds_what_loses_its_parent_meanwhile(start):
    code = (
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "  signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(60)\n"
        "print('up', flush=True); time.sleep(60)"
    )
    process = start(code, lines=2)
    child = tree(process.pid)[1].pid
    assert kill_tree(process.pid, 0.3)
    assert not any(p.alive for p in tree(child))


def test_what_is_gone_is_dead(start):
    process = start("print('up')")
    process.wait(60)
    assert kill_tree(process.pid, 0.1)
    assert tree(process.pid) == []


def test_usage_counts_shared_pages_once_near_the_limit(start):
    process = start("import os, time\nx = b'x' * (60 << 20)\nos.fork(); os.fork()\nprint('up', flush=True)\ntime.sleep(60)", lines=4)
    members = tree(process.pid)
    far, near = usage(members, 1 << 40), usage(members, 100 << 20)
    assert far.processes == near.processes == 4
    assert far.memory > 240 << 20
    assert 60 << 20 < near.memory < 130 << 20


def test_strange_names_do_not_confuse(tmp_path, start):
    odd = tmp_path / ") R 1 ("
    odd.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(odd), "60"])
    try:
        (found,) = tree(process.pid)
        assert (found.pid, found.parent) == (process.pid, os.getpid())
    finally:
        assert kill_tree(process.pid, 0)
        process.wait(60)


def test_index_environment_is_settings_of_installs_and_nothing_else():
    kept = "PIP_INDEX_URL PIP_CERT UV_INDEX UV_INDEX_CORP_PASSWORD UV_DEFAULT_INDEX SSL_CERT_FILE https_proxy NO_PROXY"
    dropped = (
        "AWS_SECRET_ACCESS_KEY PATH HOME PIP_TARGET PIP_USER UV_CACHE_DIR UV_PUBLISH_TOKEN AIRFLOW__CORE__FERNET_KEY SSL_KEY PYTHONPATH "
        "npm_config_registry NODE_EXTRA_CA_CERTS"
    )
    given = {name: name.lower() for name in kept.split()}
    others = dict.fromkeys(dropped.split(), "x")
    assert index_environment(given | others) == given
