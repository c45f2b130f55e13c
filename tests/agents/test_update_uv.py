"""update_dependencies on uv projects: real uv, in a real sandbox, against a package index of the test's own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import uv

from taxiway.errors import OperatorError, ProjectError, TransientError
from taxiway.integrations import bubblewrap

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "integrations"))

from index_server import Answer, index_server, metadata, wheel
from updating import updater

pytestmark = pytest.mark.skipif(bubblewrap.available() is not None, reason=str(bubblewrap.available()))

CLEAN = {"PATH": os.defpath, "UV_HTTP_RETRIES": "0", "PIP_CONFIG_FILE": "/dev/null", "HOME": "/nonexistent"}
SECRET = "planted-secret"
VERSIONS = ("1.2.0", "1.2.1", "1.3.0", "2.0.0")
UPLOADED = "2024-01-02T03:04:05Z"
PROJECT = '[project]\nname = "app"\nversion = "0.1"\nrequires-python = ">=3.11"\ndependencies = [{}]\n'
CHANGELOG = "https://tinything.example/changes"


def serve(index, folder, name, *, at="/files", page="/simple", size=True, urls=()):
    """All versions of a package on a page of JSON, each with an sdist that nobody may fetch."""
    files = []
    for version in VERSIONS:
        place = wheel(folder, name, version)
        told = metadata(name, version) + "".join(f"Project-URL: {url}\n" for url in urls)
        index.answers |= {f"{at}/{place.name}": Answer(place.read_bytes()), f"{at}/{place.name}.metadata": Answer(told)}
        sdist = f"{name}-{version}.tar.gz"
        for file, content in ((place.name, place.read_bytes()), (sdist, sdist.encode())):
            known = {"filename": file, "url": f"{at}/{file}", "hashes": {"sha256": hashlib.sha256(content).hexdigest()}}
            known |= {"core-metadata": {"sha256": hashlib.sha256(told.encode()).hexdigest()}} if file.endswith(".whl") else {}
            files.append(known | ({"size": len(content), "upload-time": UPLOADED} if size else {}))
    index.json(*files, project=name)
    index.answers[f"{page}/{name}/"] = index.answers[f"/simple/{name}/"]


@pytest.fixture
def index(tmp_path):
    (tmp_path / "wheels").mkdir()
    with index_server(tmp_path / "wheels") as server:
        serve(server, tmp_path / "wheels", "tinything", urls=[f"Changelog, {CHANGELOG}", "Source, https://tinything.example/source"])
        serve(server, tmp_path / "wheels", "other")
        yield server


@pytest.fixture
def update(tmp_path, index):
    private = index.url.replace("://", f"://someone:{SECRET}@")
    return updater(tmp_path, CLEAN | {"UV_DEFAULT_INDEX": private, "AWS_SECRET_ACCESS_KEY": SECRET})


@pytest.fixture
def lock(tmp_path, index):
    """A lock as uv writes it on the author's machine, with both packages at 1.2.0; the index asks for a login afterwards."""

    def made(project, *, url=index.url, held=("tinything==1.2.0", "other==1.2.0"), options=(), **environ):
        folder = tmp_path / "author"
        folder.mkdir(exist_ok=True)
        (folder / "pyproject.toml").write_text(project)
        environ = CLEAN | {"UV_DEFAULT_INDEX": url, "UV_CACHE_DIR": str(tmp_path / "author-cache")} | environ
        words = [word for bound in held for word in ("--upgrade-package", bound)]
        command = [uv.find_uv_bin(), "lock", "--quiet", "--python", sys.executable, *options, *words]
        subprocess.run(command, cwd=folder, env=environ, check=True)
        index.requests.clear()
        index.login = f"someone:{SECRET}"
        return {"pyproject.toml": project, "uv.lock": (folder / "uv.lock").read_text()}

    return made


def pins(text):
    return {p["name"]: p["version"] for p in tomllib.loads(text)["package"] if "registry" in p["source"]}


def written(update):
    return (update.checkout / "uv.lock").read_text()


