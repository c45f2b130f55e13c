"""update_dependencies on npm projects: real npm, in a real sandbox, against a registry of the test's own."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from taxiway.errors import OperatorError, ProjectError, TransientError
from taxiway.integrations import bubblewrap

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "integrations"))

from index_server import Answer, index_server
from registry_server import publish
from updating import updater

NO_NPM = shutil.which("npm") is None or shutil.which("node") is None
pytestmark = [
    pytest.mark.skipif(bubblewrap.available() is not None, reason=str(bubblewrap.available())),
    pytest.mark.skipif(NO_NPM, reason="npm is not installed: install Node.js 20 or newer"),
]

SECRET = "planted-secret"
VERSIONS = ("1.2.0", "1.2.1", "1.3.0", "2.0.0")
PROJECT = {"name": "app", "version": "1.0.0", "dependencies": {"tiny": "^1.2.0", "other": "*"}}
TESTED = PROJECT | {"scripts": {"test": "node test.js"}}
# Passes with any version, fails without one.
TEST = "const {version} = require('tiny'); if (!/^1/.test(version)) process.exit(1)\n"


@pytest.fixture
def registry(tmp_path):
    (tmp_path / "wheels").mkdir()
    with index_server(tmp_path / "wheels") as server:
        yield server


@pytest.fixture
def environ(tmp_path, registry):
    """The machine's settings: its registry and a token for it."""
    home = tmp_path / "machine"
    home.mkdir()
    host = f"//127.0.0.1:{registry.server_address[1]}/npm/"
    (home / ".npmrc").write_text(f"registry={registry.root}/npm/\n{host}:_authToken=${{THE_TOKEN}}\n")
    empty = {"npm_config_globalconfig": "/dev/null", "PIP_CONFIG_FILE": "/dev/null"}
    return {"PATH": os.environ["PATH"], "HOME": str(home), "THE_TOKEN": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET, **empty}


@pytest.fixture
def update(tmp_path, environ):
    return updater(tmp_path, environ)


@pytest.fixture
def npm(tmp_path, environ):
    """npm at its author's."""

    def run(*argv, registry=None):
        told = {"npm_config_audit": "false", "npm_config_update_notifier": "false", "npm_config_cache": str(tmp_path / "author-cache")}
        told |= {"npm_config_registry": registry} if registry else {}
        subprocess.run(["npm", *argv], cwd=tmp_path / "author", env=environ | told, check=True, capture_output=True)

    return run


@pytest.fixture
def lock(tmp_path, registry, npm):
    """A project with its lock, written by npm while 1.2.0 was all there was; later versions are published afterwards."""

    def made(project=PROJECT, *, later=VERSIONS, at="/npm", names=("tiny", "other"), version="3", **files):
        folder = tmp_path / "author"
        folder.mkdir(exist_ok=True)
        (folder / "package.json").write_text(json.dumps(project, indent=2) + "\n")
        for name in names:
            publish(registry, name, later[0], at=at)
        npm("install", "--package-lock-only", "--lockfile-version", version, registry=f"{registry.root}{at}/")
        for name in names:
            publish(registry, name, *later, at=at)
        registry.requests.clear()
        return {p: (folder / p).read_text() for p in ("package.json", "package-lock.json")} | files

    return made


def pins(text):
    found = json.loads(text)["packages"]
    return {place.removeprefix("node_modules/"): package["version"] for place, package in found.items() if place}


def written(update):
    return (update.checkout / "package-lock.json").read_text()


@pytest.mark.parametrize(
    ("level", "tiny", "other"), [("patch", "1.2.1", "1.2.1"), ("minor", "1.3.0", "1.3.0"), ("major", "1.3.0", "2.0.0")]
)
def test_goes_as_far_as_the_level_allows(update, lock, level, tiny, other):
    files = lock()
    result = update(files, level=level)
    assert pins(written(update)) == {"tiny": tiny, "other": other}
    assert (update.checkout / "package.json").read_text() == files["package.json"]
    assert result.outputs == {"updated": 2, "files": 1, "held": int(level == "major")}
    lines = [f"- other 1.2.0 -> {other} ({level})", f"- tiny 1.2.0 -> {tiny} ({'minor' if level == 'major' else level})"]
    assert result.summary.split("\n")[2:4] == lines
    assert ("- tiny stays at 1.3.0: 2.0.0 is not allowed by ^1.2.0 in package.json" in result.summary) == (level == "major")


