"""Routes of uploads."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from sqlmodel import col
from starlette.responses import Response

from headwater import idempotency
from headwater.errors import NotFound
from headwater.uploads.rows import Upload
from headwater_api import openapi, pagination, services
from headwater_api.data_sources import service as data_sources
from headwater_api.dependencies import ActorDep, DataSourceId, ProjectId, SessionDep, get_actor
from headwater_api.guard import GuardedRoute, allow
from headwater_api.once import IdempotencyKey, Once
from headwater_api.pagination import CursorQuery, Order, Page, SortKey
from headwater_api.transaction import TransactionDep
from headwater_api.uploads import naming, places, ranges, service, storing
from headwater_api.uploads.schemas import UploadProgress, UploadRead

router = APIRouter(route_class=GuardedRoute, tags=["uploads"])

_ALL: Final = "/projects/{project_id}/data-sources/{data_source_id}/uploads"
_ONE: Final = _ALL + "/{name}"
_BY_NAME: Final = [Order(SortKey(col(Upload.name)), descending=False)]
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The file itself, as it is.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_ETAG: Final = {"ETag": {"description": "The file's, for `If-Match`.", "schema": {"type": "string"}}}
_OFFSET: Final = {
    "Upload-Offset": {"description": "Bytes that are kept; go on from here.", "schema": {"type": "integer"}},
    "Range": {"description": "The same as a range, if anything is kept.", "schema": {"type": "string"}},
}


@router.post(
    _ALL,
    status_code=201,
    summary="Upload a file",
    response_model=UploadRead,
    responses={
        201: {"headers": _ETAG | openapi.REPLAYED},
        **openapi.refusals(409, 412, 413, 415, 422),
    },
    openapi_extra=_BODY,
)
@allow("upload:write", streams=True)
async def upload_file(
    project_id: ProjectId,
    data_source_id: DataSourceId,
    request: Request,
    name: Annotated[str, Query(max_length=naming.LONGEST, description="The file's name; no path.")],
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Upload a file: the body is its bytes. A file of the same name is replaced when the last byte has come.

    Nothing is shown of a body that breaks off; a large file can be sent in parts with `PUT`. The name must end in one
    of the source's `allowed_extensions`, and the first bytes must not belie it (`415`).
    """
    place = await places.find_place(request, project_id, data_source_id, name)
    places.check_head(request, place, name)

    def once(sha256: str) -> Once:
        fingerprint = idempotency.fingerprint(
            services.of(request).pepper,
            method=request.method,
            path=f"{request.url.path}?{name}",
            body=sha256.encode(),
        )
        return Once(get_actor(request), f"POST {_ALL}", idempotency_key, fingerprint)

    async with storing.storage_answers():
        return await storing.store_whole(request, place, name, once)


@router.put(
    _ONE,
    status_code=201,
    summary="Upload a file, whole or in parts",
    response_model=UploadRead,
    responses={
        200: {"model": UploadRead, "description": "The file is there already", "headers": _ETAG},
        201: {"headers": _ETAG},
        202: {"model": UploadProgress, "description": "A part is there; send the next one", "headers": _OFFSET},
        **openapi.refusals(409, 412, 413, 415),
    },
    openapi_extra=_BODY,
)
@allow("upload:write", streams=True)
async def put_upload(
    project_id: ProjectId,
    data_source_id: DataSourceId,
    name: str,
    request: Request,
    content_range: Annotated[
        str | None,
        Header(
            max_length=100,
            description="`bytes <first>-<last>/<size>` for a part, `bytes */<size>` to ask how much is there.",
        ),
    ] = None,
) -> Response:
    """Upload a file under its name. Without `Content-Range` it is the same as `POST`.

    With one, the body is a part: parts follow one another, and each is answered `202` with `Upload-Offset`, the last
    one `201` with the file. If the connection breaks off, what had come is kept for a day: send an empty body with
    `Content-Range: bytes */<size>` to hear how much that is, and go on from there (`409 offset_mismatch` from anywhere
    else). A part from byte 0 begins anew.
    """
    place = await places.find_place(request, project_id, data_source_id, name)
    places.check_head(request, place, name)
    async with storing.storage_answers():
        if content_range is None:
            return await storing.store_whole(
                request, place, name, lambda _: Once(get_actor(request), f"PUT {_ONE}", None, b"")
            )
        part = ranges.parse(content_range)
        if part.total > place.config.largest_bytes:
            raise places.too_large(place)
        if part.start is None:
            return await storing.tell_progress(request, place, name, part.total)
        return await storing.store_part(request, place, name, part)


@router.get(_ALL, summary="List the uploaded files", responses=openapi.refusals(409))
@allow("data_source:read")
def list_uploads(
    project_id: ProjectId,
    data_source_id: DataSourceId,
    request: Request,
    query: Annotated[CursorQuery, Query()],
    actor: ActorDep,
    session: SessionDep,
) -> Page[UploadRead]:
    """List the files that were uploaded to a data source, by name."""
    source = data_sources.find(session, actor.organization_id, project_id=project_id, data_source_id=data_source_id)
    places.require_capability(source.type)
    rows, next_cursor = pagination.fetch(
        session,
        service.stored(actor.organization_id, data_source_id),
        orders=_BY_NAME,
        query=query,
        cursors=pagination.cursors(request),
    )
    return pagination.page_of([service.render(row[0]) for row in rows], next_cursor)


@router.get(_ONE, summary="Read about an uploaded file", responses={200: {"headers": _ETAG}, **openapi.refusals(409)})
@allow("data_source:read")
def get_upload(
    project_id: ProjectId,
    data_source_id: DataSourceId,
    name: str,
    actor: ActorDep,
    session: SessionDep,
    response: Response,
) -> UploadRead:
    """Size, checksum and times of one file."""
    source = data_sources.find(session, actor.organization_id, project_id=project_id, data_source_id=data_source_id)
    places.require_capability(source.type)
    found = service.find(session, actor, data_source_id, name)
    if found is None:
        raise NotFound
    response.headers["ETag"] = f'"{found.etag}"'
    return service.render(found)


@router.delete(_ONE, status_code=204, summary="Delete an uploaded file", responses=openapi.refusals(409, 412))
@allow("upload:write")
def delete_upload(
    project_id: ProjectId,
    data_source_id: DataSourceId,
    name: str,
    request: Request,
    transaction: TransactionDep,
) -> None:
    """Delete a file. What a sync brought in from it stays until the next one, which finds it missing."""
    source = data_sources.find(
        transaction.session,
        transaction.organization_id,
        project_id=project_id,
        data_source_id=data_source_id,
    )
    places.require_capability(source.type)
    service.delete(transaction, request, project_id=project_id, data_source_id=data_source_id, name=name)
