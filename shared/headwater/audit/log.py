"""Writing to the audit log: a statement for the transaction of the act itself."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from headwater.audit.acts import Act
from headwater.db import Statement, json


def entry(
    *,
    organization_id: UUID,
    actor_id: UUID | None,
    act: Act,
    subject_id: UUID | None,
    key_id: UUID | None = None,
    request_id: str | None = None,
    address: str | None = None,
    fields: Iterable[str] = (),
    details: Mapping[str, Any] | None = None,
) -> Statement:
    """The insert of one entry. `fields` names what changed; values never enter the log."""
    return Statement(
        """
        insert into audit_entry
            (organization_id, actor_id, key_id, act, subject_id, request_id, address, fields, details)
        values
            (%(organization_id)s, %(actor_id)s, %(key_id)s, %(act)s, %(subject_id)s, %(request_id)s, %(address)s,
             %(fields)s::text[], %(details)s)
        """,
        {
            "organization_id": organization_id,
            "actor_id": actor_id,
            "key_id": key_id,
            "act": act.value,
            "subject_id": subject_id,
            "request_id": request_id,
            "address": address,
            "fields": sorted(fields),
            "details": None if details is None else json(dict(details)),
        },
    )
