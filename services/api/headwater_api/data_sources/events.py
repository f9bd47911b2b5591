"""The history of a data source."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request
from sqlalchemy import Row, select
from sqlmodel import Session, col

from headwater.access.rows import Member
from headwater.data_sources.rows import Event
from headwater_api import exports, pagination, representations, services
from headwater_api.data_sources import service
from headwater_api.data_sources.schemas import EventRead
from headwater_api.dependencies import ActorDep, DataSourceId, ProjectId, SessionDep
from headwater_api.guard import GuardedRoute, allow
from headwater_api.pagination import CursorQuery, Cursors, Order, Page, Selection, SortKey
from headwater_api.wire import Person

router = APIRouter(route_class=GuardedRoute, tags=["data sources"])

_NEWEST_FIRST: Final = [Order(SortKey(col(Event.number)), descending=True)]
_COLUMNS: Final = ("id", "act", "actor_id", "actor_name", "actor_email", "job_id", "details", "created_at")


@router.get(
    "/projects/{project_id}/data-sources/{data_source_id}/events",
    summary="Read the history of a data source",
    response_model=Page[EventRead],
    responses={200: {"content": representations.DOCUMENTED}},
)
@allow("data_source:read")
def list_data_source_events(
    project_id: ProjectId,
    data_source_id: DataSourceId,
    request: Request,
    query: Annotated[CursorQuery, Query()],
    actor: ActorDep,
    session: SessionDep,
) -> Any:
    """What happened to a data source, the newest first: changes by people and the course of its jobs.

    `Accept: application/x-ndjson` or `text/csv` streams the whole of it.
    """
    service.find(session, actor.organization_id, project_id=project_id, data_source_id=data_source_id)
    form, cursors = representations.chosen(request), pagination.cursors(request)
    if form == "json":
        return pagination.page_of(*_page(session, _selection(actor.organization_id, data_source_id), query, cursors))
    if query.cursor is not None:
        cursors.read(query.cursor)  # refused now: once the stream has begun it is too late
    statement = _selection(actor.organization_id, data_source_id)

    def read(session: Session, query: CursorQuery) -> tuple[list[EventRead], str | None]:
        return _page(session, statement, query, cursors)

    found = exports.batches(services.of(request), actor.organization_id, read, cursor=query.cursor)
    return exports.stream(found, form, columns=_COLUMNS, flat=_flat)


def _selection(organization_id: UUID, data_source_id: UUID) -> Selection:
    return (
        select(Event, Member)
        .join(Member, col(Event.actor_id) == Member.id, isouter=True)
        .where(col(Event.organization_id) == organization_id, col(Event.data_source_id) == data_source_id)
    )


def _page(
    session: Session, statement: Selection, query: CursorQuery, cursors: Cursors
) -> tuple[list[EventRead], str | None]:
    rows, next_cursor = pagination.fetch(session, statement, orders=_NEWEST_FIRST, query=query, cursors=cursors)
    return [_render(row) for row in rows], next_cursor


def _render(row: Row[*tuple[Any, ...]]) -> EventRead:
    event, actor = row[:2]
    person = None if actor is None else Person.model_validate(actor, from_attributes=True)
    return EventRead(**event.model_dump(include=set(EventRead.model_fields)), actor=person)


def _flat(entry: dict[str, Any]) -> list[Any]:
    actor = entry["actor"] or {"id": None, "name": None, "email": None}
    people = {"actor_id": actor["id"], "actor_name": actor["name"], "actor_email": actor["email"]}
    return [(entry | people)[column] for column in _COLUMNS]
