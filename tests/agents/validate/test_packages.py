"""dependencies, licences and the choice of tools, on environments whose metadata is written by hand."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from taxiway.agents.validate import ValidateInput
from taxiway.agents.validate.check import Context, NotMeasured
from taxiway.agents.validate.dependencies import dependencies
from taxiway.agents.validate.licences import allows, licence, licences
from taxiway.agents.validate.lists import Licences
from taxiway.agents.validate.packages import installed
from taxiway.agents.validate.toolset import choose
from taxiway.errors import ProjectError, TransientError
from taxiway.integrations.advisories import OsvAdvisories
from taxiway.manifest import Install, Manifest
from taxiway.ports import Environment
from taxiway.project import Project
from taxiway.stop import Stop

sys.path.insert(0, str(Path(__file__).parents[2]))

from advisory_server import cvss3, record, serving

CRITICAL = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"


def environment(root: Path, **packages: str) -> Environment:
    """An environment of `name="1.0"`, further lines of metadata after the version; `@` before it: from an address."""
    site = root / "lib/python3.11/site-packages"
    site.mkdir(parents=True, exist_ok=True)
    for name, text in packages.items():
        version, _, more = text.removeprefix("@").partition("\n")
        info = site / f"{name}-{version or 'none'}.dist-info"
        info.mkdir()
        if version:
            (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{more}\n")
        if text.startswith("@"):
            (info / "direct_url.json").write_text('{"url": "https://user:hunter2@example.invalid/x.whl"}')
    return Environment(root, "k", cached=True)


@pytest.fixture
def context(tmp_path):
    """Makes the Context of a project with these packages."""
    nothing: Any = None

    def make(advisories: Any = None, lists: Licences | None = None, **packages: str) -> Context:
        for name in ("checkout", "work", "reports"):
            (tmp_path / name).mkdir()
        (tmp_path / "checkout/requirements.txt").write_text("# pinned\nbad==1.5\n")
        place = environment(tmp_path / "env", **packages)
        return Context(
            checkout=tmp_path / "checkout",
            project=Project(Manifest(name="tiny", install=Install(requirements=["requirements.txt"])), ()),
            strict=False,
            sandbox=nothing,
            tools=place,
            toolset={},
            environment=place,
            work=tmp_path / "work",
            reports=tmp_path / "reports",
            stop=Stop(),
            log=logging.getLogger("t"),
            advisories=advisories,
            licences=lists or Licences(),
        )

    return make


@pytest.fixture
def server():
    with serving() as state:
        state.published = {("good", "1.0"), ("bad", "1.5")}
        state.found["bad"] = ["GHSA-1", "PYSEC-2"]
        state.records = {i: record(i, "bad", summary="Runs anything") for i in ("GHSA-1", "PYSEC-2")}
        state.records["GHSA-1"] |= cvss3(CRITICAL)
        yield state


def test_installed_packages_are_audited_by_severity(context, server):
    measured = dependencies(context(OsvAdvisories(server.url, server.url), good="1.0", bad="1.5"))
    assert measured.metrics == {
        f"dependencies.{n}": float(c)
        for n, c in (("total", 2), ("unaudited", 0), ("critical", 1), ("high", 0), ("medium", 0), ("low", 0), ("unrated", 1))
    }
    assert measured.unmeasured == {}
    first = measured.findings[0]
    assert (first.rule, first.path, first.line, first.severity) == ("GHSA-1", "requirements.txt", 2, "error")
    assert first.message == "bad 1.5: Runs anything (critical; fixed in 2.0)"


def test_what_no_advisory_can_name_is_unaudited_and_is_not_asked_about(context, server):
    where = context(OsvAdvisories(server.url, server.url), good="1.0", local="@1.0", internal="1.0", broken="")
    (where.checkout / "pyproject.toml").write_text(
        "[project]\ndependencies = ['good', 'Not_There>=1', \"never; python_version < '3'\", '???', 7]\n"
    )
    measured = dependencies(where)
    assert (measured.metrics["dependencies.unaudited"], measured.metrics["dependencies.critical"]) == (4, 0)
    why = {f.message.split()[0].rstrip(":"): f.message for f in measured.findings}
    assert set(why) == {"local", "internal", "broken", "not-there"}
    assert not any("local" in path or "hunter2" in path for path in server.asked)
    assert "hunter2" not in json.dumps([f.message for f in measured.findings])


def test_a_service_that_fails_for_one_package_leaves_no_severity_measured(context, server):
    server.faults["/pypi/good"] = lambda _path, _body: (500, b"", {})
    measured = dependencies(context(OsvAdvisories(server.url, server.url), good="1.0", bad="1.5"))
    assert measured.metrics == {"dependencies.total": 2, "dependencies.unaudited": 1}
    assert (
        measured.unmeasured["dependencies.critical"]
        == "no answer about 1 of 2 packages, such as good 1.0: the package index: it answers 500"
    )
    assert "GHSA-1" in {f.rule for f in measured.findings}


def test_without_a_service_everything_is_unaudited(context):
    measured = dependencies(context(None, good="1.0"))
    assert measured.metrics == {"dependencies.total": 1, "dependencies.unaudited": 1}
    assert measured.unmeasured["dependencies.high"] == "no advisory service is set up"


def test_no_packages_need_no_service(context):
    assert set(dependencies(context(None)).metrics.values()) == {0.0}


# --- licences -------------------------------------------------------------------------------------

OSI = "Classifier: License :: OSI Approved"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ("License-Expression: mit OR apache-2.0", "MIT OR Apache-2.0"),
        ("License-Expression: nonsense here\nLicense: MIT License", "MIT"),
        ("License: BSD 3-Clause", "BSD-3-Clause"),
        (f"License: see LICENSE\n{OSI} :: MIT License", "MIT"),
        (f"{OSI}\n{OSI} :: BSD License", "LicenseRef-BSD"),
        (f"{OSI} :: MIT License\n{OSI} :: GNU General Public License (GPL)", "MIT AND GPL-1.0-or-later"),
        (f"{OSI} :: MIT License\nClassifier: License :: Other/Proprietary License", ""),
        ("License: " + "x" * 500, ""),
        ("Classifier: Topic :: Software Development", ""),
    ],
)
def test_licence_of_metadata(tmp_path, headers, expected):
    environment(tmp_path, one=f"1.0\n{headers}")
    assert licence(installed(tmp_path)[0].metadata) == expected


@pytest.mark.parametrize(
    ("expression", "allow", "deny", "expected"),
    [
        ("MIT OR GPL-3.0-only", [], ["GPL-*"], True),
        ("MIT AND GPL-3.0-only", [], ["GPL-*"], False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", [], ["GPL-2.0-only"], False),
        ("(MIT OR Apache-2.0) AND BSD-3-Clause", ["MIT", "BSD-3-Clause"], [], True),
        ("LGPL-3.0-only", [], ["GPL-*"], True),
        ("ISC", ["MIT"], [], False),
        ("MIT", ["mit"], ["MIT"], False),
        ("LicenseRef-BSD", ["LicenseRef-BSD"], [], True),
    ],
)
def test_allows(expression, allow, deny, expected):
    assert allows(expression, allow=allow, deny=deny) is expected


def test_licences_are_counted(context):
    lists = Licences(deny=["GPL-*"])
    where = context(None, lists, free="1.0\nLicense-Expression: MIT", bad="1.5\nLicense-Expression: GPL-3.0-only", odd="1.0")
    measured = licences(where)
    assert measured.metrics == {"licences.total": 3, "licences.unknown": 1, "licences.denied": 1}
    assert {(f.rule, f.path, f.line) for f in measured.findings} == {("unknown", "", 0), ("denied", "requirements.txt", 2)}
    assert len(json.loads((where.reports / "licences.json").read_text())) == 3


def test_an_unknown_licence_is_not_an_allowed_one(context):
    measured = licences(context(None, Licences(allow=["MIT"]), free="1.0\nLicense-Expression: MIT", odd="1.0"))
    assert measured.metrics["licences.denied"] == 1


def test_without_a_list_nothing_is_denied_and_nothing_passes(context):
    measured = licences(context(None, odd="1.0"))
    assert (measured.metrics, set(measured.unmeasured)) == ({"licences.total": 1, "licences.unknown": 1}, {"licences.denied"})


@pytest.mark.parametrize("entry", ["GLP-*", "MIT OR ISC", "", "*", "MITT"])
def test_a_mistyped_licence_is_refused(entry):
    with pytest.raises(ValidationError, match="SPDX list"):
        ValidateInput(licences={"deny": [entry]})


def test_known_entries_are_taken():
    ValidateInput(licences={"allow": ["MIT", "LicenseRef-BSD"], "deny": ["GPL-*", "AGPL-3.0-only"]})


@pytest.mark.parametrize("check", [dependencies, licences])
def test_without_an_environment_nothing_is_measured(context, check):
    where = context(None)
    object.__setattr__(where, "environment", None)
    with pytest.raises(NotMeasured):
        check(where)


# --- tools ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("", ("2.0.0", "taxiway", "")),
        ("1.5.0", ("1.5.0", "project", "")),
        ("2.0.0", ("2.0.0", "project", "")),
        ("0.1.0", ("2.0.0", "taxiway", "older than 0.9.0")),
        ("@1.5.0", ("2.0.0", "taxiway", "does not come from the index")),
        ("1.6.0", ("2.0.0", "taxiway", "could not be installed: gone")),
        ("1.7.0", ("2.0.0", "taxiway", "could not be installed: no network")),
    ],
    ids=["none", "other", "same", "too-old", "address", "not-there", "offline"],
)
def test_the_version_of_a_tool_is_the_projects_where_it_can_be_had(tmp_path, declared, expected):
    own = environment(tmp_path / "own", ruff="2.0.0")
    project = environment(tmp_path / "project", **({"ruff": declared} if declared else {}))
    (project.path / "bin").mkdir()
    (project.path / "bin/ruff").write_text("#!/bin/sh\nexit 0\n")

    def provide(name: str, version: str) -> Environment:
        faults = {"1.6.0": ProjectError("gone"), "1.7.0": TransientError("no network")}
        if version in faults:
            raise faults[version]
        return environment(tmp_path / f"{name}-{version}")

    tool = choose(["ruff"], own, project, provide)["ruff"]
    assert (tool.version, tool.source) == expected[:2]
    assert expected[2] in tool.why
    assert tool.environment.path != project.path


def test_pytest_runs_in_the_version_of_the_project_where_it_has_both(tmp_path):
    own = environment(tmp_path / "own", pytest="9.0.0", coverage="7.0")
    project = environment(tmp_path / "project", pytest="8.0.0", coverage="6.0", pluggy="1.0")
    for name in ("pytest", "_pytest", "pluggy", "coverage"):
        (project.path / "lib/python3.11/site-packages" / name).mkdir()
    tools = choose(["pytest", "coverage"], own, project, lambda *_: own)
    assert [(t.version, t.source) for t in tools.values()] == [("8.0.0", "project"), ("6.0", "project")]
    tools = choose(["pytest", "coverage"], own, None, lambda *_: own)
    assert [(t.version, t.source) for t in tools.values()] == [("9.0.0", "taxiway"), ("7.0", "taxiway")]
