"""The table of checks: what each measures, its default gates, and the function that does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from taxiway.agents.base import Metric

__all__ = ["CHECKS", "Check"]


@dataclass(frozen=True)
class Check:
    """One word of `checks`.

    `function` is `module:name` below this package, imported when it runs: `Context -> Measured`. `gates` act where the
    check is chosen. `tools` are those that measure, the most important first. `needs_environment`: not measured where the
    project's environment cannot be installed. `summary` is what a run's one line says, by metric; of those in `quiet` it
    says nothing while they are zero, and `{s}` and `{ies}` are how words end that are counted.
    """

    name: str
    function: str
    metrics: Mapping[str, Metric]
    gates: tuple[str, ...] = ()
    tools: tuple[str, ...] = ("taxiway",)
    needs_environment: bool = False
    summary: Mapping[str, str] = field(default_factory=dict)
    quiet: frozenset[str] = frozenset()


_TABLE = (
    Check(
        "tests",
        "tests:tests",
        {
            "tests.total": Metric("tests that ran"),
            "tests.passed": Metric("tests that passed"),
            "tests.failed": Metric("tests that failed or could not run"),
            "tests.skipped": Metric("tests that skipped themselves"),
            "tests.xfailed": Metric("tests that were expected to fail, and did"),
            "tests.deselected": Metric("tests that the files define and that did not run"),
            "coverage.line": Metric("lines of code that the tests ran; exclusions count as not run", "%", most=100),
            "coverage.branch": Metric("branches that the tests took", "%", most=100),
            "coverage.excluded": Metric("lines that the project wanted excluded"),
        },
        gates=("tests.total >= 1", "tests.passed >= 1", "tests.failed == 0", "tests.deselected == 0"),
        tools=("pytest", "coverage"),
        needs_environment=True,
        summary={
            "tests.passed": "{:.0f} test{s} passed",
            "tests.failed": "{:.0f} failed",
            "tests.skipped": "{:.0f} skipped",
            "tests.deselected": "{:.0f} did not run",
            "coverage.line": "{:.1f} % of lines",
        },
        quiet=frozenset({"tests.failed", "tests.skipped", "tests.deselected"}),
    ),
    Check(
        "lint",
        "lint:lint",
        {
            "lint.files": Metric("files that the linter read"),
            "lint.errors": Metric("lint findings, suppressed ones included"),
            "lint.suppressed": Metric("lint findings that the code suppresses"),
        },
        gates=("lint.files >= 1", "lint.errors == 0"),
        tools=("ruff",),
        summary={"lint.errors": "{:.0f} lint finding{s}"},
    ),
    Check(
        "types",
        "types:types",
        {
            "types.files": Metric("files that the type checker read"),
            "types.errors": Metric("type errors, suppressed ones included"),
            "types.suppressed": Metric("type errors that the code suppresses"),
        },
        gates=("types.files >= 1", "types.errors == 0"),
        tools=("mypy",),
        needs_environment=True,
        summary={"types.errors": "{:.0f} type error{s}"},
    ),
    Check(
        "format",
        "format:check_format",
        {
            "format.files": Metric("files that the formatter read"),
            "format.errors": Metric("files that the formatter would change, or could not read"),
            "format.suppressed": Metric("of those, files that only comments keep from being changed"),
        },
        tools=("ruff", "black"),
        gates=("format.files >= 1", "format.errors == 0"),
        summary={"format.errors": "{:.0f} file{s} to format"},
    ),
    Check(
        "security",
        "security:security",
        {
            "security.files": Metric("files that were searched for weaknesses"),
            "security.high": Metric("findings of high severity, suppressed ones included"),
            "security.medium": Metric("findings of medium severity, suppressed ones included"),
            "security.low": Metric("findings of low severity, suppressed ones included"),
            "security.suppressed": Metric("findings that the code suppresses"),
        },
        tools=("bandit",),
        gates=("security.files >= 1", "security.high == 0"),
        summary={
            "security.high": "{:.0f} high security finding{s}",
            "security.medium": "{:.0f} medium",
            "security.low": "{:.0f} low",
        },
        quiet=frozenset({"security.medium", "security.low"}),
    ),
    Check(
        "secrets",
        "secrets:secrets",
        {
            "secrets.files": Metric("files of any kind that were searched for secrets"),
            "secrets.found": Metric("secrets: of a known form, or random values after a word like password; suppressed ones included"),
            "secrets.possible": Metric("plain values after a word like password, and passwords in URLs"),
            "secrets.suppressed": Metric("secrets that a comment allows"),
        },
        tools=("detect-secrets",),
        gates=("secrets.files >= 1", "secrets.found == 0"),
        summary={"secrets.found": "{:.0f} secret{s}"},
    ),
    Check(
        "complexity",
        "complexity:complexity",
        {
            "complexity.files": Metric("files whose functions were measured"),
            "complexity.functions": Metric("functions and methods"),
            "complexity.max": Metric("McCabe complexity of the most complex function"),
        },
        tools=("ruff",),
        gates=("complexity.files >= 1",),
        summary={"complexity.max": "complexity up to {:.0f}"},
    ),
    Check(
        "duplication",
        "duplication:duplication",
        {
            "duplication.files": Metric("files that were compared, outside the tests"),
            "duplication.lines": Metric("lines of code that were compared"),
            "duplication.percent": Metric("lines in runs of at least six that stand in another place too", "%", most=100),
        },
        gates=("duplication.files >= 1",),
        summary={"duplication.percent": "{:.1f} % repeated"},
    ),
    Check(
        "dependencies",
        "dependencies:dependencies",
        {
            "dependencies.total": Metric("packages that are installed for the project"),
            "dependencies.critical": Metric("known vulnerabilities of critical severity in them; other names of one count once"),
            "dependencies.high": Metric("known vulnerabilities of high severity"),
            "dependencies.medium": Metric("known vulnerabilities of medium severity"),
            "dependencies.low": Metric("known vulnerabilities of low severity"),
            "dependencies.unrated": Metric("known vulnerabilities whose severity no record gives"),
            "dependencies.unaudited": Metric("packages that no advisory service judged"),
        },
        needs_environment=True,
        summary={
            "dependencies.total": "{:.0f} package{s}",
            "dependencies.critical": "{:.0f} critical vulnerabilit{ies}",
            "dependencies.high": "{:.0f} high vulnerabilit{ies}",
            "dependencies.unrated": "{:.0f} unrated vulnerabilit{ies}",
            "dependencies.unaudited": "{:.0f} package{s} unaudited",
        },
        quiet=frozenset({"dependencies.unrated", "dependencies.unaudited"}),
    ),
    Check(
        "licences",
        "licences:licences",
        {
            "licences.total": Metric("packages that are installed for the project"),
            "licences.unknown": Metric("packages whose metadata names no licence that SPDX knows"),
            "licences.denied": Metric("packages whose licence `licences` of the `with` does not accept"),
        },
        needs_environment=True,
        summary={"licences.unknown": "{:.0f} unknown licence{s}", "licences.denied": "{:.0f} licence{s} not accepted"},
        quiet=frozenset({"licences.unknown"}),
    ),
)
CHECKS: Mapping[str, Check] = {check.name: check for check in _TABLE}
"""By name, in the order in which a summary tells of them."""
