"""Runs in the sandbox, in the project's interpreter: pytest under coverage, with a record that the project does not write.

Started by path with `-I`, before any of the project's code; imports nothing of Taxiway, which is not installed there.
The record is a file of JSON lines, each signed with a key that is read and deleted before the project's code starts,
and chained to the line before. Code of the project runs in this same process: what hunts the key down in memory can
still forge it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import importlib
import importlib.abc
import importlib.machinery
import inspect
import json
import os
import pkgutil
import sys
import traceback
import types
import unittest.case
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

Say = Callable[..., None]

_TOOLS = frozenset({"pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "coverage"})
_LOADED = sys.modules

_PHASES = {"pytest_runtest_setup": "setup", "pytest_runtest_call": "call", "pytest_runtest_teardown": "teardown"}

_NOT_THE_PROJECTS = (
    "pytest_pyfunc_call",
    "pytest_runtest_protocol",
    "pytest_runtest_call",
    "pytest_runtestloop",
    "pytest_cmdline_main",
    "pytest_make_collect_report",
    "pytest_itemcollected",
)


def record(path: Path, key: bytes) -> Say:
    """A function that appends one signed event; it alone holds the key."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    before, started = [b""], os.getpid()
    sign, write, dumps, getpid = hmac.digest, os.write, json.dumps, os.getpid

    def say(kind: str, **data: Any) -> None:
        if getpid() != started:  # a fork of a test is not the run
            return
        line = dumps([kind, data]).encode()
        mac = sign(key, before[0] + line, "sha256").hex().encode()
        before[0] = mac
        left = memoryview(line + b"\t" + mac + b"\n")
        while left:
            left = left[write(fd, left) :]

    return say


def guard_sources(say: Say, digests: Mapping[str, str], own: tuple[str, ...]) -> None:
    """Report code that is made under the name of a measured file and is not what that file held: lines that never ran would count
    as covered, and tests would judge other code. `digests` are SHA-256 of the files as committed, by absolute path. The same for
    files below `own`, Python and the packages: what the project makes would be taken for theirs."""
    told: set[str] = set()
    frame, real, sha = sys._getframe, os.path.realpath, hashlib.sha256  # noqa: SLF001

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("compile", "code.__new__") or not isinstance(name := arguments[1], str):
            return
        place, maker = real(name), frame(1).f_code.co_filename
        theirs = place in digests or ((f"{place}/".startswith(own) or name.startswith(own)) and not maker.startswith("<frozen importlib"))
        # Installed packages are believed, and so is code of the project that changes its own, as decorators do, Python's too.
        if (
            not theirs
            or place in told
            or (maker.startswith(own) and "-packages" + os.sep in maker)
            or (event == "code.__new__" and (real(maker) in digests or (maker.startswith(own) and maker.endswith("/types.py"))))
        ):
            return
        source = arguments[0] if event == "compile" else None
        content = source.encode() if isinstance(source, str) else source
        if not isinstance(content, bytes) or sha(content).hexdigest() != (digests.get(place) or _digest(place)):
            told.add(place)
            say("tampered", what=f"{name} does not run as it was committed"[:300])

    sys.addaudithook(audit)


def _digest(place: str) -> str:
    try:
        return hashlib.sha256(Path(place).read_bytes()).hexdigest()
    except OSError:
        return ""