def test_the_lock_is_what_npm_would_have_written_there(update, lock, npm, tmp_path, registry):
    files = lock(PROJECT | {"dependencies": {"tiny": "^1.2.0", "other": "^1.2.0"}})
    update(files)
    npm("update", "--package-lock-only", "--no-save")
    assert written(update) == (tmp_path / "author" / "package-lock.json").read_text()
    assert f'"{registry.root}/npm/tiny/-/tiny-1.3.0.tgz"' in written(update)


def test_only_what_is_named_moves(update, lock):
    update(lock(), only=["other"], level="major")
    assert pins(written(update)) == {"tiny": "1.2.0", "other": "2.0.0"}


def test_nothing_to_update_changes_nothing(update, lock):
    files = lock(later=("1.2.0",))
    result = update(files)
    assert written(update) == files["package-lock.json"]
    assert result.summary == "nothing to update within level minor"


def test_the_form_of_the_file_stays(update, lock):
    files = lock()
    files["package-lock.json"] = re.sub(r"^ +", lambda m: "\t" * (len(m[0]) // 2), files["package-lock.json"], flags=re.MULTILINE)
    update(files)
    assert '\n\t"name": "app"' in written(update)


def test_what_asks_for_more_than_the_level_stays_back(update, lock, registry):
    """tiny 1.3.0 needs the next major of a package that may only move within its own: npm alone would give up."""
    files = lock(PROJECT | {"dependencies": {"tiny": "^1.2.0", "other": "^1.2.0"}})
    publish(registry, "tiny", "1.2.0", "1.2.1", {"version": "1.3.0", "dependencies": {"other": "^2.0.0"}})
    result = update(files)
    assert pins(written(update)) == {"tiny": "1.2.1", "other": "1.3.0"}
    assert "- tiny stays at 1.2.1: 1.3.0 is not allowed by something else: the range of a package" in result.summary


def test_what_packages_need_besides_moves_within_the_level_too(update, lock, registry):
    publish(registry, "deep", "1.2.0")
    files = lock(PROJECT | {"dependencies": {"deep": "*"}}, names=("deep",))
    publish(registry, "deep", "1.2.0", *({"version": v, "dependencies": {"fresh": "*"}} for v in VERSIONS[1:]))
    publish(registry, "fresh", "7.0.0")
    result = update(files, level="patch")
    assert pins(written(update)) == {"deep": "1.2.1", "fresh": "7.0.0"}
    assert "- fresh 7.0.0 (new)" in result.summary


def test_what_the_project_wants_to_wait_for_waits(update, lock, registry):
    files = lock(PROJECT | {"dependencies": {"tiny": "^1.2.0"}}, names=("tiny",))
    publish(registry, "tiny", *VERSIONS, times={v: f"202{n}-01-01T00:00:00.000Z" for n, v in enumerate(VERSIONS)})
    update(files | {".npmrc": "before=2021-06-01\nregistry=http://127.0.0.1:9/\nignore-scripts=false\n"})
    assert pins(written(update)) == {"tiny": "1.2.1"}


def test_the_ends_of_lines_stay(update, lock):
    files = lock()
    update.checkout.mkdir()
    for path, text in files.items():
        (update.checkout / path).write_bytes(text.replace("\n", "\r\n").encode())
    update({})
    new = (update.checkout / "package-lock.json").read_bytes()
    assert b"tiny-1.3.0.tgz" in new
    assert new.count(b"\r\n") == new.count(b"\n")


def test_a_package_under_another_name_moves_when_it_is_named(update, lock):
    result = update(lock(PROJECT | {"dependencies": {"small": "npm:tiny@^1.2.0", "other": "*"}}), only=["tiny"])
    assert pins(written(update)) == {"small": "1.3.0", "other": "1.2.0"}
    assert "- tiny 1.2.0 -> 1.3.0 (minor)" in result.summary


@pytest.mark.parametrize("place", ["../outside", "packages/ignored"])
def test_a_package_that_the_project_does_not_hold_is_not_emptied(update, lock, tmp_path, registry, place):
    """npm would write `{}` for it, and take out what it needs."""
    folder = tmp_path / "author" / place
    folder.mkdir(parents=True)
    (folder / "package.json").write_text('{"name": "member", "version": "1.0.0", "dependencies": {"other": "*"}}')
    files = lock(PROJECT | {"dependencies": {"tiny": "^1.2.0", "member": f"file:{place}"}})
    assert f'"{place}": {{' in files["package-lock.json"]
    with pytest.raises(ProjectError, match=re.escape(f"has {place}, which is no folder of the project with a package.json")):
        update(files)
    assert written(update) == files["package-lock.json"]
    assert registry.requests == []


def test_text_that_is_no_text_stays_as_it_is(update, lock):
    files = lock()
    files["package-lock.json"] = files["package-lock.json"].replace('"integrity"', r'"license": "\ud800 \u2028 é", "integrity"', 1)
    update(files, only=["tiny"])
    assert r'"license": "\ud800 ' in written(update)


def test_scoped_packages_come_from_their_own_registry(update, lock, registry, environ):
    settings = Path(environ["HOME"], ".npmrc")
    settings.write_text(settings.read_text() + f"@corp:registry={registry.root}/corp/\n")
    publish(registry, "@corp/kit", "1.2.0", at="/corp")
    files = lock(PROJECT | {"dependencies": {"tiny": "^1.2.0", "@corp/kit": "^1.2.0"}}, names=("tiny",))
    publish(registry, "@corp/kit", *VERSIONS, at="/corp")
    files[".npmrc"] = f"@corp:registry={registry.root}/corp/\n"
    result = update(files, only=["@corp/kit"])
    assert pins(written(update)) == {"tiny": "1.2.0", "@corp/kit": "1.3.0"}
    assert f"{registry.root}/corp/@corp/kit/-/kit-1.3.0.tgz" in written(update)
    assert "- @corp/kit 1.2.0 -> 1.3.0 (minor)" in result.summary


def test_workspaces_share_their_roots_lock(update, lock, tmp_path):
    member = {"name": "member", "version": "1.0.0", "dependencies": {"other": "~1.2.0"}}
    (tmp_path / "author" / "packages" / "member").mkdir(parents=True)
    (tmp_path / "author" / "packages" / "member" / "package.json").write_text(json.dumps(member))
    files = lock({"name": "root", "workspaces": ["packages/*"], "dependencies": {"tiny": "^1.2.0"}})
    result = update(files | {"packages/member/package.json": json.dumps(member)})
    found = json.loads(written(update))["packages"]
    assert (found["node_modules/tiny"]["version"], found["node_modules/other"]["version"]) == ("1.3.0", "1.2.1")
    assert found["node_modules/member"] == {"resolved": "packages/member", "link": True}
    assert "- other stays at 1.2.1: 1.3.0 is not allowed by ~1.2.0 in packages/member/package.json" in result.summary


def test_lock_files_of_npm_7_keep_their_second_form(update, lock, npm, tmp_path):
    files = lock(PROJECT | {"dependencies": {"tiny": "^1.2.0"}}, names=("tiny",), version="2")
    assert '"lockfileVersion": 2' in files["package-lock.json"]
    update(files)
    npm("update", "--package-lock-only", "--no-save", "--lockfile-version", "2")
    assert written(update) == (tmp_path / "author" / "package-lock.json").read_text()
    assert written(update).count("tiny-1.3.0.tgz") == 2


# --- registries ---------------------------------------------------------------------------------


def test_a_mirror_writes_the_addresses_of_what_it_mirrors(update, lock, registry):
    files = lock(at="/official")
    for name in ("tiny", "other"):
        publish(registry, name, *VERSIONS)
    update(files)
    assert f"{registry.root}/official/tiny/-/tiny-1.3.0.tgz" in written(update)
    assert "/npm/" not in written(update)
    assert not [p for p in registry.paths if "official" in p]


def test_a_lock_without_addresses_gets_none(update, lock):
    files = lock()
    files["package-lock.json"] = re.sub(r' *"resolved": .*\n', "", files["package-lock.json"])
    update(files)
    assert "resolved" not in written(update)
    assert pins(written(update))["tiny"] == "1.3.0"


def test_a_package_that_only_has_the_name_is_not_taken(update, lock, registry):
    files = lock(at="/official")
    publish(registry, "tiny", *VERSIONS)
    publish(registry, "other", *VERSIONS, files={"evil.js": "1"})
    with pytest.raises(ProjectError, match=r"its other 1\.2\.0 is another one than the lock's"):
        update(files)
    assert written(update) == files["package-lock.json"]


def test_the_token_goes_to_the_registry_and_nowhere_else(update, lock, registry):
    result = update(lock(TESTED, **{"test.js": TEST}))
    assert {r.authorization for r in registry.requests} == {f"Bearer {SECRET}"}
    assert SECRET not in result.summary + written(update)


def test_a_scope_that_this_machine_does_not_know_is_not_looked_for_elsewhere(update, lock, registry):
    files = lock() | {".npmrc": "@corp:registry=https://npm.corp.example/\n"}
    with pytest.raises(OperatorError, match="takes @corp from"):
        update(files)
    assert registry.requests == []


def test_a_machine_without_npm_says_what_to_install(update, lock):
    with pytest.raises(OperatorError, match=r"not on the PATH[^!]*install Node\.js"):
        update(lock(), environ={"PATH": "/nonexistent"})


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(status=503), TransientError),
        (Answer(status=429), TransientError),
        (Answer(status=401), OperatorError),
        (Answer(status=404), ProjectError),
        (Answer("<html>", "text/html"), ProjectError),
    ],
    ids=["503", "429", "401", "404", "no JSON"],
)
def test_a_registry_that_does_not_serve_fails_by_who_must_act(update, lock, registry, answer, error):
    files = lock()
    registry.answers["/npm/tiny"] = answer
    with pytest.raises(error):
        update(files)
    assert written(update) == files["package-lock.json"]


