"""Routes of the caller and the organization."""

from fastapi import APIRouter, Request, Response
from sqlmodel import Session

from headwater import db
from headwater.access import quotas
from headwater.access.rows import Organization
from headwater_api import openapi, preconditions, services
from headwater_api.access import service
from headwater_api.access.schemas import Me, OrganizationName, OrganizationRead, OrganizationUpdate, QuotaRead, Quotas
from headwater_api.dependencies import ActorDep, SessionDep
from headwater_api.guard import GuardedRoute, allow
from headwater_api.transaction import TransactionDep
from headwater_api.wire import Person

router = APIRouter(route_class=GuardedRoute, tags=["access"])


@router.get("/me", summary="Who am I?")
@allow("organization:read")
def get_me(actor: ActorDep) -> Me:
    """The member behind the key or token, the organization, and what may be done with it."""
    return Me(
        member=Person(id=actor.member_id, name=actor.name, email=actor.email),
        organization=OrganizationName(id=actor.organization_id, name=actor.organization_name),
        key_id=actor.key_id,
        role=actor.role,
        project_ids=None if actor.project_ids is None else sorted(actor.project_ids),
        permissions=sorted(actor.permissions),
    )


@router.get("/organization", summary="Read the organization", responses={200: {"headers": openapi.ETAG}})
@allow("organization:read")
def get_organization(actor: ActorDep, session: SessionDep, request: Request, response: Response) -> OrganizationRead:
    """The organization that you belong to, how much it has and may have."""
    return _shown(session, request, response, session.get_one(Organization, actor.organization_id))


@router.patch(
    "/organization",
    summary="Change the organization",
    responses={200: {"headers": openapi.ETAG}, **openapi.refusals(412, 413, 415)},
    openapi_extra=openapi.IF_MATCH_OPTIONAL,
)
@allow("organization:write", if_match="optional")
def update_organization(
    request: Request, transaction: TransactionDep, response: Response, body: OrganizationUpdate | None = None
) -> OrganizationRead:
    """Change the organization's name."""
    organization = service.update_organization(transaction, request, body or OrganizationUpdate())
    return _shown(transaction.session, request, response, organization)


def _shown(session: Session, request: Request, response: Response, organization: Organization) -> OrganizationRead:
    response.headers["ETag"] = preconditions.etag(organization.revision)
    rows = db.run_in(session, quotas.usage(organization.id, services.of(request).quotas))
    used = {row["quota"]: QuotaRead(used=row["used"], limit=row["limit"]) for row in rows}
    return OrganizationRead(
        id=organization.id, name=organization.name, created_at=organization.created_at, quotas=Quotas(**used)
    )