class Watch:
    """A pytest plugin that reports what was collected, what ran, how it really ended, and who interfered."""

    def __init__(self, pytest: Any, say: Say, project: str, own: tuple[str, ...], settings: Mapping[str, Any]) -> None:
        self._pytest, self._say, self._project, self._own = pytest, say, project, own
        self._sources = [f"{project}/{s}" for s in settings["sources"]]
        self._installed: str = settings["installed"]
        self._packages: list[str] = settings["packages"]
        self._plugins: list[str] = settings["plugins"]
        self._marks: dict[str, set[str]] = {}
        self._codes: dict[str, Any] = {}
        self._functions: dict[str, Any] = {}
        self._tests: dict[str, dict[str, Any]] = {}
        self._raised: dict[tuple[str, str], BaseException | None] = {}
        self._told: set[str] = set()
        self._held: list[tuple[Any, str, Any]] = []
        self._modules: dict[str, Any] = {}
        self._meta: list[Any] = []
        self._hooks: list[Any] = []
        self._ours: list[Any] = []
        self._manager: Any = None
        self._execute: Any = None

    # --- before the project's code ---

    def start(self, config: Any) -> None:
        """Remember what pytest is made of, then let the project's folders be imported from."""
        self._manager = config.pluginmanager
        self._manager.add_hookcall_monitoring(lambda *_: None, self._after)
        self._execute = self._manager._inner_hookexec  # noqa: SLF001 - what every hook is called through
        self._ours = [i.function for i in self._manager.hook.pytest_itemcollected.get_hookimpls()]
        for name, module in sorted(sys.modules.items()):
            if name in ("pytest", "pluggy", "unittest.case", "unittest") or name.startswith(("_pytest.", "pluggy.")):
                self._modules[name] = module
                self._hold(module)
        self._meta, self._hooks = list(sys.meta_path), list(sys.path_hooks)
        # What pytest has imported by now is what the tests would get, whatever lies in the project.
        for name in self._packages:
            if "-packages" + os.sep in str(getattr(sys.modules.get(name), "__file__", None)):
                self._say("shadowed", name=name)
        # After the standard library: a json.py of the project must not be what the tools import.
        at = next((i for i, p in enumerate(sys.path) if p.endswith("-packages")), len(sys.path))
        sys.path[at:at] = [*self._sources, self._installed]
        for name in self._plugins:
            config.pluginmanager.import_plugin(name)

    def _after(self, outcome: Any, hook: str, _: Any, arguments: Mapping[str, Any]) -> None:
        """How a phase of a test ended, outside of every wrapper."""
        if hook in _PHASES and "item" in arguments:
            self._raised[arguments["item"].nodeid, _PHASES[hook]] = outcome.exception

    def _hold(self, holder: Any) -> None:
        for name, value in list(vars(holder).items()):
            if callable(value) or isinstance(value, staticmethod | classmethod | property):
                self._held.append((holder, name, value))
            if isinstance(value, type) and isinstance(holder, types.ModuleType) and value.__module__ == holder.__name__:
                self._hold(value)

    # --- who interfered ---

    def check(self, when: str = "") -> None:
        """Report what of pytest the project has replaced; each finding once. `when` is the phase of the test that has just run."""
        if self._manager is None:
            self._tell("pytest never started")
            return
        if self._manager._inner_hookexec is not self._execute:  # noqa: SLF001
            self._tell("the way hooks are called was replaced")
        for name, module in self._modules.items():
            if _LOADED.get(name) is not module:
                self._tell(f"{name} was replaced")
        for holder, name, value in self._held:
            now = vars(holder).get(name)
            if now is not value and self._patched(now):
                self._tell(f"{getattr(holder, '__qualname__', holder.__name__)}.{name} was replaced")
        # `import` goes on with the real one, so a test may replace it for itself.
        if sys.modules is not _LOADED and when != "call":
            self._tell("sys.modules was replaced")
        # A finder behind Python's own is only asked for what nobody else has, as a file of the project is.
        last = max((i for i, finder in enumerate(sys.meta_path) if finder in self._meta), default=len(sys.meta_path))
        for finder in [*sys.meta_path[:last], *sys.path_hooks]:
            if finder not in self._meta and finder not in self._hooks and self._theirs(finder):
                self._tell(f"{type(finder).__name__} rewrites what is imported")
        self._check_hooks()

    def _check_hooks(self) -> None:
        for hook in _NOT_THE_PROJECTS:
            for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                # Nobody but the watch sees an item first.
                first = hook != "pytest_itemcollected" or implementation.wrapper or implementation.hookwrapper
                if first and implementation.function not in self._ours and self._theirs(implementation.function):
                    self._tell(f"{_file(implementation.function)} hooks {hook}: use a published plugin")

    def _theirs(self, value: Any) -> bool:
        """Whether code, or the class of an object, is of the project: of no installed package and not of Python."""
        file = _file(value)
        return not file.startswith(self._own) or file.startswith(self._project + os.sep)

    def _patched(self, value: Any) -> bool:
        """Whether a replacement of a part of pytest is anything but a plugin's own function or class."""
        return self._theirs(value) or "-packages" + os.sep not in _file(value)

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._say("tampered", what=what[:300])

    # --- what was collected ---

    def collected(self, item: Any) -> None:
        """Before any hook of the project can drop it."""
        self._marks[item.nodeid] = {m.name for m in item.iter_markers()}
        self._codes[item.nodeid] = _code(item)
        self._functions[item.nodeid] = _function(item)
        own = isinstance(item, self._pytest.Function) and self._defined(_function(item), item.path)
        self._say("item", id=item.nodeid, key=_key(self._pytest, item, self._project), own=own)

    @staticmethod
    def _defined(function: Any, path: Path) -> bool:
        """Whether a function is made by the file that a test is in, or by an installed package around it."""
        file = function.__code__.co_filename if isinstance(function, types.FunctionType) else ""
        return "-packages" + os.sep in file or os.path.realpath(file) == os.path.realpath(path)

    def file(self, report: Any) -> None:
        """Files that could not be imported, or that skip themselves."""
        if report.outcome != "passed":
            self._say("file", id=report.nodeid, outcome=report.outcome, text=str(report.longrepr)[-2000:])

    def begin(self, total: int) -> None:
        """What is about to run."""
        self.check()
        self._say("collected", total=total)

    # --- what ran ---

    def phase(self, item: Any, call: Any, report: Any) -> None:
        """One phase of one test, as it was before and after all other plugins had their say."""
        self.check(call.when)
        error = self._raised.pop((item.nodeid, call.when), None) or (call.excinfo and call.excinfo.value)
        if error is None and getattr(item, "_excinfo", None):  # unittest keeps what its tests raised here
            error = item._excinfo[0].value  # noqa: SLF001
        state = self._tests.setdefault(item.nodeid, {"outcomes": [], "text": ""})
        state["outcomes"].append(self._outcome(item, call.when, error, report))
        if error is not None and not state["text"]:
            state["text"] = _words(error)
        if call.when == "call":
            for now, then in ((_code(item), self._codes), (_function(item), self._functions)):
                if now is not then.get(item.nodeid) and now is not None and self._patched(now):
                    self._tell(f"{item.nodeid} was replaced by other code")
            if "runtest" in vars(item) or (isinstance(item, self._pytest.Function) and self._theirs(type(item))):
                self._tell(f"{item.nodeid} does not run as pytest runs tests")
        if call.when == "teardown":
            found = state["outcomes"]
            order = ("failed", "off", "skipped", "xfailed", "passed")
            outcome = next((o for o in order if o in found), "failed")
            self._say("test", id=item.nodeid, outcome=outcome, text=state["text"] if outcome == "failed" else "")
            del self._tests[item.nodeid]

    def _outcome(self, item: Any, when: str, error: BaseException | None, report: Any) -> str:
        pytest = self._pytest
        if report.outcome == "failed":
            return "failed"
        if error is None:
            return "passed"
        if isinstance(error, pytest.skip.Exception | unittest.SkipTest):
            return self._skip(item, when, error)
        if isinstance(error, pytest.xfail.Exception):
            return "xfailed" if when == "call" or "xfail" in self._marks.get(item.nodeid, ()) else "off"
        expected = "xfail" in self._marks.get(item.nodeid, ()) and hasattr(report, "wasxfail")
        return "xfailed" if expected else "failed"

    def _skip(self, item: Any, when: str, error: BaseException) -> str:
        """A test skips itself by a mark in its file, in its body or in a fixture; anything else switches it off."""
        files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
        # A mark is raised there itself; every other skip only passes through.
        if any(f.endswith("/_pytest/skipping.py") for f in files[-2:]):
            marked = {"skip", "skipif"} & self._marks.get(item.nodeid, set()) or hasattr(getattr(item, "obj", None), "__unittest_skip__")
            return "skipped" if marked else "off"
        itself = (
            when == "call"
            or hasattr(getattr(item, "obj", None), "__unittest_skip__")
            or any(f.endswith(("/_pytest/fixtures.py", "/_pytest/unittest.py")) for f in files)
        )
        return "skipped" if itself else "off"

    def subtest(self, report: Any) -> None:
        """Subtests report here alone."""
        if report.outcome == "failed" and report.nodeid in self._tests:
            self._tests[report.nodeid]["outcomes"].append("failed")


