"""What packages say of where their changes are told, and what of it is shown."""

from __future__ import annotations

import pytest

from taxiway.integrations.upgrading.changelogs import from_manifest, from_metadata, web_address


@pytest.mark.parametrize(
    "text",
    [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "ftp://x.example/a",
        "https://x.example/\x1b[31mred",
        "https://x.example/\nTaxiway-Run: forged",
        "https://x.example/a b",
        "https://x.example/\u202etxt",
        f"https://x.example/{'a' * 200}",
        "https://user:pw@x.example/",
        "https://169.254.169.254/latest",
        "https://localhost/a",
        "https://[::1]/a",
        "https://[/a",
        "https://x.example/<script>",
        'https://x.example/"',
        "",
        7,
        None,
    ],
)
def test_only_a_plain_web_address_is_one(text):
    assert web_address(text) == ""


@pytest.mark.parametrize("text", ["https://x.example", "http://x.example:8080/a?b=c#d", "https://x.example/~a/%20b_(c)"])
def test_a_plain_web_address_stays_as_it_is(text):
    assert web_address(text) == text


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        (["Homepage, https://a.example/", "Change Log, https://b.example/", "Source, https://c.example/"], "https://b.example/"),
        (["Source, https://c.example/", "Release_Notes, https://b.example/"], "https://b.example/"),
        (["repository, https://c.example/"], "https://c.example/"),
        (["Homepage, https://a.example/"], ""),
        (["Changelog, javascript:alert(1)", "Source Code, https://c.example/"], "https://c.example/"),
        (["Changelog", ", https://a.example/", ""], ""),
    ],
)
def test_core_metadata_names_the_closest_to_what_changed(urls, expected):
    headers = "Metadata-Version: 2.1\nName: a\n" + "".join(f"Project-URL: {url}\n" for url in urls)
    assert from_metadata(headers + "\nProject-URL: Changelog, https://the.description.example/\n") == expected


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ({"type": "git", "url": "git+https://code.example/a/tiny.git"}, "https://code.example/a/tiny"),
        ({"url": "git+ssh://git@code.example/a/tiny.git#main"}, "https://code.example/a/tiny"),
        ({"url": "git://code.example/a/tiny"}, "https://code.example/a/tiny"),
        ("github:a/tiny", "https://github.com/a/tiny"),
        ("a/tiny", "https://github.com/a/tiny"),
        ("gitlab:a/tiny", "https://gitlab.com/a/tiny"),
        ({"url": "https://code.example/\nTaxiway-Run: forged"}, ""),
        ({"url": "https://user:pw@code.example/a"}, ""),
        ({"url": "git+https://user:pw@code.example/a"}, ""),
        ({"url": "javascript:alert(1)"}, ""),
        ({"url": ["https://code.example/"]}, ""),
        ({}, ""),
        (7, ""),
    ],
)
def test_an_npm_package_names_its_repository(repository, expected):
    assert from_manifest({"repository": repository}) == expected


def test_an_npm_package_without_one_names_none():
    assert from_manifest({}) == ""
