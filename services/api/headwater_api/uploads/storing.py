"""Bringing a file in: whole, in parts, on after a cut."""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headwater import db, ids, log
from headwater.errors import Conflict, InvalidRequest, StorageError, Unavailable, UnsupportedMediaType
from headwater.uploads import statements
from headwater.uploads.reading import Segments
from headwater.uploads.rows import Upload
from headwater.uploads.storage import COPY_BYTES, Storage
from headwater_api import services
from headwater_api.actor import Actor
from headwater_api.dependencies import get_actor
from headwater_api.once import Once
from headwater_api.services import Services
from headwater_api.uploads import contents, places, receiving, service
from headwater_api.uploads.places import Place
from headwater_api.uploads.ranges import ContentRange
from headwater_api.uploads.receiving import Arriving
from headwater_api.uploads.schemas import UploadProgress

_log = log.get(__name__)


@asynccontextmanager
async def storage_answers() -> AsyncIterator[None]:
    """Within it, a storage that is away is `Unavailable`."""
    try:
        yield
    except StorageError as error:
        _log.error("uploads.storage_away", error=repr(error.__cause__))
        raise Unavailable(error.message, code="upload_storage_unavailable") from error


async def store_whole(request: Request, place: Place, name: str, once: Callable[[str], Once]) -> Response:
    """Take the body as the file `name`, whole or not at all, and show it in place of a former one.

    `once` gives the request's idempotency by the SHA-256 of the body: a replay is received, compared and dropped.
    """
    held, actor = services.of(request), get_actor(request)
    upload_id, key = ids.new(), ids.new()
    places.require_room(place, _announced(request))
    await place.lane.fetch(statements.begin(**_first(actor, place, upload_id, name, key)))
    shown = False
    try:
        writer = await run_in_threadpool(place.storage.put, key)
        try:
            arriving = Arriving(writer, lambda head: contents.check(name, head))
            if not await _receive(request, place, upload_id, arriving):
                raise InvalidRequest("The body broke off before its end.", code="body_incomplete")
            await run_in_threadpool(writer.keep)
        finally:
            await run_in_threadpool(writer.drop)
        segments = [{"key": key.hex, "size": arriving.size}]
        brought = service.Brought(upload_id, name, arriving.size, arriving.sha256, segments)
        async with held.turn():
            response, shown = await run_in_threadpool(service.show, request, place, brought, once(arriving.sha256))
        return response
    finally:
        if not shown:
            await _forget(place, upload_id, key)


async def store_part(request: Request, place: Place, name: str, part: ContentRange) -> Response:
    """Take the body as a part of the file `name`; what came before a connection is cut stays.

    Raises `PayloadTooLarge`, `Conflict` (`offset_mismatch`), `InvalidRequest`.
    """
    assert part.start is not None
    assert part.end is not None
    if part.total > place.config.largest_bytes:
        raise places.too_large(place)
    key = ids.new()
    upload_id = await _begin_part(request, place, name, part, key)
    kept = False
    writer = await run_in_threadpool(place.storage.put, key)
    try:
        arriving = Arriving(writer, None if part.start else _check_if_known(name))
        complete = await _receive(request, place, upload_id, arriving, most_bytes=part.end - part.start)
        if arriving.size:
            await run_in_threadpool(writer.keep)
            added = await place.lane.fetch(statements.add_segment(upload_id=upload_id, key=key, size=arriving.size))
            kept = added is not None
            if added is None:
                raise _wrong_offset(None)
            if added["size"] == added["total"]:
                return await finish(request, place, name)
        if complete and part.start + arriving.size < part.end:
            raise InvalidRequest("The body is shorter than its Content-Range.", code="range_mismatch")
    finally:
        await run_in_threadpool(writer.drop)
        if not kept:
            with suppress(StorageError):
                await run_in_threadpool(place.storage.delete, key)
    return progress(name, part.start + arriving.size, part.total)


async def tell_progress(request: Request, place: Place, name: str, total: int) -> Response:
    """How much of the file is there, for a client that lost count. A file that is whole is shown."""
    held = services.of(request)
    row = await place.lane.fetch(statements.partial(data_source_id=place.data_source_id, name=name))
    if row is not None and row["total"] == total:
        if row["size"] == total:
            return await finish(request, place, name)
        return progress(name, row["size"], total)
    async with held.turn():
        found = await run_in_threadpool(_find, held, get_actor(request), place.data_source_id, name)
    if found is not None and found.size == total:
        return JSONResponse(service.render(found).model_dump(mode="json"), headers={"ETag": f'"{found.etag}"'})
    return progress(name, 0, total)


