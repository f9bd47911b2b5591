"""Reading files, items, rejects and tables."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from headwater import clock, ids
from headwater.catalogue import reading
from headwater.connectors import registry
from headwater.connectors.spec import Capability
from headwater.db import Row, Statement
from headwater.errors import NotFound
from headwater_api import openapi, pagination, representations, services, wire
from headwater_api.actor import Actor
from headwater_api.catalogue import walking
from headwater_api.catalogue.schemas import (
    FILE_COLUMNS,
    ITEM_COLUMNS,
    REJECT_COLUMNS,
    FileRead,
    FileState,
    ItemRead,
    RejectRead,
    TableRead,
)
from headwater_api.catalogue.walking import Place, Walk
from headwater_api.dependencies import ActorDep, DataSourceId, JobId, ProjectId
from headwater_api.guard import GuardedRoute, allow
from headwater_api.jobs.submitting import capability_missing
from headwater_api.pagination import CursorQuery, Page
from headwater_api.representations import Form

router = APIRouter(route_class=GuardedRoute, tags=["records"])

_SOURCE: Final = "/projects/{project_id}/data-sources/{data_source_id}"


class FileQuery(CursorQuery):
    """Which files."""

    model_config = ConfigDict(extra="forbid")

    prefix: str = Field(default="", max_length=1024, description="Only paths that start with this.")
    state: FileState | None = None


class ItemQuery(CursorQuery):
    """Which items."""

    model_config = ConfigDict(extra="forbid")

    path: str | None = Field(default=None, max_length=4096, description="Of this file alone.")
    job_id: wire.JobId | None = Field(default=None, description="Brought in by this job.")
    created_after: wire.Instant | None = Field(default=None, description="Brought in after this moment.")


@dataclass(frozen=True)
class Shape:
    """How the rows of a list go out."""

    render: Callable[[Row], dict[str, Any]]
    columns: Sequence[str]


@router.get(_SOURCE + "/files", summary="List the files of the catalogue", response_model=Page[FileRead])
@allow("data_source:read")
async def list_files(
    request: Request,
    actor: ActorDep,
    project_id: ProjectId,
    data_source_id: DataSourceId,
    query: Annotated[FileQuery, Query()],
) -> Response:
    """What listings and syncs have seen, by path. `POST .../files` looks again."""
    await _source(request, actor, project_id, data_source_id)
    walk = walking.files(
        services.of(request).lane(actor.organization_id).fetch_all,
        organization_id=actor.organization_id,
        data_source_id=data_source_id,
        prefix=query.prefix,
        state=query.state,
    )
    return await _page(request, walk, query, Shape(_file, FILE_COLUMNS))


@router.get(
    _SOURCE + "/items",
    summary="Read the items",
    response_model=Page[ItemRead],
    responses={200: {"content": representations.DOCUMENTED}},
)
@allow("item:read")
async def list_items(
    request: Request,
    actor: ActorDep,
    project_id: ProjectId,
    data_source_id: DataSourceId,
    query: Annotated[ItemQuery, Query()],
) -> Response:
    """The records of the last sync, by path and record number.

    A walk through many pages is of one moment: a sync that ends meanwhile is not in it. A cursor lives for an hour.
    With `Accept: application/x-ndjson` or `text/csv` everything comes as one stream; in CSV, `data` is JSON.
    """
    await _source(request, actor, project_id, data_source_id)
    walk = walking.items(
        services.of(request).lane(actor.organization_id).fetch_all,
        organization_id=actor.organization_id,
        data_source_id=data_source_id,
        path=query.path,
        job_id=query.job_id,
        created_after=query.created_after,
    )
    return await _list(request, walk, query, Shape(_item, ITEM_COLUMNS))


@router.get(_SOURCE + "/items/{item_id}", summary="Read an item", response_model=ItemRead)
@allow("item:read")
async def get_item(
    request: Request, actor: ActorDep, project_id: ProjectId, data_source_id: DataSourceId, item_id: str
) -> Response:
    """One record. When its file is replaced it is gone, and the new one has another id."""
    load_id, record_number = ids.unpack(ids.decode("item", item_id))
    await _source(request, actor, project_id, data_source_id)
    row = (
        await services.of(request)
        .lane(actor.organization_id)
        .fetch(
            reading.item(
                organization_id=actor.organization_id,
                data_source_id=data_source_id,
                load_id=load_id,
                record_number=record_number,
            )
        )
    )
    if row is None:
        raise NotFound
    return _json(_item(row))


@router.get(
    _SOURCE + "/rejects",
    summary="Read what was refused",
    response_model=Page[RejectRead],
    responses={200: {"content": representations.DOCUMENTED}},
)
@allow("item:read")
async def list_rejects(
    request: Request,
    actor: ActorDep,
    project_id: ProjectId,
    data_source_id: DataSourceId,
    query: Annotated[CursorQuery, Query()],
) -> Response:
    """The records, and files, that the syncs behind the current items refused. Their number is `error_count`."""
    await _source(request, actor, project_id, data_source_id)
    walk = walking.rejects(
        services.of(request).lane(actor.organization_id).fetch_all,
        organization_id=actor.organization_id,
        data_source_id=data_source_id,
    )
    return await _list(request, walk, query, Shape(_reject, REJECT_COLUMNS))


@router.get(
    "/jobs/{job_id}/rejects",
    summary="Read what a job refused",
    response_model=Page[RejectRead],
    responses={200: {"content": representations.DOCUMENTED}},
)
@allow("item:read")
async def list_job_rejects(
    request: Request, actor: ActorDep, job_id: JobId, query: Annotated[CursorQuery, Query()]
) -> Response:
    """All that this job refused, also when it failed and nothing of it is shown."""
    held = services.of(request)
    if await held.readings.read(actor.organization_id, job_id) is None:
        raise NotFound
    lane = held.lane(actor.organization_id)
    walk = walking.rejects_of_job(lane.fetch_all, organization_id=actor.organization_id, job_id=job_id)
    return await _list(request, walk, query, Shape(_reject, REJECT_COLUMNS))


@router.get(
    _SOURCE + "/tables",
    summary="List the tables",
    response_model=Page[TableRead],
    responses=openapi.refusals(409),
)
@allow("data_source:read")
async def list_tables(
    request: Request,
    actor: ActorDep,
    project_id: ProjectId,
    data_source_id: DataSourceId,
    query: Annotated[CursorQuery, Query()],  # noqa: ARG001 - what every list takes
) -> Response:
    """The tables that discoveries found. Types without tables answer 409 `capability_missing`."""
    source = await _source(request, actor, project_id, data_source_id)
    if source["type"] not in registry.types_with(Capability.TABLES):
        raise capability_missing()
    return _json({"data": [], "next_cursor": None, "has_more": False})


async def _source(request: Request, actor: Actor, project_id: UUID, data_source_id: UUID) -> Row:
    """The source's row {type}. Raises `NotFound`."""
    statement = Statement(
        """
        select type from data_source
        where id = %(data_source_id)s and project_id = %(project_id)s and organization_id = %(organization_id)s
          and deleted_at is null
        """,
        {"data_source_id": data_source_id, "project_id": project_id, "organization_id": actor.organization_id},
    )
    row = await services.of(request).lane(actor.organization_id).fetch(statement)
    if row is None:
        raise NotFound
    return row


