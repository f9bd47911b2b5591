"""Tables of the vault."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, Text, func
from sqlmodel import Field, SQLModel

from headwater import ids
from headwater.db import MOMENT


class OrganizationKey(SQLModel, table=True):
    """The public half of an organization's key pair. The newest one that is not retired seals.

    `retired_at`: since when it only opens what was sealed to it before, until that is sealed to a newer one.
    """

    __tablename__ = "organization_key"
    __table_args__ = (Index(None, "organization_id"),)

    id: UUID = Field(default_factory=ids.new, primary_key=True)
    organization_id: UUID = Field(sa_column_args=(ForeignKey("organization.id", ondelete="CASCADE"),))
    suite: str = Field(sa_type=Text)
    public_key: bytes = Field(sa_type=LargeBinary)
    created_at: datetime = Field(
        default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs={"server_default": func.now()}
    )
    retired_at: datetime | None = Field(default=None, sa_type=MOMENT)


class OrganizationPrivateKey(SQLModel, table=True):
    """The private half, wrapped by a provider. The API's database role cannot read this table.

    `master_key`: what the provider calls the key that wrapped it (`providers.Wrapped`).
    """

    __tablename__ = "organization_private_key"

    key_id: UUID = Field(primary_key=True, sa_column_args=(ForeignKey("organization_key.id", ondelete="CASCADE"),))
    provider: str = Field(sa_type=Text)
    master_key: str | None = Field(default=None, sa_type=Text)
    wrapped: bytes = Field(sa_type=LargeBinary)
    created_at: datetime = Field(
        default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs={"server_default": func.now()}
    )


class SealedCredential(SQLModel, table=True):
    """One secret field of a data source, of a webhook, or of a job that tests an unsaved config (`subject_id`).

    `reference`: what was sealed names a secret that is kept elsewhere, and this is it.
    """

    __tablename__ = "sealed_credential"
    __table_args__ = (
        Index(None, "organization_id", "subject_id"),
        Index(None, "key_id", "subject_id", "field"),
    )

    subject_id: UUID = Field(primary_key=True)
    field: str = Field(primary_key=True, sa_type=Text)
    organization_id: UUID = Field(sa_column_args=(ForeignKey("organization.id", ondelete="CASCADE"),))
    ciphertext: bytes = Field(sa_type=LargeBinary)
    suite: str = Field(sa_type=Text)
    key_id: UUID = Field(sa_column_args=(ForeignKey("organization_key.id"),))
    created_at: datetime = Field(
        default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs={"server_default": func.now()}
    )
    rotated_at: datetime | None = Field(default=None, sa_type=MOMENT)
    reference: str | None = Field(default=None, sa_type=Text)
