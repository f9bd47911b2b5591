"""Webhooks on the wire."""

from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from headwater.connectors.origins import check_endpoint_url
from headwater_api.wire import DeliveryId, JobId, Moment, ProjectId, WebhookId

DAY_SECONDS: Final = 24 * 3600

_LONGEST_URL: Final = 2048

EventType: TypeAlias = Literal["job.succeeded", "job.partially_succeeded", "job.failed", "job.cancelled"]
Status: TypeAlias = Literal["pending", "delivering", "succeeded", "failed"]


def _require_url(text: str) -> str:
    if not all("!" <= character <= "~" for character in text) or "\\" in text or "#" in text:
        raise ValueError("must be a URL in ASCII, without blanks, backslashes and fragment")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("must be a URL such as https://hooks.example.com/headwater") from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("must start with https:// and name a host; http:// only in a network that the operator allows")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or a password: check the signature instead")
    check_endpoint_url(f"{parts.scheme}://{parts.netloc}")
    return text


Url: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=_LONGEST_URL), AfterValidator(_require_url)]
Description: TypeAlias = Annotated[str, StringConstraints(max_length=2000)]
EventTypes: TypeAlias = Annotated[list[EventType], Field(min_length=1, max_length=10)]
ProjectIds: TypeAlias = Annotated[list[ProjectId], Field(min_length=1, max_length=100)]


class WebhookCreate(BaseModel):
    """A new webhook."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"url": "https://hooks.example.com/headwater", "event_types": ["job.failed"]}]},
    )

    url: Url = Field(description="`http://` reaches only networks that the operator allows.")
    description: Description = ""
    event_types: EventTypes | None = Field(default=None, description="What it is told of; null: all.")
    project_ids: ProjectIds | None = Field(default=None, description="Of jobs of these projects only; null: of all.")
    enabled: bool = True


class WebhookUpdate(BaseModel):
    """What to change; what is not sent stays as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"enabled": True}]})

    url: Url = Field(default_factory=str, description="`http://` reaches only networks that the operator allows.")
    description: Description | None = Field(default=None, description="`null` empties it.")
    event_types: EventTypes | None = Field(default=None, description="What it is told of; null: all.")
    project_ids: ProjectIds | None = Field(default=None, description="Of jobs of these projects only; null: of all.")
    enabled: bool = Field(default=True, description="Switched on, it counts as not failing.")

    def changes(self) -> dict[str, Any]:
        """The fields that were sent."""
        sent = {name: getattr(self, name) for name in self.model_fields_set}
        return sent | ({"description": ""} if sent.get("description", "") is None else {})


class WebhookRotate(BaseModel):
    """How a secret gives way to its successor."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"overlap_seconds": 3600}]})

    overlap_seconds: int = Field(
        default=DAY_SECONDS, ge=0, le=30 * DAY_SECONDS, description="How long both sign; 0 ends the old one at once."
    )


class WebhookRead(BaseModel):
    """Where the organization is told that a job has ended. Its secret is shown once, when it is made."""

    id: WebhookId
    url: str = Field(examples=["https://hooks.example.com/headwater"])
    description: str
    event_types: list[EventType] | None = Field(description="null: all.")
    project_ids: list[ProjectId] | None = Field(description="null: all.")
    enabled: bool
    disabled_reason: Literal["gone", "failing"] | None = Field(
        description="Why Headwater switched it off: `gone`, the server answered 410; `failing`, for days none arrived."
    )
    failing_since: Moment | None = Field(description="Nothing has arrived since; null: the last delivery did.")
    previous_secret_until: Moment | None = Field(description="Until then the secret before signs too.")
    created_at: Moment
    updated_at: Moment


class WebhookCreated(WebhookRead):
    """A webhook with a fresh secret."""

    secret: str = Field(description="Shown this once; keep it safe.", examples=["whsec_..."])


class DeliveryRead(BaseModel):
    """One event on its way to a webhook."""

    id: DeliveryId = Field(description="The message's `webhook-id`, however often it is sent.")
    type: str = Field(examples=["job.succeeded"])
    job_id: JobId | None
    status: Status
    attempt: int = Field(description="How often it was sent.")
    next_attempt_at: Moment | None = Field(description="null: it has ended, or is being sent.")
    status_code: int | None = Field(description="Of the last answer; null: there was none.")
    error_code: str | None = Field(description="Of the last attempt, if it failed.", examples=["timeout"])
    created_at: Moment
    ended_at: Moment | None


class AttemptRead(BaseModel):
    """One request. Neither a status code nor an error code: it is under way."""

    attempt: int
    started_at: Moment
    duration_ms: int | None
    status_code: int | None
    error_code: str | None


class DeliveryDetail(DeliveryRead):
    """One event on its way to a webhook, with every request that was made of it."""

    payload: dict[str, Any] = Field(description="The body that is sent.")
    attempts: list[AttemptRead] = Field(description="The newest first, at most 100.")
