"""A folder of pipelines as DAGs of one Python file, for an Airflow that cannot take the bundle. See dags/pipelines.py."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, get_parsing_context

import taxiway
from taxiway.compiler.plan import FORMAT
from taxiway.errors import OperatorError, SpecError, TaxiwayError
from taxiway.home import find_home
from taxiway_airflow.broken import SpecRefused
from taxiway_airflow.dag import build_dag
from taxiway_airflow.maintenance import build_maintenance
from taxiway_airflow.seen import read_plain

if TYPE_CHECKING:
    from taxiway.agents import Agent
    from taxiway.spec import Policy
    from taxiway.spec.extends import Templates

__all__ = ["PIPELINES_VARIABLE", "maintenance_dags", "pipeline_dags", "raise_problems"]

PIPELINES_VARIABLE = "TAXIWAY_PIPELINES"
"""The folder of pipelines, where it is not `pipelines/` beside the file or above it."""

_KEY = re.compile(rb"^pipeline[ \t]*:[ \t]*[\"']?([a-z][a-z0-9_]*)[\"']?[ \t\r]*(?:#.*)?$", re.MULTILINE)
_USED_S = 86_400.0
_ENDINGS = (".yaml", ".yml")


def pipeline_dags(file: str) -> dict[str, DAG]:
    """DAGs by id of every good pipeline; none where the bundle serves the folder. `file` is the `__file__` that asks.

    Where a worker parses for one task, only that DAG is built, from that one spec.
    """
    folder = _Folder(file)
    if folder.bundled:
        return {}
    asked = get_parsing_context().dag_id
    plans = folder.plans() if asked is None else folder.plan_of(asked)
    return {dag.dag_id: dag for dag in map(build_dag, plans.values())}


def raise_problems(file: str) -> None:
    """Raise SpecRefused with every problem of every file, where there are any: Airflow shows it as an import error."""
    folder = _Folder(file)
    if folder.bundled or get_parsing_context().dag_id is not None:
        return
    folder.plans()
    if folder.problems:
        raise SpecRefused("\n".join(folder.problems)) from None


def maintenance_dags() -> dict[str, DAG]:
    """The maintenance DAGs by id; none where a bundle brings them."""
    if any(entry.get("kwargs", {}).get("maintenance", True) for entry in _bundles()):
        return {}
    return {dag.dag_id: dag for dag in build_maintenance()}


class _Folder:
    """The specs of one folder, compiled at most once for the same content."""

    def __init__(self, file: str) -> None:
        self._path = _find(Path(file))
        self.problems: list[str] = []
        self._agents: Mapping[str, Agent] | None = None
        self._shared: tuple[Mapping[str, Policy], SpecError | None, Templates] | None = None
        self._base = ""

    @property
    def bundled(self) -> bool:
        """Whether a PipelineBundle of this Airflow serves the same folder."""
        sources = [entry.get("kwargs", {}).get("source") for entry in _bundles()]
        return any(Path(source).resolve() == self._path.resolve() for source in sources if isinstance(source, str))

    def plans(self) -> dict[str, str]:
        """Pipeline -> plan as JSON; what is wrong with the other files is in `problems`."""
        plans: dict[str, str] = {}
        first: dict[str, Path] = {}
        for path in self._specs():
            compiled = self._compiled(path)
            name = compiled.get("pipeline", "")
            if "error" in compiled:
                self.problems.append(compiled["error"])
            elif name in first:
                self.problems.append(
                    f"{path}:1:1: error: pipeline {name!r} is already in {first[name].name}\n    hint: give one another name"
                )
            else:
                plans[name], first[name] = compiled["plan"], path
        return plans

    def plan_of(self, pipeline: str) -> dict[str, str]:
        """The same for one pipeline, compiling no other one: its file says its name."""
        for path in self._specs():
            with contextlib.suppress(OSError, TaxiwayError):
                found = _KEY.search(read_plain(path))
                if found and found[1].decode() == pipeline and (plan := self._compiled(path).get("plan")):
                    return {pipeline: plan}
        # Written in a way that only the loader reads.
        return {name: plan for name, plan in self.plans().items() if name == pipeline}

    def _specs(self) -> list[Path]:
        try:
            found = [path for path in self._path.iterdir() if path.suffix.lower() in _ENDINGS and path.name[0] != "." and not path.is_dir()]
        except OSError as error:
            raise OperatorError(f"cannot read {self._path}: {error.strerror}", hint="mend the folder's permissions") from error
        return sorted(path for path in found if not path.is_dir())

    def _compiled(self, path: Path) -> dict[str, str]:
        """`pipeline` and `plan`, or `error`; from the cache where this very content was compiled before."""
        try:
            spec = read_plain(path)
        except (OSError, TaxiwayError) as error:
            return {"error": f"{path}:1:1: error: cannot read the file: {error}"}
        place = self._place(path, spec)
        known = _read_json(place) if place else None
        if known is not None:
            return known
        try:
            plan = self._compile(spec, path)
            made = {"pipeline": plan.pipeline, "plan": plan.to_json()}
        except SpecError as error:
            made = {"error": str(error)}
        except (TaxiwayError, OSError) as error:
            return {"error": f"{path}:1:1: error: {error}"}
        if place:
            _write_json(place, made)
        return made

    def _compile(self, spec: bytes, path: Path) -> Any:
        from taxiway.agents import registry  # noqa: PLC0415 - seconds to import
        from taxiway.compiler import compile_content, load_policies, read_templates  # noqa: PLC0415
        from taxiway_airflow.fit import Fit  # noqa: PLC0415

        if self._agents is None:
            self._agents = registry()
        if self._shared is None:
            self._shared = (*load_policies(self._path / "policies", self._agents), read_templates(self._path))
        policies, broken, templates = self._shared
        plan = compile_content(spec, str(path), self._agents, policies, broken, templates=templates)
        Fit(_UnknownPools(), _executor()).hold(plan, spec.decode("utf-8", "replace"), str(path))
        return plan

    def _place(self, path: Path, spec: bytes) -> Path | None:
        """Where the plan of this content is kept; None where there is no Taxiway home to keep it in."""
        self._base = self._base or self._stand()
        try:
            home = find_home(self._path, os.environ)
        except OperatorError:
            return None
        key = hashlib.sha256(b"\0".join([self._base.encode(), os.fsencode(path), spec])).hexdigest()
        return home.plans / f"{key}.json"

    def _stand(self) -> str:
        """All that a plan depends on beside its spec: policies, agents, and this Taxiway."""
        whole = hashlib.sha256()
        for place in sorted(p for p in self._path.glob("*/*") if p.suffix.lower() in _ENDINGS):  # policies and templates
            with contextlib.suppress(OSError, TaxiwayError):
                whole.update(f"{str(place)!a}\0{hashlib.sha256(read_plain(place)).hexdigest()}\n".encode())
        agents = sorted((p.name, p.value, p.dist.version if p.dist else "") for p in entry_points(group="taxiway.agents"))
        return json.dumps([FORMAT, _executor(), taxiway.__version__, _newest(Path(taxiway.__file__).parent), agents, whole.hexdigest()])


class _UnknownPools:
    """A process that parses DAG files has no database, so nobody is refused for a pool that is not there."""

    def names(self) -> None:
        """They are not known."""

    def make(self, name: str, slots: int) -> None:
        """Never asked."""


def _executor() -> str:
    from airflow.configuration import conf  # noqa: PLC0415

    return str(conf.get("core", "executor"))


def _find(file: Path) -> Path:
    if named := os.environ.get(PIPELINES_VARIABLE):
        if not Path(named).is_dir():
            raise OperatorError(f"{PIPELINES_VARIABLE} is {named}, and there is no such folder", hint="name the folder of pipelines")
        return Path(named)
    # First where the file seems to be: a link to it stands beside the pipelines that it is meant for.
    for start in (file.absolute(), file.resolve()):
        for folder in start.parents:
            if (folder / "pipelines").is_dir():
                return folder / "pipelines"
    raise OperatorError(f"no pipelines/ folder beside or above {file}", hint=f"set {PIPELINES_VARIABLE} to the folder of pipelines")


def _bundles() -> Iterator[Mapping[str, Any]]:
    from airflow.configuration import conf  # noqa: PLC0415 - as light as the rest of a parse

    listed = conf.getjson("dag_processor", "dag_bundle_config_list", fallback=[])
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict) and entry.get("classpath") == "taxiway_airflow.bundle.PipelineBundle":
            yield entry


def _newest(package: Path) -> int:
    """When what compiles was last changed, nanoseconds; a version that is worked on keeps its number."""
    folders = (package / name for name in ("spec", "compiler", "agents"))
    return max(path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*.py"))


def _read_json(place: Path) -> dict[str, str] | None:
    try:
        found = json.loads(place.read_bytes())
        if place.stat().st_mtime < time.time() - _USED_S:
            os.utime(place)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write_json(place: Path, content: Mapping[str, str]) -> None:
    # Several processes may parse at once; a cache that cannot be written is only slow.
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(content), encoding="utf-8")
        fresh.replace(place)
