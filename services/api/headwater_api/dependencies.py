"""What endpoints ask for: the actor, a session that commits before the answer, parsed ids."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Path, Request
from pydantic import BeforeValidator
from pydantic.json_schema import WithJsonSchema
from sqlmodel import Session

from headwater import db, ids
from headwater_api import services
from headwater_api.actor import Actor


def get_actor(request: Request) -> Actor:
    """The actor that the guard found."""
    actor: Actor = request.state.actor
    return actor


async def _the_actor(request: Request) -> Actor:
    # Not `get_actor` itself: what is no coroutine is run in a thread, which costs more than the rest of a request.
    return get_actor(request)


async def get_turn(request: Request) -> AsyncIterator[None]:
    """A turn on the plain lane, for the endpoint's time."""
    async with services.of(request).turn():
        yield


TurnDep = Annotated[None, Depends(get_turn, scope="function")]


def get_session(request: Request, _turn: TurnDep) -> Iterator[Session]:
    """A transaction for the actor's organization; it ends before the answer is sent (`scope="function"`)."""
    with db.session(services.of(request).engine, get_actor(request).organization_id) as session:
        yield session


def _decoder(prefix: ids.Prefix) -> Callable[[Any], UUID]:
    def decode(value: Any) -> UUID:
        return value if isinstance(value, UUID) else ids.decode(prefix, str(value))

    return decode


def _path_id(prefix: ids.Prefix) -> Any:
    schema = {"type": "string", "pattern": f"^{prefix}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$"}
    # NotFound passes through pydantic: a malformed id is answered like an unknown one.
    return Annotated[UUID, BeforeValidator(_decoder(prefix)), WithJsonSchema(schema), Path()]


ActorDep = Annotated[Actor, Depends(_the_actor)]
SessionDep = Annotated[Session, Depends(get_session, scope="function")]
ProjectId = _path_id("proj")
DataSourceId = _path_id("dsrc")
JobId = _path_id("job")
ApiKeyId = _path_id("key")
MemberId = _path_id("user")
WebhookId = _path_id("hook")
DeliveryId = _path_id("dlv")
