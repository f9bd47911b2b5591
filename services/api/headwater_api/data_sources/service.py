"""The rules of data sources: what a change means for versions, credentials, verdicts and jobs."""

from collections.abc import Iterable
from typing import Final
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlmodel import Session, col
from starlette.requests import Request

from headwater import clock, db
from headwater.access import quotas
from headwater.audit.acts import Act
from headwater.connectors.spec import ConnectorConfig, ConnectorSpec
from headwater.data_sources.rows import DataSource, DataSourceTotals, DataSourceVersion, Project
from headwater.errors import Conflict, NotFound
from headwater.jobs import statements
from headwater.settings import QuotaSettings
from headwater_api import preconditions
from headwater_api.connectors import checking
from headwater_api.constraints import named_violations
from headwater_api.credentials import service as vault
from headwater_api.data_sources import planning
from headwater_api.data_sources.planning import Plan
from headwater_api.data_sources.schemas import DataSourceUpdate
from headwater_api.transaction import Transaction

_NAME_TAKEN: Final = {
    "uq_data_source_name": lambda: Conflict(
        "Another data source of this project has this name in this `env`.",
        code="name_taken",
        hint="Choose another name or another `env`.",
    )
}


def find(session: Session, organization_id: UUID, *, project_id: UUID, data_source_id: UUID) -> DataSource:
    """The row of a live data source. Raises `NotFound`."""
    source: DataSource | None = session.execute(_one(organization_id, project_id, data_source_id)).scalar_one_or_none()
    if source is None:
        raise NotFound
    return source


def lock(transaction: Transaction, *, project_id: UUID, data_source_id: UUID, against_jobs: bool = False) -> DataSource:
    """The row of a live data source, ours until the end. Raises `NotFound`.

    `against_jobs`: no job can be submitted meanwhile either.
    """
    statement = _one(transaction.organization_id, project_id, data_source_id)
    locked = statement.with_for_update(key_share=not against_jobs).execution_options(populate_existing=True)
    source: DataSource | None = transaction.session.execute(locked).scalar_one_or_none()
    if source is None:
        raise NotFound
    return source


def touch(transaction: Transaction, source: DataSource, *, access: bool) -> None:
    """A user changed `source`; `access`: where it points, or its credentials, so that no verdict holds any more."""
    source.revision += 1
    source.access_revision += int(access)
    source.updated_by, source.updated_at = transaction.actor.member_id, clock.now()
    transaction.session.flush()


def stored_config(transaction: Transaction, source: DataSource, spec: ConnectorSpec) -> ConnectorConfig:
    """The config that counts now. Raises `InvalidRequest` if a newer version of its connector refuses it."""
    return checking.config(spec, _version(transaction, source).config)


def create(transaction: Transaction, project_id: UUID, plan: Plan, *, quota: QuotaSettings) -> UUID:
    """Register a source with its first version. Raises `NotFound`, `Conflict` (`name_taken`), `QuotaExceeded`."""
    _hold_project(transaction, project_id)
    _require_room(transaction, quota)
    now, actor, session = clock.now(), transaction.actor, transaction.session
    source = DataSource(
        organization_id=actor.organization_id,
        project_id=project_id,
        type=plan.spec.type,
        created_by=actor.member_id,
        updated_by=actor.member_id,
        created_at=now,
        updated_at=now,
        **plan.settings,
    )
    with named_violations(_NAME_TAKEN):
        session.add(source)
        session.flush()
    _add_version(transaction, source, plan)
    session.add(DataSourceTotals(data_source_id=source.id, organization_id=actor.organization_id))
    vault.put(transaction, vault.Target(source.id, plan.spec, plan.config), plan.secrets)
    transaction.audit(Act.DATA_SOURCE_CREATE, source.id, fields=plan.fields | _credential_fields(plan.secrets))
    transaction.tell(source.id, "data_source.created", {"version": 1})
    session.flush()
    return source.id


def update(
    transaction: Transaction, request: Request, body: DataSourceUpdate, *, project_id: UUID, data_source_id: UUID
) -> None:
    """Apply a merge patch.

    Raises `NotFound`, `PreconditionRequired`, `StaleRevision`, `InvalidRequest`, `Conflict` (`name_taken`).
    """
    source = lock(transaction, project_id=project_id, data_source_id=data_source_id)
    preconditions.require_fresh(request, source.revision, required=True)
    version = _version(transaction, source)
    plan = planning.check_change(transaction, source, version, body)
    with named_violations(_NAME_TAKEN):
        for name, value in plan.settings.items():
            setattr(source, name, value)
        transaction.session.flush()
    if any(name.partition(".")[0] in ("config", "validation", "reading") for name in plan.fields):
        source.version += 1
        _add_version(transaction, source, plan)
    changed = plan.fields | _credential_fields(_apply_secrets(transaction, source, plan))
    if not changed:
        return
    touch(transaction, source, access=plan.moved or any(name.startswith("credentials.") for name in changed))
    transaction.audit(Act.DATA_SOURCE_UPDATE, source.id, fields=changed)
    transaction.tell(source.id, "data_source.updated", {"fields": sorted(changed), "version": source.version})


