"""Routes of credentials."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from sqlmodel import Session

from headwater.audit.acts import Act
from headwater.connectors import registry
from headwater.data_sources.rows import DataSource
from headwater_api import openapi, preconditions
from headwater_api.connectors import checking
from headwater_api.connectors.documented import ANY_CREDENTIALS
from headwater_api.credentials import service
from headwater_api.data_sources import lookup
from headwater_api.data_sources import service as data_sources
from headwater_api.data_sources.schemas import CredentialField
from headwater_api.dependencies import ActorDep, DataSourceId, ProjectId, SessionDep
from headwater_api.guard import GuardedRoute, allow
from headwater_api.transaction import TransactionDep

router = APIRouter(route_class=GuardedRoute, tags=["credentials"])

_PATH = "/projects/{project_id}/data-sources/{data_source_id}/credentials"

Credentials = dict[str, CredentialField]


@router.get(_PATH, summary="See which credentials are set", responses={200: {"headers": openapi.ETAG}})
@allow("credentials:read")
def get_credentials(
    project_id: ProjectId, data_source_id: DataSourceId, actor: ActorDep, session: SessionDep, response: Response
) -> Credentials:
    """Which secret fields are set, and since when. Their values are never shown; a reference is, for it is none."""
    source = data_sources.find(session, actor.organization_id, project_id=project_id, data_source_id=data_source_id)
    return _shown(session, source, response)


@router.put(
    _PATH,
    summary="Set credentials",
    responses={200: {"headers": openapi.ETAG}, **openapi.refusals(412, 413, 415)},
    openapi_extra=openapi.IF_MATCH_OPTIONAL,
)
@allow("credentials:write", if_match="optional", secrets="")
def put_credentials(
    project_id: ProjectId,
    data_source_id: DataSourceId,
    request: Request,
    transaction: TransactionDep,
    response: Response,
    body: Annotated[dict[str, Any] | None, ANY_CREDENTIALS, Body()] = None,
) -> Credentials:
    """Seal the fields that are sent. A field that is omitted stays, `null` clears it; a mask is refused.

    Instead of a secret a field takes a reference, `vault://PATH#FIELD` or `env://NAME`, where the operator allows it: a
    worker follows it when a job runs.

    They are bound to where the source points now: point it elsewhere and they are gone.
    """
    source = data_sources.lock(transaction, project_id=project_id, data_source_id=data_source_id)
    preconditions.require_fresh(request, source.revision, required=False)
    spec = registry.get_spec(source.type)
    secrets = checking.secrets(spec, body or {}, organization_id=transaction.organization_id, pointer="")
    config = data_sources.stored_config(transaction, source, spec)
    changed = service.put(transaction, service.Target(source.id, spec, config), secrets)
    if changed:
        data_sources.touch(transaction, source, access=True)
        transaction.audit(Act.CREDENTIALS_UPDATE, source.id, fields=changed)
        transaction.tell(source.id, "credentials.updated", {"fields": sorted(changed)})
    return _shown(transaction.session, source, response)


@router.delete(
    _PATH,
    status_code=204,
    summary="Destroy credentials",
    responses=openapi.refusals(412),
    openapi_extra=openapi.IF_MATCH_OPTIONAL,
)
@allow("credentials:write", if_match="optional")
def delete_credentials(
    project_id: ProjectId, data_source_id: DataSourceId, request: Request, transaction: TransactionDep
) -> None:
    """Destroy every secret field of the source at once."""
    source = data_sources.lock(transaction, project_id=project_id, data_source_id=data_source_id)
    preconditions.require_fresh(request, source.revision, required=False)
    cleared = service.clear(transaction, source.id)
    if cleared:
        data_sources.touch(transaction, source, access=True)
        transaction.audit(Act.CREDENTIALS_DELETE, source.id, fields=cleared)
        transaction.tell(source.id, "credentials.deleted", {"fields": sorted(cleared)})


def _shown(session: Session, source: DataSource, response: Response) -> Credentials:
    response.headers["ETag"] = preconditions.etag(source.revision)
    return lookup.credentials(session, source)
