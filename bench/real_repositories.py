"""Runs projects that Taxiway did not make through its stages: source distributions of the package index, on the real ports.

    .venv/bin/python bench/real_repositories.py [--keep FOLDER] [--output docs/real-repositories.md] [NAME[==VERSION] ...]

Each becomes a git repository without what only a source distribution has, and goes through `validate` with every check as code
that is not trusted; one that serves a page goes through `e2e` too. Needs a package index; nothing is committed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from measuring import machine

from taxiway.errors import TaxiwayError
from taxiway.project import read_project
from taxiway.testing import reports_of, run_stages

PROJECTS = {
    "itsdangerous==2.2.0": "flit, src, tests in folders",
    "humanize==4.17.0": "hatchling, src, version from git",
    "boltons==26.2.0": "flit, flat, a conftest",
    "tomlkit==0.15.2": "poetry, flat, a conftest and data files",
    "python-slugify==9.1.3": "setuptools, flat, unittest in one file",
    "toolz==1.1.0": "setuptools, flat, tests inside the package, one of which wants the version from git tags",
    "httpbin==0.10.4": "setuptools, flat, unittest, serves a page",
}
APPS = {
    "httpbin": {
        ".taxiway.yaml": "name: httpbin\nstart: [python, -m, flask, --app, 'httpbin:app', run, -h, 127.0.0.1, -p, '{port}']\n"
        "health: /status/200\n",
        "e2e/test_page.py": "def test_the_form_is_answered(page):\n    page.goto('/forms/post')\n"
        "    page.locator('input[name=custname]').fill('Ada')\n    page.get_by_role('button').click()\n"
        "    page.wait_for_url('**/post')\n    assert 'Ada' in page.content()\n",
    }
}
"""What somebody who brings the project to Taxiway writes: how it starts, and a test."""

CHECKS = ("format", "lint", "types", "tests", "security", "secrets", "complexity", "duplication", "dependencies", "licences")
STAGES = f"""
pipeline: real
limits: {{duration: 1h}}
defaults: {{timeout: 20m, retries: {{attempts: 1}}}}
stages:
  validate: {{agent: validate, with: {{checks: [{", ".join(CHECKS)}], licences: {{deny: [AGPL-*]}}}}, continue_on_failure: true}}
"""
BROWSER = "  e2e: {agent: e2e, with: {pages: [/forms/post], retries: 1}, continue_on_failure: true}\n"
SHOWN = {
    "tests": ("tests.passed", "tests.failed", "tests.skipped", "coverage.line"),
    "static": ("format.errors", "lint.errors", "types.errors", "complexity.max", "duplication.percent"),
    "safety": ("security.high", "secrets.found", "dependencies.total", "dependencies.high", "licences.unknown"),
    "browser": ("e2e.passed", "e2e.failed", "a11y.serious"),
}


@dataclass
class Row:
    """What became of one project. `error` is set where a stage could not measure at all."""

    name: str
    layout: str
    reasons: tuple[str, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""


def fetch(names: list[str], into: Path) -> dict[str, Path]:
    """Source distributions by pip's own client and settings; not by `pip download`, which would build each to learn its name."""
    from pip._internal.commands.download import DownloadCommand  # noqa: PLC0415 - pip offers no other way
    from pip._vendor.packaging.specifiers import SpecifierSet  # noqa: PLC0415 - as above

    command = DownloadCommand("download", "")
    options, _ = command.parse_args(["--no-deps", "--no-binary", ":all:", "--quiet", "--quiet", *names])
    found: dict[str, Path] = {}
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options=options, session=session)  # noqa: SLF001 - as above
        for wanted in names:
            name, _, version = wanted.partition("==")
            best = finder.find_best_candidate(name, SpecifierSet(f"=={version}") if version else None).best_candidate
            if best is None:
                raise SystemExit(f"the index has no source distribution of {wanted}")
            answer = session.get(best.link.url_without_fragment)
            answer.raise_for_status()
            found[wanted] = into / best.link.filename
            found[wanted].write_bytes(answer.content)
    return found


