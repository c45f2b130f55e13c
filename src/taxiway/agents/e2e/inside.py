"""Runs in the sandbox: pytest with Playwright's fixtures, recorded as `validate/inside.py` records, which is `recording` here.

Gets `payload` from runner.py. Every browser that the tests start is the machine's, every page is listened to, every test has a limit.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

_EVENTS = 1000
_REPEAT_S = 1.0
_PLUGIN = "/pytest_playwright/pytest_playwright.py"


class TooLong(Exception):
    """A test was over its time."""


class Pages:
    """Listens to every page that a test opens. `test` is the test that runs."""

    def __init__(self, say: Callable[..., None], url: str, timeout_s: float) -> None:
        self.test = ""
        self._say, self._url, self._timeout_s = say, url, timeout_s
        self._loaded: set[str] = set()
        self._events = 0
        self._closing: set[int] = set()

    def launched(self, browser: Any) -> None:
        """A browser that must not end by itself."""
        browser.on("disconnected", lambda _: self._gone(browser))

    def closing(self, browser: Any) -> None:
        """A browser that may end now."""
        self._closing.add(id(browser))

    def _gone(self, browser: Any) -> None:
        if id(browser) not in self._closing:
            self._say("crash", test=self.test)

    def opened(self, context: Any) -> None:
        """A context whose pages are listened to, and do not wait for ever."""
        context.set_default_timeout(self._timeout_s * 1000)
        context.on("console", self._said)
        context.on("weberror", lambda e: self._tell("console", str(e.error)))
        context.on("requestfailed", self._failed)
        context.on("response", self._answered)

    def _said(self, message: Any) -> None:
        # Browsers ask for this one by themselves; no page is wrong for not having it.
        if message.type == "error" and not str(message.location.get("url", "")).endswith("/favicon.ico"):
            self._tell("console", message.text)

    def _failed(self, request: Any) -> None:
        # A page that goes elsewhere gives up what it was loading.
        if "ERR_ABORTED" not in str(request.failure):
            self._tell("request", f"{request.method} {request.url}: {request.failure}")

    def _answered(self, response: Any) -> None:
        own = response.url == self._url or response.url.startswith(self._url + "/")
        if own and response.status < 400 and response.request.resource_type == "document" and self.test not in self._loaded:  # noqa: PLR2004
            self._loaded.add(self.test)
            self._say("loaded", test=self.test, url=response.url[:300])

    def _tell(self, kind: str, text: str) -> None:
        self._events += 1
        if self._events <= _EVENTS:
            self._say(kind, test=self.test, text=text[:300])


def _after(cls: type, name: str, act: Callable[[Any, Any], None], *, before: Callable[[Any, dict[str, Any]], None] | None = None) -> None:
    """Have `act(self, result)` follow each call of a method of Playwright's, and `before(self, arguments)` come first."""
    real = getattr(cls, name)

    def wrap(result_of: Any) -> Any:
        return functools.wraps(real)(result_of)

    if inspect.iscoroutinefunction(real):

        async def asynchronous(self: Any, *args: Any, **kwargs: Any) -> Any:
            if before:
                before(self, kwargs)
            result = await real(self, *args, **kwargs)
            act(self, result)
            return result

        setattr(cls, name, wrap(asynchronous))
        return

    def synchronous(self: Any, *args: Any, **kwargs: Any) -> Any:
        if before:
            before(self, kwargs)
        result = real(self, *args, **kwargs)
        act(self, result)
        return result

    setattr(cls, name, wrap(synchronous))


def _instrument(payload: Mapping[str, Any], pages: Pages, breaking: Any) -> None:
    def opened(context: Any) -> None:
        pages.opened(context)
        breaking.into(context, pages.test)

    def own_browser(kind: Any, arguments: dict[str, Any]) -> None:
        if kind.name == payload["browser"]:
            arguments["executable_path"] = payload["executable"]
            arguments.pop("channel", None)
            arguments["headless"] = True
            arguments["args"] = [*(arguments.get("args") or []), *payload["arguments"]]

    for module in ("playwright.sync_api", "playwright.async_api"):
        api = importlib.import_module(module)
        _after(api.BrowserType, "launch", lambda _, browser: pages.launched(browser), before=own_browser)
        _after(api.BrowserType, "launch_persistent_context", lambda _, context: opened(context), before=own_browser)
        _after(api.Browser, "new_context", lambda _, context: opened(context))
        _after(api.Browser, "new_page", lambda _, page: opened(page.context))
        _after(api.Browser, "close", lambda *_: None, before=lambda browser, _: pages.closing(browser))


