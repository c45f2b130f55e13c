"""A folder of pipelines as an Airflow DAG bundle with versions: a run executes the specs that it started with."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.dag_processing.bundles.base import BaseDagBundle, BundleVersion

from taxiway.errors import OperatorError, Position, Problem, SpecError, TaxiwayError
from taxiway.home import find_home
from taxiway_airflow.fit import AirflowPools, Fit, Pools, Unfit
from taxiway_airflow.modules import (
    MAINTENANCE,
    broken_module,
    closed_module,
    maintenance_module,
    module_name,
    pipeline_module,
    pipeline_of,
    source_of,
)
from taxiway_airflow.seen import Seen, read_plain
from taxiway_airflow.snapshots import Snapshots

if TYPE_CHECKING:
    from taxiway.agents import Agent
    from taxiway.compiler import Plan
    from taxiway.spec import Policy
    from taxiway.spec.extends import Templates

__all__ = ["PipelineBundle"]

log = logging.getLogger(__name__)

_KEY = re.compile(rb"^pipeline[ \t]*:", re.MULTILINE)


@dataclass(frozen=True)
class _Compiled:
    """What became of a spec file. `key` is what it was made from; "" where the next refresh must try again. `held` are
    Airflow's pools that it was held against; None where it names none."""

    key: str
    pipeline: str
    module: bytes
    spec: bytes = b""
    held: frozenset[str] | None = None


