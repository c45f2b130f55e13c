"""Runs in the sandbox, in a process without any code of the project: starts the browser and holds pages against axe-core.

Gets `payload` from runner.py and writes one JSON document. In Chromium axe runs in a world of its own, where a page's scripts
cannot replace what it asks; in other browsers it shares the page's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_RUN = "axe.run(document, {resultTypes: ['violations']}).then(r => ({version: r.testEngine.version, violations: r.violations}))"
_NODES = 20
_TEXT = 300
_SNAPSHOT = 6000
_LINKS = 50


def look(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The browser's version and what was found on each page; `problem` where the browser does not start."""
    from playwright.sync_api import Error, sync_playwright  # noqa: PLC0415 - there only where this runs

    axe = Path(str(find_spec("axe_playwright_python").origin)).with_name("axe.min.js").read_text()  # type: ignore[union-attr]
    with sync_playwright() as playwright:
        try:
            kind = getattr(playwright, payload["browser"])
            browser = kind.launch(executable_path=payload["executable"], args=payload["arguments"], timeout=60_000)
        except Error as error:
            return {"problem": f"{payload['browser']} does not start: {_short(error.message)}"}
        try:
            pages = []
            for path in payload["pages"]:
                try:
                    pages.append(_page(browser, payload, path, axe))
                except Error as error:
                    pages.append({"path": path, "problem": _short(error.message)})
            return {"problem": "", "version": browser.version, "pages": pages}
        finally:
            browser.close()


def _page(browser: Any, payload: Mapping[str, Any], path: str, axe: str) -> dict[str, Any]:
    with browser.new_context(base_url=payload["url"]) as context:
        context.set_default_timeout(payload["timeout_s"] * 1000)
        page = context.new_page()
        response = page.goto(path, wait_until="load")
        if response is None or response.status >= 400:  # noqa: PLR2004 - HTTP's own number
            return {"path": path, "problem": f"answered {response.status if response else 'nothing'}"}
        if payload["survey"]:
            return {"path": path, "problem": "", **_survey(page)}
        own_world = payload["browser"] == "chromium"
        found = _in_own_world(context, page, axe) if own_world else _in_page(page, axe)
        return {"path": path, "problem": "", "axe": found["version"], "violations": [_violation(v) for v in found["violations"]]}


def _survey(page: Any) -> dict[str, Any]:
    """What is on a page, as assistive technology sees it, and where its links and forms lead."""
    snapshot = page.locator("body").aria_snapshot()
    links = page.eval_on_selector_all("a[href], form", "found => found.map(e => e.getAttribute('href') || e.getAttribute('action') || '')")
    return {
        "title": page.title()[:_TEXT],
        "snapshot": snapshot[:_SNAPSHOT],
        "links": sorted({str(link)[:_TEXT] for link in links if link})[:_LINKS],
    }


def _in_own_world(context: Any, page: Any, axe: str) -> Any:
    session = context.new_cdp_session(page)
    frame = session.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
    world = session.send("Page.createIsolatedWorld", {"frameId": frame, "worldName": "taxiway"})["executionContextId"]
    session.send("Runtime.evaluate", {"expression": axe + ";0", "contextId": world})
    answer = session.send("Runtime.evaluate", {"expression": _RUN, "contextId": world, "awaitPromise": True, "returnByValue": True})
    if "exceptionDetails" in answer:
        raise _error(f"axe failed: {answer['exceptionDetails'].get('text')}")
    return answer["result"]["value"]


def _in_page(page: Any, axe: str) -> Any:
    page.evaluate(axe)
    return page.evaluate(_RUN)


def _error(text: str) -> Exception:
    from playwright.sync_api import Error  # noqa: PLC0415

    return Error(text)


def _violation(found: Mapping[str, Any]) -> dict[str, Any]:
    nodes = [{"target": str(n.get("target"))[:_TEXT], "html": str(n.get("html"))[:_TEXT]} for n in found["nodes"][:_NODES]]
    kept = {name: str(found.get(name))[:_TEXT] for name in ("id", "impact", "help", "helpUrl")}
    return {**kept, "count": len(found["nodes"]), "nodes": nodes}


def _short(text: str) -> str:
    return " | ".join(line.strip() for line in text.splitlines() if line.strip())[:600]


if __name__ == "taxiway_e2e":
    json.dump(look(globals()["payload"]), sys.stdout)
