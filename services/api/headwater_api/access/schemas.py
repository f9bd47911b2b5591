"""Access on the wire."""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from headwater.access.policy import Role
from headwater_api.wire import ApiKeyId, Instant, MemberId, Moment, OrganizationId, Person, ProjectId

Name: TypeAlias = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
# One @ with something around it: whether mail arrives there, nobody can say without sending any.
Email: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=254, pattern=r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+$")
]
ProjectIds: TypeAlias = Annotated[list[ProjectId], Field(min_length=1, max_length=100)]
Kind: TypeAlias = Literal["person", "service"]

DAY_SECONDS = 24 * 3600


class QuotaRead(BaseModel):
    """How much of something the organization has, and may have."""

    used: int
    limit: int | None = Field(description="null: no limit.")


class Quotas(BaseModel):
    """What an organization may have."""

    data_sources: QuotaRead
    live_jobs: QuotaRead = Field(description="Jobs that have not ended.")
    upload_bytes: QuotaRead = Field(description="All uploaded files together.")
    webhooks: QuotaRead


class OrganizationRead(BaseModel):
    """The tenant."""

    id: OrganizationId
    name: str = Field(examples=["Acme"])
    created_at: Moment
    quotas: Quotas


class OrganizationUpdate(BaseModel):
    """What to change."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Acme Ltd"}]})

    name: Name | None = Field(default=None, description="null and omitted: it stays.")


class OrganizationName(BaseModel):
    """The tenant, in short."""

    id: OrganizationId
    name: str = Field(examples=["Acme"])


class Me(BaseModel):
    """Who is asking, and what they may do."""

    member: Person
    organization: OrganizationName
    key_id: ApiKeyId | None = Field(description="null: signed in through the identity provider.")
    role: Role
    project_ids: list[ProjectId] | None = Field(description="The projects that the key is limited to; null: all.")
    permissions: list[str] = Field(examples=[["data_source:read", "job:read"]])


class MemberCreate(BaseModel):
    """A person to invite, or a service account."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"email": "grace@example.com", "role": "operator"}]}
    )

    kind: Kind = "person"
    email: Email | None = Field(default=None, description="Of a person; a service has none.")
    name: Name | None = Field(default=None, description="Of a person, what stands before the @, if it is not sent.")
    role: Role

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind == "person" and self.email is None:
            raise ValueError("a person needs an `email`")
        if self.kind == "service" and self.email is not None:
            raise ValueError("a service has no `email`")
        if self.kind == "service" and self.name is None:
            raise ValueError("a service needs a `name`")
        return self


class MemberUpdate(BaseModel):
    """What to change; what is not sent stays as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"role": "viewer"}]})

    name: Name | None = None
    role: Role | None = None


class MemberRead(BaseModel):
    """A person, or a service, of the organization."""

    id: MemberId
    kind: Kind
    name: str
    email: str | None
    role: Role
    created_at: Moment


class ApiKeyCreate(BaseModel):
    """A new API key."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "nightly sync", "role": "operator"}]}
    )

    name: Name
    role: Role = Field(description="At most your own, and its member's.")
    expires_at: Instant | None = Field(default=None, description="null: it does not expire.")
    project_ids: ProjectIds | None = Field(default=None, description="Good for these projects only; null: for all.")
    member_id: MemberId | None = Field(default=None, description="Whose key it is; yours if it is not sent.")


class ApiKeyRotate(BaseModel):
    """How a key gives way to its successor."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"overlap_seconds": 3600}]})

    overlap_seconds: int = Field(
        default=DAY_SECONDS, ge=0, le=30 * DAY_SECONDS, description="How long the old key is good beside the new one."
    )
    expires_at: Instant | None = Field(default=None, description="Of the new key; if not sent, that of the old one.")


class ApiKeyRead(BaseModel):
    """An API key. Its text is shown once, when it is made."""

    id: ApiKeyId
    name: str
    role: Role = Field(description="Its rights are never more than its member's.")
    member: Person
    project_ids: list[ProjectId] | None
    created_at: Moment
    expires_at: Moment | None
    last_used_at: Moment | None = Field(description="To the minute.")


class ApiKeyCreated(ApiKeyRead):
    """A fresh API key, with its text."""

    key: str = Field(description="Shown this once; keep it safe.", examples=["hw_01jm3k..._..._..."])
