"""One writing request at a time, for an Airflow whose database is SQLite."""

from __future__ import annotations

import asyncio
from typing import Any

from airflow.configuration import conf

__all__ = ["OneWriter"]

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class OneWriter:
    """ASGI middleware: with SQLite, requests that may write take turns; with other databases nothing changes.

    Airflow's audit log writes in the event loop, and other requests need that loop to commit: with SQLite's one writer both
    then wait for each other until the database gives up, and no heartbeat gets through. See docs/adr/0014-one-writer.md.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._turn = asyncio.Lock() if conf.get_mandatory_value("database", "sql_alchemy_conn").startswith("sqlite") else None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request, when it is its turn."""
        if self._turn is None or scope["type"] != "http" or scope["method"] in _READING:
            await self._app(scope, receive, send)
        else:
            async with self._turn:
                await self._app(scope, receive, send)
