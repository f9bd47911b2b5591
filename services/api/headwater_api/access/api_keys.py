"""Routes of API keys."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sqlalchemy import Row, select
from sqlmodel import col

from headwater import clock, ids
from headwater.access import api_keys, policy
from headwater.access.rows import ApiKey, Member
from headwater.audit.acts import Act
from headwater.errors import FieldError, InvalidRequest, NotFound
from headwater_api import openapi, pagination, preconditions, services
from headwater_api.access import service
from headwater_api.access.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyRead, ApiKeyRotate
from headwater_api.dependencies import ActorDep, ApiKeyId, SessionDep
from headwater_api.guard import GuardedRoute, allow
from headwater_api.once import Answer, OnceDep
from headwater_api.pagination import Page, PageQuery, Selection, SortKey
from headwater_api.transaction import Transaction, TransactionDep
from headwater_api.wire import Person

router = APIRouter(route_class=GuardedRoute, tags=["access"])

# Nothing of a key is ever changed by a user: it has one revision.
_REVISION: Final = 1
_SORT_KEYS: Final = {
    "name": SortKey(col(ApiKey.name).collate("C")),
    "created_at": SortKey(col(ApiKey.created_at), pagination.parse_moment),
    "last_used_at": SortKey(col(ApiKey.last_used_at), pagination.parse_moment, nullable=True),
}
_CREATES: Final[dict[str, Any]] = {
    "status_code": 201,
    "response_model": ApiKeyCreated,
    "responses": {201: {"headers": openapi.LOCATION}, **openapi.refusals(409, 413, 415, 422)},
}


class ApiKeyQuery(PageQuery):
    """How to list API keys."""

    sort: str = Field(default="-created_at", max_length=200, description=f"Fields: {', '.join(_SORT_KEYS)}.")


@router.post("/api-keys", summary="Create an API key", **_CREATES)
@allow("api_key:write")
def create_api_key(body: ApiKeyCreate, request: Request, transaction: TransactionDep, once: OnceDep) -> Response:
    """Make a key with a role up to your own, for you or another member. `key` is shown this once: a repeat under the
    same `Idempotency-Key` is refused with `409 already_created` and a link to it.
    """
    _require_future(body.expires_at)
    owner = service.require_owner(transaction, body.member_id, body.role)
    service.require_projects(transaction, body.project_ids)
    pepper = services.of(request).pepper

    def act() -> Answer:
        values = {name: getattr(body, name) for name in ("name", "role", "project_ids", "expires_at")}
        row, text = _issue(transaction, pepper, owner, values)
        transaction.audit(Act.API_KEY_CREATE, row.id, fields=body.model_fields_set)
        return _created(row, owner, text)

    return once.perform(transaction.session, act)


@router.get("/api-keys", summary="List API keys")
@allow("api_key:read")
def list_api_keys(
    request: Request, query: Annotated[ApiKeyQuery, Query()], actor: ActorDep, session: SessionDep
) -> Page[ApiKeyRead]:
    """List the organization's keys that are not revoked, the newest first unless `sort` says otherwise."""
    rows, next_cursor = pagination.fetch(
        session,
        _selection(actor.organization_id),
        orders=pagination.sort_orders(query.sort, _SORT_KEYS, col(ApiKey.id)),
        query=query,
        cursors=pagination.cursors(request),
    )
    return pagination.page_of([_render(row) for row in rows], next_cursor)


@router.get("/api-keys/{key_id}", summary="Read an API key", responses={200: {"headers": openapi.ETAG}})
@allow("api_key:read")
def get_api_key(key_id: ApiKeyId, actor: ActorDep, session: SessionDep, response: Response) -> ApiKeyRead:
    """One key; its text is never shown again."""
    row = session.execute(_selection(actor.organization_id).where(col(ApiKey.id) == key_id)).first()
    if row is None:
        raise NotFound
    response.headers["ETag"] = preconditions.etag(_REVISION)
    return _render(row)


