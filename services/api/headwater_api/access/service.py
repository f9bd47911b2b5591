"""The rules of access: somebody stays who can let others in, no key has more rights than whoever makes or owns it."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, update
from sqlmodel import col
from starlette.requests import Request

from headwater import clock
from headwater.access import policy
from headwater.access.policy import PERMISSIONS, Role
from headwater.access.rows import ApiKey, Member, Organization
from headwater.audit.acts import Act
from headwater.data_sources.rows import Project
from headwater.errors import Conflict, FieldError, Forbidden, InvalidRequest, NotFound
from headwater_api import preconditions
from headwater_api.access.schemas import MemberCreate, MemberUpdate, OrganizationUpdate
from headwater_api.constraints import named_violations
from headwater_api.transaction import Transaction

_EMAIL_TAKEN: Final = {
    "uq_member_email": lambda: Conflict("A member with this address is there already.", code="email_taken")
}


def update_organization(transaction: Transaction, request: Request, body: OrganizationUpdate) -> Organization:
    """Change what was sent. Raises `StaleRevision`."""
    organization = _lock_organization(transaction)
    preconditions.require_fresh(request, organization.revision, required=False)
    if body.name is not None and body.name != organization.name:
        organization.name = body.name
        organization.revision += 1
        transaction.audit(Act.ORGANIZATION_UPDATE, organization.id, fields={"name"})
        transaction.session.flush()
    return organization


def invite(transaction: Transaction, body: MemberCreate) -> Member:
    """A new member. Raises `Conflict` (`email_taken`)."""
    member = Member(
        organization_id=transaction.organization_id,
        kind=body.kind,
        email=body.email,
        name=body.name or (body.email or "").partition("@")[0],
        role=body.role,
        created_at=clock.now(),
    )
    with named_violations(_EMAIL_TAKEN):
        transaction.session.add(member)
        transaction.session.flush()
    transaction.audit(Act.MEMBER_CREATE, member.id, fields=body.model_fields_set)
    return member


def update_member(transaction: Transaction, request: Request, member_id: UUID, body: MemberUpdate) -> Member:
    """Change what was sent. Raises `NotFound`, `StaleRevision`, `Conflict` (`last_admin`)."""
    if body.role is not None:
        _lock_organization(transaction)
    member = _lock_member(transaction, member_id)
    preconditions.require_fresh(request, member.revision, required=False)
    sent = body.model_dump(exclude_none=True)
    changes = {name: value for name, value in sent.items() if getattr(member, name) != value}
    if changes.get("role", "admin") != "admin":
        _require_another_admin(transaction, member)
    if changes:
        for name, value in changes.items():
            setattr(member, name, value)
        member.revision += 1
        transaction.audit(Act.MEMBER_UPDATE, member_id, fields=changes)
        transaction.session.flush()
    return member


def remove_member(transaction: Transaction, request: Request, member_id: UUID) -> None:
    """Remove a member and revoke its keys. Raises `NotFound`, `StaleRevision`, `Conflict` (`last_admin`)."""
    _lock_organization(transaction)
    member = _lock_member(transaction, member_id)
    preconditions.require_fresh(request, member.revision, required=False)
    _require_another_admin(transaction, member)
    member.removed_at = clock.now()
    transaction.audit(Act.MEMBER_DELETE, member_id)
    keys = (
        update(ApiKey)
        .where(
            col(ApiKey.member_id) == member_id,
            col(ApiKey.organization_id) == transaction.organization_id,
            col(ApiKey.revoked_at).is_(None),
        )
        .values(revoked_at=member.removed_at)
        .returning(col(ApiKey.id))
    )
    for key_id in transaction.session.execute(keys).scalars().all():
        transaction.audit(Act.API_KEY_REVOKE, key_id)


def require_owner(transaction: Transaction, member_id: UUID | None, role: Role) -> Member:
    """The member whose key it will be, the actor without one. Raises `InvalidRequest` if there is none, `Forbidden`."""
    actor = transaction.actor
    statement = select(Member).where(
        col(Member.id) == (member_id or actor.member_id),
        col(Member.organization_id) == actor.organization_id,
        col(Member.removed_at).is_(None),
    )
    # The member's removal revokes all keys: it comes before this one is made, or finds it.
    owner: Member | None = transaction.session.execute(
        statement.with_for_update(read=True, key_share=True)
    ).scalar_one_or_none()
    if owner is None:
        detail = "No member of the organization has this id; `/members` lists them."
        raise InvalidRequest(errors=[FieldError("/member_id", "unknown_member", detail)])
    require_role(role, {"yours": actor.role, "its member's": policy.as_role(owner.role)})
    return owner


def require_role(role: Role, highest: dict[str, Role]) -> None:
    """Raise `Forbidden` if a key with `role` had rights that one of `highest` has not."""
    for whose, limit in highest.items():
        if not PERMISSIONS[role] <= PERMISSIONS[limit]:
            hint = f"The highest role that it can have is {whose}: `{limit}`."
            raise Forbidden("A key cannot have more rights than its maker or its member.", hint=hint)


def require_projects(transaction: Transaction, project_ids: Sequence[UUID] | None) -> None:
    """Raise `InvalidRequest` naming each project that is not there."""
    if project_ids is None:
        return
    statement = select(col(Project.id)).where(
        col(Project.id).in_(project_ids),
        col(Project.organization_id) == transaction.organization_id,
        col(Project.deleted_at).is_(None),
    )
    known = set(transaction.session.execute(statement).scalars())
    unknown = [
        FieldError(f"/project_ids/{index}", "unknown_project", "No project of the organization has this id.")
        for index, project_id in enumerate(project_ids)
        if project_id not in known
    ]
    if unknown:
        raise InvalidRequest(errors=unknown)


def _require_another_admin(transaction: Transaction, member: Member) -> None:
    """Somebody has to stay who can let others in. The organization is locked: nobody else leaves at this moment."""
    if (member.role, member.kind) != ("admin", "person"):
        return
    others = select(func.count()).where(
        col(Member.organization_id) == transaction.organization_id,
        col(Member.id) != member.id,
        col(Member.role) == "admin",
        col(Member.kind) == "person",
        col(Member.removed_at).is_(None),
    )
    if not transaction.session.execute(others).scalar_one():
        raise Conflict(
            "This is the organization's last admin.", code="last_admin", hint="Make another person admin first."
        )


def _lock_organization(transaction: Transaction) -> Organization:
    statement = select(Organization).where(col(Organization.id) == transaction.organization_id)
    organization: Organization = transaction.session.execute(statement.with_for_update(key_share=True)).scalar_one()
    return organization


def _lock_member(transaction: Transaction, member_id: UUID) -> Member:
    statement = select(Member).where(
        col(Member.id) == member_id,
        col(Member.organization_id) == transaction.organization_id,
        col(Member.removed_at).is_(None),
    )
    locked: Any = statement.with_for_update(key_share=True)
    member: Member | None = transaction.session.execute(locked).scalar_one_or_none()
    if member is None:
        raise NotFound
    return member
