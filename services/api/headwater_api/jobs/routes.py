"""Reading jobs, waiting for them, watching them, cancelling them."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Header, Query, Request
from fastapi.sse import EventSourceResponse
from pydantic import BeforeValidator, ConfigDict, Field
from starlette.responses import Response

from headwater import clock, db, ids
from headwater.db import Row
from headwater.errors import Conflict, FieldError, InvalidRequest, NotFound, Unavailable
from headwater.jobs import reading, statements
from headwater_api import openapi, pagination, services, wire
from headwater_api.actor import Actor
from headwater_api.dependencies import ActorDep, JobId, TurnDep, get_actor
from headwater_api.guard import GuardedRoute, allow
from headwater_api.jobs import rendering, streaming
from headwater_api.jobs.rendering import JobView
from headwater_api.jobs.schemas import AttemptList, CancelRequest, JobList, JobRead, KindName, Status
from headwater_api.once import Answer, OnceDep
from headwater_api.pagination import CursorQuery
from headwater_api.services import Services

router = APIRouter(route_class=GuardedRoute, tags=["jobs"])

_BIGGEST_EVENT: Final = 2**63 - 1
_ETAG: Final = {
    "ETag": {
        "description": "Changes with status, attempt and cancel; progress moves without it.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds after which to ask again; not on an ended job.",
        "schema": {"type": "integer"},
    },
}


def _listed(value: Any) -> Any:
    """`a,b` and `a` repeated mean the same."""
    return [part for item in value for part in str(item).split(",")] if isinstance(value, list) else value


class JobQuery(CursorQuery):
    """Filters of the list of jobs. Those that take many values take them repeated, or separated by commas."""

    model_config = ConfigDict(extra="forbid")

    kind: Annotated[list[KindName], BeforeValidator(_listed)] = Field(default=[], max_length=10)
    status: Annotated[list[Status], BeforeValidator(_listed)] = Field(default=[], max_length=10)
    data_source_id: wire.DataSourceId | None = None
    project_id: wire.ProjectId | None = None
    ids: Annotated[list[wire.JobId], BeforeValidator(_listed)] | None = Field(default=None, max_length=200)
    created_after: wire.Instant | None = None
    sort: Literal["created_at", "-created_at"] = "-created_at"


@router.get("/jobs", summary="List jobs", response_model=JobList)
@allow("job:read")
async def list_jobs(request: Request, actor: ActorDep, query: Annotated[JobQuery, Query()]) -> Response:
    """The jobs of your organization, the newest first."""
    held = services.of(request)
    cursors = pagination.cursors(request)
    after = None
    if query.cursor is not None:
        created_at, last_id = cursors.read(query.cursor)
        after = (datetime.fromisoformat(created_at), UUID(last_id))
    statement = reading.page(
        organization_id=actor.organization_id,
        kinds=query.kind,
        statuses=query.status,
        data_source_id=query.data_source_id,
        project_id=query.project_id,
        project_ids=actor.project_ids,
        job_ids=query.ids,
        created_after=query.created_after,
        descending=query.sort.startswith("-"),
        after=after,
        limit=query.page_size + 1,
    )
    rows = await held.lane(actor.organization_id).fetch_all(statement)
    more, rows = len(rows) > query.page_size, rows[: query.page_size]
    next_cursor = cursors.write([rows[-1]["created_at"], rows[-1]["id"]]) if more else None
    return _json(
        {"data": [rendering.job(row["job"], held.caps) for row in rows], "next_cursor": next_cursor, "has_more": more}
    )


async def _get_job_now(request: Request) -> Response:
    job_id = ids.decode("job", request.path_params["job_id"])
    return await get_job(request, job_id, if_none_match=request.headers.get("If-None-Match"))


@router.get(
    "/jobs/{job_id}",
    summary="Read a job, or wait for it",
    response_model=JobRead,
    responses={200: {"headers": _ETAG}, 304: {"description": "`If-None-Match` still holds", "headers": _ETAG}},
)
@allow("job:read", plain=_get_job_now)
async def get_job(
    request: Request,
    job_id: JobId,
    wait: Annotated[float, Query(ge=0, le=30, description="Seconds to wait, at most 30.")] = 0,
    if_none_match: Annotated[str | None, Header(description="An ETag of this job.")] = None,
) -> Response:
    """The job as it is now.

    With `wait` it answers when the job has ended or the time is over. With `wait` and `If-None-Match` it answers when
    the state differs from the ETag, and 304 if it does not within that time.
    """
    held, actor = services.of(request), get_actor(request)
    view = await _read(held, actor, job_id)
    if wait and not view.final and (if_none_match is None or _matches(if_none_match, view)):
        newer = await held.hub.wait(view, until=_awaited(if_none_match), seconds=wait)
        view = newer or await _read(held, actor, job_id)
    if if_none_match is not None and _matches(if_none_match, view):
        return Response(status_code=304, headers=view.headers())
    return Response(view.body, headers=view.headers(), media_type="application/json")


@router.get(
    "/jobs/{job_id}/events",
    summary="Watch a job",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events: `id` is the event's number, `event` its act, such as `job.started`, "
            "`data` a JSON object. `progress` events have no id. The last event's `data.job` is the ended job.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The job has ended and nothing is behind `Last-Event-ID`: do not come again"},
    },
)
@allow("job:read")
async def watch_job(
    request: Request,
    actor: ActorDep,
    job_id: JobId,
    last_event_id: Annotated[str | None, Header(description="The last `id` that you got; resumes behind it.")] = None,
) -> Response:
    """Everything that happens to the job, as it happens, until it has ended."""
    held = services.of(request)
    after = _event_number(last_event_id)
    view = await _read(held, actor, job_id)
    if view.final:
        left = await streaming.behind(held.lane(actor.organization_id).fetch_all, view, streaming.Cursor(after))
        return Response(left, media_type="text/event-stream") if left else Response(status_code=204)
    if held.hub.full:
        raise Unavailable("Too many clients are waiting on this server.", retry_after_seconds=5)
    return EventSourceResponse(streaming.events(held, view, after=after), headers={"X-Accel-Buffering": "no"})


@router.get("/jobs/{job_id}/attempts", summary="List a job's attempts", response_model=AttemptList)
@allow("job:read")
async def list_job_attempts(request: Request, actor: ActorDep, job_id: JobId) -> Response:
    """Every attempt at the job: by which worker, when, and how it ended."""
    held = services.of(request)
    await _read(held, actor, job_id)
    rows = await held.lane(actor.organization_id).fetch_all(
        reading.attempts(organization_id=actor.organization_id, job_id=job_id)
    )
    return _json({"data": [_attempt(row) for row in rows], "next_cursor": None, "has_more": False})


@router.post(
    "/jobs/{job_id}/cancel",
    summary="Cancel a job",
    status_code=202,
    response_model=JobRead,
    response_description="It is stopping",
    responses={
        **openapi.refusals(409, 413, 415, 422),
        200: {"model": JobRead, "description": "It is cancelled"},
        202: {"headers": _ETAG | openapi.REPLAYED},
    },
)
@allow("job:cancel")
def cancel_job(
    request: Request,
    actor: ActorDep,
    job_id: JobId,
    once: OnceDep,
    _turn: TurnDep,
    cancel: CancelRequest | None = None,
) -> Response:
    """Ask the job to stop. What it brought in until then stays. 409 `job_ended` if it ended otherwise."""
    held = services.of(request)
    statement = statements.cancel(
        organization_id=actor.organization_id,
        job_id=job_id,
        actor_id=actor.member_id,
        key_id=actor.key_id,
        reason=cancel.reason if cancel else None,
        request_id=request.state.request_id,
        address=request.client.host if request.client else None,
    )
    with db.session(held.engine, actor.organization_id) as session:
        response = once.perform(session, lambda: _cancelled(db.run_in(session, statement)[0]["answer"], held))
    # Behind the commit: a NOTIFY inside would serialise all commits.
    notice = statements.notify(job_id)
    with held.engine.begin() as connection:
        connection.exec_driver_sql(notice.text, dict(notice.parameters))
    return response


def _cancelled(answer: Row, held: Services) -> Answer:
    if answer["outcome"] == "not_found":
        raise NotFound
    view = JobView(answer["job"], held.caps)
    if answer["outcome"] == "ended":
        raise Conflict(
            f"This job has ended already: {view.row['status']}.",
            code="job_ended",
            links={"job": rendering.link(view.id)},
        )
    return Answer(200 if view.final else 202, view.content, view.headers(), subject_id=view.id)


async def _read(held: Services, actor: Actor, job_id: UUID) -> JobView:
    row = await held.readings.read(actor.organization_id, job_id)
    if row is None:
        raise NotFound
    return JobView(row, held.caps)


def _json(content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


def _matches(if_none_match: str, view: JobView) -> bool:
    """Weak comparison (RFC 9110, section 13.1.2)."""
    candidates = [candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")]
    return "*" in candidates or view.etag.removeprefix("W/") in candidates


def _awaited(if_none_match: str | None) -> Callable[[JobView], bool]:
    if if_none_match is None:
        return lambda view: view.final
    return lambda view: not _matches(if_none_match, view)


def _event_number(last_event_id: str | None) -> int:
    if not last_event_id:
        return 0
    if not (last_event_id.isascii() and last_event_id.isdigit()) or int(last_event_id) > _BIGGEST_EVENT:
        detail = "Give the `id` of the last event that you got."
        raise InvalidRequest(errors=[FieldError("Last-Event-ID", "invalid_event_id", detail)])
    return int(last_event_id)


def _attempt(row: Row) -> dict[str, Any]:
    moments = {name: row[name] and clock.rfc3339(row[name]) for name in ("started_at", "ended_at")}
    return row | moments
