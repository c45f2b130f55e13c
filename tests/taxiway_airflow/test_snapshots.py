import fcntl
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from taxiway.errors import OperatorError
from taxiway_airflow.snapshots import Snapshots

# Publishes versions made of whole modules, named by their content, until it is killed.
PUBLISH = """
import sys, random
from pathlib import Path
from taxiway_airflow.snapshots import Snapshots
store, seed = Snapshots(Path(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
for turn in range(int(sys.argv[3])):
    store.publish({f"m{n}.py": f"# {seed} {turn} {n}\\n".encode() * 2000 for n in random.sample(range(6), 4)})
"""


def publisher(store, seed, turns=100_000, limit=None):
    argv = [sys.executable, "-c", PUBLISH, str(store.root), str(seed), str(turns)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix == ".py"}


def version_of(modules):
    lines = "".join(f"{n}\0{hashlib.sha256(modules[n]).hexdigest()}\n" for n in sorted(modules))
    return hashlib.sha256(lines.encode()).hexdigest()[:40]


def assert_whole(store):
    for snapshot in (store.root / "versions").iterdir():
        assert version_of(content(snapshot)) == snapshot.name
    for module in content(store.current).values():
        assert len(set(module.splitlines())) == 1
        assert len(module.splitlines()) == 2000


@pytest.fixture
def store(tmp_path):
    return Snapshots(tmp_path / "store")


def test_current_and_snapshot(store):
    assert store.version() is None
    one = store.publish({"a.py": b"1", "b.py": b"1"})
    two = store.publish({"a.py": b"2", "c.py": b"1"})
    assert content(store.folder(one)) == {"a.py": b"1", "b.py": b"1"}
    assert content(store.folder(two)) == content(store.current) == {"a.py": b"2", "c.py": b"1"}
    assert (store.version(), store.names()) == (two, ["a.py", "c.py"])
    assert store.publish({}) == store.version()
    assert content(store.current) == {}
    assert sorted(p.name for p in store.root.iterdir()) == ["current", "lock", "objects", "version", "versions"]


def test_only_what_changed_is_touched(store):
    store.publish({"a.py": b"1", "b.py": b"1"})
    before = {n: (store.current / n).stat() for n in ("a.py", "b.py")}
    store.publish({"a.py": b"2", "b.py": b"1"})
    after = {n: (store.current / n).stat() for n in ("a.py", "b.py")}
    assert before["b.py"] == after["b.py"]
    assert before["a.py"].st_ino != after["a.py"].st_ino


def test_a_change_back_is_newer_too(store):
    # Airflow parses what has a newer time, and Python trusts a .pyc by whole seconds and size.
    seconds = []
    for content_ in (b"1", b"2", b"1", b"2"):
        store.publish({"a.py": content_})
        seconds.append(int((store.current / "a.py").stat().st_mtime))
    assert seconds == sorted(set(seconds))
    assert seconds[-1] <= time.time() + 4


def test_a_version_is_its_content(tmp_path):
    modules = {"a.py": b"1", "b.py": b"2"}
    versions = {Snapshots(tmp_path / n).publish(modules) for n in ("x", "y")}
    assert versions == {version_of(modules)}
    assert Snapshots(tmp_path / "z").publish({"a.py": b"2", "b.py": b"1"}) not in versions


def test_what_somebody_else_did_to_current_is_mended(store):
    store.publish({"a.py": b"1", "b.py": b"1"})
    (store.current / "a.py").write_bytes(b"tampered")
    (store.current / "b.py").unlink()
    (store.current / "c.py").write_bytes(b"left over")
    store.publish({"a.py": b"1", "b.py": b"1"})
    assert content(store.current) == {"a.py": b"1", "b.py": b"1"}


def test_an_object_that_lost_its_bytes_is_written_again(store):
    store.publish({"a.py": b"1"})
    for stored in (store.root / "objects").iterdir():
        stored.unlink()
        stored.write_bytes(b"")
    version = store.publish({"a.py": b"1", "b.py": b"1"})
    assert content(store.folder(version)) == {"a.py": b"1", "b.py": b"1"}


@pytest.mark.parametrize("version", ["", "../../etc", "x" * 40, "A" * 40, "a" * 39, "a" * 40 + "\n"])
def test_what_is_no_version(store, version):
    with pytest.raises(ValueError, match="no version"):
        store.folder(version)


def test_nothing_is_half_there_when_killed(store):
    chance = random.Random(1)
    for seed in range(6):
        process = publisher(store, seed)
        time.sleep(chance.uniform(0.01, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert_whole(store)
    version = store.publish({"a.py": b"1\n" * 2000})
    assert content(store.current) == content(store.folder(version)) == {"a.py": b"1\n" * 2000}
    assert not (store.root / "drafts").exists()


def test_several_publish_at_once(store):
    processes = [publisher(store, seed, turns=15) for seed in range(3)]
    for process in processes:
        assert process.wait(60) == 0
        process.stdout.close()
    assert_whole(store)
    assert store.version() == version_of(content(store.current))


def test_a_reader_always_finds_whole_modules(store):
    process = publisher(store, 1)
    try:
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            for name in store.names():
                try:
                    module = (store.current / name).read_bytes()
                except FileNotFoundError:
                    continue
                assert len(set(module.splitlines())) == 1
                assert module.count(b"\n") == 2000
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_full_disk_changes_nothing(store, tmp_path):
    version = store.publish({"a.py": b"1"})
    script = (
        "import resource, sys; from pathlib import Path; from taxiway_airflow.snapshots import Snapshots\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "Snapshots(Path(sys.argv[1])).publish({'a.py': b'2', 'b.py': b'3' * 5000})\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(store.root)], capture_output=True, text=True, check=False, timeout=120)
    assert "OperatorError: cannot write" in done.stderr
    assert "free disk space" in done.stderr
    assert (store.version(), content(store.current)) == (version, {"a.py": b"1"})
    assert [p.name for p in (store.root / "versions").iterdir()] == [version]
    assert not (store.root / "drafts").exists()


def test_a_store_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match="cannot write"):
        Snapshots(tmp_path / "file" / "store").publish({"a.py": b"1"})


def test_publishing_waits_for_the_lock(store):
    store.publish({"a.py": b"1"})
    fd = os.open(store.root / "lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    waiting = threading.Thread(target=store.publish, args=({"a.py": b"2"},))
    waiting.start()
    time.sleep(0.2)
    assert content(store.current) == {"a.py": b"1"}
    os.close(fd)
    waiting.join(60)
    assert content(store.current) == {"a.py": b"2"}
