"""The audit log on the wire."""

from typing import Any

from pydantic import BaseModel, Field

from headwater_api.wire import ApiKeyId, AuditEntryId, Moment, Person


class Seal(BaseModel):
    """An entry's place in the organization's hash chain."""

    seq: int = Field(description="Counts the organization's entries, from 1.")
    hash: str = Field(description="SHA-256 over the entry and the hash before it, in hexadecimal.")


class AuditEntryRead(BaseModel):
    """One act. What changed is named, its values are not."""

    id: AuditEntryId
    act: str = Field(examples=["data_source.update"])
    actor: Person | None = Field(description="null: Headwater itself, or its operator.")
    key_id: ApiKeyId | None = Field(description="The API key that was used, if one was.")
    subject_id: str | None = Field(examples=["dsrc_01jm3k8e5vfqz8w2c7r4y6t9ab"])
    request_id: str | None = Field(description="`X-Request-Id` of the request.")
    address: str | None = Field(description="Where the request came from.", examples=["203.0.113.7"])
    fields: list[str] = Field(examples=[["config.prefix"]])
    details: dict[str, Any] | None = Field(examples=[{"kind": "sync"}])
    created_at: Moment
    seal: Seal | None = Field(description="null for the first seconds, until it is sealed.")
