"""What the model is told, what it may write, and the form in which it hands in."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from taxiway.agents.project_map import DATA
from taxiway.agents.tools import ToolError
from taxiway.agents.validate.files import Layout
from taxiway.agents.validate.listing import definitions
from taxiway.records import Model

__all__ = ["SYSTEM", "Handed", "Proposed", "accept", "folder", "request", "veto"]

SYSTEM = f"""You write browser tests of a web app, with pytest and Playwright's synchronous API.
- A test takes the fixture `page: Page`; `page.goto("/")` is the app, whatever its address. Name files test_<what>.py, one requirement
  a file: a file stays or goes whole. Page objects go into modules beside the tests and are imported by their own name
  (`from home_page import HomePage`). You write new files below the folder of browser tests and nothing else; no conftest.py.
- Find elements as people do: get_by_role, get_by_label, get_by_text. Each test says `expect(...)` or `assert` itself, for what the
  requirement promises, not for what merely happens to be there. No sleeping, no skipping, no network routes, no scripts in pages.
- A test must prove itself. For each you name what to break: an `element` (CSS selector of what shows the feature; it is then taken out
  of every page) or a `route` (path that then answers 500). Your test runs on the app, where it must pass each time, and with that
  broken, where it must fail. Prefer the smallest thing that is the feature. What does not prove itself is thrown away.
- Write code as the project does: typed, formatted, without unused imports; its linters read these files too. Run the check before you
  hand in.
{DATA}"""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,80}\.py")
_TAKEN = frozenset({"conftest", "sitecustomize", "usercustomize", "pytest", "playwright", *sys.stdlib_module_names})
_ROUTE = re.compile(r"/[\w./~%?=&-]{0,200}")


class Breaks(Model):
    """What to break so that the test must fail."""

    kind: Literal["element", "route"] = Field(description="What is broken")
    target: str = Field(
        min_length=1, max_length=200, description="CSS selector of the element, or path of the route (with its query, or for all queries)"
    )


class Proposed(Model):
    """One test."""

    test: str = Field(min_length=1, max_length=300, description="Id: path::name, or path::Class::name")
    requirement: str = Field(min_length=1, max_length=300, description="The part of the requirements that it shows, quoted or in short")
    breaks: Breaks = Field(description="What to break so that it must fail")


class Handed(Model):
    """The work as it is handed in."""

    tests: list[Proposed] = Field(description="Every test in the files that you wrote")
    not_tested: list[Annotated[str, StringConstraints(max_length=300)]] = Field(
        default_factory=list, max_length=20, description="Requirements that no test shows, and why"
    )


def folder(layout: Layout) -> str:
    """Where new tests go: the first folder of browser tests that the project names; "" where none can be written to."""
    return next((f for f in layout.browser_tests if layout.in_browser_tests(f"{f}/test_x.py") and not f.endswith(".py")), "")


def veto(place: str, there: Collection[str]) -> Callable[[str], str]:
    """Why a path may not be changed: only new, plainly named Python files below `place` may. `there` are the files that are not new."""

    def why(path: str) -> str:
        name = PurePosixPath(path).name
        if not path.startswith(place + "/"):
            return f"only files below {place}/ may be written"
        if path in there:
            return "is there already; write new files"
        if not _NAME.fullmatch(name) or PurePosixPath(name).stem in _TAKEN:
            return "is no name for a test or a page object (lower case, digits, _; ending in .py; no conftest.py)"
        return ""

    return why


def request(requirements: str, most: int, place: str, pages: Sequence[Mapping[str, Any]]) -> str:
    """This attempt's request. The pages are data."""
    shown = "\n\n".join(_page(p) for p in pages)
    return (
        f"Write at most {most} tests, below {place}/, for these requirements:\n<requirements>\n{requirements}\n</requirements>\n\n"
        f"The running app, as its accessibility tree shows it:\n{shown}"
    )


def _page(page: Mapping[str, Any]) -> str:
    if page["problem"]:
        return f"<page path={page['path']!r}>\ncould not be looked at: {page['problem']}\n</page>"
    links = ", ".join(page["links"]) or "none"
    return f"<page path={page['path']!r}>\ntitle: {page['title']}\nlinks and forms lead to: {links}\n{page['snapshot']}\n</page>"


def accept(handed: Handed, checkout: Path, changed: Collection[str], most: int) -> None:
    """Send back what does not fit the files: every test in them is listed once, none besides."""
    found, broken = definitions(checkout, [p for p in sorted(changed) if (checkout / p).is_file()])
    if broken:
        raise ToolError(f"no valid Python: {', '.join(broken)}")
    defined, listed = {"::".join(d.key) for d in found}, [p.test for p in handed.tests]
    if len(listed) > most:
        raise ToolError(f"{len(listed)} tests are more than {most}; delete some")
    if twice := sorted({t for t in listed if listed.count(t) > 1}):
        raise ToolError(f"listed twice: {', '.join(twice)}")
    if wrong := sorted(set(listed) ^ defined):
        raise ToolError(f"listed and not in your files, or the other way round: {', '.join(wrong)}")
    if wrong := [p.test for p in handed.tests if p.breaks.kind == "route" and not _ROUTE.fullmatch(p.breaks.target)]:
        raise ToolError(f"a route is a path of the app, such as /api/items: {', '.join(wrong)}")