def delete(transaction: Transaction, request: Request, *, project_id: UUID, data_source_id: UUID) -> list[UUID]:
    """Delete a source softly: secrets destroyed, live jobs cancelled; their ids, to notify after the commit.

    Raises `NotFound`, `PreconditionRequired`, `StaleRevision`.
    """
    source = find(
        transaction.session, transaction.organization_id, project_id=project_id, data_source_id=data_source_id
    )
    preconditions.require_fresh(request, source.revision, required=True)
    # Workers lock a job before its source (the foreign key of an event), so we do. What was submitted in between is
    # found by the second look, which no submit can follow: it holds KEY SHARE on the source.
    live = statements.lock_live(organization_id=transaction.organization_id, data_source_id=data_source_id)
    db.run_in(transaction.session, live)
    source = lock(transaction, project_id=project_id, data_source_id=data_source_id, against_jobs=True)
    preconditions.require_fresh(request, source.revision, required=True)
    cancelled = [row["id"] for row in db.run_in(transaction.session, live)]
    for job_id in cancelled:
        db.run_in(transaction.session, _cancel(transaction, job_id))
    vault.clear(transaction, source.id)
    source.deleted_at = clock.now()
    touch(transaction, source, access=True)
    transaction.audit(Act.DATA_SOURCE_DELETE, source.id)
    transaction.tell(source.id, "data_source.deleted", {"cancelled_jobs": len(cancelled)})
    return cancelled


def _apply_secrets(transaction: Transaction, source: DataSource, plan: Plan) -> set[str]:
    lost: set[str] = set()
    if plan.moved:
        # They were sealed for another target and open nowhere else: gone, whether or not they are sent again.
        lost = vault.clear(transaction, source.id)
    return lost | vault.put(transaction, vault.Target(source.id, plan.spec, plan.config), plan.secrets)


def _credential_fields(names: Iterable[str]) -> set[str]:
    return {f"credentials.{name}" for name in names}


def _add_version(transaction: Transaction, source: DataSource, plan: Plan) -> None:
    version = DataSourceVersion(
        data_source_id=source.id,
        version=source.version,
        organization_id=transaction.organization_id,
        created_by=transaction.actor.member_id,
        config=plan.config.model_dump(mode="json"),
        validation=plan.validation,
        reading=plan.reading,
    )
    transaction.session.add(version)


def _version(transaction: Transaction, source: DataSource) -> DataSourceVersion:
    version = transaction.session.get(DataSourceVersion, (source.id, source.version))
    assert version is not None, "a data source has the version that it names"
    return version


def _one(organization_id: UUID, project_id: UUID, data_source_id: UUID) -> Select[DataSource]:
    return select(DataSource).where(
        col(DataSource.id) == data_source_id,
        col(DataSource.project_id) == project_id,
        col(DataSource.organization_id) == organization_id,
        col(DataSource.deleted_at).is_(None),
    )


def _require_room(transaction: Transaction, quota: QuotaSettings) -> None:
    """Make sure that there may be one more, and that nobody else does so at this moment."""
    limits = db.run_in(transaction.session, quotas.hold(transaction.organization_id, quota))[0]
    statement = select(func.count()).where(
        col(DataSource.organization_id) == transaction.organization_id, col(DataSource.deleted_at).is_(None)
    )
    used = transaction.session.execute(statement).scalar_one()
    quotas.require_room("data_sources", limit=limits["data_sources"], used=used + 1)


def _hold_project(transaction: Transaction, project_id: UUID) -> None:
    """Keep the project from being deleted until the end. Raises `NotFound`."""
    statement = select(col(Project.id)).where(
        col(Project.id) == project_id,
        col(Project.organization_id) == transaction.organization_id,
        col(Project.deleted_at).is_(None),
    )
    if transaction.session.execute(statement.with_for_update(read=True, key_share=True)).first() is None:
        raise NotFound


def _cancel(transaction: Transaction, job_id: UUID) -> db.Statement:
    return statements.cancel(
        organization_id=transaction.organization_id,
        job_id=job_id,
        actor_id=transaction.actor.member_id,
        key_id=transaction.actor.key_id,
        reason="The data source was deleted.",
        request_id=transaction.request_id,
        address=transaction.address,
    )
