"""The routes that start a job: each answers at once, with the job."""

from collections.abc import Callable, Coroutine
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from headwater import ids
from headwater.errors import Conflict, FieldError, InvalidRequest, NotFound
from headwater.jobs import reading
from headwater.jobs.kinds import CONNECTION_TEST, FILE_LISTING, KINDS, SYNC, TABLE_DISCOVERY, Kind
from headwater_api import openapi, services
from headwater_api.dependencies import DataSourceId, JobId, ProjectId, get_actor
from headwater_api.guard import GuardedRoute, allow
from headwater_api.jobs import drafts, rendering, submitting
from headwater_api.jobs.schemas import (
    ConnectionTestStart,
    FileListingStart,
    JobRead,
    RetryStart,
    Start,
    SyncStart,
    TableDiscoveryStart,
    UnsavedTestStart,
)
from headwater_api.jobs.submitting import Order, Terms, TermsDep
from headwater_api.once import LONGEST_KEY

router = APIRouter(route_class=GuardedRoute, tags=["jobs"])

_HEADERS: Final = (
    openapi.LOCATION
    | openapi.REPLAYED
    | {
        "ETag": {"description": "Changes with the job's state.", "schema": {"type": "string"}},
        "Retry-After": {"description": "Seconds after which to ask again.", "schema": {"type": "integer"}},
        "Preference-Applied": {"description": "The `wait` that was granted.", "schema": {"type": "string"}},
    }
)
_STARTS: Final[dict[str, Any]] = {
    "status_code": 202,
    "response_model": JobRead,
    "response_description": "The job, queued",
    "responses": {
        **openapi.refusals(409, 413, 415, 422),
        200: {"model": JobRead, "description": "The job ended within `Prefer: wait`", "headers": _HEADERS},
        202: {"headers": _HEADERS},
    },
}
_SOURCE: Final = "/projects/{project_id}/data-sources/{data_source_id}"


async def _start(
    request: Request, kind: Kind, project_id: UUID, data_source_id: UUID, start: Start | None, terms: Terms
) -> Response:
    start = start or Start()
    order = Order(
        kind=kind,
        project_id=project_id,
        data_source_id=data_source_id,
        params=start.params(),
        priority=start.priority,
        deadline_seconds=start.deadline_seconds,
    )
    return await submitting.submit(request, order, terms=terms, start=start)


def _plain(kind: Kind, model: type[Start]) -> Callable[[Request], Coroutine[Any, Any, Response | None]]:
    """Starts a job of this kind from a request against which there is nothing to say."""

    async def start(request: Request) -> Response | None:
        project_id = ids.decode("proj", request.path_params["project_id"])
        data_source_id = ids.decode("dsrc", request.path_params["data_source_id"])
        key = request.headers.get("Idempotency-Key")
        if key is not None and not 1 <= len(key) <= LONGEST_KEY:
            return None
        try:
            body = model.model_validate(await request.json() if await request.body() else {})
        except (ValueError, RecursionError, InvalidRequest):
            return None
        terms = await submitting.get_terms(key, request.headers.get("Prefer"))
        return await _start(request, kind, project_id, data_source_id, body, terms)

    return start


@router.post("/projects/{project_id}/data-sources/test", summary="Test a config that is not saved", **_STARTS)
@allow("data_source:test", secrets="credentials")
async def submit_unsaved_test(
    request: Request,
    project_id: ProjectId,
    start: UnsavedTestStart,
    terms: TermsDep,
) -> Response:
    """Test a connection before you save it. The credentials are sealed, used once, and destroyed when the test ends."""
    order = await drafts.order(services.of(request), get_actor(request), project_id, start)
    return await submitting.submit(request, order, terms=terms, start=start)


