"""Tables of the audit log. Insert-only, by grant and by trigger."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Boolean, CheckConstraint, ForeignKey, Identity, Index, LargeBinary, Text, func
from sqlalchemy.types import UserDefinedType
from sqlmodel import Field, SQLModel

from headwater import ids
from headwater.db import JSON_TYPE, MOMENT


class TransactionId(UserDefinedType[int]):
    """A transaction's number that never wraps around, `xid8`."""

    cache_ok = True

    def get_col_spec(self, **_ignored: Any) -> str:
        return "xid8"


class AuditEntry(SQLModel, table=True):
    """One act. `fields` names what changed, never values; `details` holds ids and counts.

    `number`, `xid` (the transaction of the act) and `created_at` are the database's to say.
    """

    __tablename__ = "audit_entry"
    __table_args__ = (
        Index("ix_audit_entry_page", "organization_id", "created_at", "number"),
        Index("ix_audit_entry_act", "organization_id", "act", "created_at", "number"),
        Index("ix_audit_entry_actor", "organization_id", "actor_id", "created_at", "number"),
        Index("ix_audit_entry_subject", "organization_id", "subject_id", "created_at", "number"),
        Index(None, "xid"),
    )

    id: UUID = Field(default_factory=ids.new, primary_key=True)
    number: int | None = Field(
        default=None, sa_type=BigInteger, nullable=False, sa_column_args=(Identity(always=True),)
    )
    organization_id: UUID  # no foreign key: the log outlives the organization
    actor_id: UUID | None = Field(default=None, description="a member; None is Headwater itself or its operator")
    key_id: UUID | None = Field(default=None, description="the API key that was used, if one was")
    act: str = Field(sa_type=Text)
    subject_id: UUID | None = None
    request_id: str | None = Field(default=None, sa_type=Text)
    address: str | None = Field(default=None, sa_type=Text)
    fields: list[str] = Field(default_factory=list, sa_type=ARRAY(Text), sa_column_kwargs={"server_default": "{}"})
    details: dict[str, object] | None = Field(default=None, sa_type=JSON_TYPE)
    created_at: datetime = Field(
        default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs={"server_default": func.now()}
    )
    xid: int = Field(
        default=None,
        sa_type=TransactionId,
        nullable=False,
        sa_column_kwargs={"server_default": func.pg_current_xact_id()},
    )


class AuditChain(SQLModel, table=True):
    """One sealed entry: `hash` is over the entry and the hash before it, `seq` counts from 1 in each organization."""

    __tablename__ = "audit_chain"

    organization_id: UUID = Field(primary_key=True)
    seq: int = Field(primary_key=True, sa_type=BigInteger)
    entry_id: UUID = Field(unique=True, sa_column_args=(ForeignKey("audit_entry.id"),))
    hash: bytes = Field(sa_type=LargeBinary)
    sealed_at: datetime = Field(
        default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs={"server_default": func.now()}
    )


class AuditHorizon(SQLModel, table=True):
    """One row: entries of transactions before `xid` are sealed, as the server `system_identifier` counts them."""

    __tablename__ = "audit_horizon"
    __table_args__ = (CheckConstraint("id", name="id"),)

    id: bool = Field(default=True, primary_key=True, sa_type=Boolean)
    system_identifier: int | None = Field(default=None, sa_type=BigInteger)
    xid: int = Field(sa_type=TransactionId, nullable=False)