@pytest.mark.parametrize(("level", "expected"), [("patch", "1.2.1"), ("minor", "1.3.0"), ("major", "2.0.0")])
def test_goes_as_far_as_the_level_allows(update, lock, level, expected):
    result = update(lock(PROJECT.format('"tinything", "other"')), level=level)
    assert pins(written(update)) == {"tinything": expected, "other": expected}
    assert result.outputs == {"updated": 2, "files": 1, "held": 0}
    moved = f"1.2.0 -> {expected} ({level})"
    assert result.summary == f"Update 2 dependencies ({level})\n\n- other {moved}\n- tinything {moved}: {CHANGELOG}"


def test_the_lock_is_what_uv_would_have_written_there(update, lock, index, tmp_path):
    files = lock(PROJECT.format('"tinything", "other"'))
    update(files)
    index.login = ""
    environ = CLEAN | {"UV_DEFAULT_INDEX": index.url, "UV_CACHE_DIR": str(tmp_path / "author-cache")}
    bounds = [word for name in ("tinything", "other") for word in ("--upgrade-package", f"{name}<2")]
    subprocess.run([uv.find_uv_bin(), "lock", "--quiet", *bounds], cwd=tmp_path / "author", env=environ, check=True)
    assert written(update) == (tmp_path / "author" / "uv.lock").read_text()
    assert f'registry = "{index.url}"' in written(update)
    assert f'upload-time = "{UPLOADED}"' in written(update)
    assert index.root + "/files/other-1.3.0.tar.gz" in written(update)


def test_only_what_changes_changes(update, lock):
    files = lock(PROJECT.format('"tinything", "other"'))
    update(files, only=["Other"])
    before, after = (text.split("[[package]]") for text in (files["uv.lock"], written(update)))
    assert [i for i, (one, other) in enumerate(zip(before, after, strict=True)) if one != other] == [2]
    assert pins(written(update)) == {"tinything": "1.2.0", "other": "1.3.0"}


def test_what_the_index_says_no_more_stays_in_the_lock(update, lock, index, tmp_path):
    files = lock(PROJECT.format('"tinything", "other"'))
    serve(index, tmp_path / "wheels", "tinything", size=False)
    update(files, only=["other"])
    assert written(update).count(UPLOADED) == files["uv.lock"].count(UPLOADED)


def test_what_the_project_asks_for_stays_in_force_and_is_said(update, lock):
    result = update(lock(PROJECT.format('"tinything<1.3", "other"')), level="major")
    assert pins(written(update)) == {"tinything": "1.2.1", "other": "2.0.0"}
    assert result.summary.startswith("Update 2 dependencies (major), 1 held back\n")
    assert result.summary.endswith("\n- tinything stays at 1.2.1: 2.0.0 is not allowed by tinything<1.3 in pyproject.toml")


@pytest.mark.parametrize(
    "table",
    [
        'constraint-dependencies = ["other<1.3"]',
        'override-dependencies = ["other<1.3"]',
        'exclude-newer-package = {{ other = "{before}" }}',
        'exclude-newer = "{before}"\nexclude-newer-package = {{ tinything = false }}',
    ],
    ids=["constraints", "overrides", "a cool-down", "a cool-down for all but one"],
)
def test_settings_of_the_project_that_decide_stay_in_force(update, lock, index, table):
    if "before" in table:
        page = json.loads(index.answers["/simple/other/"].body)
        late = [f | {"upload-time": "2025-01-01T00:00:00Z"} if re.search(r"-(1\.3|2)\.0", f["filename"]) else f for f in page["files"]]
        index.json(*late, project="other")
        table = table.format(before="2024-06-01T00:00:00Z")
    update(lock(PROJECT.format('"tinything", "other"') + f"[tool.uv]\n{table}\n"))
    assert pins(written(update)) == {"tinything": "1.3.0", "other": "1.2.1"}


def test_nothing_to_update_changes_nothing(update, lock):
    files = lock(PROJECT.format('"tinything", "other"'), held=())
    result = update(files)
    assert written(update) == files["uv.lock"]
    assert result.outputs == {"updated": 0, "files": 0, "held": 0}
    assert result.summary == "nothing to update within level minor"


# --- indexes ------------------------------------------------------------------------------------


