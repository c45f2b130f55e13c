"""One round in the sandbox: the app started, its pages looked at, tests run; then its records, before a word is believed."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxiway.agents.validate.check import Context, NotMeasured, read_report, tail
from taxiway.agents.validate.files import Layout
from taxiway.agents.validate.junit import read_junit
from taxiway.agents.validate.options import pytest_arguments, read_options
from taxiway.agents.validate.record import Record, read_events, read_record
from taxiway.agents.validate.servers import run_beside_servers
from taxiway.agents.validate.tests import must_agree
from taxiway.ports import Browser, Command

if TYPE_CHECKING:
    from taxiway.agents.e2e import E2eInput

__all__ = ["Round", "Setting", "run_round"]

_TIMEOUT_S = 1800.0
_HEALTHY_S = 60.0
_HEALTHY_SHARE = 0.4
_START_S = 90.0
_MEMORY_MB = 3072
_PROCESSES = 512
_NOTHING_RAN = 5
_ENDED = (0, 1, _NOTHING_RAN)
_KEEP = {"never": "off", "on-failure": "retain-on-failure", "always": "on"}
_FLAGS = {
    "chromium": (
        *("--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--no-first-run", "--no-default-browser-check"),
    )
}
"""Nothing that asks the network for what is not there; Playwright adds its own."""


@dataclass(frozen=True)
class Setting:
    """What all rounds of an attempt share. `timeout_s` is a test's; `breaks` is what breaking.py breaks for which test; with `survey`
    pages are described (what is on them, where they lead) and not held against axe."""

    context: Context
    inputs: E2eInput
    browser: Browser
    timeout_s: float
    breaks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    survey: bool = False


@dataclass
class Round:
    """What one round showed. `look` is what look.py found, {} where it did not look; `why` says why there is no `record`."""

    folder: Path
    look: dict[str, Any] = field(default_factory=dict)
    record: Record | None = None
    why: str = ""


def run_round(setting: Setting, number: int, tests: Sequence[str], pages: Sequence[str]) -> Round:
    """Start the app, look at `pages`, and run `tests` (paths or ids), if any. What it left in its folder is there to be kept."""
    context = setting.context
    done = Round(context.folder(f"round-{number}"))
    try:
        _measure(setting, done, tests, pages)
    except NotMeasured as why:
        done.why = str(why)
    return done


def _measure(setting: Setting, done: Round, tests: Sequence[str], pages: Sequence[str]) -> None:
    context, folder = setting.context, done.folder
    copy = context.copy(f"{folder.name}-project")
    keys = secrets.token_bytes(32), secrets.token_bytes(32)
    _write(setting, folder, keys, tests, pages)
    argv = (str(context.tools.python.absolute()), "-I", "-B", "{reports}/runner.py", "{reports}/settings.json")
    command = Command(
        argv,
        copy,
        folder,
        context.environment,
        timeout_s=_TIMEOUT_S,
        memory_mb=_MEMORY_MB,
        processes=_PROCESSES,
        output_limit=5_000_000,
        visible=setting.browser.folders,
    )
    result = run_beside_servers(context, command, "e2e", codes=range(-64, 256))
    (folder / "tests.log").write_text(result.stdout + result.stderr)
    tests_code = _read_rounds(done, keys[0], result.exit_code, tail(result.stderr or result.stdout))
    if not tests:
        return
    if tampered := [data["what"] for kind, data in read_events(folder, "events", keys[1]) if kind == "tampered"]:
        raise NotMeasured(f"the project interferes with its tests: {'; '.join(tampered[:3])}")
    if tests_code not in _ENDED:
        raise NotMeasured(f"pytest ended with exit code {tests_code}: {tail(result.stderr + result.stdout)}")
    record = read_record(folder, keys[1])
    if record.tampered:
        raise NotMeasured(f"the project interferes with its tests: {'; '.join(record.tampered[:3])}")
    if record.code != tests_code:
        raise NotMeasured(f"pytest ended with {record.code} and its process with {tests_code}")
    if any(kind == "crash" for kind, _ in record.others):
        raise NotMeasured(f"{setting.browser.name} ended by itself while the tests ran")
    must_agree(record, read_junit(read_report(folder, "junit.xml")))
    done.record = record


def _read_rounds(done: Round, key: bytes, code: int, output: str) -> int:
    """The exit code of the tests, as runner.py signed it; raise NotMeasured where the app, the browser or runner.py gave up."""
    try:
        events = read_events(done.folder, "rounds", key)
    except NotMeasured as error:
        raise NotMeasured(f"{error} (exit code {code}): {output}") from error
    tests_code = -1
    for kind, data in events:
        if kind == "look":
            done.look = data
        if data.get("problem"):
            raise NotMeasured(data["problem"] + (_log(done.folder) if kind == "app" else ""))
        if kind == "tests":
            tests_code = data["code"]
    if events[-1][1]["code"] != code or tests_code != code:
        raise NotMeasured(f"the round ended with {tests_code} and its process with {code}: {output}")
    return tests_code


def _log(folder: Path) -> str:
    try:
        return f"; the end of its output: {tail(read_report(folder, 'app.log').decode(errors='replace'))}"
    except NotMeasured:
        return ""


def _write(setting: Setting, folder: Path, keys: tuple[bytes, bytes], tests: Sequence[str], pages: Sequence[str]) -> None:
    context, inputs = setting.context, setting.inputs
    environment = context.environment
    if environment is None:
        raise NotMeasured("the project's environment could not be installed")
    layout = Layout(context.manifest)
    options = read_options(context.checkout)
    if options.dropped:
        context.log.info("e2e: not used from the project's pytest options: %s", " ".join(options.dropped))
    payload = {
        "browser": setting.browser.name,
        "executable": str(setting.browser.executable),
        "arguments": _FLAGS.get(setting.browser.name, ()),
        "pages": list(pages),
        "timeout_s": setting.timeout_s,
        "breaks": dict(setting.breaks),
        "survey": setting.survey,
        "site": [str(p) for p in sorted(environment.path.absolute().glob("lib/python3*/site-packages"))],
        "sources": [f for f in layout.sources if (context.checkout / f).is_dir()],
        "plugins": options.plugins,
        "packages": [],
        "pytest": [*_arguments(inputs, options.file), *options.arguments, "--", *tests],
    }
    settings = {
        "key": keys[0].hex(),
        "tests_key": keys[1].hex(),
        "start": context.manifest.start,
        "port": context.manifest.port,
        "health": context.manifest.health,
        # A part of the stage's time is kept, so that an app that does not come up is a finding and not a try to repeat.
        "healthy_within_s": min(_HEALTHY_S, context.stop.remaining_s() * _HEALTHY_SHARE),
        "look_within_s": _START_S + 2 * setting.timeout_s * len(pages),
        "environment": str(environment.path.absolute()),
        "ffmpeg": _ffmpeg_revision(context),
        "test": bool(tests),
        "payload": payload,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    if context.project.distribution is not None:
        context.project.distribution.write_metadata(folder / "installed")
    (folder / "pytest.ini").write_text("[pytest]\n")
    for package, program, name in (("validate", "inside", "recording"), *(("e2e", p, p) for p in ("runner", "look", "inside", "breaking"))):
        (folder / f"{name}.py").write_bytes(files(f"taxiway.agents.{package}").joinpath(f"{program}.py").read_bytes())


def _arguments(inputs: E2eInput, file: str) -> list[str]:
    screenshot = {"never": "off", "on-failure": "only-on-failure", "always": "on"}[inputs.screenshot]
    return [
        *pytest_arguments(file),
        *("--browser", inputs.browser, "--base-url={url}", "--output={reports}/output", "--full-page-screenshot"),
        *(f"--tracing={_KEEP[inputs.trace]}", f"--video={_KEEP[inputs.video]}", f"--screenshot={screenshot}"),
        # Of pytest-playwright's own making under pytest 9; a project that makes warnings errors is not to blame.
        *("-W", "ignore:Session-scoped fixtures defined as instance methods"),
    ]


def _ffmpeg_revision(context: Context) -> str:
    """The name under which this Playwright looks for ffmpeg."""
    for place in context.tools.path.absolute().glob("lib/python3*/site-packages/playwright/driver/package/browsers.json"):
        return next(str(b["revision"]) for b in json.loads(place.read_text())["browsers"] if b["name"] == "ffmpeg")
    raise NotMeasured("Playwright is not in Taxiway's browser tools")
