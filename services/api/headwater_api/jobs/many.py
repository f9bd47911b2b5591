"""Many jobs with one request: start them, cancel them."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from headwater import db
from headwater.db import Row
from headwater.errors import NotFound, RequestError
from headwater.jobs import many, statements
from headwater.jobs.doorbell import Ring
from headwater.jobs.kinds import KINDS
from headwater_api import openapi, problems, services, wire
from headwater_api.dependencies import ActorDep, TurnDep
from headwater_api.guard import GuardedRoute, allow
from headwater_api.jobs import submitting
from headwater_api.jobs.rendering import JobView
from headwater_api.jobs.schemas import (
    ConnectionTestStart,
    FileListingStart,
    JobRead,
    KindName,
    SyncStart,
    TableDiscoveryStart,
)
from headwater_api.jobs.submitting import Order
from headwater_api.once import Answer, OnceDep
from headwater_api.problems import ProblemField

router = APIRouter(route_class=GuardedRoute, tags=["jobs"])

_MOST: Final = 200
_ONCE: Final[dict[int | str, dict[str, Any]]] = {200: {"headers": openapi.REPLAYED}, **openapi.refusals(413, 415, 422)}
_NAMED: Final = frozenset({"kind", "data_source_id"})


class ConnectionTestEntry(ConnectionTestStart):
    """A connection test of a source."""

    RUN = ConnectionTestStart.RUN | _NAMED
    kind: Literal["connection_test"]
    data_source_id: wire.DataSourceId


class FileListingEntry(FileListingStart):
    """A listing of a source."""

    RUN = FileListingStart.RUN | _NAMED
    kind: Literal["file_listing"]
    data_source_id: wire.DataSourceId


class TableDiscoveryEntry(TableDiscoveryStart):
    """A discovery of a source's tables."""

    RUN = TableDiscoveryStart.RUN | _NAMED
    kind: Literal["table_discovery"]
    data_source_id: wire.DataSourceId


class SyncEntry(SyncStart):
    """A sync of a source."""

    RUN = SyncStart.RUN | _NAMED
    kind: Literal["sync"]
    data_source_id: wire.DataSourceId


Entry = Annotated[ConnectionTestEntry | FileListingEntry | TableDiscoveryEntry | SyncEntry, Field(discriminator="kind")]


class BatchStart(BaseModel):
    """Which jobs to start."""

    model_config = ConfigDict(extra="forbid", strict=True)

    jobs: list[Entry] = Field(min_length=1, max_length=_MOST)


class EntryError(BaseModel):
    """Why an entry was refused, as its own route would have said it."""

    code: str = Field(examples=["data_source_inactive"])
    detail: str
    errors: list[ProblemField]


class BatchOutcome(BaseModel):
    """What became of one entry."""

    index: int = Field(description="The entry's place in the request, from 0.")
    status: int = Field(description="What its own route would have answered: 202 queued, 200 a live sync, 4xx refused.")
    job: JobRead | None
    error: EntryError | None


class BatchAnswer(BaseModel):
    """What became of each entry, in the request's order."""

    data: list[BatchOutcome]


class CancelFilter(BaseModel):
    """Which jobs to cancel: those for which all that is given holds. At least one filter is needed."""

    model_config = ConfigDict(extra="forbid")

    kind: list[KindName] | None = Field(default=None, min_length=1, max_length=10)
    status: list[Literal["queued", "running"]] | None = Field(default=None, min_length=1, max_length=2)
    data_source_id: wire.DataSourceId | None = None
    project_id: wire.ProjectId | None = None
    ids: list[wire.JobId] | None = Field(default=None, min_length=1, max_length=_MOST)
    created_before: wire.Instant | None = None
    reason: str | None = Field(default=None, max_length=500, examples=["wrong bucket"])

    @model_validator(mode="after")
    def _names_something(self) -> "CancelFilter":
        if not self.model_fields_set - {"reason"}:
            raise ValueError("name at least one of kind, status, data_source_id, project_id, ids, created_before")
        return self


class Cancelled(BaseModel):
    """One job that was asked to stop."""

    id: wire.JobId
    status: Literal["cancelled", "cancelling"]


class CancelAnswer(BaseModel):
    """What was cancelled; `has_more`: the filter matches others still, so ask again."""

    data: list[Cancelled]
    has_more: bool


