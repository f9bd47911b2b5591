"""Sources that take files, and what they refuse before a byte is received."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from starlette.requests import Request

from headwater.access import quotas
from headwater.connectors import registry
from headwater.connectors.spec import Capability
from headwater.connectors.uploads import UploadsConfig
from headwater.db import Row
from headwater.errors import Conflict, NotFound, PayloadTooLarge, UnsupportedMediaType
from headwater.uploads import statements
from headwater.uploads.storage import Storage
from headwater_api import services
from headwater_api.dependencies import get_actor
from headwater_api.jobs import submitting
from headwater_api.services import Lane, Services
from headwater_api.uploads import naming

_IDENTITY: Final = ("", "identity")


@dataclass(frozen=True)
class Place:
    """A source that takes files. `lane` acts for its organization."""

    lane: Lane
    project_id: UUID
    data_source_id: UUID
    config: UploadsConfig
    storage: Storage
    held_bytes: int
    most_bytes: int


async def find_place(request: Request, project_id: UUID, data_source_id: UUID, name: str) -> Place:
    """The source of the path. Raises `NotFound`, `Conflict` (`capability_missing`, `uploads_not_configured`)."""
    held, actor = services.of(request), get_actor(request)
    lane = held.lane(actor.organization_id)
    row = await lane.fetch(
        statements.source(
            organization_id=actor.organization_id, project_id=project_id, data_source_id=data_source_id, without=name
        )
    )
    if row is None:
        raise NotFound
    require_capability(row["type"])
    if held.storage is None:
        raise Conflict(
            "This installation has no place for uploads.",
            code="uploads_not_configured",
            hint="An operator sets HEADWATER_UPLOADS_DIR or HEADWATER_UPLOADS_BUCKET.",
        )
    config = registry.get_spec(row["type"]).config.model_validate(row["config"])
    assert isinstance(config, UploadsConfig), "a type that takes uploads says which"
    return Place(lane, project_id, data_source_id, config, held.storage, row["held_bytes"], most_bytes(held, row))


def require_capability(type_: str) -> None:
    """Raise `Conflict` (`capability_missing`) if sources of this type take no files."""
    spec = registry.specs().get(type_)
    if spec is None or Capability.UPLOADS not in spec.capabilities:
        raise submitting.capability_missing()


def check_head(request: Request, place: Place, name: str) -> None:
    """Refuse what need not be received. Raises `PayloadTooLarge`, `UnsupportedMediaType`, `InvalidRequest`."""
    length = request.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > place.config.largest_bytes:
        raise too_large(place)
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type.startswith("multipart/"):
        raise UnsupportedMediaType(
            "Forms are not taken: the body is the file itself.",
            code="multipart_refused",
            hint="With curl use --data-binary @file or --upload-file, not --form.",
        )
    if request.headers.get("Content-Encoding", "").strip().lower() not in _IDENTITY:
        raise UnsupportedMediaType(
            "Compressed bodies are not unpacked.",
            code="content_encoding_refused",
            hint="Send the file as it is; for a compressed file add the extension to its name.",
        )
    if not place.config.allows(name):
        allowed = ", ".join(place.config.allowed_extensions)
        raise UnsupportedMediaType(
            "The data source does not take files with this extension.",
            code="extension_refused",
            hint=f"It takes: {allowed}.",
        )
    naming.check(name)


def too_large(place: Place) -> PayloadTooLarge:
    """For a body beyond the source's limit."""
    return PayloadTooLarge(
        f"The file is larger than this data source takes, {place.config.max_file_size_mb} MiB.", code="file_too_large"
    )


def most_bytes(held: Services, row: Row) -> int:
    """What the organization may hold, by a row of `statements.source`."""
    own: int | None = row["may_hold"]
    return quotas.limits(held.quotas)["upload_bytes"] if own is None else own


def require_room(place: Place, size: int) -> None:
    """Raise `QuotaExceeded` if so many bytes more are too many."""
    quotas.require_room("upload_bytes", limit=place.most_bytes, used=place.held_bytes + size)
