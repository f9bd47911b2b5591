"""A write in progress: its session, who makes it, and the two records that every write leaves."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request
from sqlmodel import Session

from headwater import db
from headwater.audit import log as audit_log
from headwater.audit.acts import Act
from headwater.data_sources.rows import Event
from headwater_api.actor import Actor
from headwater_api.dependencies import SessionDep, get_actor


@dataclass(frozen=True)
class Transaction:
    """One transaction of the plain lane. It commits before the answer, or leaves nothing behind."""

    session: Session
    actor: Actor
    request_id: str
    address: str | None

    @property
    def organization_id(self) -> UUID:
        """For whom it acts; every query filters by it."""
        return self.actor.organization_id

    def audit(
        self, act: Act, subject_id: UUID, *, fields: Iterable[str] = (), details: Mapping[str, Any] | None = None
    ) -> None:
        """Write the audit entry of the act. `fields` names what changed, never values; `details` are ids and counts."""
        statement = audit_log.entry(
            organization_id=self.organization_id,
            actor_id=self.actor.member_id,
            key_id=self.actor.key_id,
            act=act,
            subject_id=subject_id,
            request_id=self.request_id,
            address=self.address,
            fields=fields,
            details=details,
        )
        db.run_in(self.session, statement)

    def tell(self, data_source_id: UUID, act: str, details: Mapping[str, Any]) -> None:
        """Add a line to the history of a data source. `act` is `noun.verb_past`."""
        event = Event(
            organization_id=self.organization_id,
            data_source_id=data_source_id,
            act=act,
            actor_id=self.actor.member_id,
            details=dict(details),
        )
        self.session.add(event)


def begin(request: Request, session: Session) -> Transaction:
    """The write that `request` asks for, in `session`."""
    return Transaction(
        session=session,
        actor=get_actor(request),
        request_id=request.state.request_id,
        address=request.client.host if request.client else None,
    )


def get_transaction(request: Request, session: SessionDep) -> Transaction:
    """The request's write."""
    return begin(request, session)


TransactionDep = Annotated[Transaction, Depends(get_transaction, scope="function")]
