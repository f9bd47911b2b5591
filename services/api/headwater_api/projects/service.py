"""The rules of projects: unique names, no deletion while something is inside."""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.orm import aliased
from sqlmodel import Session, col
from starlette.requests import Request

from headwater import clock
from headwater.access.rows import Member
from headwater.audit.acts import Act
from headwater.data_sources.rows import DataSource, Project
from headwater.errors import Conflict, NotFound
from headwater_api import preconditions
from headwater_api.actor import Actor
from headwater_api.constraints import named_violations
from headwater_api.pagination import Selection
from headwater_api.projects.schemas import ProjectCreate, ProjectRead, ProjectUpdate
from headwater_api.transaction import Transaction
from headwater_api.wire import Person

_NAME_TAKEN: Final = {
    "uq_project_name": lambda: Conflict(
        "Another project has this name.", code="name_taken", hint="Choose another name, or rename the other project."
    )
}

_Creator = aliased(Member)
_Updater = aliased(Member)


def visible(actor: Actor) -> Selection:
    """The projects that the actor may see, as `render` takes them."""
    statement = selection(actor.organization_id)
    return statement if actor.project_ids is None else statement.where(col(Project.id).in_(actor.project_ids))


def selection(organization_id: UUID) -> Selection:
    """Live projects of an organization with their people, as `render` takes them."""
    return (
        select(Project, _Creator, _Updater)
        .join(_Creator, col(Project.created_by) == _Creator.id, isouter=True)
        .join(_Updater, col(Project.updated_by) == _Updater.id, isouter=True)
        .where(col(Project.organization_id) == organization_id, col(Project.deleted_at).is_(None))
    )


def render(row: Row[*tuple[Any, ...]]) -> ProjectRead:
    """A row of `selection` as it goes out."""
    project, creator, updater = row[:3]
    people = {
        "created_by": None if creator is None else Person.model_validate(creator, from_attributes=True),
        "updated_by": None if updater is None else Person.model_validate(updater, from_attributes=True),
    }
    return ProjectRead(**project.model_dump(exclude={"created_by", "updated_by"}), **people)


def get(session: Session, organization_id: UUID, project_id: UUID) -> tuple[ProjectRead, int]:
    """A project and its revision. Raises `NotFound`."""
    row = session.execute(selection(organization_id).where(col(Project.id) == project_id)).first()
    if row is None:
        raise NotFound
    return render(row), row[0].revision


def create(transaction: Transaction, body: ProjectCreate) -> UUID:
    """A new project. Raises `Conflict` (`name_taken`)."""
    now, actor = clock.now(), transaction.actor
    project = Project(
        organization_id=actor.organization_id,
        name=body.name,
        description=body.description,
        created_by=actor.member_id,
        updated_by=actor.member_id,
        created_at=now,
        updated_at=now,
    )
    with named_violations(_NAME_TAKEN):
        transaction.session.add(project)
        transaction.session.flush()
    transaction.audit(Act.PROJECT_CREATE, project.id, fields=body.model_fields_set)
    return project.id


def update(transaction: Transaction, request: Request, project_id: UUID, body: ProjectUpdate) -> None:
    """Change what was sent. Raises `NotFound`, `PreconditionRequired`, `StaleRevision`, `Conflict` (`name_taken`)."""
    project = _lock(transaction, project_id, key_share=True)
    preconditions.require_fresh(request, project.revision, required=True)
    changes = {name: value for name, value in body.changes().items() if getattr(project, name) != value}
    if not changes:
        return
    with named_violations(_NAME_TAKEN):
        for name, value in changes.items():
            setattr(project, name, value)
        project.revision += 1
        project.updated_by, project.updated_at = transaction.actor.member_id, clock.now()
        transaction.session.flush()
    transaction.audit(Act.PROJECT_UPDATE, project_id, fields=changes)


def delete(transaction: Transaction, request: Request, project_id: UUID) -> None:
    """Delete an empty project. Raises as `update` does, `Conflict` (`project_not_empty`)."""
    # A data source that is being created holds KEY SHARE on its project: it comes before this lock or after it.
    project = _lock(transaction, project_id, key_share=False)
    preconditions.require_fresh(request, project.revision, required=True)
    inside = select(col(DataSource.id)).where(
        col(DataSource.project_id) == project_id, col(DataSource.deleted_at).is_(None)
    )
    if transaction.session.execute(inside.limit(1)).first() is not None:
        raise Conflict(
            "This project still has data sources.", code="project_not_empty", hint="Delete its data sources first."
        )
    project.revision += 1
    project.deleted_at = clock.now()
    project.updated_by, project.updated_at = transaction.actor.member_id, project.deleted_at
    transaction.audit(Act.PROJECT_DELETE, project_id)


def _lock(transaction: Transaction, project_id: UUID, *, key_share: bool) -> Project:
    statement = select(Project).where(
        col(Project.id) == project_id,
        col(Project.organization_id) == transaction.organization_id,
        col(Project.deleted_at).is_(None),
    )
    project: Project | None = transaction.session.execute(
        statement.with_for_update(key_share=key_share)
    ).scalar_one_or_none()
    if project is None:
        raise NotFound
    return project