def repository(archive: Path, into: Path, more: dict[str, str]) -> Path:
    """A git repository with the files of a source distribution, without those that only packing it makes, and with `more`."""
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    root = next(p for p in into.iterdir() if p.is_dir())
    for made in [root / "PKG-INFO", *root.glob("*.egg-info"), *root.glob("*/*.egg-info")]:
        shutil.rmtree(made) if made.is_dir() else made.unlink(missing_ok=True)
    for name, text in more.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.invalid", "-c", "init.defaultBranch=main"]
    for words in (["init", "-q"], ["add", "-A", "-f"], ["commit", "-q", "-m", "Import"]):
        subprocess.run(["git", *identity, *words], cwd=root, check=True, capture_output=True)
    return root


def run(wanted: str, archive: Path, folder: Path) -> Row:
    """All stages over one project; what they could not do is in the row."""
    row = Row(wanted, PROJECTS.get(wanted, ""))
    more = APPS.get(wanted.partition("==")[0], {})
    (folder / "unpacked").mkdir(parents=True)
    root = repository(archive, folder / "unpacked", more)
    began = time.monotonic()
    try:
        row.reasons = read_project(root).reasons
        results = run_stages(STAGES + (BROWSER if more else ""), folder=folder, repository=str(root))
        for name, result in results.items():
            report = reports_of(folder, name) / ("report.json" if name == "validate" else "e2e.json")
            data: dict[str, Any] = json.loads(report.read_text())
            row.metrics |= data["metrics"]
            row.unmeasured |= data["unmeasured"]
            row.failed += [f"{g.metric} {g.wanted}" for g in result.gates if not g.passed]
    except (TaxiwayError, OSError, KeyError, ValueError) as error:
        row.error = f"{type(error).__name__}: {' '.join(str(error).split())}"
    row.seconds = time.monotonic() - began
    return row


def table(rows: list[Row], words: str) -> str:
    """Some metrics of all projects as Markdown; a dash where nothing was measured."""
    shown = [row for row in rows if words != "browser" or row.name.partition("==")[0] in APPS]
    lines = ["| project | " + " | ".join(SHOWN[words]) + " |", "|---" * (len(SHOWN[words]) + 1) + "|"]
    lines += ["| " + " | ".join([r.name, *(f"{r.metrics[m]:g}" if m in r.metrics else "-" for m in SHOWN[words])]) + " |" for r in shown]
    return "\n".join(lines) + "\n"


def page(rows: list[Row]) -> str:
    """The whole report."""
    parts = [
        "# Real repositories",
        f"Written by `bench/real_repositories.py` on {datetime.now(UTC):%Y-%m-%d}, {machine()}.",
        f"Projects that know nothing of Taxiway, run through `validate` with all {len(CHECKS)} checks as code that is not trusted.",
        "They are source distributions of the package index, each made a git repository without tags. A dash was not measured.",
        *(table(rows, words) for words in SHOWN),
        "## What happened, project by project",
    ]
    return "\n\n".join([*parts, *map(_story, rows)]) + "\n"


def _story(row: Row) -> str:
    reasons: dict[str, list[str]] = {}
    for metric, why in row.unmeasured.items():
        reasons.setdefault(" ".join(why.split())[:300], []).append(metric)
    lines = [f"**{row.name}** ({row.layout or 'as given'}; {row.seconds:.0f} s)", ""]
    lines += [f"- {reason}" for reason in row.reasons]
    lines += [f"- gates that did not pass: {', '.join(f'`{g}`' for g in row.failed)}"] if row.failed else []
    lines += [f"- not measured: {', '.join(names)}: {why}" for why, names in reasons.items()]
    return "\n".join([*lines, *([f"- error: {row.error}"] if row.error else [])])


def main(arguments: list[str]) -> int:
    """1 where a project ended in an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(PROJECTS))
    parser.add_argument("--keep", type=Path, help="leave homes, repositories and reports here")
    parser.add_argument("--output", type=Path, help="write the page here")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="taxiway-real-", ignore_cleanup_errors=True) as scratch:
        place = given.keep or Path(scratch)
        (place / "archives").mkdir(parents=True, exist_ok=True)
        rows = []
        for wanted, archive in fetch(given.names, place / "archives").items():
            rows.append(run(wanted, archive, Path(tempfile.mkdtemp(prefix=f"{archive.name}-", dir=place))))
            print(_story(rows[-1]), flush=True)
    print(page(rows))
    if given.output:
        given.output.write_text(page(rows))
    return int(any(r.error for r in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
