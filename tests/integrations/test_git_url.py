from __future__ import annotations

import subprocess

import pytest

from taxiway.errors import InputError
from taxiway.integrations.git_url import check_branch, parse_url, slug


@pytest.mark.parametrize(
    ("url", "scheme", "host"),
    [
        ("https://example.org/a/b.git", "https", "example.org"),
        ("https://example.org:8443/a", "https", "example.org:8443"),
        ("http://127.0.0.1:3000/a", "http", "127.0.0.1:3000"),
        ("http://[::1]:3000/a", "http", "[::1]:3000"),
        ("ssh://git@example.org:2222/a/b", "ssh", "example.org"),
        ("git@example.org:a/b.git", "ssh", "example.org"),
        ("/srv/a repository.git", "file", ""),
        ("file:///srv/a%20b.git", "file", ""),
    ],
)
def test_takes(url, scheme, host):
    remote = parse_url(url)
    assert (remote.scheme, remote.host) == (scheme, host)


def test_a_file_url_becomes_its_path():
    assert parse_url("file:///srv/a%20b.git").url == "/srv/a b.git"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-oProxyCommand=id",
        "--upload-pack=id",
        "ext::sh -c id",
        "ext::sh%20-c%20id",
        "fd::17",
        "git://example.org/a",
        "ftp://example.org/a",
        "http://example.org/a",
        "https://",
        "https://example.org",
        "https://example.org/a?access_token=secret",
        "https://example.org/a#secret",
        "https://exa mple.org/a",
        "https://example.org/a\nb",
        "https://example.org:port/a",
        "ssh://-oProxyCommand=id/a",
        "ssh://-l@example.org/a",
        "-l@example.org:a",
        "git@-oProxyCommand=id:a",
        "git@example.org:-a",
        "git@example.org:",
        "relative/path",
        "./relative",
        "https://example.org/trusted/../other/a",
        "https://example.org/trusted/%2E%2e/other/a",
        "https://example.org/./a",
        "ssh://git@example.org/trusted/../other/a",
        "git@example.org:trusted/../other/a",
        "/srv/../etc",
        "//host/share",
        "file://host/srv/a",
        "file:relative",
        "/srv/a\0b",
        "/srv/a\nb",
        "https://" + "a" * 3000,
    ],
)
def test_refuses(url):
    with pytest.raises(InputError, match="cannot be used"):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@example.org/a",
        "https://secret@example.org/a",
        "ssh://git:secret@example.org/a",
        "https://example.org/a?token=secret",
    ],
)
def test_credentials_are_refused_and_not_repeated(url):
    with pytest.raises(InputError) as error:
        parse_url(url)
    assert "Airflow git connection" in error.value.hint
    assert "secret" not in str(error.value)


NAMES = [
    *("main", "feature/a-b", "v1.2", "UPPER", "a@b", "x.y", "HEAD", "@", "-a", "a..b", "a//b", "/a", "a/", "a.", ".a", "a/.b"),
    *("a.lock", "a.lock/b", "a b", "a~", "a^", "a:b", "a?", "a*", "a[", "a\\b", "a@{b", "a\tb", "a\x7f", "", "ä", "a" * 201),
]


@pytest.mark.parametrize("name", NAMES)
def test_branch_names_follow_git(name):
    git_takes = subprocess.run(["git", "check-ref-format", "--branch", name], capture_output=True, check=False).returncode == 0
    if git_takes and name not in ("@", "HEAD") and len(name) <= 200:
        assert check_branch(name) == name
    else:
        with pytest.raises(InputError, match="cannot be the name of a branch"):
            check_branch(name)


def test_slugs_are_safe_and_different():
    texts = [
        "a",
        "A-b_1",
        "manual__2026-01-01T00:00:00.123+00:00",
        "a/b",
        "a.b",
        "a b",
        "..",
        ".",
        "",
        "-a",
        "a.lock",
        "ä",
        "x" * 300,
        "a\0b",
    ]
    slugs = [slug(text) for text in texts]
    assert slugs[:2] == texts[:2]
    assert len(set(slugs)) == len(texts)
    for one in slugs:
        assert check_branch(f"taxiway/{one}") == f"taxiway/{one}"
        assert len(one) <= 100