def _file(value: Any) -> str:
    """Where the code of a function or the class of anything else stands; "" where nobody can tell."""
    value = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
    while isinstance(value, functools.partial):
        value = value.func
    if isinstance(value, types.FunctionType):
        return value.__code__.co_filename
    if isinstance(value, types.CodeType):
        return value.co_filename
    module = _LOADED.get((value if isinstance(value, type) else type(value)).__module__)
    return str(getattr(module, "__file__", None) or "")


def _words(error: BaseException) -> str:
    """The error in one text; its `__str__` is the project's code and may fail."""
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except Exception:  # noqa: BLE001 - whatever it raises
        return f"{type(error).__name__} (its text cannot be shown)"


def _function(item: Any) -> Any:
    function: Any = getattr(item, "obj", None)
    return getattr(function, "__func__", function)


def _code(item: Any) -> Any:
    function = _function(item)
    with contextlib.suppress(ValueError):
        function = inspect.unwrap(function)
    return getattr(function, "__code__", None)


def _key(pytest: Any, item: Any, project: str) -> list[str]:
    """File, classes and name without parameters: what the source calls it."""
    classes = [n.name for n in item.listchain() if isinstance(n, pytest.Class)]
    path = os.path.relpath(item.path, project)
    return [path.replace(os.sep, "/"), *classes, getattr(item, "originalname", None) or item.name]