def _limits(pytest: Any, pages: Pages, timeout_s: float) -> object:
    """Hooks that cut what a test does after `timeout_s`, and again every second should it not end."""

    def cut(*_: object) -> NoReturn:
        raise TooLong(f"took longer than {timeout_s:g} s")

    class Hooks:
        @pytest.hookimpl(wrapper=True, tryfirst=True)  # type: ignore[untyped-decorator]
        def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
            pages.test = item.nodeid
            return (yield)

        @pytest.hookimpl(wrapper=True, tryfirst=True)  # type: ignore[untyped-decorator]
        def pytest_runtest_setup(self) -> Iterator[None]:
            return (yield from limited())

        @pytest.hookimpl(wrapper=True, tryfirst=True)  # type: ignore[untyped-decorator]
        def pytest_runtest_call(self) -> Iterator[None]:
            return (yield from limited())

        @pytest.hookimpl(wrapper=True, tryfirst=True)  # type: ignore[untyped-decorator]
        def pytest_runtest_teardown(self) -> Iterator[None]:
            return (yield from limited())

    def limited() -> Iterator[Any]:
        signal.signal(signal.SIGALRM, cut)
        signal.setitimer(signal.ITIMER_REAL, timeout_s, _REPEAT_S)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    return Hooks()


def _watch(recording: Any, pytest: Any, say: Any, payload: Mapping[str, Any], own: tuple[str, ...]) -> Any:
    class Watch(recording.Watch):  # type: ignore[misc]
        def _skip(self, item: Any, when: str, error: BaseException) -> str:
            """Playwright's own marks choose browsers; a test that one of them skips is skipped, not switched off."""
            outcome = super()._skip(item, when, error)
            marked = {"skip_browser", "only_browser"} & self._marks.get(item.nodeid, set())
            trace, files = error.__traceback__, []
            while trace is not None:
                files.append(trace.tb_frame.f_code.co_filename)
                trace = trace.tb_next
            return "skipped" if marked and any(f.endswith(_PLUGIN) for f in files) else outcome

    return Watch(pytest, say, payload["project"], own, payload)


def _program(payload: Mapping[str, Any], name: str) -> Any:
    module = types.ModuleType(name)
    exec(compile(payload["programs"][name], "<taxiway>", "exec"), module.__dict__)  # noqa: S102 - our own, from memory
    return module


def main(payload: dict[str, Any]) -> NoReturn:
    """Run, record, and end without giving the project's exit handlers a turn."""
    folder = Path(payload["reports"])
    payload["installed"] = str(folder / "installed")
    recording, breaking = (_program(payload, name) for name in ("recording", "breaking"))
    say = recording.record(folder / "events", bytes.fromhex(payload.pop("key")))
    # After Taxiway's own: what the project installed is there for its tests, and replaces nothing that drives or records them.
    sys.path += payload["site"]
    pytest: Any = importlib.import_module("pytest")
    for name in ("pdb", "xml.etree.ElementTree", "unittest.mock", "doctest", "asyncio", "sqlite3"):
        importlib.import_module(name)
    pages = Pages(say, payload["url"], payload["timeout_s"])
    _instrument(payload, pages, breaking.Breaking(say, payload["url"], payload["breaks"]))
    prefixes = [p for p in (sys.prefix, sys.base_prefix, *payload["site"]) if p]
    own = tuple({p + os.sep for p in prefixes} | {os.path.realpath(p) + os.sep for p in prefixes} | {"<taxiway>"})
    watch = _watch(recording, pytest, say, payload, own)
    check, whole = watch.check, recording.sealed(watch, say)
    places = {"{project}": payload["project"], "{reports}": payload["reports"], "{url}": payload["url"]}
    arguments = [functools.reduce(lambda text, place: text.replace(*place), places.items(), a) for a in payload["pytest"]]
    sys.argv = ["pytest"]
    recording.guard_sources(say, {}, own)
    say("start", pytest=pytest.__version__)
    try:
        plugins = [recording.hooks(pytest, watch, whole), _limits(pytest, pages, payload["timeout_s"])]
        code = int(pytest.main(arguments, plugins=plugins))
    except BaseException as error:  # noqa: BLE001 - whatever it was, the run has not ended as runs end
        say("tampered", what=f"the run was left by {type(error).__name__}: {error}"[:300])
        code = 70
    check()
    whole()
    sys.stdout.flush()
    sys.stderr.flush()
    junit = folder / "junit.xml"
    say("end", code=code, digests={"junit.xml": hashlib.sha256(junit.read_bytes()).hexdigest() if junit.is_file() else ""})
    os._exit(code)


if __name__ == "taxiway_e2e":
    main(globals()["payload"])
