"""Walking through what was brought in: a keyset loop that holds little at a time, however large the records are."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from headwater import clock
from headwater.catalogue import reading
from headwater.db import Row, Statement
from headwater.errors import FieldError, InvalidRequest, Unavailable

_FIRST_ROWS: Final = 51
# The loop serves others between two chunks.
_MOST_ROWS: Final = 500
# A chunk aims at this much of records, and a page of JSON stops behind it.
_CHUNK_BYTES: Final = 4 * 1024 * 1024
_PAGE_BYTES: Final = 16 * 1024 * 1024
_KEPT: Final = timedelta(seconds=reading.SNAPSHOT_KEPT_SECONDS)

Place = dict[str, Any]
Fetch = Callable[[Statement], Awaitable[list[Row]]]


@dataclass(frozen=True)
class Walk:
    """One list: `select(after, limit)` is the statement of a page, `key(row)` the place behind a row.

    A place is a map of JSON values, and what `select` takes as `after`; None is the beginning.
    """

    fetch: Fetch
    select: Callable[[Place | None, int], Statement]
    key: Callable[[Row], Place]

    async def chunks(self, after: Place | None, *, first_rows: int = _FIRST_ROWS) -> AsyncIterator[list[Row]]:
        """All rows behind `after`, in chunks of about 4 MiB; the first has at most `first_rows`."""
        began, limit = clock.now(), first_rows
        while True:
            if clock.now() - began > _KEPT:
                raise Unavailable("Reading took too long: what was replaced since is no longer kept.")
            rows = await self.fetch(self.select(after, limit))
            if rows:
                yield rows
            if len(rows) < limit:
                return
            after = self.key(rows[-1]) | _pinned(after)
            limit = max(1, min(_MOST_ROWS, limit * _CHUNK_BYTES // max(1, _bytes(rows)), limit * 8))

    async def page(self, after: Place | None, page_size: int) -> tuple[list[Row], Place | None]:
        """Up to `page_size` rows, fewer if they are very large, and the place behind them if more follow."""
        rows: list[Row] = []
        size = 0
        async for chunk in self.chunks(after, first_rows=min(_FIRST_ROWS, page_size + 1)):
            rows += chunk
            size += _bytes(chunk)
            if len(rows) > page_size or size > _PAGE_BYTES:
                break
        else:
            return rows, None
        rows = rows[:page_size]
        return rows, self.key(rows[-1]) | _pinned(after)


def _pinned(after: Place | None) -> Place:
    """When the walk began stays with it."""
    return {"begun_at": after["begun_at"]} if after and "begun_at" in after else {}


def _bytes(rows: Sequence[Row]) -> int:
    return sum(len(row.get("data") or row.get("excerpt") or "") + 200 for row in rows)


def items(fetch: Fetch, *, organization_id: UUID, data_source_id: UUID, **filters: Any) -> Walk:
    """Live items. `filters` as `reading.items` takes them."""

    def select(after: Place | None, limit: int) -> Statement:
        place = {} if after is None else {
            "snapshot": after["snapshot"], "after_path": after["path"], "after_record_number": after["number"]
        }  # fmt: skip
        return reading.items(
            organization_id=organization_id, data_source_id=data_source_id, limit=limit, **place, **filters
        )

    return Walk(fetch, select, lambda row: _of_one_moment(row, row["record_number"]))


def rejects(fetch: Fetch, *, organization_id: UUID, data_source_id: UUID) -> Walk:
    """Rejects of what is live."""

    def select(after: Place | None, limit: int) -> Statement:
        place = {} if after is None else {
            "snapshot": after["snapshot"], "after_path": after["path"], "after_number": after["number"]
        }  # fmt: skip
        return reading.rejects(organization_id=organization_id, data_source_id=data_source_id, limit=limit, **place)

    return Walk(fetch, select, lambda row: _of_one_moment(row, row["number"]))


def rejects_of_job(fetch: Fetch, *, organization_id: UUID, job_id: UUID) -> Walk:
    """What one job refused."""

    def select(after: Place | None, limit: int) -> Statement:
        place = {} if after is None else {"after_load_id": after["load_id"], "after_number": after["number"]}
        return reading.rejects_of_job(organization_id=organization_id, job_id=job_id, limit=limit, **place)

    return Walk(fetch, select, lambda row: {"load_id": row["load_id"], "number": row["number"]})


def files(fetch: Fetch, *, organization_id: UUID, data_source_id: UUID, **filters: Any) -> Walk:
    """The catalogue. `filters` as `reading.files` takes them."""

    def select(after: Place | None, limit: int) -> Statement:
        return reading.files(
            organization_id=organization_id,
            data_source_id=data_source_id,
            limit=limit,
            after_path=None if after is None else after["path"],
            **filters,
        )

    return Walk(fetch, select, lambda row: {"path": row["path"]})


def require_kept(after: Place | None) -> None:
    """Refuse a place whose snapshot may be gone. Raises `InvalidRequest` (`cursor_expired`)."""
    if after is None or "begun_at" not in after:
        return
    if clock.now() - datetime.fromisoformat(after["begun_at"]) > _KEPT:
        detail = "This cursor is older than an hour. Begin again without it."
        raise InvalidRequest(errors=[FieldError("cursor", "cursor_expired", detail)], code="cursor_expired")


def _of_one_moment(row: Row, number: int) -> Place:
    return {
        "snapshot": row["snapshot"],
        "begun_at": clock.rfc3339(clock.now()),
        "path": row["path"],
        "number": number,
    }