async def _list(request: Request, walk: Walk, query: CursorQuery, shape: Shape) -> Response:
    """A page, or a stream of all by `Accept`."""
    form = representations.chosen(request)
    if form == "json":
        return await _page(request, walk, query, shape)
    chunks = _encoded(walk.chunks(_after(request, query)), form, shape)
    # The first chunk is read before the answer begins, so that it can still be a problem.
    first = await anext(chunks, b"")
    media_type = representations.MEDIA_TYPES[form]
    return StreamingResponse(_chained(first, chunks), media_type=media_type, headers={"Vary": "Accept"})


async def _encoded(chunks: AsyncIterator[list[Row]], form: Form, shape: Shape) -> AsyncIterator[bytes]:
    header = representations.csv_rows([shape.columns]) if form == "csv" else b""
    async for rows in chunks:
        entries = [shape.render(row) for row in rows]
        if form == "csv":
            yield header + representations.csv_rows([entry[name] for name in shape.columns] for entry in entries)
        else:
            yield representations.ndjson(entries)
        header = b""
    if header:
        yield header


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


async def _page(request: Request, walk: Walk, query: CursorQuery, shape: Shape) -> Response:
    rows, place = await walk.page(_after(request, query), query.page_size)
    next_cursor = pagination.cursors(request).write([place]) if place else None
    data = [shape.render(row) for row in rows]
    return _json({"data": data, "next_cursor": next_cursor, "has_more": place is not None})


def _after(request: Request, query: CursorQuery) -> Place | None:
    if query.cursor is None:
        return None
    after: Place = pagination.cursors(request).read(query.cursor)[0]
    walking.require_kept(after)
    return after


def _json(content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content), media_type="application/json", headers={"Vary": "Accept"})


def _file(row: Row) -> dict[str, Any]:
    moments = ("modified_at", "first_seen_at", "last_seen_at")
    return row | {name: row[name] and clock.rfc3339(row[name]) for name in moments}


def _item(row: Row) -> dict[str, Any]:
    return {
        "id": ids.encode("item", ids.pack(row["load_id"], row["record_number"])),
        "path": row["path"],
        "record_number": row["record_number"],
        # As Postgres wrote it: parsed, long numbers would lose digits.
        "data": orjson.Fragment(row["data"]),
        "job_id": ids.encode("job", row["job_id"]),
        "created_at": clock.rfc3339(row["created_at"]),
    }


def _reject(row: Row) -> dict[str, Any]:
    return {
        "id": ids.encode("rej", ids.pack(row["load_id"], row["number"])),
        "path": row["path"],
        "line": row["line"],
        "record_number": row["record_number"],
        "code": row["code"],
        "pointer": row["pointer"],
        "message": row["message"],
        "excerpt": row["excerpt"],
        "job_id": ids.encode("job", row["job_id"]),
    }
