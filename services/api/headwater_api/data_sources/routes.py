"""Routes of data sources."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select
from sqlmodel import col

from headwater import db, ids
from headwater.data_sources.rows import DataSource, Project
from headwater.errors import NotFound
from headwater.jobs import statements
from headwater_api import openapi, pagination, preconditions, services
from headwater_api.data_sources import lookup, planning, service
from headwater_api.data_sources.lookup import DataSourceQuery
from headwater_api.data_sources.schemas import DataSourceCreate, DataSourceRead, DataSourceUpdate
from headwater_api.dependencies import ActorDep, DataSourceId, ProjectId, SessionDep, TurnDep
from headwater_api.guard import GuardedRoute, allow
from headwater_api.once import Answer, OnceDep
from headwater_api.pagination import Page
from headwater_api.transaction import Transaction, TransactionDep, begin

router = APIRouter(route_class=GuardedRoute, tags=["data sources"])

_ALL: Final = "/projects/{project_id}/data-sources"
_ONE: Final = "/projects/{project_id}/data-sources/{data_source_id}"
_CHANGE: Final[dict[str, Any]] = {
    "responses": {200: {"headers": openapi.ETAG}, **openapi.refusals(409, 412, 413, 415, 428)},
    "openapi_extra": openapi.IF_MATCH_REQUIRED,
}


@router.post(
    _ALL,
    status_code=201,
    summary="Register a data source",
    response_model=DataSourceRead,
    responses={
        201: {"headers": openapi.ETAG | openapi.LOCATION | openapi.REPLAYED},
        **openapi.refusals(409, 413, 415, 422),
    },
)
@allow("data_source:write", secrets="credentials")
def create_data_source(
    project_id: ProjectId, body: DataSourceCreate, request: Request, transaction: TransactionDep, once: OnceDep
) -> Response:
    """Register a place where data lives. Nothing is contacted: test the connection next.

    `config` is checked against its type's schema, `credentials` are sealed in the same transaction, and a JSON Schema
    in `validation` must compile. Names are unique per project and `env` (`409 name_taken`).
    """
    plan = planning.check_new(transaction, body)

    def act() -> Answer:
        data_source_id = service.create(transaction, project_id, plan, quota=services.of(request).quotas)
        source, revision = lookup.get(
            transaction.session, transaction.organization_id, project_id=project_id, data_source_id=data_source_id
        )
        location = f"/api/v1/projects/{ids.encode('proj', project_id)}/data-sources/{ids.encode('dsrc', source.id)}"
        return Answer(
            status=201,
            body=source.model_dump(mode="json"),
            headers={"Location": location, "ETag": preconditions.etag(revision)},
            subject_id=data_source_id,
        )

    return once.perform(transaction.session, act)


@router.get(_ALL, summary="List the data sources of a project")
@allow("data_source:read")
def list_data_sources(
    project_id: ProjectId,
    request: Request,
    query: Annotated[DataSourceQuery, Query()],
    actor: ActorDep,
    session: SessionDep,
) -> Page[DataSourceRead]:
    """List a project's data sources, the newest first unless `sort` says otherwise."""
    known = select(col(Project.id)).where(
        col(Project.id) == project_id,
        col(Project.organization_id) == actor.organization_id,
        col(Project.deleted_at).is_(None),
    )
    if session.execute(known).first() is None:
        raise NotFound
    within = col(DataSource.project_id) == project_id
    found = lookup.page(session, actor.organization_id, query, within, cursors=pagination.cursors(request))
    return pagination.page_of(*found)


@router.get("/data-sources", summary="List all data sources")
@allow("data_source:read")
def list_all_data_sources(
    request: Request, query: Annotated[DataSourceQuery, Query()], actor: ActorDep, session: SessionDep
) -> Page[DataSourceRead]:
    """List the data sources of every project that you may see, with the same filters and sorts."""
    within = [] if actor.project_ids is None else [col(DataSource.project_id).in_(actor.project_ids)]
    found = lookup.page(session, actor.organization_id, query, *within, cursors=pagination.cursors(request))
    return pagination.page_of(*found)


@router.get(_ONE, summary="Read a data source", responses={200: {"headers": openapi.ETAG}})
@allow("data_source:read")
def get_data_source(
    project_id: ProjectId, data_source_id: DataSourceId, actor: ActorDep, session: SessionDep, response: Response
) -> DataSourceRead:
    """Read one data source. Its `ETag` counts what users set; what jobs find never moves it."""
    source, revision = lookup.get(session, actor.organization_id, project_id=project_id, data_source_id=data_source_id)
    response.headers["ETag"] = preconditions.etag(revision)
    return source


@router.patch(_ONE, summary="Change a data source", **_CHANGE)
@allow("data_source:write", if_match="required", secrets="credentials")
def update_data_source(
    project_id: ProjectId,
    data_source_id: DataSourceId,
    request: Request,
    transaction: TransactionDep,
    response: Response,
    body: DataSourceUpdate | None = None,
) -> DataSourceRead:
    """Change what is sent (JSON Merge Patch, RFC 7396). Needs `If-Match`.

    A change of `config`, `validation` or `reading` makes a new version. Pointing the source elsewhere destroys the
    credentials that are not sent again in the same request; its status is then `untested`.
    """
    return _change(transaction, request, response, body, project_id=project_id, data_source_id=data_source_id)


@router.put(_ONE, summary="Change a data source (the same as PATCH)", **_CHANGE)
@allow("data_source:write", if_match="required", secrets="credentials")
def put_data_source(
    project_id: ProjectId,
    data_source_id: DataSourceId,
    request: Request,
    transaction: TransactionDep,
    response: Response,
    body: DataSourceUpdate | None = None,
) -> DataSourceRead:
    """The same as `PATCH`: only what is sent changes, so that secrets that you cannot read are not lost."""
    return _change(transaction, request, response, body, project_id=project_id, data_source_id=data_source_id)


@router.delete(
    _ONE,
    status_code=204,
    summary="Delete a data source",
    responses=openapi.refusals(412, 428),
    openapi_extra=openapi.IF_MATCH_REQUIRED,
)
@allow("data_source:write", if_match="required")
def delete_data_source(
    project_id: ProjectId, data_source_id: DataSourceId, request: Request, actor: ActorDep, _turn: TurnDep
) -> None:
    """Delete a data source: its credentials are destroyed and its jobs cancelled at once. Needs `If-Match`.

    What was brought in is kept for 30 days.
    """
    engine = services.of(request).engine
    with db.session(engine, actor.organization_id) as session:
        cancelled = service.delete(
            begin(request, session), request, project_id=project_id, data_source_id=data_source_id
        )
    # After the commit, like every notice: inside, it would serialise all commits.
    with engine.begin() as connection:
        for notice in map(statements.notify, cancelled):
            connection.exec_driver_sql(notice.text, dict(notice.parameters))


def _change(
    transaction: Transaction,
    request: Request,
    response: Response,
    body: DataSourceUpdate | None,
    **place: Any,
) -> DataSourceRead:
    service.update(transaction, request, body or DataSourceUpdate(), **place)
    source, revision = lookup.get(transaction.session, transaction.organization_id, **place)
    response.headers["ETag"] = preconditions.etag(revision)
    return source
