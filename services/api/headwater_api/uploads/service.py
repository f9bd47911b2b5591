"""The rules of stored files: which one is seen, what replaces it, who may say so."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlmodel import Session, col
from starlette.requests import Request
from starlette.responses import Response

from headwater import db
from headwater.access import quotas
from headwater.audit.acts import Act
from headwater.errors import Conflict, NotFound, StaleRevision
from headwater.uploads import statements
from headwater.uploads.rows import Upload
from headwater_api import services
from headwater_api.actor import Actor
from headwater_api.data_sources import service as data_sources
from headwater_api.dependencies import get_actor
from headwater_api.once import Answer, Once
from headwater_api.services import Services
from headwater_api.transaction import Transaction, begin
from headwater_api.uploads import places
from headwater_api.uploads.places import Place
from headwater_api.uploads.schemas import UploadRead


def find(session: Session, actor: Actor, data_source_id: UUID, name: str) -> Upload | None:
    """The stored file of this name."""
    statement = stored(actor.organization_id, data_source_id).where(col(Upload.name) == name)
    found: Upload | None = session.execute(statement).scalar_one_or_none()
    return found


def stored(organization_id: UUID, data_source_id: UUID) -> Any:
    """What everybody sees of a source."""
    return select(Upload).where(
        col(Upload.organization_id) == organization_id,
        col(Upload.data_source_id) == data_source_id,
        col(Upload.state) == "stored",
    )


def delete(transaction: Transaction, request: Request, *, project_id: UUID, data_source_id: UUID, name: str) -> None:
    """Delete a file, and what there is of an unfinished one. Raises `NotFound`, `StaleRevision`."""
    data_sources.lock(transaction, project_id=project_id, data_source_id=data_source_id)
    _require_fresh(request, transaction, data_source_id, name)
    states = ["stored", "partial"]
    dropped = statements.drop_named(data_source_id=data_source_id, name=name, states=states)
    if not db.run_in(transaction.session, dropped):
        raise NotFound
    transaction.audit(Act.UPLOAD_DELETE, data_source_id)
    transaction.tell(data_source_id, "upload.deleted", {"name": name})


def render(upload: Upload) -> UploadRead:
    """As it goes out."""
    return UploadRead.model_validate(upload, from_attributes=True)


@dataclass(frozen=True)
class Brought:
    """A file whose bytes are kept and that nobody sees yet."""

    upload_id: UUID
    name: str
    size: int
    sha256: str
    segments: list[dict[str, Any]]


def show(request: Request, place: Place, brought: Brought, once: Once) -> tuple[Response, bool]:
    """Show the file in place of a former one; whether it is shown now, or was in an earlier request."""
    held, actor = services.of(request), get_actor(request)
    shown = False
    with db.session(held.engine, actor.organization_id) as session:
        transaction = begin(request, session)
        # The organization first, then the source: nobody takes them the other way round.
        db.run_in(session, quotas.hold(actor.organization_id, held.quotas))
        data_sources.lock(transaction, project_id=place.project_id, data_source_id=place.data_source_id)

        def act() -> Answer:
            nonlocal shown
            shown = True
            _require_fresh(request, transaction, place.data_source_id, brought.name)
            return _shown(held, transaction, place, brought)

        response = once.perform(session, act)
    return response, shown


def _shown(held: Services, transaction: Transaction, place: Place, brought: Brought) -> Answer:
    session, name = transaction.session, brought.name
    former = statements.drop_named(data_source_id=place.data_source_id, name=name, states=["stored"])
    replaced = db.run_in(session, former)
    store = statements.store(
        upload_id=brought.upload_id, size=brought.size, sha256=brought.sha256, segments=brought.segments
    )
    if not db.run_in(session, store):
        raise Conflict("This upload was given up; begin again.", code="upload_given_up")
    source = statements.source(
        organization_id=transaction.organization_id,
        project_id=place.project_id,
        data_source_id=place.data_source_id,
    )
    row = db.run_in(session, source)[0]
    quotas.require_room("upload_bytes", limit=places.most_bytes(held, row), used=row["held_bytes"])
    transaction.audit(Act.UPLOAD_STORE, place.data_source_id)
    details = {"name": name, "size": brought.size, "sha256": brought.sha256, "replaced": bool(replaced)}
    transaction.tell(place.data_source_id, "upload.stored", details)
    found = find(session, transaction.actor, place.data_source_id, name)
    assert found is not None
    return Answer(
        status=201,
        body=render(found).model_dump(mode="json"),
        headers={"ETag": f'"{found.etag}"'},
        subject_id=found.id,
    )


def _require_fresh(request: Request, transaction: Transaction, data_source_id: UUID, name: str) -> None:
    header = request.headers.get("If-Match")
    if header is None:
        return
    found = find(transaction.session, transaction.actor, data_source_id, name)
    candidates = [candidate.strip() for candidate in header.split(",")]
    if found is None or not {"*", f'"{found.etag}"'} & set(candidates):
        raise StaleRevision