def test_a_mirror_writes_the_addresses_of_what_it_mirrors(update, lock, index, tmp_path):
    """The lock names one index, this machine takes the same files from another."""
    for name in ("tinything", "other"):
        serve(index, tmp_path / "wheels", name, at="/official/files", page="/official/simple")
    files = lock(PROJECT.format('"tinything", "other"'), url=f"{index.root}/official/simple")
    assert "/official/files/other-1.2.0" in files["uv.lock"]
    for name in ("tinything", "other"):
        serve(index, tmp_path / "wheels", name, at="/mirror/files")
    update(files)
    assert pins(written(update)) == {"tinything": "1.3.0", "other": "1.3.0"}
    assert "/official/files/other-1.3.0" in written(update)
    assert "mirror" not in written(update)
    assert not [p for p in index.paths if "official" in p]


def test_a_package_that_only_has_the_name_is_not_taken(update, lock, index, tmp_path):
    """A private package's name on a public index: none of its files are those of the lock."""
    for name in ("tinything", "other"):
        serve(index, tmp_path / "wheels", name, at="/official/files", page="/official/simple")
    files = lock(PROJECT.format('"tinything", "other"'), url=f"{index.root}/official/simple")
    for name in ("tinything", "other"):
        serve(index, tmp_path / "wheels", name, at="/mirror/files")
    page = index.answers["/simple/other/"]
    page.body = re.sub(r'"hashes": {"sha256": "[0-9a-f]{8}', '"hashes": {"sha256": "00000000', page.body)
    with pytest.raises(OperatorError, match="of other it has none of the locked files"):
        update(files)
    assert written(update) == files["uv.lock"]


NAMED = '[tool.uv.sources]\nother = {{ index = "corp" }}\n[[tool.uv.index]]\nname = "corp"\nurl = "{}"\nexplicit = true\n'


def test_an_index_that_the_project_names_is_the_machines_of_that_address(update, lock, index):
    corp = f"{index.root}/corp"
    index.answers["/corp/other/"] = index.answers.pop("/simple/other/")
    files = lock(PROJECT.format('"tinything", "other"') + NAMED.format(corp))
    update(files, environ={"UV_INDEX": corp.replace("://", f"://someone:{SECRET}@")})
    assert pins(written(update)) == {"tinything": "1.3.0", "other": "1.3.0"}
    assert written(update).count(f'"{corp}"') == files["uv.lock"].count(f'"{corp}"') == 2
    assert SECRET not in written(update)


def test_an_index_that_this_machine_does_not_name_is_not_asked(update, lock, index):
    index.answers["/corp/other/"] = index.answers["/simple/other/"]
    files = lock(PROJECT.format('"tinything", "other"') + NAMED.format(f"{index.root}/corp"))
    with pytest.raises(OperatorError, match="which this machine's settings do not name"):
        update(files)
    assert index.requests == []


# --- hostile ------------------------------------------------------------------------------------

