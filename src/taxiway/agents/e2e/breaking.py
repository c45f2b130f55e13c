"""Runs in the sandbox, within inside.py: breaks one feature of the app as each test's own browser sees it, so that the test must fail.

The app itself is untouched. A route is answered with 500; an element is taken out of every page before a test can see it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

# Mutations are seen before any task that a driver could send. What holds the whole page is no feature.
_CUT = """(() => {
  const say = console.debug.bind(console);
  let told = false;
  const whole = () => [document.documentElement, document.head, document.body];
  const cut = () => {
    const found = [...document.querySelectorAll(SELECTOR)].filter(e => !whole().includes(e));
    found.forEach(e => e.remove());
    if (found.length && !told) { told = true; say(WORD); }
  };
  new MutationObserver(cut).observe(document, {childList: true, subtree: true, attributes: true});
  cut();
})()"""


class Breaking:
    """What to break for which test: id without parameters -> {"kind": "route" | "element", "target": ...}. Says `broken` where it did."""

    def __init__(self, say: Callable[..., None], url: str, breaks: Mapping[str, Mapping[str, str]]) -> None:
        self._say, self._url, self._breaks = say, url, breaks
        self._word = os.urandom(16).hex()
        self._told: set[str] = set()

    def into(self, context: Any, test: str) -> None:
        """Break it for a browser context that `test` has opened."""
        broken = self._breaks.get(test.partition("[")[0])
        if broken is None:
            return
        if broken["kind"] == "route":
            context.route(lambda url: self._names(url, broken["target"]), lambda route: self._fail(route, test))
            return
        context.on("console", lambda message: self._heard(message, test))
        context.add_init_script(_CUT.replace("WORD", json.dumps(self._word)).replace("SELECTOR", json.dumps(broken["target"])))

    def _names(self, url: str, target: str) -> bool:
        """Whether an address is the app's and the path; with a query only where the target has one."""
        if not url.startswith(self._url + "/"):
            return False
        parts = urlsplit(url)
        return target == (f"{parts.path}?{parts.query}" if "?" in target else parts.path)

    def _fail(self, route: Any, test: str) -> None:
        self._tell(test)
        route.fulfill(status=500, content_type="text/plain", body="")

    def _heard(self, message: Any, test: str) -> None:
        if message.text == self._word:
            self._tell(test)

    def _tell(self, test: str) -> None:
        if test not in self._told:
            self._told.add(test)
            self._say("broken", test=test)