@router.post(_SOURCE + "/test", summary="Test the connection", **_STARTS)
@allow("data_source:test", plain=_plain(CONNECTION_TEST, ConnectionTestStart))
async def submit_connection_test(
    request: Request,
    project_id: ProjectId,
    data_source_id: DataSourceId,
    terms: TermsDep,
    start: ConnectionTestStart | None = None,
) -> Response:
    """Test the connection with the config and credentials of now.

    A test that finds the connection broken is a job that **succeeded**, with `result.success` false and each check's
    code and hint.
    """
    return await _start(request, CONNECTION_TEST, project_id, data_source_id, start, terms)


@router.post(_SOURCE + "/files", summary="List the files", **_STARTS)
@allow("data_source:list", plain=_plain(FILE_LISTING, FileListingStart))
async def list_data_source_files(
    request: Request,
    project_id: ProjectId,
    data_source_id: DataSourceId,
    terms: TermsDep,
    start: FileListingStart | None = None,
) -> Response:
    """List what is there now, into the catalogue. With `limit` it is a preview, and marks nothing missing."""
    return await _start(request, FILE_LISTING, project_id, data_source_id, start, terms)


@router.post(_SOURCE + "/tables", summary="Discover the tables", **_STARTS)
@allow("data_source:list")
async def discover_data_source_tables(
    request: Request,
    project_id: ProjectId,
    data_source_id: DataSourceId,
    terms: TermsDep,
    start: TableDiscoveryStart | None = None,
) -> Response:
    """Look which tables are there. Types without tables answer 409 `capability_missing`."""
    return await _start(request, TABLE_DISCOVERY, project_id, data_source_id, start, terms)


@router.post(_SOURCE + "/sync", summary="Sync the records", **_STARTS)
@allow("data_source:sync", plain=_plain(SYNC, SyncStart))
async def sync_data_source(
    request: Request,
    project_id: ProjectId,
    data_source_id: DataSourceId,
    terms: TermsDep,
    start: SyncStart | None = None,
) -> Response:
    """Bring in what is new and changed.

    One sync of a source lives at a time: the same request again answers 200 with the live job, another one 409
    `sync_in_progress` with its link.
    """
    return await _start(request, SYNC, project_id, data_source_id, start, terms)


@router.post("/jobs/{job_id}/retry", summary="Retry a job", **_STARTS)
@allow("job:retry")
async def retry_job(
    request: Request,
    job_id: JobId,
    terms: TermsDep,
    start: RetryStart | None = None,
) -> Response:
    """Do the work of an ended job once more, as a new job with `retry_of`, on the config that counts now.

    409 `job_not_ended` while the job lives, 409 `unsaved_test` for the test of an unsaved config: its secrets are gone.
    """
    actor = get_actor(request)
    row = (
        await services.of(request)
        .lane(actor.organization_id)
        .fetch(
            reading.order(organization_id=actor.organization_id, job_id=job_id),
        )
    )
    if row is None:
        raise NotFound
    if row["is_draft"]:
        raise Conflict(
            "The test of an unsaved config cannot be retried.",
            code="unsaved_test",
            hint="Its secrets are destroyed; send the test again.",
        )
    if row["status"] not in rendering.FINAL:
        raise Conflict("This job has not ended yet.", code="job_not_ended", links={"job": rendering.link(job_id)})
    kind, start = KINDS[row["kind"]], start or RetryStart()
    if start.deadline_seconds is not None and start.deadline_seconds > kind.longest_seconds:
        detail = f"For this kind of job use at most {kind.longest_seconds}."
        raise InvalidRequest(errors=[FieldError("/deadline_seconds", "less_than_equal", detail)])
    order = Order(
        kind=kind,
        project_id=row["project_id"],
        data_source_id=row["data_source_id"],
        params=row["params"],
        priority=row["priority"] if start.priority is None else start.priority,
        deadline_seconds=start.deadline_seconds,
        usual_deadline_seconds=row["deadline_seconds"],
        retry_of=job_id,
    )
    try:
        return await submitting.submit(request, order, terms=terms, start=start)
    except NotFound:
        raise Conflict("The data source of this job was deleted.", code="source_deleted") from None