HOSTILE = {
    "an address": ('"other @ http://127.0.0.1:{port}/evil/other-9.0-py3-none-any.whl", "tinything"', ""),
    "git": ('"other", "tinything"', '[tool.uv.sources]\nother = {{ git = "http://127.0.0.1:{port}/evil.git" }}\n'),
    "links": ('"missing", "tinything"', '[tool.uv]\nfind-links = ["http://127.0.0.1:{port}/evil/"]\n'),
    "one more index": ('"missing", "tinything"', '[[tool.uv.index]]\nurl = "http://127.0.0.1:{port}/evil"\n'),
    "a build": ('"tinything", "pkg"', '[tool.uv.sources]\npkg = {{ path = "pkg" }}\n'),
    "a folder outside": ('"tinything", "pkg"', '[tool.uv.sources]\npkg = {{ path = "/etc" }}\n'),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_but_the_index_is_reached(update, lock, index, tmp_path, kind):
    asked, tables = HOSTILE[kind]
    files = lock(PROJECT.format('"tinything"'), held=["tinything==1.2.0"])
    port = index.server_address[1]
    files["pyproject.toml"] = PROJECT.format(asked.format(port=port)) + tables.format(port=port)
    files["pkg/setup.py"] = "open('ran', 'w')\n"
    with pytest.raises((ProjectError, OperatorError, TransientError)) as failed:
        update(files)
    assert SECRET not in str(failed.value)
    assert not [p for p in index.paths if "evil" in p]
    assert not list(tmp_path.rglob("ran"))
    assert written(update) == files["uv.lock"]


BACKEND = """
import os, pathlib, urllib.request
for place in ("{outside}/ran", "/upgrade/uv", "/upgrade/door.py"):
    try:
        pathlib.Path(place).write_text("ran")
    except OSError:
        pass
for address in ("http://127.0.0.1:{port}/evil", "http://127.0.0.1:8000/evil"):
    try:
        urllib.request.urlopen(address, timeout=5)
    except OSError as error:
        print(address, error)
def prepare_metadata_for_build_wheel(folder, *_):
    (pathlib.Path(folder) / "app-1.0.dist-info").mkdir()
    told = "Metadata-Version: 2.1\\nName: app\\nVersion: 1.0\\nRequires-Dist: tinything"
    told += ",".join(name for name in os.environ if "SECRET" in name)
    (pathlib.Path(folder) / "app-1.0.dist-info/METADATA").write_text(told)
    return "app-1.0.dist-info"
prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel
"""


def test_a_backend_of_the_project_runs_in_the_sandbox(update, lock, index, tmp_path):
    """uv asks it where metadata is dynamic."""
    files = lock(PROJECT.format('"tinything"'), held=["tinything==1.2.0"])
    (tmp_path / "outside").mkdir()
    files["backend.py"] = BACKEND.replace("{outside}", str(tmp_path / "outside")).replace("{port}", str(index.server_address[1]))
    dynamic = 'dynamic = ["version", "dependencies"]\n[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files["pyproject.toml"] = f'[project]\nname = "app"\nrequires-python = ">=3.11"\n{dynamic}'
    update(files)
    assert pins(written(update)) == {"tinything": "1.3.0"}
    assert not [p for p in index.paths if "evil" in p]
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_project_for_another_python_is_for_another_machine(update, lock):
    files = lock(PROJECT.format('"tinything"'), held=["tinything==1.2.0"])
    old, new = 'requires-python = ">=3.11"', 'requires-python = ">=3.99"'
    with pytest.raises(OperatorError, match=r"needs Python >=3\.99, and Taxiway runs on Python 3\."):
        update({path: text.replace(old, new) for path, text in files.items()})


def test_members_of_a_workspace_are_held_to_what_each_asks_for(update, lock, tmp_path):
    member = '[project]\nname = "member"\nversion = "0.1"\nrequires-python = ">=3.11"\ndependencies = ["other<1.3"]\n'
    (tmp_path / "author" / "member").mkdir(parents=True)
    (tmp_path / "author" / "member" / "pyproject.toml").write_text(member)
    files = lock(PROJECT.format('"tinything"') + '[tool.uv.workspace]\nmembers = ["member"]\n')
    result = update(files | {"member/pyproject.toml": member})
    assert pins(written(update)) == {"tinything": "1.3.0", "other": "1.2.1"}
    assert "- other stays at 1.2.1: 1.3.0 is not allowed by other<1.3 in member/pyproject.toml" in result.summary


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("version = 1\n", "version = [\n", "uv.lock is not TOML"),
        ('name = "tinything"', 'name = "--index-url=x"', "as the name of a package"),
        ('name = "tinything"', 'name = "tiny\\nTaxiway-Run: forged"', "as the name of a package"),
        ('version = "1.2.0"', 'version = "1.2.0\\nTaxiway-Run: forged"', "as the version of a package"),
        ('[[package]]\nname = "tinything"', '[package]\nname = "tinything"', "uv.lock"),
    ],
    ids=["no TOML", "an option as name", "a line as name", "a line as version", "no list"],
)
def test_a_lock_that_uv_did_not_write_is_refused(update, lock, before, after, words):
    files = lock(PROJECT.format('"tinything"'), held=["tinything==1.2.0"])
    assert before in files["uv.lock"]
    files["uv.lock"] = files["uv.lock"].replace(before, after)
    with pytest.raises(ProjectError, match=re.escape(words)):
        update(files)


def test_a_package_from_git_in_the_lock_is_said(update, lock):
    files = lock(PROJECT.format('"tinything"'), held=["tinything==1.2.0"])
    git = "http://127.0.0.1:9/gitty.git"
    files["uv.lock"] += f'\n[[package]]\nname = "gitty"\nversion = "1"\nsource = {{ git = "{git}#{"a" * 40}" }}\n'
    files["pyproject.toml"] = PROJECT.format('"tinything", "gitty"') + f'[tool.uv.sources]\ngitty = {{ git = "{git}" }}\n'
    with pytest.raises(ProjectError, match="gitty from git cannot be reached from the sandbox"):
        update(files)


