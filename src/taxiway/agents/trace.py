"""One attempt's conversation with a model: `trace.jsonl` as it happens, and `trace.html` to read it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from taxiway.agents.masking import Mask

__all__ = ["FileTrace", "as_page"]


class FileTrace:
    """Writes each entry down at once, secrets masked, so that a killed attempt leaves what it had; the page when its `with` ends."""

    def __init__(self, folder: Path, mask: Mask, *, name: str = "trace", about: str = "") -> None:
        self._lines, self._page, self._mask = folder / f"{name}.jsonl", folder / f"{name}.html", mask
        self._about = mask.text(about)
        self._entries: list[dict[str, Any]] = []

    def note(self, kind: str, data: Mapping[str, Any]) -> None:
        """One entry: `at` (ISO, UTC), `kind` (request, reply, tool, ...), and what belongs to it."""
        entry = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "kind": kind, **self._mask.data(dict(data))}
        self._entries.append(entry)
        with self._lines.open("a", encoding="utf-8", errors="replace") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self.note("end", {"error": type(error).__name__, "text": str(error)})
        self._page.write_text(as_page(self._entries, about=self._about), encoding="utf-8", errors="replace")


_STYLE = """
body {font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff}
section {border-left: 4px solid #bbb; padding: .2rem 1rem; margin: 1rem 0}
.reply {border-color: #2b6cb0}
.tool {border-color: #2f855a}
.failed, .end {border-color: #c53030}
pre {background: #f6f6f6; padding: .6rem; overflow: auto; white-space: pre-wrap; max-height: 30rem}
h2 {font-size: 1rem; margin: .2rem 0}
.s {color: #555; font-size: .9em}
"""
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Conversation{{ ": " if about }}{{ about }}</title>
<style>{{ style }}</style></head>
<body><h1>Conversation</h1>
<p>{% if about %}{{ about }} \N{MIDDLE DOT} {% endif %}<a href="./">all reports of this attempt</a></p>
<p class="s">{{ calls }} call{{ "s" if calls != 1 }} of {{ models | join(", ") or "no model" }};
{{ read }} tokens read ({{ cached }} of them from the cache),
{{ written }} written. What a model says is no evidence: gates measure.</p>
{% for e in entries %}<section class="{{ e.kind }}{{ " failed" if e.failed }}">
<h2>{{ e.kind }}{% if e.name %} {{ e.name }}{% endif %}{% if e.step %} {{ e.step }}{% endif %} <span class="s">{{ e.at }}</span></h2>
{% if e.kind == "request" %}<pre>{{ e.system }}</pre><pre>{{ e.project }}</pre><pre>{{ e.request }}</pre>
{% elif e.kind == "reply" %}{% for b in e.content %}{% if b.type == "text" %}<pre>{{ b.text }}</pre>
{% elif b.type == "tool_use" %}<p>calls <b>{{ b.name }}</b></p>{{ fields(b.input) }}{% endif %}{% endfor %}
<p class="s">{{ e.stop_reason }}; {{ e.usage.input_tokens }} in, {{ e.usage.cache_read_tokens }} from the cache,
{{ e.usage.output_tokens }} out</p>
{% elif e.kind == "tool" %}<pre>{{ e.told }}</pre>
{% else %}{{ fields(e) }}{% endif %}</section>
{% endfor %}</body></html>
"""
_FIELDS = """{% for name, value in data.items() %}<p class="s">{{ name }}</p><pre>{{ value }}</pre>{% endfor %}"""


def as_page(entries: Iterable[Mapping[str, Any]], *, about: str = "") -> str:
    """The conversation as one page without scripts; `about` says whose it is. Everything in it is somebody else's text and is escaped."""
    import jinja2  # noqa: PLC0415 - only attempts with a model need it
    import markupsafe  # noqa: PLC0415

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.ChainableUndefined)
    fields = environment.from_string(_FIELDS)
    found = [dict(e) for e in entries]
    replies = [e for e in found if e["kind"] == "reply"]
    usage = [e.get("usage") or {} for e in replies]
    cached = sum(u.get("cache_read_tokens", 0) for u in usage)
    return environment.from_string(_PAGE).render(
        entries=found,
        about=about,
        style=markupsafe.Markup(_STYLE),  # noqa: S704 - ours, whole
        calls=len(replies),
        models=sorted({str(e.get("model")) for e in replies}),
        cached=cached,
        read=cached + sum(u.get("input_tokens", 0) + u.get("cache_write_tokens", 0) for u in usage),
        written=sum(u.get("output_tokens", 0) for u in usage),
        # Each value is escaped where the inner template is rendered.
        fields=lambda data: markupsafe.Markup(fields.render(data=data if isinstance(data, Mapping) else {"": data})),  # noqa: S704
    )
