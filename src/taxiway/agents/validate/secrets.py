"""secrets: keys and passwords in any file of the project, found by detect-secrets' detectors, and never shown."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from taxiway.agents.validate.check import Context, Measured, NotMeasured, count, load_json
from taxiway.agents.validate.files import list_files
from taxiway.agents.validate.finding import Finding, Severity, project_path, whole
from taxiway.ports import Command

__all__ = ["secrets"]

_TIMEOUT_S = 300.0
_FILES = 50_000
_FILE_BYTES = 64_000_000
_TOTAL_BYTES = 400_000_000


def secrets(context: Context) -> Measured:
    """Count secrets; those that a comment allows count and, again, as suppressed. Links are not followed: what they name
    inside the project is read there. A secret is shown as file, line, kind and the first 8 hex digits of a SHA-256."""
    if not any(context.tools.path.absolute().glob("lib/python3*/site-packages/detect_secrets")):
        raise NotMeasured("detect-secrets is not in Taxiway's tools")
    files = _files(context.checkout)
    folder = context.folder("secrets")
    (folder / "files").write_bytes(b"".join(os.fsencode(f"./{f}") + b"\0" for f in files))
    (folder / "inside.py").write_bytes(Path(__file__).with_name("inside_secrets.py").read_bytes())
    argv = (str(context.tools.python.absolute()), "-I", "-B", "{reports}/inside.py", "{reports}/files")
    result = context.run(
        Command(argv, context.checkout, folder, timeout_s=_TIMEOUT_S, output_limit=20_000_000), "detect-secrets", codes=(0,)
    )
    if result.truncated:
        raise NotMeasured("detect-secrets found more than can be read")
    data = load_json(result.stdout, "detect-secrets")
    found = data.get("found") if isinstance(data, dict) else None
    if not isinstance(found, list) or count(data, "files", "detect-secrets") != len(files):
        raise NotMeasured("detect-secrets did not read every file")
    context.keep("secrets.json", json.dumps(found, indent=1))
    findings = [_finding(context, d) for d in found]
    sure = [f for f in findings if f.severity == "error"]
    metrics: dict[str, float] = {"secrets.files": len(files), "secrets.found": len(sure), "secrets.possible": len(findings) - len(sure)}
    return Measured(metrics | {"secrets.suppressed": sum(f.suppressed for f in sure)}, findings=findings)


def _files(checkout: Path) -> list[str]:
    files, total = [], 0
    for path in list_files(checkout):
        place = checkout / path
        if path.startswith(".git/") or place.is_symlink() or not place.is_file():
            continue
        size = place.stat().st_size
        if size > _FILE_BYTES:
            raise NotMeasured(f"{path} is over {_FILE_BYTES // 1_000_000} MB")
        total += size
        files.append(path)
        if len(files) > _FILES or total > _TOTAL_BYTES:
            raise NotMeasured(f"there are more than {_FILES} files or {_TOTAL_BYTES // 1_000_000} MB to search")
    if not files:
        raise NotMeasured("there is no file")
    return files


def _finding(context: Context, data: dict[str, Any]) -> Finding:
    kind, sure = str(data.get("kind")), data.get("sure") is not False
    severity: Severity = "error" if sure else "note"
    text = f"{kind} (hash {data.get('hash')})" + ("" if sure else ": may be one, does not look random")
    path = project_path(str(data.get("path")), context.checkout)
    suppressed = data.get("suppressed") is True
    return Finding("secrets", "detect-secrets", kind, text, path, whole(data.get("line")), severity=severity, suppressed=suppressed)