def sealed(watch: Watch, say: Say) -> Callable[[], None]:
    """A function that reports what of the watch itself was replaced. It asks nothing of the watch, which may be anything by then."""
    kinds = [(kind, dict(vars(kind))) for kind in type(watch).__mro__[:-1]]
    told: list[str] = []

    def whole() -> None:
        replaced = [name for kind, parts in kinds for name in {**vars(kind), **parts} if vars(kind).get(name) is not parts.get(name)]
        replaced += [name for _, parts in kinds for name in parts if name in vars(watch)]
        replaced += ["_say"] if vars(watch).get("_say") is not say else []
        if replaced and not told:
            told.extend(replaced)
            say("tampered", what=f"{replaced[0]} of what watches the tests was replaced"[:300])

    return whole


def hooks(pytest: Any, watch: Watch, whole: Callable[[], None] = lambda: None) -> object:
    """The plugin's hooks, which need pytest to be declared; `whole` is called after each phase."""

    class Hooks:
        @pytest.hookimpl(wrapper=True, tryfirst=True)  # type: ignore[untyped-decorator]
        def pytest_load_initial_conftests(self, early_config: Any) -> Iterator[None]:
            watch.start(early_config)
            return (yield)

        @pytest.hookimpl(wrapper=True, tryfirst=True)  # type: ignore[untyped-decorator]
        def pytest_itemcollected(self, item: Any) -> Iterator[None]:
            watch.collected(item)
            return (yield)

        @pytest.hookimpl(tryfirst=True)  # type: ignore[untyped-decorator]
        def pytest_collectreport(self, report: Any) -> None:
            watch.file(report)

        @pytest.hookimpl(trylast=True)  # type: ignore[untyped-decorator]
        def pytest_collection_finish(self, session: Any) -> None:
            watch.begin(len(session.items))

        @pytest.hookimpl(wrapper=True, tryfirst=True)  # type: ignore[untyped-decorator]
        def pytest_runtest_makereport(self, item: Any, call: Any) -> Iterator[None]:
            report = yield
            whole()
            watch.phase(item, call, report)
            return report

        @pytest.hookimpl(tryfirst=True)  # type: ignore[untyped-decorator]
        def pytest_runtest_logreport(self, report: Any) -> None:
            watch.subtest(report)

    return Hooks()


