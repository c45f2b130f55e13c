"""Markdown of reports as a page. Projects write it: HTML in it is text, pictures are links, links lead to the web or beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

__all__ = ["LONGEST", "STYLE", "as_page"]

LONGEST = 200_000
"""Bytes that are rendered; longer reports are shown as they are, for rendering takes a while."""

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
    "td{padding:.1rem 1rem .1rem 0}"
)
_STYLE = (
    "table{border-collapse:collapse}th,td{border:1px solid #ddd;padding:.2rem .6rem;text-align:left;vertical-align:top}"
    "pre{background:#f6f6f6;padding:.6rem;overflow:auto}code{background:#f6f6f6}.s{color:#555;font-size:.9em}"
)
_LINK = re.compile(r"https?://|(?![/\\])[^:/?#]*(?:[/?#]|$)", re.IGNORECASE)


def as_page(parts: Sequence[str], text: str) -> str:
    """The report at the path `parts` as a page without scripts."""
    from markdown_it import MarkdownIt  # noqa: PLC0415 - not every start of the API server needs it

    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    parser.validateLink = lambda url: bool(_LINK.match(url))  # type: ignore[method-assign]
    title = escape(" / ".join(parts))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}{_STYLE}</style></head>'
        f'<body><p class="s">{title}</p><p class="s"><a href="./">all reports of this folder</a> \N{MIDDLE DOT} '
        f'<a href="?raw">the file as it is</a></p>{parser.render(text)}</body></html>'
    )
