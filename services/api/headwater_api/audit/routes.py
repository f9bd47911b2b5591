"""Routes of the audit log."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import ConfigDict, Field
from sqlalchemy import Row, select
from sqlmodel import Session, col

from headwater import ids
from headwater.access.rows import Member
from headwater.audit.acts import SUBJECTS, Act
from headwater.audit.rows import AuditChain, AuditEntry
from headwater_api import exports, pagination, representations, services
from headwater_api.audit.schemas import AuditEntryRead, Seal
from headwater_api.dependencies import ActorDep, SessionDep
from headwater_api.guard import GuardedRoute, allow
from headwater_api.pagination import CursorQuery, Order, Page, Selection, SortKey
from headwater_api.wire import AnyId, Instant, MemberId, Person

router = APIRouter(route_class=GuardedRoute, tags=["audit log"])

_NEWEST_FIRST: Final = [
    Order(SortKey(col(AuditEntry.created_at), pagination.parse_moment), descending=True),
    Order(SortKey(col(AuditEntry.number)), descending=True),
]
_COLUMNS: Final = (
    "id", "act", "actor_id", "actor_name", "actor_email", "key_id", "subject_id", "request_id", "address", "fields",
    "details", "created_at", "seq", "hash",
)  # fmt: skip
_DETAILS: Final[dict[str, ids.Prefix]] = {
    "job_id": "job",
    "data_source_id": "dsrc",
    "rotated_from": "key",
    "delivery_id": "dlv",
}


class AuditQuery(CursorQuery):
    """Which entries. A filter that is given more than once takes any of its values."""

    model_config = ConfigDict(extra="forbid")

    actor: list[MemberId] = Field(default_factory=list, max_length=50, description="What these members did.")
    act: list[Act] = Field(default_factory=list, max_length=50)
    subject: list[AnyId] = Field(
        default_factory=list, max_length=50, description="What was done to these, by their ids."
    )
    after: Instant | None = Field(default=None, description="Later than this moment.")
    before: Instant | None = Field(default=None, description="Earlier than this moment.")

    def narrow(self, statement: Selection) -> Selection:
        """`statement` with these filters."""
        for column, values in (
            (col(AuditEntry.actor_id), self.actor),
            (col(AuditEntry.act), [act.value for act in self.act]),
            (col(AuditEntry.subject_id), self.subject),
        ):
            if values:
                statement = statement.where(column.in_(values))
        if self.after is not None:
            statement = statement.where(col(AuditEntry.created_at) > self.after)
        if self.before is not None:
            statement = statement.where(col(AuditEntry.created_at) < self.before)
        return statement


@router.get(
    "/audit-log",
    summary="Read the audit log",
    response_model=Page[AuditEntryRead],
    responses={200: {"content": representations.DOCUMENTED}},
)
@allow("audit_log:read")
def list_audit_entries(
    request: Request, query: Annotated[AuditQuery, Query()], actor: ActorDep, session: SessionDep
) -> Any:
    """Who did what, the newest first: every change, every opening of credentials, and every act that was refused.

    Refusals (`access.deny`) are counted by member and minute. `Accept: application/x-ndjson` or `text/csv` streams
    everything that the filters let through.
    """
    form, cursors = representations.chosen(request), pagination.cursors(request)
    statement = query.narrow(_selection(actor.organization_id))

    def read(session: Session, query: CursorQuery) -> tuple[list[AuditEntryRead], str | None]:
        rows, next_cursor = pagination.fetch(session, statement, orders=_NEWEST_FIRST, query=query, cursors=cursors)
        return [_render(row) for row in rows], next_cursor

    if form == "json":
        return pagination.page_of(*read(session, query))
    if query.cursor is not None:
        cursors.read(query.cursor)  # refused now: once the stream has begun it is too late
    found = exports.batches(services.of(request), actor.organization_id, read, cursor=query.cursor)
    return exports.stream(found, form, columns=_COLUMNS, flat=_flat)


def _selection(organization_id: UUID) -> Selection:
    return (
        select(AuditEntry, Member, AuditChain)
        .join(
            Member,
            (col(AuditEntry.actor_id) == Member.id) & (col(Member.organization_id) == organization_id),
            isouter=True,
        )
        .join(
            AuditChain,
            (col(AuditChain.entry_id) == AuditEntry.id) & (col(AuditChain.organization_id) == organization_id),
            isouter=True,
        )
        .where(col(AuditEntry.organization_id) == organization_id)
    )


def _render(row: Row[*tuple[Any, ...]]) -> AuditEntryRead:
    entry, actor, link = row[:3]
    return AuditEntryRead(
        **entry.model_dump(include={"id", "act", "key_id", "request_id", "address", "fields", "created_at"}),
        actor=None if actor is None else Person.model_validate(actor, from_attributes=True),
        subject_id=_subject(entry),
        details=entry.details and {name: _detail(name, value) for name, value in entry.details.items()},
        seal=None if link is None else Seal(seq=link.seq, hash=link.hash.hex()),
    )


def _subject(entry: AuditEntry) -> str | None:
    if entry.subject_id is None:
        return None
    # The credentials of an unsaved config belong to the job that tests it.
    is_job = (entry.details or {}).get("job_id") == str(entry.subject_id)
    return ids.encode("job" if is_job else SUBJECTS[entry.act.partition(".")[0]], entry.subject_id)


def _detail(name: str, value: Any) -> Any:
    return ids.encode(_DETAILS[name], UUID(value)) if name in _DETAILS and isinstance(value, str) else value


def _flat(entry: dict[str, Any]) -> list[Any]:
    actor = entry["actor"] or {"id": None, "name": None, "email": None}
    people = {"actor_id": actor["id"], "actor_name": actor["name"], "actor_email": actor["email"]}
    return [(entry | people | (entry["seal"] or {"seq": None, "hash": None}))[column] for column in _COLUMNS]