def test_a_registry_that_is_down_is_tried_again_later(update, lock, environ):
    files = lock()
    Path(environ["HOME"], ".npmrc").write_text("registry=http://127.0.0.1:9/npm/\n")
    with pytest.raises(TransientError, match="the registry did not answer"):
        update(files)


# --- the project's own tests --------------------------------------------------------------------


def test_the_projects_tests_run_with_the_new_versions(update, lock, caplog):
    caplog.set_level(logging.INFO)
    result = update(lock(TESTED, **{"test.js": TEST + "require('fs').writeFileSync('left-behind', '')\n"}))
    assert result.metrics["dependencies.tested"] == 1
    assert result.unmeasured == {}
    assert result.summary.endswith("(minor)\n\n`npm test` passed with the new versions of package-lock.json")
    assert "package-lock.json: `npm test` passed" in caplog.messages
    assert sorted(p.name for p in update.checkout.iterdir()) == ["package-lock.json", "package.json", "test.js"]


def test_versions_that_break_the_projects_tests_are_refused(update, lock):
    files = lock(TESTED, **{"test.js": "console.log('found ' + require('tiny').version); process.exit(require('other').version[0] - 1)\n"})
    with pytest.raises(
        ProjectError, match=r"with the new versions `npm test` fails \(exit code 1\), and nothing was updated(.|\n)*found 1\.3\.0"
    ):
        update(files, level="major")
    assert written(update) == files["package-lock.json"]


