"""Idempotency-Key: the same request twice acts once and is answered alike.

The record is written in the request's own transaction: a concurrent twin waits on its primary key, then gets the
stored answer. Kept 24 hours, bound to actor and route.
"""

import hashlib
import hmac
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, Text, func
from sqlmodel import Field, SQLModel

from headwater.db import JSON_TYPE, MOMENT, Statement, json


class IdempotencyRecord(SQLModel, table=True):
    """One key's use. `body` stays None for an answer that carries a secret; `subject_id` is what was made."""

    __tablename__ = "idempotency_record"
    __table_args__ = (Index(None, "created_at"),)

    organization_id: UUID = Field(primary_key=True, sa_column_args=(ForeignKey("organization.id", ondelete="CASCADE"),))
    actor_id: UUID = Field(primary_key=True)
    route: str = Field(primary_key=True, sa_type=Text)
    key: str = Field(primary_key=True, sa_type=Text)
    fingerprint: bytes = Field(sa_type=LargeBinary)
    status: int | None = None
    body: dict[str, Any] | None = Field(default=None, sa_type=JSON_TYPE)
    headers: dict[str, str] | None = Field(default=None, sa_type=JSON_TYPE)
    subject_id: UUID | None = None
    created_at: datetime = Field(
        default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs={"server_default": func.now()}
    )


def fingerprint(pepper: bytes, *, method: str, path: str, body: bytes) -> bytes:
    """HMAC-SHA256 of a request, 32 bytes: keyed, because bodies carry secrets."""
    message = b"\0".join((method.encode(), path.encode(), body))
    return hmac.digest(pepper, message, hashlib.sha256)


def claim(*, organization_id: UUID, actor_id: UUID, route: str, key: str, fingerprint: bytes) -> Statement:
    """Take the key, or a record older than 24 hours over. One row back: this request acts. None: `find` the answer."""
    return Statement(
        """
        insert into idempotency_record as r (organization_id, actor_id, route, key, fingerprint)
        values (%(organization_id)s, %(actor_id)s, %(route)s, %(key)s, %(fingerprint)s)
        on conflict (organization_id, actor_id, route, key) do update
            set fingerprint = excluded.fingerprint, status = null, body = null, headers = null, subject_id = null,
                created_at = now()
            where r.created_at < now() - interval '24 hours'
        returning true as claimed
        """,
        _key(organization_id, actor_id, route, key) | {"fingerprint": fingerprint},
    )


def find(*, organization_id: UUID, actor_id: UUID, route: str, key: str) -> Statement:
    """The record of a key: fingerprint, status, body, headers, subject_id."""
    return Statement(
        """
        select fingerprint, status, body, headers, subject_id from idempotency_record
        where organization_id = %(organization_id)s and actor_id = %(actor_id)s
          and route = %(route)s and key = %(key)s
        """,
        _key(organization_id, actor_id, route, key),
    )


def complete(
    *,
    organization_id: UUID,
    actor_id: UUID,
    route: str,
    key: str,
    status: int,
    body: dict[str, Any] | None,
    headers: dict[str, str],
    subject_id: UUID | None,
) -> Statement:
    """Store the answer. `body` None: it carries a secret, and a replay is told only that it was made."""
    return Statement(
        """
        update idempotency_record set status = %(status)s, body = %(body)s, headers = %(headers)s,
            subject_id = %(subject_id)s
        where organization_id = %(organization_id)s and actor_id = %(actor_id)s
          and route = %(route)s and key = %(key)s
        """,
        _key(organization_id, actor_id, route, key)
        | {
            "status": status,
            "body": None if body is None else json(body),
            "headers": json(headers),
            "subject_id": subject_id,
        },
    )


def _key(organization_id: UUID, actor_id: UUID, route: str, key: str) -> dict[str, Any]:
    return {"organization_id": organization_id, "actor_id": actor_id, "route": route, "key": key}
