"""The table of uploads. Each row is one version of one file; the bytes stand in the storage, under keys of ours."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, ForeignKey, Index, Text, Uuid, func, text
from sqlmodel import Field, SQLModel

from headwater import ids
from headwater.db import JSON_TYPE, MOMENT

_NOW = {"server_default": func.now()}


class Upload(SQLModel, table=True):
    """An uploaded file.

    `state`: `receiving` (one request brings it), `partial` (several do, and more may come), `stored` (what everybody
    sees), `dropped` (replaced, deleted or given up: its bytes go next). `keys` are all keys that may hold bytes of it,
    each written down before its first byte; `segments`, {key, size}, are those that make up the file, in order.
    `writer` is the key that a request writes to now. Neither organization nor source is a foreign key that takes the
    row away with it: somebody has to know which bytes to delete.
    """

    __tablename__ = "upload"
    __table_args__ = (
        CheckConstraint("state in ('receiving', 'partial', 'stored', 'dropped')", name="state"),
        Index("uq_upload_stored", "data_source_id", "name", unique=True, postgresql_where=text("state = 'stored'")),
        Index("uq_upload_partial", "data_source_id", "name", unique=True, postgresql_where=text("state = 'partial'")),
        Index("ix_upload_held", "organization_id", postgresql_where=text("state <> 'dropped'")),
        Index("ix_upload_leaving", "updated_at", postgresql_where=text("state <> 'stored'")),
    )

    id: UUID = Field(default_factory=ids.new, primary_key=True)
    organization_id: UUID
    data_source_id: UUID | None = Field(
        default=None, sa_column_args=(ForeignKey("data_source.id", ondelete="SET NULL"),)
    )
    name: str = Field(sa_type=Text)
    state: str = Field(default="receiving", sa_type=Text)
    size: int = Field(default=0, sa_type=BigInteger, description="bytes; of a partial one, those that are kept")
    total: int | None = Field(default=None, sa_type=BigInteger, description="bytes that a partial one will have")
    sha256: str | None = Field(default=None, sa_type=Text)
    content_type: str = Field(sa_type=Text)
    etag: str | None = Field(default=None, sa_type=Text)
    keys: list[UUID] = Field(sa_type=ARRAY(Uuid))
    segments: list[dict[str, Any]] = Field(
        default_factory=list, sa_type=JSON_TYPE, sa_column_kwargs={"server_default": "[]"}
    )
    writer: UUID | None = None
    created_by: UUID | None = None
    created_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    updated_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
