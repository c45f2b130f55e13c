"""The pages below /taxiway on Airflow's API server: the artifacts of runs.

Reports are written by the code of projects, so every byte is hostile: nothing is followed out of the artifacts,
and no browser may run it, guess its type or let it act for the person who looks at it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO
from urllib.parse import quote

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi import Path as PathParameter
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse

from taxiway.errors import TaxiwayError
from taxiway.home import find_home
from taxiway_airflow.markdown import LONGEST, STYLE, as_page

__all__ = ["build_app", "open_inside"]

_HEADERS = {
    # `sandbox` gives the page an origin of its own: no script, no form, no cookie, no way into Airflow.
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}
# The index is ours, and its links must lead on.
_INDEX_HEADERS = {**_HEADERS, "Content-Security-Policy": _HEADERS["Content-Security-Policy"].removeprefix("sandbox; ")}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".htm": "text/html; charset=utf-8",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
_DOWNLOADS = (".zip", ".gz", ".tar", ".pdf", ".db", ".sqlite", ".whl", ".webm", ".mp4", ".pyc")
_CHUNK = 1 << 16
_LISTED = 2000
_FIRST = ("report", "summary", "gates")

DagId = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,249}$")]


def build_app(artifacts: Callable[[], Path] | None = None, guard: Callable[..., None] | None = None) -> FastAPI:
    """The app. `artifacts` gives the root folder of artifacts, by default that of the Taxiway home; `guard` refuses who
    may not see pipeline `dag_id`, by default who may not read its logs."""
    app = FastAPI(title="Taxiway", docs_url=None, redoc_url=None, openapi_url=None)
    allowed = [Depends(guard or requires_access_dag("GET", DagAccessEntity.TASK_LOGS))]
    root = artifacts or _artifacts

    @app.get("/artifacts/{dag_id}", dependencies=allowed)
    def pipeline(dag_id: DagId) -> Response:
        """A listing needs its slash, for its links are relative."""
        return RedirectResponse(f"./{quote(dag_id)}/", headers=_HEADERS)

    @app.get("/artifacts/{dag_id}/{path:path}", dependencies=allowed)
    def artifact(dag_id: DagId, path: str, raw: str | None = None) -> Response:
        """A file, or the listing of a folder. Markdown is a page, and with `?raw` the file itself."""
        return _answer(_root(root), dag_id, path, raw=raw is not None)

    return app


def _artifacts() -> Path:
    return find_home(Path.cwd(), os.environ).artifacts


def _root(artifacts: Callable[[], Path]) -> Path:
    try:
        return artifacts()
    except TaxiwayError as error:
        raise HTTPException(503, str(error)) from error


def _answer(root: Path, dag_id: str, path: str, *, raw: bool) -> Response:
    parts = (dag_id, *(part for part in path.split("/") if part))
    try:
        fd = open_inside(root, parts)
    except (OSError, ValueError) as error:
        raise HTTPException(404, "no such artifact", headers=_HEADERS) from error
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        try:
            if path and not path.endswith("/"):
                return RedirectResponse(f"./{quote(parts[-1])}/", headers=_HEADERS)
            return HTMLResponse(_listing(parts, fd), headers=_INDEX_HEADERS)
        finally:
            os.close(fd)
    if not raw and PurePosixPath(parts[-1]).suffix.lower() == ".md" and os.fstat(fd).st_size <= LONGEST:
        with os.fdopen(fd, "rb") as file:
            return HTMLResponse(as_page(parts, file.read(LONGEST).decode("utf-8", "replace")), headers=_HEADERS)
    return _file(parts[-1], os.fdopen(fd, "rb"))


def open_inside(root: Path, parts: tuple[str, ...]) -> int:
    """A file descriptor of a plain file or folder below `root`; OSError or ValueError if there is none.

    Each part is opened in the folder before it and no link is followed, so nothing that changes meanwhile leads out.
    """
    if any(part in ("", ".", "..") or part.startswith(".") or "/" in part for part in parts):
        raise ValueError("hidden or relative path")
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts:
            # O_NONBLOCK: opening a named pipe must not wait for its writer.
            below = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)
            os.close(fd)
            fd = below
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ValueError("neither a file nor a folder")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _file(name: str, file: BinaryIO) -> Response:
    suffix = PurePosixPath(name).suffix.lower()
    headers = {**_HEADERS, "Content-Length": str(os.fstat(file.fileno()).st_size)}
    if suffix in _DOWNLOADS:
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
        return StreamingResponse(_chunks(file), media_type="application/octet-stream", headers=headers)
    return StreamingResponse(_chunks(file), media_type=_TYPES.get(suffix, "text/plain; charset=utf-8"), headers=headers)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    left = os.fstat(file.fileno()).st_size
    with file:
        # A log may grow while it is read: no byte beyond the length that was announced.
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            left -= len(chunk)
            yield chunk


def _listing(parts: tuple[str, ...], fd: int) -> str:
    with os.scandir(fd) as entries:
        found = sorted((e for e in entries if not e.name.startswith(".") and _served(e)), key=_order)
    rows = "".join(_row(entry) for entry in found[:_LISTED])
    more = f"<p>and {len(found) - _LISTED} more</p>" if len(found) > _LISTED else ""
    up = '<p><a href="../">up</a></p>' if len(parts) > 1 else ""
    title = escape(" / ".join(parts))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}td+td{{text-align:right;color:#555}}</style></head>"
        f"<body><h1>{title}</h1>{up}<table>{rows or '<tr><td>Nothing here.</td></tr>'}</table>{more}</body></html>"
    )


def _order(entry: os.DirEntry[str]) -> tuple[int, int, str]:
    """What people read first, then folders, then what programs read."""
    name = PurePosixPath(entry.name.lower())
    page = name.suffix in (".md", ".html")
    if not entry.is_file(follow_symlinks=False):
        rank = 3
    elif name.stem in _FIRST and (page or name.stem == "gates"):
        rank = 0 if page else 1
    else:
        rank = 2 if page else 4
    return (rank, int(entry.name) if entry.name.isascii() and entry.name.isdigit() else 0, entry.name)


def _served(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)


def _row(entry: os.DirEntry[str]) -> str:
    name = entry.name.encode("utf-8", "replace").decode()
    slash, size = "/", ""
    if entry.is_file(follow_symlinks=False):
        slash = ""
        with contextlib.suppress(FileNotFoundError):  # it may go while we look
            size = f"{entry.stat(follow_symlinks=False).st_size:,} bytes"
    return f'<tr><td><a href="{quote(os.fsencode(entry.name))}{slash}">{escape(name)}{slash}</a></td><td>{size}</td></tr>'