async def finish(request: Request, place: Place, name: str) -> Response:
    """Read a file back that came in parts, and show it. Raises `UnsupportedMediaType`, `Conflict`."""
    held = services.of(request)
    row = await place.lane.fetch(statements.partial(data_source_id=place.data_source_id, name=name))
    if row is None or row["size"] != row["total"]:
        raise _wrong_offset(None)
    try:
        sha256 = await run_in_threadpool(_digest, place.storage, name, row["segments"])
    except UnsupportedMediaType:
        await place.lane.fetch(
            statements.drop_named(data_source_id=place.data_source_id, name=name, states=["partial"])
        )
        raise
    brought = service.Brought(row["id"], name, row["size"], sha256, row["segments"])
    async with held.turn():
        once = Once(get_actor(request), "", None, b"")
        response, _ = await run_in_threadpool(service.show, request, place, brought, once)
    used = {UUID(segment["key"]) for segment in row["segments"]}
    for key in set(row["keys"]) - used:
        with suppress(StorageError):
            await run_in_threadpool(place.storage.delete, key)
    return response


def progress(name: str, received: int, total: int) -> Response:
    """202: so much is there, go on from here."""
    headers = {"Upload-Offset": str(received)} | ({"Range": f"bytes=0-{received - 1}"} if received else {})
    body = UploadProgress(name=name, received=received, total=total)
    return JSONResponse(body.model_dump(mode="json"), status_code=202, headers=headers)


async def _begin_part(request: Request, place: Place, name: str, part: ContentRange, key: UUID) -> UUID:
    actor = get_actor(request)
    assert part.start is not None
    if part.start == 0:
        places.require_room(place, part.total)
        first = _first(actor, place, ids.new(), name, key)
        row = await place.lane.fetch(statements.begin_partial(total=part.total, **first))
        assert row is not None
    else:
        row = await place.lane.fetch(
            statements.go_on(
                data_source_id=place.data_source_id, name=name, start=part.start, total=part.total, key=key
            )
        )
        if row is None:
            known = await place.lane.fetch(statements.partial(data_source_id=place.data_source_id, name=name))
            raise _wrong_offset(known)
    upload_id: UUID = row["id"]
    return upload_id


def _first(actor: Actor, place: Place, upload_id: UUID, name: str, key: UUID) -> dict[str, Any]:
    return {
        "upload_id": upload_id,
        "organization_id": actor.organization_id,
        "data_source_id": place.data_source_id,
        "name": name,
        "content_type": contents.content_type(name),
        "key": key,
        "created_by": actor.member_id,
    }


async def _receive(
    request: Request, place: Place, upload_id: UUID, arriving: Arriving, *, most_bytes: int | None = None
) -> bool:
    async def alive() -> None:
        if await place.lane.fetch(statements.touch(upload_id)) is None:
            raise Conflict("This upload was given up; begin again.", code="upload_given_up")

    if most_bytes is None:
        return await receiving.receive(
            request, arriving, most_bytes=place.config.largest_bytes, too_much=places.too_large(place), alive=alive
        )
    longer = InvalidRequest("The body is longer than its Content-Range.", code="range_mismatch")
    return await receiving.receive(request, arriving, most_bytes=most_bytes, too_much=longer, alive=alive)


async def _forget(place: Place, upload_id: UUID, key: UUID) -> None:
    # If the storage is away now, the row stays, and pruning tries again.
    with suppress(StorageError):
        await run_in_threadpool(place.storage.delete, key)
        await place.lane.fetch(statements.forget([upload_id]))


def _digest(storage: Storage, name: str, segments: list[dict[str, Any]]) -> str:
    digest, head = hashlib.sha256(), bytearray()
    reader = Segments(storage, [UUID(segment["key"]) for segment in segments])
    try:
        while data := reader.read(COPY_BYTES):
            head += data[: contents.HEAD_BYTES - len(head)]
            digest.update(data)
    finally:
        reader.close()
    contents.check(name, bytes(head))
    return digest.hexdigest()


def _check_if_known(name: str) -> Callable[[bytes], None]:
    """Refuses early; a first part of a few bytes is judged with the rest, when the file is whole."""
    return lambda head: contents.check(name, head) if len(head) >= contents.ENOUGH_BYTES else None


def _announced(request: Request) -> int:
    length = request.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else 0


def _wrong_offset(known: dict[str, Any] | None) -> Conflict:
    there = "Nothing" if known is None else f"{known['size']} of {known['total']} bytes"
    return Conflict(
        f"This part does not go on from what is there. {there} is kept of this file.",
        code="offset_mismatch",
        hint="Ask with `Content-Range: bytes */<size>` and an empty body, then go on from `Upload-Offset`.",
    )


def _find(held: Services, actor: Actor, data_source_id: UUID, name: str) -> Upload | None:
    with db.session(held.engine, actor.organization_id) as session:
        return service.find(session, actor, data_source_id, name)
