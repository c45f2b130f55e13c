"""tests: pytest in the project's environment, its word checked against the source, a signed record, JUnit and the exit code."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from taxiway.agents.validate.check import Context, Measured, NotMeasured, read_report, tail
from taxiway.agents.validate.cover import RCFILE, Coverage, measure, report
from taxiway.agents.validate.files import Layout, python_files
from taxiway.agents.validate.finding import Finding
from taxiway.agents.validate.junit import mangle, read_junit
from taxiway.agents.validate.listing import Definition, defined_tests
from taxiway.agents.validate.options import Options, pytest_arguments, read_options
from taxiway.agents.validate.record import Record, read_record
from taxiway.agents.validate.servers import keep_logs, run_beside_servers
from taxiway.agents.validate.toolset import pytest_site
from taxiway.errors import ProjectError
from taxiway.manifest import Manifest, read_inside
from taxiway.ports import Command, Environment
from taxiway.project import Project

__all__ = ["must_agree", "tests"]

_COVERAGE = ("coverage.line", "coverage.branch", "coverage.excluded")
_TIMEOUT_S = 1800.0
_ENDED = (0, 1)
_NOTHING_RAN = 5
_LARGEST = 4_000_000
_TARGET = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)(?:\s*\[.*\])?")
_MODULE = re.compile(r"[A-Za-z_][\w.]*")
_SCRIPT = re.compile(r"[A-Za-z0-9_][\w.-]*")


def tests(context: Context) -> Measured:
    """Count what ran and how it ended, and what should have run and did not; then the coverage of the sources."""
    layout = Layout(context.manifest)
    paths = [p for p in layout.tests if (context.checkout / p).exists()]
    if not paths:
        raise NotMeasured(f"there is no test: no {' and no '.join(layout.tests)}")
    folder = context.folder("tests")
    record = _run(context, layout, paths, folder)
    if context.project.compiled and record.broken:
        raise NotMeasured(
            f"{context.project.compiled}, which Taxiway does not build, and {min(record.broken)} needs it: "
            f"{tail(record.broken[min(record.broken)], 120)}"
        )
    must_agree(record, read_junit(read_report(folder, "junit.xml")))
    context.keep("junit.xml", folder / "junit.xml")
    measured = Measured()
    coverage: Coverage | None = None
    try:
        coverage = report(context, folder)
        measure(context, coverage, layout, measured)
    except NotMeasured as why:
        measured.withdraw(_COVERAGE, str(why))
    _count(context, layout, record, coverage, measured)
    return measured


def _run(context: Context, layout: Layout, paths: list[str], folder: Path) -> Record:
    if context.environment is None:
        raise NotMeasured("the project's environment could not be installed")
    copy = context.copy("tests-project")
    options = read_options(context.checkout)
    if options.dropped:
        context.log.info("tests: not used from the project's pytest options: %s", " ".join(options.dropped))
    key = secrets.token_bytes(32)
    site, first = _site(context.environment, context.tools)
    settings = {
        "key": key.hex(),
        "sources": [s for s in layout.sources if (copy / s).is_dir()],
        "site": site,
        "first": first,
        "plugins": [*options.plugins, *_own_plugins(context.project)],
        "packages": _packages(context.manifest, copy),
        "digests": _digests(copy, layout),
        "arguments": _arguments(options, paths),
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "coveragerc").write_text(RCFILE)
    (folder / "inside.py").write_bytes(Path(__file__).with_name("inside.py").read_bytes())
    command = Command(
        (
            *(str(context.environment.python.absolute()), "-I", "-B", "-X", "pycache_prefix={reports}/no-bytecode"),
            *("{reports}/inside.py", "{reports}/settings.json"),
        ),
        copy,
        folder,
        context.environment,
        writable=True,
        # For what the tests start themselves; the run itself is isolated from it.
        env=_install(context, folder, layout) | {"PYTHONDONTWRITEBYTECODE": "1"},
        timeout_s=_TIMEOUT_S,
        output_limit=5_000_000,
    )
    try:
        result = run_beside_servers(context, command, "pytest", codes=range(-64, 256))
    finally:
        keep_logs(context, folder)
    context.keep("tests.log", result.stdout + result.stderr)
    if result.exit_code not in (*_ENDED, _NOTHING_RAN):
        raise NotMeasured(f"pytest ended with exit code {result.exit_code}: {tail(result.stderr + result.stdout)}")
    record = read_record(folder, key)
    if record.shadowed:
        names = ", ".join(sorted(record.shadowed))
        raise NotMeasured(f"pytest itself is built on {names}: the tests would test the installed one, not the project's")
    if record.tampered:
        raise NotMeasured(f"the project interferes with its tests: {'; '.join(record.tampered[:3])}")
    if record.code != result.exit_code:
        raise NotMeasured(f"pytest ended with {record.code} and its process with {result.exit_code}")
    return record


def _install(context: Context, folder: Path, layout: Layout) -> dict[str, str]:
    """The project as if it were installed: its metadata beside its sources on the path, and its console scripts."""
    if context.environment is None:
        raise NotMeasured("the project's environment could not be installed")
    (folder / "installed").mkdir()
    paths = ":".join([*(f"{{project}}/{s}" for s in layout.sources), "{reports}/installed"])
    distribution = context.project.distribution
    if distribution is None:
        return {"PYTHONPATH": paths}
    for path, text in distribution.metadata().items():
        (folder / "installed" / path).parent.mkdir(exist_ok=True)
        (folder / "installed" / path).write_text(text)
    (folder / "scripts").mkdir()
    for name, target in distribution.entry_points.get("console_scripts", {}).items():
        if (found := _TARGET.fullmatch(target)) and _SCRIPT.fullmatch(name):
            script = folder / "scripts" / name
            root = found[2].split(".")[0]
            lines = (
                f"#!{context.environment.python.absolute()}",
                "import sys",
                f"from {found[1]} import {root}",
                f"sys.exit({found[2]}())",
            )
            script.write_text("\n".join(lines) + "\n")
            script.chmod(0o755)
    places = [f"{e.path.absolute()}/bin" for e in (context.environment, context.tools)]
    return {"PYTHONPATH": paths, "PATH": ":".join(["{reports}/scripts", *places, "/usr/local/bin", "/usr/bin", "/bin"])}


def _own_plugins(project: Project) -> list[str]:
    """Modules of the project that pytest would load if the project were installed."""
    points = project.distribution.entry_points.get("pytest11", {}) if project.distribution else {}
    return [target for target in points.values() if _MODULE.fullmatch(target)]


def _packages(manifest: Manifest, copy: Path) -> list[str]:
    """Names by which the code under test is imported."""
    places = [copy / p for p in manifest.test.packages]
    places += [p for s in manifest.test.sources if not manifest.test.packages and (copy / s).is_dir() for p in (copy / s).iterdir()]
    return sorted({p.name.removesuffix(".py") for p in places if p.is_dir() or p.suffix == ".py"})


def _digests(copy: Path, layout: Layout) -> dict[str, str]:
    """SHA-256 of the code under test, by path, before any of it runs."""
    found = {}
    for path in python_files(copy):
        if not layout.is_test(path) and not layout.in_tests(path):
            with suppress(ProjectError):
                found[path] = hashlib.sha256(read_inside(copy, path, limit=_LARGEST)).hexdigest()
    return found


def _site(environment: Environment, tools: Environment) -> tuple[str, bool]:
    site, first = pytest_site(environment, tools)
    if site and not ((Path(site) / "pytest").is_dir() and (Path(site) / "coverage").is_dir()):
        raise NotMeasured("pytest or coverage is not in Taxiway's tools")
    return site, first


def _arguments(options: Options, paths: list[str]) -> list[str]:
    return [
        *pytest_arguments(options.file),
        *options.arguments,
        "--",
        *paths,
    ]


def must_agree(record: Record, junit: dict[str, str]) -> None:
    """Three accounts of one run, and no contradiction."""
    bad = record.count("failed") + len(record.broken)
    if record.code == _NOTHING_RAN or (not record.outcomes and not record.broken):
        raise NotMeasured("no test ran")
    if (record.code == 0) != (bad == 0):
        raise NotMeasured(f"pytest's exit code {record.code} and {bad} failed tests disagree")
    own = {"off": "skipped", "xfailed": "skipped"}
    expected = {mangle(i): own.get(o, o) for i, o in record.outcomes.items()}
    expected |= {mangle(i): "failed" for i in record.broken}
    expected |= {mangle(i): "skipped" for i in record.skipped_files}
    wrong = [i for i in expected.keys() | junit.keys() if expected.get(i) != junit.get(i)]
    if wrong:
        raise NotMeasured(
            f"the JUnit report and the run disagree on {len(wrong)} tests, such as {min(wrong)}: "
            f"{junit.get(min(wrong), 'missing')}, was {expected.get(min(wrong), 'not run')}"
        )


def _count(context: Context, layout: Layout, record: Record, coverage: Coverage | None, measured: Measured) -> None:
    definitions, unreadable = defined_tests(context.checkout, layout)
    passed, failed, xfailed = (record.count(o) for o in ("passed", "failed", "xfailed"))
    files = Counter(d.key[0] for d in definitions if d.key[0] in record.skipped_files)
    measured.metrics |= {
        "tests.total": passed + failed + xfailed,
        "tests.passed": passed,
        "tests.failed": failed + len(record.broken) + len(set(unreadable) - set(record.broken)),
        "tests.skipped": record.count("skipped") + files.total(),
        "tests.xfailed": xfailed,
    }
    lines = {d.key: d.first for d in definitions}
    failures = [i for i, o in record.outcomes.items() if o == "failed"]
    measured.findings += [_finding("failed", record.keys[i], record.texts[i], i, lines) for i in failures]
    measured.findings += [_finding("broken", (i,), tail(text), i) for i, text in record.broken.items()]
    measured.findings += [_finding("broken", (i,), "does not parse", i) for i in unreadable if i not in record.broken]
    if coverage is None:
        measured.missing(["tests.deselected"], "without a trace of the lines that ran nobody can tell")
        return
    missed = _missed(definitions, record, coverage)
    measured.metrics["tests.deselected"] = len(missed)
    measured.findings += [_finding("not-run", (name.split("::")[0],), "defined, and did not run", name) for name in missed]


def _finding(rule: str, key: tuple[str, ...], text: str, name: str, lines: Mapping[tuple[str, ...], int] | None = None) -> Finding:
    return Finding("tests", "pytest", rule, f"{name}: {text}", key[0], (lines or {}).get(key, 0))


def _missed(definitions: list[Definition], record: Record, coverage: Coverage) -> list[str]:
    """Tests that the files define, or that were collected, and that did not run."""
    missed = [i for i in record.keys if record.outcomes.get(i, "off") == "off"]
    known = set(record.keys.values())
    ran = {key for i, key in record.keys.items() if record.outcomes.get(i) in ("passed", "xfailed")}
    shown = Counter(d.key for d in definitions)
    foreign = {record.keys[i] for i in record.foreign}
    for d in definitions:
        name = "::".join(d.key)
        if d.key[0] in record.skipped_files or d.key[0] in record.broken:
            continue
        # One that another of its name replaced leaves no trace of its own lines.
        silent = d.first and not coverage.ran(d.key[0], d.first, d.last)
        if d.key not in known or (d.plain and d.key in foreign) or (d.key in ran and silent) or (shown[d.key] > 1 and silent):
            missed.append(name)
    return missed
