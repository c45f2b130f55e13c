"""What npm's settings of a machine become, and how far versions may go."""

from __future__ import annotations

import base64
import json
import os
import shutil

import pytest

from taxiway.errors import OperatorError
from taxiway.integrations.egress import find_npm, read_registries
from taxiway.integrations.egress.packuments import read_packument
from taxiway.integrations.semver import accepts, precedence, within

NO_NPM = shutil.which("npm") is None or shutil.which("node") is None
needs_npm = pytest.mark.skipif(NO_NPM, reason="npm is not installed: install Node.js 20 or newer")


@pytest.fixture
def read(tmp_path):
    def run(npmrc, **environ):
        (tmp_path / ".npmrc").write_text(npmrc)
        settings = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "npm_config_globalconfig": "/dev/null", **environ}
        return read_registries(find_npm(settings), settings)

    return run


def b64(text):
    return base64.b64encode(text.encode()).decode()


@needs_npm
@pytest.mark.parametrize(
    ("npmrc", "login", "bearer"),
    [
        ("", None, ""),
        ("//r.example/npm/:_authToken=abc\n", None, "abc"),
        ("//r.example/npm/:_authToken=${GIVEN}\n", None, "from-the-environment"),
        ("//r.example/npm/:_authToken=${ABSENT?}\n", None, ""),
        ("//r.example/:_authToken = 'abc'\n", None, "abc"),
        ("//other.example/npm/:_authToken=abc\n", None, ""),
        ("//r.example/npm/more/:_authToken=abc\n", None, ""),
        (f"//r.example/npm/:_auth={b64('me:word:with')}\n", ("me", "word:with"), ""),
        (f"//r.example/npm/:username=me\n//r.example/npm/:_password={b64('word')}\n", ("me", "word"), ""),
    ],
)
def test_credentials_are_those_of_the_registry(read, npmrc, login, bearer):
    found = read(f"registry=https://r.example/npm/\n{npmrc}", GIVEN="from-the-environment").default
    assert (found.url, found.login, found.bearer) == ("https://r.example/npm/", login, bearer)


@needs_npm
def test_settings_are_npms_own(read):
    found = read(
        "@corp:registry=https://corp.example/\n//corp.example/:_authToken=abc\nstrict-ssl=false\nhttps-proxy=http://proxy.example:3128\n",
        NPM_CONFIG_REGISTRY="https://r.example/",
    )
    assert found.default.url == "https://r.example/"
    assert (found.of("@corp/kit").url, found.of("@corp/kit").bearer, found.of("kit").url) == (
        "https://corp.example/",
        "abc",
        found.default.url,
    )
    assert found.settings["HTTPS_PROXY"].rstrip("/") == "http://proxy.example:3128"
    assert found.settings["UV_INSECURE_HOST"] == "r.example corp.example"
    assert "abc" not in repr(found)


@needs_npm
def test_a_registry_that_is_no_server_is_refused(read):
    with pytest.raises(OperatorError, match="no http or https address"):
        read("registry=file:///etc/\n")


def test_a_machine_without_npm_says_what_to_install(tmp_path):
    with pytest.raises(OperatorError, match="node is not on the PATH"):
        find_npm({"PATH": str(tmp_path)})


def test_of_a_document_only_what_npm_needs_is_kept():
    """Those of all packages are there at once, and some have megabytes of readmes and scripts for each version."""
    dist = {"tarball": "https://r.example/x.tgz", "integrity": "sha512-x", "signatures": ["x" * 1000]}
    manifest = {"name": "x", "dependencies": {"y": "*"}, "readme": "x" * 1000, "scripts": {"test": "x" * 1000}, "dist": dist}
    versions = read_packument(json.dumps({"readme": "x" * 1000, "versions": {"1.0.0": manifest}}).encode())
    kept = {"dependencies": {"y": "*"}, "dist": {"tarball": "https://r.example/x.tgz", "integrity": "sha512-x"}}
    assert versions == {"1.0.0": kept, "": {"tags": None, "times": None}}


def test_versions_are_ordered_as_semver_says():
    ordered = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.0.1",
        "1.2.0",
        "10.0.0",
    ]
    assert sorted(set(ordered), key=precedence) == ordered
    assert [precedence(text) for text in ("1.0", "v1.0.0", "1.0.0\n", "\u0661.0.0", "latest")] == [None] * 5


@pytest.mark.parametrize(
    ("version", "before", "levels"),
    [
        ("1.2.4", "1.2.3", {"patch", "minor", "major"}),
        ("1.3.0", "1.2.3", {"minor", "major"}),
        ("2.0.0", "1.2.3", {"major"}),
        ("1.2.3", "1.2.3", {"patch", "minor", "major"}),
        ("1.2.2", "1.2.3", set()),
        ("1.2.4-rc.1", "1.2.3", set()),
        ("1.2.3", "1.2.3-rc.1", {"patch", "minor", "major"}),
        ("1.2.4", "nonsense", set()),
    ],
)
def test_a_level_leads_so_far(version, before, levels):
    assert {level for level in ("patch", "minor", "major") if within(version, before, level)} == levels


@pytest.mark.parametrize(
    ("wanted", "yes", "no"),
    [
        ("1.2.3", ["1.2.3"], ["1.2.4", "1.2.3-rc.1"]),
        ("~1.2.3", ["1.2.3", "1.2.9"], ["1.2.2", "1.3.0"]),
        ("^1.2.3", ["1.2.3", "1.9.0"], ["1.2.2", "2.0.0", "1.3.0-rc.1"]),
        ("^0.2.3", ["0.2.4"], ["0.3.0"]),
        ("^0.0.3", ["0.0.3"], ["0.0.4"]),
    ],
)
def test_plain_ranges_accept_what_npm_accepts(wanted, yes, no):
    assert [accepts(wanted, v) for v in (*yes, *no)] == [True] * len(yes) + [False] * len(no)


@pytest.mark.parametrize(
    "wanted", ["*", "1.x", ">=1.0.0", "^1", "^1.0.0 || ^2.0.0", "latest", "npm:other@^1.0.0", "git+https://x.example/"]
)
def test_other_ranges_are_npms_to_read(wanted):
    assert accepts(wanted, "1.0.0") is None
