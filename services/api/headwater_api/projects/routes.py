"""Routes of projects."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sqlmodel import col

from headwater import ids
from headwater.data_sources.rows import Project
from headwater_api import openapi, pagination, preconditions
from headwater_api.dependencies import ActorDep, ProjectId, SessionDep
from headwater_api.guard import GuardedRoute, allow
from headwater_api.once import Answer, OnceDep
from headwater_api.pagination import Page, PageQuery, SortKey
from headwater_api.projects import service
from headwater_api.projects.schemas import ProjectCreate, ProjectRead, ProjectUpdate
from headwater_api.transaction import TransactionDep

router = APIRouter(route_class=GuardedRoute, tags=["projects"])

_SORT_KEYS: Final = {
    "name": SortKey(col(Project.name).collate("C")),
    "created_at": SortKey(col(Project.created_at), pagination.parse_moment),
    "updated_at": SortKey(col(Project.updated_at), pagination.parse_moment),
}


class ProjectQuery(PageQuery):
    """How to list projects."""

    sort: str = Field(default="-created_at", max_length=200, description=f"Fields: {', '.join(_SORT_KEYS)}.")
    q: str | None = Field(default=None, min_length=1, max_length=200, description="Part of the name, in any case.")


@router.post(
    "/projects",
    status_code=201,
    summary="Create a project",
    response_model=ProjectRead,
    responses={
        201: {"headers": openapi.ETAG | openapi.LOCATION | openapi.REPLAYED},
        **openapi.refusals(409, 413, 415, 422),
    },
)
@allow("project:create")
def create_project(body: ProjectCreate, transaction: TransactionDep, once: OnceDep) -> Response:
    """Create a folder for data sources. Its name is unique in the organization (`409 name_taken`)."""

    def act() -> Answer:
        project_id = service.create(transaction, body)
        project, revision = service.get(transaction.session, transaction.organization_id, project_id)
        location = f"/api/v1/projects/{ids.encode('proj', project_id)}"
        return Answer(
            status=201,
            body=project.model_dump(mode="json"),
            headers={"Location": location, "ETag": preconditions.etag(revision)},
            subject_id=project_id,
        )

    return once.perform(transaction.session, act)


@router.get("/projects", summary="List projects")
@allow("project:read")
def list_projects(
    request: Request, query: Annotated[ProjectQuery, Query()], actor: ActorDep, session: SessionDep
) -> Page[ProjectRead]:
    """List the organization's projects, the newest first unless `sort` says otherwise."""
    statement = service.visible(actor)
    if query.q is not None:
        statement = statement.where(col(Project.name).icontains(query.q, autoescape=True))
    rows, next_cursor = pagination.fetch(
        session,
        statement,
        orders=pagination.sort_orders(query.sort, _SORT_KEYS, col(Project.id)),
        query=query,
        cursors=pagination.cursors(request),
    )
    return pagination.page_of([service.render(row) for row in rows], next_cursor)


@router.get("/projects/{project_id}", summary="Read a project", responses={200: {"headers": openapi.ETAG}})
@allow("project:read")
def get_project(project_id: ProjectId, actor: ActorDep, session: SessionDep, response: Response) -> ProjectRead:
    """Read one project. Its `ETag` is what a change needs as `If-Match`."""
    project, revision = service.get(session, actor.organization_id, project_id)
    response.headers["ETag"] = preconditions.etag(revision)
    return project


@router.patch(
    "/projects/{project_id}",
    summary="Change a project",
    responses={200: {"headers": openapi.ETAG}, **openapi.refusals(409, 412, 413, 415, 428)},
    openapi_extra=openapi.IF_MATCH_REQUIRED,
)
@allow("project:write", if_match="required")
def update_project(
    project_id: ProjectId,
    request: Request,
    transaction: TransactionDep,
    response: Response,
    body: ProjectUpdate | None = None,
) -> ProjectRead:
    """Change the fields that are sent. Needs `If-Match` with the ETag of what you read."""
    service.update(transaction, request, project_id, body or ProjectUpdate())
    project, revision = service.get(transaction.session, transaction.organization_id, project_id)
    response.headers["ETag"] = preconditions.etag(revision)
    return project


@router.delete(
    "/projects/{project_id}",
    status_code=204,
    summary="Delete a project",
    responses=openapi.refusals(409, 412, 428),
    openapi_extra=openapi.IF_MATCH_REQUIRED,
)
@allow("project:write", if_match="required")
def delete_project(project_id: ProjectId, request: Request, transaction: TransactionDep) -> None:
    """Delete an empty project; one with data sources is refused (`409 project_not_empty`). Needs `If-Match`."""
    service.delete(transaction, request, project_id)
