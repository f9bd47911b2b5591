"""A list of the plain lane as a stream of everything, batch by batch: it runs in the same space however long it is."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool

from headwater import db
from headwater_api import representations
from headwater_api.pagination import CursorQuery
from headwater_api.representations import Form
from headwater_api.services import Services

Entry = TypeVar("Entry", bound=BaseModel)
Read = Callable[[Session, CursorQuery], tuple[list[Entry], str | None]]

_BATCH: Final = 1000


async def batches(
    held: Services, organization_id: UUID, read: Read[Entry], *, cursor: str | None
) -> AsyncIterator[list[Entry]]:
    """Everything behind `cursor`, each batch in a transaction of its own: a slow reader holds no connection.

    `read` gives a page and the cursor of the next one.
    """

    def one(cursor: str | None) -> tuple[list[Entry], str | None]:
        query = CursorQuery.model_construct(page_size=_BATCH, cursor=cursor)
        with db.session(held.engine, organization_id) as session:
            return read(session, query)

    while True:
        async with held.turn():
            entries, cursor = await run_in_threadpool(one, cursor)
        yield entries
        if cursor is None:
            return


def stream(
    found: AsyncIterator[list[Entry]],
    form: Form,
    *,
    columns: Sequence[str],
    flat: Callable[[dict[str, Any]], Sequence[Any]],
) -> StreamingResponse:
    """`found` as NDJSON, or as CSV with `columns`; `flat` makes a CSV row of an entry's JSON."""
    return StreamingResponse(_encoded(found, form, columns, flat), media_type=representations.MEDIA_TYPES[form])


async def _encoded(
    found: AsyncIterator[list[Entry]],
    form: Form,
    columns: Sequence[str],
    flat: Callable[[dict[str, Any]], Sequence[Any]],
) -> AsyncIterator[bytes]:
    if form == "csv":
        yield representations.csv_rows([columns])
    async for batch in found:
        entries = [entry.model_dump(mode="json") for entry in batch]
        yield representations.ndjson(entries) if form == "ndjson" else representations.csv_rows(map(flat, entries))
