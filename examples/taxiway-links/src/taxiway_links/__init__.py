"""links: counts the links of a project's Markdown files, and those that lead nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import Field

from taxiway.agents.base import Agent, AgentInput, Metric, StageAttempt
from taxiway.manifest import read_inside
from taxiway.ports import Ports
from taxiway.records import Result

__all__ = ["AGENT", "LinksInput"]


class LinksInput(AgentInput):
    """Which files to read."""

    files: str = Field(default="**/*.md", description="Pattern of the files, from the project's root", min_length=1, max_length=200)


def run(inputs: LinksInput, ports: Ports, stage: StageAttempt) -> Result:  # noqa: ARG001 - it only reads the checkout
    """Read every file that the pattern names and look where its relative links lead."""
    pages = sorted(p.relative_to(stage.checkout) for p in stage.checkout.glob(inputs.files) if p.is_file())
    if not pages:
        # Not zero broken links: nothing was measured, and every gate fails closed.
        why = f"no file of the project matches {inputs.files}"
        return Result(unmeasured={"links.total": why, "links.broken": why}, summary=why)
    total, broken = 0, []
    for page in pages:
        stage.stop.check()  # raises when the run is stopped or time is up
        for target in relative_links(read_inside(stage.checkout, str(page)).decode("utf-8", errors="replace")):
            total += 1
            if not leads_somewhere(stage.checkout, page, target):
                broken.append({"file": str(page), "link": target})
                stage.log.warning("%s: %s leads nowhere", page, target)
    # What lies in `reports` becomes an artifact of the attempt, linked from the task in the UI.
    (stage.reports / "links.json").write_text(json.dumps({"pages": [str(p) for p in pages], "broken": broken}, indent=1))
    metrics = {"links.total": float(total), "links.broken": float(len(broken))}
    return Result(metrics=metrics, summary=f"{len(broken)} of {total} links in {len(pages)} files lead nowhere")


def relative_links(text: str) -> Iterator[str]:
    """The paths of links and images that stay within the project."""
    from markdown_it import MarkdownIt  # noqa: PLC0415 - the declaration below is read whenever a DAG is parsed

    for block in MarkdownIt("commonmark").parse(text):
        for inline in block.children or ():
            url = urlsplit(str(inline.attrGet("href") or inline.attrGet("src") or ""))
            if url.path and not url.scheme and not url.netloc:
                yield unquote(url.path)


def leads_somewhere(root: Path, page: Path, target: str) -> bool:
    """Whether there is such a file or folder in the project; a link that leaves it leads nowhere."""
    base = root if target.startswith("/") else root / page.parent
    try:
        place = (base / target.lstrip("/")).resolve()
        return place.is_relative_to(root.resolve()) and place.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


AGENT = Agent(
    name="links",
    summary="Counts the links of a project's Markdown files, and those that lead nowhere.",
    inputs=LinksInput,
    run=run,
    metrics={
        "links.total": Metric("relative links in the files"),
        "links.broken": Metric("relative links that lead nowhere"),
    },
    gates=("links.broken == 0",),
)
