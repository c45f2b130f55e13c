"""dependencies: what is known against the packages that are installed, and of how many of them nobody could tell."""

from __future__ import annotations

import json
import re
import tomllib
from contextlib import suppress
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from taxiway.agents.validate.check import Context, Measured, NotMeasured
from taxiway.agents.validate.finding import Finding, Severity
from taxiway.agents.validate.packages import Installed, installed
from taxiway.errors import ProjectError
from taxiway.manifest import Manifest, read_inside
from taxiway.ports import Audit, Vulnerability

__all__ = ["dependencies", "named_in"]

_SEVERITIES = ("critical", "high", "medium", "low", "unrated")
_RATED = [f"dependencies.{severity}" for severity in _SEVERITIES]
_EMPTY = Audit({}, {}, {})


def dependencies(context: Context) -> Measured:
    """Count known vulnerabilities by severity, and packages that nobody judged.

    The packages are those of the installed environment. Where the advisory service fails for one of them the severities
    are not measured: what it would have said may be the worst. Packages that no advisory can name are `unaudited`.
    """
    if context.environment is None:
        raise NotMeasured("the project's environment could not be installed")
    packages = installed(context.environment.path)
    asked = [(p.name, p.version) for p in packages if p.version and not p.origin]
    unaudited = [(p.name, p.version, _why(p)) for p in packages if not p.version or p.origin]
    unaudited += [(name, "", "declared in pyproject.toml and not installed") for name in _undeclared(context.checkout, packages)]
    audit, silent = _EMPTY, ""
    if asked and context.advisories is None:
        silent = "no advisory service is set up"
        audit = Audit({}, {}, dict.fromkeys(asked, silent))
    elif asked and context.advisories is not None:
        audit = context.advisories.audit(asked, context.stop)
    unaudited += [(name, version, why) for part in (audit.unknown, audit.failed) for (name, version), why in part.items()]
    measured = Measured({"dependencies.total": float(len(packages)), "dependencies.unaudited": float(len(unaudited))})
    if audit.failed:
        (name, version), why = min(audit.failed.items())
        measured.missing(_RATED, silent or f"no answer about {len(audit.failed)} of {len(asked)} packages, such as {name} {version}: {why}")
    else:
        found = [v for vulnerabilities in audit.vulnerabilities.values() for v in vulnerabilities]
        measured.metrics |= {f"dependencies.{s}": float(sum(v.severity == s for v in found)) for s in _SEVERITIES}
    known = [(package, v) for package, vulnerabilities in audit.vulnerabilities.items() for v in vulnerabilities]
    measured.findings = [_finding(context, package, v) for package, v in known]
    measured.findings += [_unaudited(context, *entry) for entry in sorted(unaudited)]
    context.keep("dependencies.json", json.dumps([{"name": p.name, "version": p.version} for p in packages], indent=1) + "\n")
    return measured


def _why(package: Installed) -> str:
    # Not the address itself, which may hold a password.
    return "installed from an address or a file, not from an index" if package.origin else "its metadata names no valid version"


def _undeclared(checkout: Path, packages: list[Installed]) -> list[str]:
    """Names that the project declares and that are not there: an empty environment has nothing against it."""
    present, missing = {p.name for p in packages}, []
    with suppress(ProjectError, ValueError, RecursionError):
        project = tomllib.loads(read_inside(checkout, "pyproject.toml").decode()).get("project", {})
        declared = project.get("dependencies", []) if isinstance(project, dict) else []
        for text in [t for t in declared if isinstance(t, str)] if isinstance(declared, list) else []:
            with suppress(InvalidRequirement):
                requirement = Requirement(text)
                name = canonicalize_name(requirement.name)
                if name not in present and (requirement.marker is None or requirement.marker.evaluate()):
                    missing.append(name)
    return list(dict.fromkeys(missing))


def _finding(context: Context, package: tuple[str, str], vulnerability: Vulnerability) -> Finding:
    path, line = named_in(context.checkout, context.manifest, package[0])
    first, *others = vulnerability.ids
    more = f"; also {', '.join(others[:5])}" if others else ""
    fixed = f"; fixed in {', '.join(vulnerability.fixed[:5])}" if vulnerability.fixed else ""
    text = f"{package[0]} {package[1]}: {vulnerability.summary or 'known vulnerability'} ({vulnerability.severity}{fixed}{more})"
    severity: Severity = "error" if vulnerability.severity in ("critical", "high", "unrated") else "warning"
    return Finding("dependencies", "taxiway", first, text, path, line, severity=severity)


def _unaudited(context: Context, name: str, version: str, why: str) -> Finding:
    path, line = named_in(context.checkout, context.manifest, name)
    return Finding("dependencies", "taxiway", "unaudited", f"{name} {version}".strip() + f": {why}", path, line, severity="note")


def named_in(checkout: Path, manifest: Manifest, name: str) -> tuple[str, int]:
    """File and line of the requirement that names a package; "" and 0 for one that only another package asks for."""
    words = re.compile(r"[\s\"']*([A-Za-z0-9][\w.-]*)")
    files = (*manifest.install.requirements, manifest.install.source or "", "pyproject.toml")
    for file in dict.fromkeys(f for f in files if f):
        with suppress(ProjectError, UnicodeDecodeError):
            for number, line in enumerate(read_inside(checkout, file).decode().splitlines(), start=1):
                if (match := words.match(line)) and canonicalize_name(match[1]) == name:
                    return file, number
    return "", 0