@router.post("/api-keys/{key_id}/rotate", summary="Rotate an API key", **_CREATES)
@allow("api_key:write")
def rotate_api_key(
    key_id: ApiKeyId,
    request: Request,
    transaction: TransactionDep,
    once: OnceDep,
    body: ApiKeyRotate | None = None,
) -> Response:
    """Make a successor with the same name, role, member and projects. The old key is good for `overlap_seconds` more,
    a day if you say nothing. The successor's `key` is shown this once, as for a new one.
    """
    rotate = body or ApiKeyRotate()
    pepper = services.of(request).pepper

    def act() -> Answer:
        old, owner = _lock(transaction, key_id)
        service.require_role(policy.as_role(old.role), {"yours": transaction.actor.role})
        expires_at = rotate.expires_at or old.expires_at
        _require_future(expires_at)
        values = old.model_dump(include={"name", "role", "project_ids"})
        row, text = _issue(transaction, pepper, owner, values | {"expires_at": expires_at})
        ends_at = clock.now() + timedelta(seconds=rotate.overlap_seconds)
        old.expires_at = ends_at if old.expires_at is None else min(ends_at, old.expires_at)
        details = {"rotated_from": str(old.id)}
        transaction.audit(Act.API_KEY_ROTATE, row.id, fields=rotate.model_fields_set, details=details)
        return _created(row, owner, text)

    return once.perform(transaction.session, act)


@router.delete(
    "/api-keys/{key_id}",
    status_code=204,
    summary="Revoke an API key",
    responses=openapi.refusals(412),
    openapi_extra=openapi.IF_MATCH_OPTIONAL,
)
@allow("api_key:write", if_match="optional")
def revoke_api_key(key_id: ApiKeyId, request: Request, transaction: TransactionDep) -> None:
    """Revoke a key. It is refused everywhere within five seconds."""
    key, _ = _lock(transaction, key_id)
    preconditions.require_fresh(request, _REVISION, required=False)
    key.revoked_at = clock.now()
    transaction.audit(Act.API_KEY_REVOKE, key_id)


def _require_future(moment: datetime | None) -> None:
    if moment is not None and moment <= clock.now():
        raise InvalidRequest(errors=[FieldError("/expires_at", "in_the_past", "Give a time that is yet to come.")])


def _issue(transaction: Transaction, pepper: bytes, owner: Member, values: dict[str, Any]) -> tuple[ApiKey, str]:
    """A fresh key of `owner`, and its text."""
    issued = api_keys.issue(pepper)
    row = ApiKey(
        id=issued.id,
        organization_id=transaction.organization_id,
        member_id=owner.id,
        secret_hash=issued.secret_hash,
        created_at=clock.now(),
        **values,
    )
    transaction.session.add(row)
    transaction.session.flush()
    return row, issued.text


def _created(row: ApiKey, owner: Member, text: str) -> Answer:
    return Answer(
        status=201,
        body=ApiKeyCreated(**_shown(row, owner), key=text).model_dump(mode="json"),
        headers={"Location": f"/api/v1/api-keys/{ids.encode('key', row.id)}"},
        subject_id=row.id,
        secret=True,
    )


def _lock(transaction: Transaction, key_id: UUID) -> tuple[ApiKey, Member]:
    statement = _selection(transaction.organization_id).where(col(ApiKey.id) == key_id)
    row = transaction.session.execute(statement.with_for_update(of=ApiKey, key_share=True)).first()
    if row is None:
        raise NotFound
    return row[0], row[1]


def _selection(organization_id: UUID) -> Selection:
    return (
        select(ApiKey, Member)
        .join(Member, col(ApiKey.member_id) == Member.id)
        .where(col(ApiKey.organization_id) == organization_id, col(ApiKey.revoked_at).is_(None))
    )


def _render(row: Row[*tuple[Any, ...]]) -> ApiKeyRead:
    return ApiKeyRead(**_shown(*row[:2]))


def _shown(key: ApiKey, member: Member) -> dict[str, Any]:
    return key.model_dump(include=set(ApiKeyRead.model_fields)) | {
        "member": Person.model_validate(member, from_attributes=True)
    }
