from __future__ import annotations

import os
import subprocess

import pytest

from taxiway.errors import OperatorError, ProjectError
from taxiway.integrations.artifacts import DirectoryArtifacts


@pytest.fixture
def store(tmp_path):
    return DirectoryArtifacts(tmp_path / "artifacts")


@pytest.mark.parametrize("key", ["a", "web/run 1/validate/1/junit.xml", "ä/#?%.txt", "..a/b..", "run:1+2/x"])
def test_what_is_put_can_be_got(store, tmp_path, key):
    uri = store.put(key, b"one")
    assert uri.startswith("file:///")
    assert store.get(uri) == b"one"
    source = tmp_path / "source"
    source.write_bytes(b"two")
    assert store.put(key, source) == uri
    assert store.get(uri) == b"two"
    assert (tmp_path / "artifacts" / key).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\nb", "a\0b", "a\\b", "a/" + "b" * 201, "a/" * 600 + "b"])
def test_keys_that_lead_elsewhere_are_refused(store, tmp_path, key):
    with pytest.raises(ProjectError, match="cannot be the key"):
        store.put(key, b"x")
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "missing"])
def test_only_regular_files_are_kept(store, tmp_path, kind):
    source = tmp_path / "source"
    {
        "link": lambda: source.symlink_to("/etc/passwd"),
        "folder": source.mkdir,
        "pipe": lambda: os.mkfifo(source),
        "missing": lambda: None,
    }[kind]()
    with pytest.raises(ProjectError):
        store.put("a", source)
    assert list((tmp_path / "artifacts").rglob("*")) == []


def test_only_what_lies_in_the_store_is_read(store, tmp_path):
    (tmp_path / "secret").write_text("x")
    store.put("a", b"x")
    (tmp_path / "artifacts" / "link").symlink_to(tmp_path / "secret")
    root = (tmp_path / "artifacts").as_uri()
    for uri in (
        "/etc/passwd",
        "file:///etc/passwd",
        f"{root}/../secret",
        f"{root}/%2e%2e/secret",
        f"{root}/link",
        "s3://a/b",
        f"{root}/%00",
    ):
        with pytest.raises(OperatorError, match="is not in the artifact store"):
            store.get(uri)
    with pytest.raises(OperatorError, match="cannot be read"):
        store.get(f"{root}/gone")


def test_a_link_inside_the_store_leads_nowhere(store, tmp_path):
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "artifacts" / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OperatorError, match="leads out"):
        store.put("out/a", b"x")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_where_a_folder_is_needed(store):
    store.put("a", b"x")
    with pytest.raises(OperatorError, match="cannot be stored"):
        store.put("a/b", b"x")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_is_the_operators_and_leaves_nothing(tmp_path):
    root = tmp_path / "small"
    root.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(root)], check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(OperatorError, match="No space left"):
            DirectoryArtifacts(root).put("a/b", b"x" * 200_000)
        assert list((root / "a").iterdir()) == []
    finally:
        subprocess.run(["umount", str(root)], check=True)