@router.post("/jobs:batch", summary="Start many jobs", response_model=BatchAnswer, responses=_ONCE)
@allow("job:submit")
def start_jobs(request: Request, actor: ActorDep, body: BatchStart, once: OnceDep, _turn: TurnDep) -> Response:
    """Start up to 200 jobs. Each entry has an outcome of its own: one that is refused does not stop the others.

    All are written in one transaction, so that with an `Idempotency-Key` all of them start once, or none.
    """
    held = services.of(request)
    started: list[Ring] = []
    with db.session(held.engine, actor.organization_id) as session:

        def act() -> Answer:
            sources = {
                row["id"]: row["project_id"]
                for row in db.run_in(
                    session,
                    many.projects_of(
                        organization_id=actor.organization_id,
                        data_source_ids=[entry.data_source_id for entry in body.jobs],
                    ),
                )
                if actor.sees(row["project_id"])
            }
            orders = {
                index: _order(entry, sources[entry.data_source_id])
                for index, entry in enumerate(body.jobs)
                if entry.data_source_id in sources
            }
            requests = {index: submitting.request_of(request, order) for index, order in orders.items()}
            submits = statements.submit(organization_id=actor.organization_id, requests=list(requests.values()))
            rows = db.run_in(session, submits)
            answers = dict(zip(orders, (row["answer"] for row in rows), strict=True))
            outcomes = [
                _outcome(request, index, answers.get(index, {"outcome": "not_found"}))
                for index in range(len(body.jobs))
            ]
            started.extend(
                Ring(orders[index].id, orders[index].kind.name, actor.organization_id)
                for index, answer in answers.items()
                if answer["outcome"] == "created" and requests[index]["rung"]
            )
            return Answer(200, {"data": outcomes})

        response = once.perform(session, act)
    for ring in started:
        held.bellboy.ring(ring)
    return response


@router.post("/jobs:cancel", summary="Cancel many jobs", response_model=CancelAnswer, responses=_ONCE)
@allow("job:cancel")
def cancel_jobs(request: Request, actor: ActorDep, body: CancelFilter, once: OnceDep, _turn: TurnDep) -> Response:
    """Ask up to 200 jobs that match the filter to stop, the oldest first. What is queued is cancelled at once."""
    held = services.of(request)
    cancelled: list[UUID] = []
    with db.session(held.engine, actor.organization_id) as session:

        def act() -> Answer:
            matching = many.lock_matching(
                organization_id=actor.organization_id,
                kinds=body.kind,
                statuses=body.status,
                data_source_id=body.data_source_id,
                project_id=body.project_id,
                project_ids=actor.project_ids,
                job_ids=body.ids,
                created_before=body.created_before,
                limit=_MOST + 1,
            )
            found = [row["id"] for row in db.run_in(session, matching)]
            rows = db.run_in(
                session,
                many.cancel(
                    organization_id=actor.organization_id,
                    job_ids=found[:_MOST],
                    actor_id=actor.member_id,
                    key_id=actor.key_id,
                    reason=body.reason,
                    request_id=request.state.request_id,
                    address=request.client.host if request.client else None,
                ),
            )
            cancelled.extend(row["id"] for row in rows)
            data = [Cancelled(id=row["id"], status=row["status"]) for row in rows]
            answer = CancelAnswer(data=data, has_more=len(found) > _MOST)
            return Answer(200, answer.model_dump(mode="json"))

        response = once.perform(session, act)
    if cancelled:
        # Behind the commit: a NOTIFY inside would serialise all commits.
        notice = statements.notify_all(cancelled)
        with held.engine.begin() as connection:
            connection.exec_driver_sql(notice.text, dict(notice.parameters))
    return response


def _order(entry: ConnectionTestEntry | FileListingEntry | TableDiscoveryEntry | SyncEntry, project_id: UUID) -> Order:
    return Order(
        kind=KINDS[entry.kind],
        project_id=project_id,
        data_source_id=entry.data_source_id,
        params=entry.params(),
        priority=entry.priority,
        deadline_seconds=entry.deadline_seconds,
    )


def _outcome(request: Request, index: int, answer: Row) -> dict[str, Any]:
    if answer["outcome"] in ("created", "joined"):
        view = JobView(answer["job"], services.of(request).caps)
        return {
            "index": index,
            "status": 202 if answer["outcome"] == "created" else 200,
            "job": view.content,
            "error": None,
        }
    refusal = NotFound() if answer["outcome"] == "not_found" else submitting.refusal(answer["outcome"], answer)
    return {"index": index, "status": problems.status_of(refusal), "job": None, "error": _error(index, refusal)}


def _error(index: int, refusal: RequestError) -> dict[str, Any]:
    fields = [
        {"pointer": f"/jobs/{index}{field.pointer}", "code": field.code, "detail": field.detail}
        for field in refusal.errors
    ]
    detail = f"{refusal.message} {refusal.hint}" if refusal.hint else refusal.message
    return {"code": refusal.code, "detail": detail, "errors": fields}