def test_what_is_no_plain_address_is_not_shown(update, lock, index, tmp_path):
    serve(index, tmp_path / "wheels", "tinything", urls=["Changelog, https://x.example/\x1b[31mred"])
    result = update(lock(PROJECT.format('"tinything"'), held=["tinything==1.2.0"]))
    assert result.summary == "Update 1 dependency (minor)\n\n- tinything 1.2.0 -> 1.3.0 (minor)"


def test_an_index_that_does_not_answer_is_tried_again_later(update, lock, index):
    files = lock(PROJECT.format('"tinything", "other"'))
    index.answers["/simple/other/"] = Answer(status=503)
    with pytest.raises(TransientError):
        update(files)
    assert written(update) == files["uv.lock"]


def test_a_lock_that_is_a_link_is_left_alone(update, lock, tmp_path):
    files = lock(PROJECT.format('"tinything"'), held=["tinything==1.2.0"])
    (tmp_path / "outside.lock").write_text(files.pop("uv.lock"))
    update.checkout.mkdir()
    (update.checkout / "uv.lock").symlink_to(tmp_path / "outside.lock")
    with pytest.raises(ProjectError, match="pins nothing that can be updated"):
        update(files)


# --- what is pinned at one level stays there ----------------------------------------------------


def asks(index, name, version, text):
    """Have that version of a package ask for another one."""
    told = metadata(name, version) + f"Requires-Dist: {text}\n"
    file = f"{name}-{version}-py3-none-any.whl"
    index.answers[f"/files/{file}.metadata"] = Answer(told)
    page = json.loads(index.answers[f"/simple/{name}/"].body)
    for known in page["files"]:
        if known["filename"] == file:
            known["core-metadata"] = {"sha256": hashlib.sha256(told.encode()).hexdigest()}
    index.json(*page["files"], project=name)


def test_what_is_not_named_stays_whatever_asks_for_more(update, lock, index):
    asks(index, "other", "1.2.0", "tinything")
    files = lock(PROJECT.format('"other"'))
    asks(index, "other", "1.3.0", "tinything>=2")
    asks(index, "other", "1.2.1", "tinything")
    result = update(files, only=["other"])
    assert pins(written(update)) == {"other": "1.2.1", "tinything": "1.2.0"}
    assert "- other stays at 1.2.1: 1.3.0 is not allowed by something else: the range of a package" in result.summary


@pytest.mark.parametrize("where", ["uv.toml", "a variable"])
def test_a_lock_made_with_settings_from_elsewhere_is_not_made_anew(update, lock, tmp_path, where):
    """uv takes a lock that was made otherwise for none: all that is in it would go to the newest."""
    own = {"uv.toml": 'resolution = "lowest-direct"\n'} if where == "uv.toml" else {}
    (tmp_path / "author").mkdir()
    for path, text in own.items():
        (tmp_path / "author" / path).write_text(text)
    environ = {} if own else {"UV_RESOLUTION": "lowest-direct"}
    files = lock(PROJECT.format('"tinything>=1.2.0", "other>=1.2.0"'), held=(), **environ)
    result = update(files | own, only=["other"], level="patch")
    assert pins(written(update))["tinything"] == "1.2.0"
    assert 'resolution-mode = "lowest-direct"' in written(update)
    assert result.outputs["updated"] <= 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--exclude-newer=2024-06-01"], "1.2.1"),
        (["--exclude-newer-package=other=2024-06-01"], "1.2.1"),
        (["--exclude-newer-package=other=2 weeks"], "1.3.0"),
        (["--exclude-newer=2024-06-01", "--exclude-newer-package=other=false"], "1.3.0"),
    ],
    ids=["all", "one", "a span", "all but one"],
)
def test_a_cool_down_that_was_told_on_the_command_line_stays(update, lock, index, options, expected):
    page = json.loads(index.answers["/simple/other/"].body)
    late = [f | {"upload-time": "2025-01-01T00:00:00Z"} if re.search(r"-(1\.3|2)\.0", f["filename"]) else f for f in page["files"]]
    index.json(*late, project="other")
    files = lock(PROJECT.format('"tinything", "other"'), options=options)
    update(files)
    assert pins(written(update)) == {"tinything": "1.3.0", "other": expected}
    assert tomllib.loads(written(update))["options"] == tomllib.loads(files["uv.lock"])["options"] != {}