class _Only(importlib.abc.MetaPathFinder):
    """Finds Taxiway's pytest and coverage where they are, and no other tool there: a project must not pass with a package
    that it does not install."""

    def __init__(self, site: str) -> None:
        self._site = [site]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:  # noqa: ARG002
        return importlib.machinery.PathFinder.find_spec(name, self._site) if name in _TOOLS else None


def _load(settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """Import the tools, from the project's environment or from Taxiway's, before anything of the project."""
    if settings["site"]:
        sys.meta_path.insert(0 if settings["first"] else len(sys.meta_path), _Only(settings["site"]))
    pytest, coverage = importlib.import_module("pytest"), importlib.import_module("coverage")
    for module in pkgutil.iter_modules(coverage.__path__, "coverage."):
        if module.name not in ("coverage.__main__", "coverage.pytracer"):
            try:
                importlib.import_module(module.name)
            except ImportError:
                continue
    for name in ("pdb", "xml.etree.ElementTree", "unittest.mock", "doctest", "asyncio", "sqlite3"):
        importlib.import_module(name)
    return coverage, pytest


def main(place: str) -> NoReturn:
    """Run, record, and end without giving the project's exit handlers a turn."""
    folder = Path(place).parent
    settings = json.loads(Path(place).read_text()) | {"installed": str(folder / "installed")}
    Path(place).unlink()
    say = record(folder / "events", bytes.fromhex(settings.pop("key")))
    project = str(Path.cwd().resolve())
    coverage, pytest = _load(settings)
    prefixes = [p for p in (sys.prefix, sys.base_prefix, settings["site"]) if p]
    own = tuple({p + os.sep for p in prefixes} | {os.path.realpath(p) + os.sep for p in prefixes})
    watch = Watch(pytest, say, project, own, settings)
    check, whole = watch.check, sealed(watch, say)
    arguments = [a.replace("{project}", project).replace("{reports}", str(folder)) for a in settings["arguments"]]
    measuring = coverage.Coverage(config_file=str(folder / "coveragerc"), data_file=str(folder / "coverage-data"))
    measuring.start()
    # By the file that code was compiled from alone: coverage would believe `__file__`, which anybody may set.
    decide = measuring._inorout.should_trace  # noqa: SLF001
    measuring._inorout.should_trace = lambda name, _=None: decide(name)  # noqa: SLF001
    # A test that asks for the running measurement finds none.
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "coverage"}
    sys.argv = ["pytest"]
    # What tests could reach by this name is this module, and with it what watches them.
    sys.modules["__main__"] = types.ModuleType("__main__")
    guard_sources(say, {f"{project}/{path}": digest for path, digest in settings["digests"].items()}, own)
    say("start", pytest=pytest.__version__, coverage=coverage.__version__)
    try:
        code = int(pytest.main(arguments, plugins=[hooks(pytest, watch, whole)]))
    except BaseException as error:  # noqa: BLE001 - whatever it was, the run has not ended as runs end
        say("tampered", what=f"the run was left by {type(error).__name__}: {error}"[:300])
        code = 70
    check()
    whole()
    for name in [n for n in sys.modules if n.split(".")[0] == "coverage"]:
        del sys.modules[name]
    sys.modules.update(hidden)
    measuring.stop()
    measuring.save()
    sys.stdout.flush()
    sys.stderr.flush()
    digests = {}
    for name in ("junit.xml", "coverage-data"):
        file = folder / name
        digests[name] = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    say("end", code=code, digests=digests)
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