class PipelineBundle(BaseDagBundle):
    """The `*.yaml` and `*.yml` files in `source`, each as a module of its own; their policies are in `source/policies`.

    `home` is the Taxiway home (by default found from where Airflow runs), `store` the folder of modules and snapshots
    (by default in the home). The dag-processor and every worker must see the same store; only the dag-processor
    needs `source`. `refresh_interval` is in seconds. With `maintenance` it also brings the maintenance DAGs; of several
    bundles in one Airflow only one may.
    """

    supports_versioning = True

    def __init__(
        self,
        *,
        source: str,
        home: str | None = None,
        store: str | None = None,
        refresh_interval: int = 2,
        pools: Pools | None = None,
        maintenance: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(refresh_interval=refresh_interval, **options)
        self.source = Path(source)
        self._home = home
        self._store = store
        self._maintenance = {MAINTENANCE: maintenance_module()} if maintenance else {}
        self._snapshots: Snapshots | None = None
        self._seen = Seen()
        self._compiled: dict[str, _Compiled] = {}
        self._modules: dict[str, str] = {}
        self._agents: Mapping[str, Agent] | None = None
        self._shared: tuple[Mapping[str, Policy], SpecError | None, Templates] | None = None
        self._stamped = ""
        self._fit = Fit(pools or AirflowPools(), conf.get("core", "executor"))

    @property
    def snapshots(self) -> Snapshots:
        """The store. Found at first use: a web server names bundles without having their files."""
        if self._snapshots is None:
            # The dot: artifacts holds one folder a pipeline, and a pipeline may be called "bundles".
            store = Path(self._store) if self._store else self._artifacts() / ".bundles" / self.name
            self._snapshots = Snapshots(store.absolute())
        return self._snapshots

    @property
    def path(self) -> Path:
        """The folder of modules: that of the asked version, or the one that follows `source`."""
        return self.snapshots.folder(self.version) if self.version else self.snapshots.current

    def initialize(self) -> None:
        """With a version (a worker): see that its snapshot is there, and nothing else. Without: refresh."""
        if self.version:
            self._find_snapshot()
        else:
            self.refresh()
        super().initialize()

    def get_current_version(self) -> BundleVersion | None:
        """The version of the modules that `path` holds; None before the first refresh."""
        version = self.version or self.snapshots.version()
        return BundleVersion(version) if version else None

    def refresh(self) -> None:
        """Follow the specs. Raises OperatorError where the folder or the store cannot be used; all pipelines then stay."""
        if self.version:
            return
        # The dag-processor forks for each module, and imports beforehand only what a module names below `airflow.`.
        importlib.import_module("taxiway_airflow.dag")
        specs = self._specs()
        beside = [*self._beside("policies"), *self._beside("templates")]
        self._fit.look_again()
        self._seen.keep({*specs.values(), *beside})
        stamp = self._stamp(beside)
        if stamp != self._stamped:
            self._stamped, self._shared = stamp, None
        self._compiled = {name: self._follow(name, path, stamp) for name, path in specs.items()}
        self._modules = self._modules or self._published()
        modules = self._named()
        self.snapshots.publish({module: content for module, (_, content) in modules.items()} | self._maintenance)
        self._modules = {name: module for module, (name, _) in modules.items()}

    # --- following the folder -------------------------------------------------------------------

    def _specs(self) -> dict[str, Path]:
        return {path.name: path for path in self._yaml_files(self.source)}

    def _beside(self, name: str) -> list[Path]:
        folder = self.source / name
        return self._yaml_files(folder) if folder.is_dir() else []

    def _yaml_files(self, folder: Path) -> list[Path]:
        try:
            with os.scandir(folder) as entries:
                names = [e.name for e in entries if e.name.lower().endswith((".yaml", ".yml")) and e.name[0] != "." and not e.is_dir()]
        except OSError as error:
            raise OperatorError(
                f"cannot read the folder of pipelines {folder}: {error.strerror or error}",
                hint="name the right folder as `source` in [dag_processor] dag_bundle_config_list, or mount it",
            ) from error
        return [folder / name for name in sorted(names)]

    def _stamp(self, beside: list[Path]) -> str:
        whole = hashlib.sha256()
        for path in beside:
            with contextlib.suppress(OSError, TaxiwayError):  # the compiler says what is wrong with it
                whole.update(f"{path.parent.name}/{path.name!a}\0{self._seen.digest(path)}\n".encode())
        return whole.hexdigest()

    def _follow(self, name: str, path: Path, stamp: str) -> _Compiled:
        try:
            key = f"{self._seen.digest(path)} {stamp}"
        except (OSError, TaxiwayError) as error:
            return _Compiled("", "", broken_module(f"{path}:1:1: error: cannot read the file: {error}", name, b""))
        known = self._compiled.get(name)
        return known if known and known.key == key and self._fit.stands(known.held) else self._compile(name, path, key)

    def _compile(self, name: str, path: Path, key: str) -> _Compiled:
        spec = b""
        try:
            spec = read_plain(path)
            plan = self._compiler(spec, str(path))
            held = self._fit.hold(plan, spec.decode("utf-8", "replace"), str(path))
            module = pipeline_module(plan, name, b"\n".join([spec, *self._templates(plan)]))
        except SpecError as error:
            # What Airflow lacks may be there at the next look.
            return _Compiled("" if isinstance(error, Unfit) else key, "", broken_module(str(error), name, spec))
        except (TaxiwayError, OSError) as error:
            return _Compiled("", "", broken_module(f"{path}:1:1: error: {error}", name, spec))
        except Exception as error:
            # One file must never take its neighbours with it, whatever it found in us.
            log.exception("Compiling %s failed", path)
            text = f"{path}:1:1: error: Taxiway failed on this file: {type(error).__name__}: {error}\n    hint: please report it"
            return _Compiled(key, "", broken_module(text, name, spec))
        return _Compiled(key, plan.pipeline, module, spec, held)

    def _compiler(self, spec: bytes, path: str) -> Plan:
        # Imported here: a worker that only finds its snapshot needs no compiler.
        from taxiway.agents import registry  # noqa: PLC0415
        from taxiway.compiler import compile_content, load_policies, read_templates  # noqa: PLC0415

        if self._agents is None:
            self._agents = registry()
        if self._shared is None:
            self._shared = (*load_policies(self.source / "policies", self._agents), read_templates(self.source))
        policies, broken, templates = self._shared
        return compile_content(spec, path, self._agents, policies, broken, templates=templates)

    def _templates(self, plan: Plan) -> list[bytes]:
        """What people find below the spec in the UI: the files that its stages extend."""
        files = sorted({file for _, file in plan.templates})
        return [f"# --- templates/{file}\n".encode() + read_plain(self.source / "templates" / file) for file in files]

    # --- naming ---------------------------------------------------------------------------------

    def _published(self) -> dict[str, str]:
        """Spec file -> module, as a process before this one left them; of two, the one with the DAG."""
        found: dict[str, str] = {}
        for module in self.snapshots.names():
            content = self._current(module)
            name = source_of(content)
            if name is not None and (name not in found or pipeline_of(content)):
                found[name] = module
        return found

    def _named(self) -> dict[str, tuple[str, bytes]]:
        """Module -> spec file and content."""
        owners = self._owners()
        named: dict[str, tuple[str, bytes]] = {}
        for name, compiled in self._compiled.items():
            if not compiled.pipeline:
                named[module_name(name, "")] = (name, compiled.module)
                named |= self._last_good(name, owners)
            elif owners[compiled.pipeline] != name:
                named[module_name(name, "")] = (name, self._taken(name, compiled, owners[compiled.pipeline]))
            else:
                named[module_name(name, compiled.pipeline)] = (name, compiled.module)
        return named

    def _last_good(self, name: str, owners: Mapping[str, str]) -> dict[str, tuple[str, bytes]]:
        """A spec that was good before it was broken keeps its DAG beside the error: runs of it may be under way."""
        module = self._modules.get(name, "")
        content = self._current(module) if module else b""
        pipeline = pipeline_of(content)
        return {module: (name, closed_module(content))} if pipeline and pipeline not in owners else {}

    def _current(self, module: str) -> bytes:
        try:
            return read_plain(self.snapshots.current / module)
        except (OSError, TaxiwayError):
            return b""

    def _owners(self) -> Mapping[str, str]:
        """Pipeline -> the spec file that has it: the one that had it before, else the first by name."""
        owners: dict[str, str] = {}
        for name, compiled in sorted(self._compiled.items(), key=lambda item: (not self._had(*item), item[0])):
            owners.setdefault(compiled.pipeline, name)
        return owners

    def _had(self, name: str, compiled: _Compiled) -> bool:
        return self._modules.get(name) == module_name(name, compiled.pipeline)

    def _taken(self, name: str, compiled: _Compiled, owner: str) -> bytes:
        found = _KEY.search(compiled.spec)
        line = compiled.spec.count(b"\n", 0, found.start()) + 1 if found else 1
        problem = Problem(
            at=Position(str(self.source / name), line, 1),
            problem=f"pipeline {compiled.pipeline!r} is already in {owner}",
            hint="give one of the two another name",
            line=compiled.spec.split(b"\n")[line - 1].decode("utf-8", "replace").rstrip("\r"),
            rule="duplicate-pipeline",
        )
        return broken_module(str(problem), name, compiled.spec)

    # --- the store ------------------------------------------------------------------------------

    def _artifacts(self) -> Path:
        if self._home:
            return Path(self._home) / "artifacts"
        return find_home(Path.cwd(), os.environ).artifacts

    def _find_snapshot(self) -> None:
        if not self.path.is_dir():
            raise OperatorError(
                f"version {self.version} of bundle {self.name!r} is not in {self.snapshots.root}",
                hint="mount the store of the dag-processor on this machine; if the snapshot was removed, "
                "clear the run with its option to use the latest version",
            )
        with contextlib.suppress(OSError):
            # Airflow's clean-up of stale versions removes this folder, and stops with an error where there is none.
            (self.versions_dir / str(self.version)).mkdir(parents=True, exist_ok=True)
