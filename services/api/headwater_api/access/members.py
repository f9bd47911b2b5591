"""Routes of members: people and services of the organization."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sqlalchemy import select
from sqlmodel import col

from headwater import ids
from headwater.access.rows import Member
from headwater.errors import NotFound
from headwater_api import openapi, pagination, preconditions
from headwater_api.access import service
from headwater_api.access.schemas import MemberCreate, MemberRead, MemberUpdate
from headwater_api.dependencies import ActorDep, MemberId, SessionDep
from headwater_api.guard import GuardedRoute, allow
from headwater_api.once import Answer, OnceDep
from headwater_api.pagination import Page, PageQuery, Selection, SortKey
from headwater_api.transaction import TransactionDep

router = APIRouter(route_class=GuardedRoute, tags=["access"])

_SORT_KEYS: Final = {
    "name": SortKey(col(Member.name).collate("C")),
    "email": SortKey(col(Member.email).collate("C"), nullable=True),
    "created_at": SortKey(col(Member.created_at), pagination.parse_moment),
}


class MemberQuery(PageQuery):
    """How to list members."""

    sort: str = Field(default="created_at", max_length=200, description=f"Fields: {', '.join(_SORT_KEYS)}.")


@router.post(
    "/members",
    status_code=201,
    summary="Invite a member",
    response_model=MemberRead,
    responses={
        201: {"headers": openapi.ETAG | openapi.LOCATION | openapi.REPLAYED},
        **openapi.refusals(409, 413, 415, 422),
    },
)
@allow("member:write")
def invite_member(body: MemberCreate, transaction: TransactionDep, once: OnceDep) -> Response:
    """Add a person, or a service account.

    A person signs in through the identity provider with this address, where one is configured; otherwise make an API
    key for them (`member_id`). A service has API keys only. No mail is sent.
    """

    def act() -> Answer:
        member = service.invite(transaction, body)
        return Answer(
            status=201,
            body=_render(member).model_dump(mode="json"),
            headers={
                "Location": f"/api/v1/members/{ids.encode('user', member.id)}",
                "ETag": preconditions.etag(member.revision),
            },
            subject_id=member.id,
        )

    return once.perform(transaction.session, act)


@router.get("/members", summary="List members")
@allow("member:read")
def list_members(
    request: Request, query: Annotated[MemberQuery, Query()], actor: ActorDep, session: SessionDep
) -> Page[MemberRead]:
    """List the organization's members, the first one first."""
    rows, next_cursor = pagination.fetch(
        session,
        _selection(actor.organization_id),
        orders=pagination.sort_orders(query.sort, _SORT_KEYS, col(Member.id)),
        query=query,
        cursors=pagination.cursors(request),
    )
    return pagination.page_of([_render(row[0]) for row in rows], next_cursor)


@router.get("/members/{member_id}", summary="Read a member", responses={200: {"headers": openapi.ETAG}})
@allow("member:read")
def get_member(member_id: MemberId, actor: ActorDep, session: SessionDep, response: Response) -> MemberRead:
    """One member."""
    row = session.execute(_selection(actor.organization_id).where(col(Member.id) == member_id)).first()
    if row is None:
        raise NotFound
    response.headers["ETag"] = preconditions.etag(row[0].revision)
    return _render(row[0])


@router.patch(
    "/members/{member_id}",
    summary="Change a member",
    responses={200: {"headers": openapi.ETAG}, **openapi.refusals(409, 412, 413, 415)},
    openapi_extra=openapi.IF_MATCH_OPTIONAL,
)
@allow("member:write", if_match="optional")
def update_member(
    member_id: MemberId,
    request: Request,
    transaction: TransactionDep,
    response: Response,
    body: MemberUpdate | None = None,
) -> MemberRead:
    """Change name or role. A lower role takes rights from the member's keys too, within five seconds.

    The last person who is admin stays one (`409 last_admin`).
    """
    member = service.update_member(transaction, request, member_id, body or MemberUpdate())
    response.headers["ETag"] = preconditions.etag(member.revision)
    return _render(member)


@router.delete(
    "/members/{member_id}",
    status_code=204,
    summary="Remove a member",
    responses=openapi.refusals(409, 412),
    openapi_extra=openapi.IF_MATCH_OPTIONAL,
)
@allow("member:write", if_match="optional")
def remove_member(member_id: MemberId, request: Request, transaction: TransactionDep) -> None:
    """Remove a member. Its keys and sessions are refused within five seconds; what it made stays.

    The last person who is admin cannot be removed (`409 last_admin`).
    """
    service.remove_member(transaction, request, member_id)


def _selection(organization_id: object) -> Selection:
    return select(Member).where(col(Member.organization_id) == organization_id, col(Member.removed_at).is_(None))


def _render(member: Member) -> MemberRead:
    return MemberRead.model_validate(member, from_attributes=True)
