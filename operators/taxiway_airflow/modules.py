"""The small Python module that stands for one spec, and its name. Text in, text out."""

from __future__ import annotations

import ast
import hashlib
import json
import re

from taxiway.compiler.plan import Plan

__all__ = [
    "MAINTENANCE",
    "broken_module",
    "closed_module",
    "maintenance_module",
    "module_name",
    "pipeline_module",
    "pipeline_of",
    "source_of",
]

# Constant, so that nothing from a file name or a spec can be read as an encoding cookie, which counts in the first
# two lines only. Airflow's safe mode looks for the words airflow and dag.
_HEAD = "# Written by Taxiway for Airflow: the DAG of one pipeline. Changes are overwritten.\n# The plan below was compiled from:\n"
_SOURCE = "# source: "
_CALL = re.compile(rb"\ndag = build_dag\(('.*?'|\".*?\")(, closed=True)?\)\n\Z")
MAINTENANCE = "taxiway_maintenance.py"
"""The module of the maintenance DAGs. No pipeline's has this name: ids that begin so are refused."""

_SHOWN = 262_144
_LINES = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
# Controls, and what reorders or hides text in an editor.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]")


def pipeline_module(plan: Plan, name: str, spec: bytes) -> bytes:
    """The module of a good spec; the plan goes in as one ASCII string literal, the YAML as comments."""
    return _module(name, spec, f"from taxiway_airflow.dag import build_dag\n\ndag = build_dag({plan.to_json()!a})\n")


def broken_module(message: str, name: str, spec: bytes) -> bytes:
    """The module of a spec that cannot be used: importing it raises `message`, which Airflow shows for this file."""
    # Databases and terminals take neither lone surrogates nor controls.
    text = "\n".join(_visible(line) for line in _LINES.split(message))
    body = f"from taxiway_airflow.broken import SpecRefused\n\nMESSAGE = {text!a}\nraise SpecRefused(MESSAGE) from None\n"
    return _module(name, spec, body)


def closed_module(module: bytes) -> bytes:
    """The module of a pipeline as it last was, taking no new runs."""
    return _CALL.sub(lambda m: b"\ndag = build_dag(" + m[1] + b", closed=True)\n", module)


def maintenance_module() -> bytes:
    """The module of Taxiway's own DAGs."""
    head = _HEAD.replace("the DAG of one pipeline", "its maintenance DAGs").partition("\n")[0]
    body = "from taxiway_airflow.maintenance import build_maintenance\n\nreconcile, gc, db_clean = build_maintenance()\n"
    return f"{head}\n{body}".encode()


def pipeline_of(module: bytes) -> str | None:
    """The pipeline whose DAG a module holds; None if it holds none."""
    found = _CALL.search(module)
    return str(json.loads(ast.literal_eval(found[1].decode()))["pipeline"]) if found else None


def module_name(name: str, pipeline: str) -> str:
    """A file name for the module of pipeline `pipeline` in spec file `name`, different for every pair.

    A renamed pipeline gets another module, so that Airflow sees the old DAG go at once.
    """
    stem = name.removesuffix(".yaml")
    if stem != name and stem == pipeline and re.fullmatch(r"[a-z][a-z0-9_]{0,99}", stem):
        return f"{stem}.py"
    digest = hashlib.sha256(f"{name}\0{pipeline}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:60]
    # The hyphen keeps these apart from the plain names above.
    return f"{words or 'spec'}-{digest}.py"


def source_of(module: bytes) -> str | None:
    """The spec file that a module was written from; None if it is not one of ours."""
    line = module[: 4 * len(_HEAD)].decode("ascii", "replace").removeprefix(_HEAD).partition("\n")[0]
    try:
        name = json.loads(line.removeprefix(_SOURCE)) if line.startswith(_SOURCE) else None
    except ValueError:
        return None
    return name if isinstance(name, str) else None


def _module(name: str, spec: bytes, body: str) -> bytes:
    return f"{_HEAD}{_SOURCE}{json.dumps(name)}\n#\n{_commented(spec)}\n\n{body}".encode()


def _commented(spec: bytes) -> str:
    text = spec[:_SHOWN].decode("utf-8", "backslashreplace").removeprefix("\ufeff")
    lines = [f"# {_visible(line)}".rstrip() for line in _LINES.split(text)]
    if len(spec) > _SHOWN:
        lines.append(f"# ... {len(spec) - _SHOWN} more bytes")
    return "\n".join(lines)


def _visible(line: str) -> str:
    return _UNSEEN.sub(lambda m: m[0].encode("unicode_escape", "surrogatepass").decode("ascii"), line)
