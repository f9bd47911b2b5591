"""Types of the wire: TypeIDs, moments in UTC, and the people behind an act."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias, get_args
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from headwater import clock, ids
from headwater.errors import NotFound


@dataclass(frozen=True)
class TypeId:
    """`Annotated[UUID, TypeId("proj")]`: a UUID inside, its TypeID in JSON."""

    prefix: ids.Prefix

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._decode,
            serialization=core_schema.plain_serializer_function_ser_schema(
                self._encode, return_schema=core_schema.str_schema()
            ),
        )

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {
            "type": "string",
            "pattern": f"^{self.prefix}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$",
            "examples": [f"{self.prefix}_01jm3k8e5vfqz8w2c7r4y6t9ab"],
        }

    def _decode(self, value: Any) -> UUID:
        if isinstance(value, UUID):
            return value
        try:
            return ids.decode(self.prefix, value if isinstance(value, str) else "")
        except NotFound:
            raise ValueError(f"must be an id that starts with {self.prefix}_") from None

    def _encode(self, value: UUID) -> str:
        return ids.encode(self.prefix, value)


OrganizationId: TypeAlias = Annotated[UUID, TypeId("org")]
MemberId: TypeAlias = Annotated[UUID, TypeId("user")]
ApiKeyId: TypeAlias = Annotated[UUID, TypeId("key")]
ProjectId: TypeAlias = Annotated[UUID, TypeId("proj")]
DataSourceId: TypeAlias = Annotated[UUID, TypeId("dsrc")]
JobId: TypeAlias = Annotated[UUID, TypeId("job")]
EventId: TypeAlias = Annotated[UUID, TypeId("evt")]
AuditEntryId: TypeAlias = Annotated[UUID, TypeId("aud")]
WebhookId: TypeAlias = Annotated[UUID, TypeId("hook")]
DeliveryId: TypeAlias = Annotated[UUID, TypeId("dlv")]


def _any_id(value: object) -> UUID:
    text = value if isinstance(value, str) else ""
    for prefix in get_args(ids.Prefix):
        if text.startswith(f"{prefix}_"):
            with suppress(NotFound):
                return ids.decode(prefix, text)
    raise ValueError("must be an id, such as dsrc_01jm3k8e5vfqz8w2c7r4y6t9ab")


AnyId: TypeAlias = Annotated[
    UUID,
    BeforeValidator(_any_id),
    WithJsonSchema({"type": "string", "pattern": "^[a-z]+_[0-7][0-9a-hjkmnp-tv-z]{25}$"}),
]
"""An id of any kind; the kind is not kept."""

Moment: TypeAlias = Annotated[datetime, PlainSerializer(clock.rfc3339, return_type=str, when_used="json")]
"""RFC 3339 in UTC with `Z`."""


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a moment from year 1 to 9999 in UTC") from None


Instant: TypeAlias = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A moment that a caller gives, with its offset; in UTC from here on, whatever the offset."""


class Person(BaseModel):
    """A member, as others see them."""

    id: MemberId
    name: str = Field(examples=["Ada"])
    email: str | None = Field(description="null: a service.", examples=["ada@example.com"])