@pytest.mark.parametrize("script", [None, "", 'echo "Error: no test specified" && exit 1'])
def test_without_tests_nothing_is_measured(update, lock, script):
    project = PROJECT if script is None else PROJECT | {"scripts": {"test": script}}
    result = update(lock(project))
    assert pins(written(update))["tiny"] == "1.3.0"
    assert "dependencies.tested" not in result.metrics
    assert result.unmeasured == {"dependencies.tested": "package-lock.json: package.json has no test script"}
    assert result.summary.endswith("\n\nno tests ran: package-lock.json: package.json has no test script")


# --- hostile ------------------------------------------------------------------------------------

LEAVE = """
const fs = require('fs'), http = require('http')
const out = []
const say = (what) => { out.push(what); fs.writeFileSync('/project/said', out.join('\\n')) }
say('ran')
for (const name of ['THE_TOKEN', 'AWS_SECRET_ACCESS_KEY']) if (process.env[name]) say('found ' + name)
try { fs.writeFileSync('%(outside)s/ran', ''); say('wrote') } catch (error) { }
for (const port of [%(port)d, 8000])
  http.get({host: '127.0.0.1', port, path: '/evil'}, () => say('left by ' + port)).on('error', () => say('stayed'))
"""


def test_scripts_of_packages_run_where_there_is_no_way_out(update, lock, registry, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    files = {"leave.js": LEAVE % {"outside": outside, "port": registry.server_address[1]}}
    test = "const said = require('fs').readFileSync('said', 'utf8'); console.log(said); "
    test += "process.exit(said === 'ran\\nstayed\\nstayed' ? 0 : 1)\n"
    project = lock(TESTED, **{"test.js": test})
    publish(registry, "tiny", "1.2.0", {"version": "1.2.1", "scripts": {"postinstall": "node leave.js"}}, files=files)
    lock_text = json.loads(project["package-lock.json"])
    document = json.loads(registry.answers["/npm/tiny"].body)
    lock_text["packages"]["node_modules/tiny"]["integrity"] = document["versions"]["1.2.0"]["dist"]["integrity"]
    project["package-lock.json"] = json.dumps(lock_text, indent=2) + "\n"
    result = update(project)
    assert result.metrics["dependencies.tested"] == 1
    assert not [p for p in registry.paths if "evil" in p]
    assert list(outside.iterdir()) == []


def test_an_address_at_another_host_is_not_asked(update, lock, registry):
    """Neither for what moves nor for what stays, and what stays keeps it: it is the project's word."""
    files = lock(TESTED, **{"test.js": TEST})
    evil = f"http://127.0.0.1:{registry.server_address[1]}/evil"
    files["package-lock.json"] = files["package-lock.json"].replace(f"{registry.root}/npm/tiny/", f"{evil}/tiny/")
    result = update(files, only=["other"])
    assert pins(written(update)) == {"tiny": "1.2.0", "other": "1.3.0"}
    assert f"{evil}/tiny/-/tiny-1.2.0.tgz" in written(update)
    assert result.metrics["dependencies.tested"] == 1
    assert not [p for p in registry.paths if "evil" in p]


def test_content_that_is_not_the_locks_is_not_installed(update, lock, registry):
    files = lock(TESTED, **{"test.js": TEST})
    registry.answers["/npm/tiny/-/tiny-1.3.0.tgz"] = registry.answers["/npm/other/-/other-1.3.0.tgz"]
    with pytest.raises(ProjectError, match="EINTEGRITY"):
        update(files)
    assert written(update) == files["package-lock.json"]


@pytest.mark.parametrize(
    "address", ["git+http://127.0.0.1:{port}/evil.git#{commit}", "http://127.0.0.1:{port}/evil.tgz"], ids=["git", "address"]
)
def test_what_is_not_of_a_registry_stays_and_is_said(update, lock, registry, address):
    files = lock(TESTED, **{"test.js": TEST})
    resolved = address.format(port=registry.server_address[1], commit="a" * 40)
    for path, find in (("package.json", ["dependencies"]), ("package-lock.json", ["packages", "", "dependencies"])):
        data = json.loads(files[path])
        asked = data
        for key in find:
            asked = asked[key]
        asked["foreign"] = resolved
        if "packages" in data:
            data["packages"]["node_modules/foreign"] = {"version": "1.0.0", "resolved": resolved, "license": "MIT"}
        files[path] = json.dumps(data, indent=2) + "\n"
    result = update(files)
    assert pins(written(update)) == {"tiny": "1.3.0", "other": "1.3.0", "foreign": "1.0.0"}
    assert "cannot be reached from the sandbox" in result.unmeasured["dependencies.tested"]
    assert not [p for p in registry.paths if "evil" in p]


@pytest.mark.parametrize(
    "case",
    [
        ("package.json", "{", "{,", "package.json is not JSON"),
        ("package-lock.json", "{", "{,", "package-lock.json is not JSON"),
        ("package-lock.json", '"lockfileVersion": 3', '"lockfileVersion": 1', "has lockfileVersion 1, and 2 and 3 are known"),
        ("package-lock.json", "node_modules/tiny", r"node_modules/tiny\nTaxiway-Run: forged", "as the name of a package"),
        ("package-lock.json", "node_modules/tiny", "node_modules/--registry=x", "as the name of a package"),
        ("package-lock.json", '"version": "1.2.0"', r'"version": "1.2.0\nTaxiway-Run: x"', "as the version of a package"),
        ("package-lock.json", '"node_modules/tiny": {', '"node_modules/x": 7, "node_modules/tiny": {', "has no package at"),
    ],
)
def test_files_that_npm_did_not_write_are_refused(update, lock, registry, case):
    path, before, after, words = case
    files = lock()
    assert before in files[path]
    files[path] = files[path].replace(before, after, 1)
    with pytest.raises(ProjectError, match=re.escape(words)):
        update(files)
    assert registry.requests == []


@pytest.mark.parametrize(
    ("repository", "shown"),
    [
        ({"type": "git", "url": "git+https://code.example/a/tiny.git"}, "https://code.example/a/tiny"),
        ({"url": "https://code.example/\nTaxiway-Run: forged"}, ""),
    ],
)
def test_a_repository_is_shown_where_it_is_a_plain_address(update, lock, registry, repository, shown):
    files = lock(PROJECT | {"dependencies": {"tiny": "^1.2.0"}}, names=("tiny",))
    publish(registry, "tiny", "1.2.0", {"version": "1.3.0", "repository": repository})
    result = update(files)
    assert result.summary.split("\n")[2] == "- tiny 1.2.0 -> 1.3.0 (minor)" + (f": {shown}" if shown else "")
