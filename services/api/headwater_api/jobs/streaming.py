"""A job's events as server-sent events (HTML Living Standard, section 9.2), read from the database.

Events come with their number as `id`, so that `Last-Event-ID` resumes without gap or double. Progress comes between
them, without an id, when it changed, about once a second.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import orjson
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from headwater import clock
from headwater.db import Row
from headwater.jobs import statements
from headwater_api.jobs import rendering
from headwater_api.jobs.rendering import JobView
from headwater_api.jobs.waiting import Fetch, Seen
from headwater_api.services import Services

_KEEP_ALIVE_SECONDS: Final = 15.0
_EVENTS_AT_ONCE: Final = 200


@dataclass
class Cursor:
    """How far one stream has come: the number of the last event sent, and the progress last shown."""

    event: int
    progress: dict[str, Any] | None = None


async def events(held: Services, view: JobView, *, after: int) -> AsyncIterator[bytes]:
    """The events behind `after` of a job that is not final, until it is; the last one carries the job."""
    cursor = Cursor(after)
    with held.hub.watching(view, streams=True) as watch:
        # Without a watch, or without the job, the stream ends and its client comes again.
        while watch is not None:
            try:
                async with asyncio.timeout(_KEEP_ALIVE_SECONDS):
                    seen = await watch.changed()
            except TimeoutError:
                yield KEEPALIVE_COMMENT
                continue
            if seen is None:
                return
            if news := await _news(held, seen, cursor):
                yield news
            if seen.view.final:
                return


async def behind(fetch: Fetch, view: JobView, cursor: Cursor) -> bytes:
    """Every event behind the cursor, which moves on.

    A final job's last event carries it. Until `view` is final that event is held back: it was written since.
    """
    parts: list[bytes] = []
    while True:
        rows = await fetch(statements.events(organization_id=view.organization_id, job_id=view.id, after=cursor.event))
        for row in rows:
            if row["details"].get("status") in rendering.FINAL and not view.final:
                return b"".join(parts)
            cursor.event = row["number"]
            parts.append(_event(row, view))
        if len(rows) < _EVENTS_AT_ONCE:
            return b"".join(parts)


async def _news(held: Services, seen: Seen, cursor: Cursor) -> bytes:
    view, parts = seen.view, b""
    if view.final or seen.last_event > cursor.event:
        parts = await behind(held.lane(view.organization_id).fetch_all, view, cursor)
    return parts if view.final else parts + _progress(view, cursor)


def _event(row: Row, view: JobView) -> bytes:
    data = {"act": row["act"], "created_at": clock.rfc3339(row["created_at"])} | row["details"]
    if row["details"].get("status") in rendering.FINAL:
        data["job"] = view.content
    return format_sse_event(data_str=orjson.dumps(data).decode(), event=row["act"], id=str(row["number"]))


def _progress(view: JobView, cursor: Cursor) -> bytes:
    """A progress event, if there is news."""
    progress = {
        "status": view.row["status"],
        "progress": rendering.progress(view.row),
        "counters": view.row["counters"] or {},
        "warnings": view.row["warnings"] or [],
    }
    if progress == cursor.progress or view.row["phase"] is None:
        return b""
    cursor.progress = progress
    return format_sse_event(data_str=orjson.dumps(progress).decode(), event="progress")
