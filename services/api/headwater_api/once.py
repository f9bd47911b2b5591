"""POSTs of the plain lane that act once per `Idempotency-Key`."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse
from sqlmodel import Session
from starlette.responses import Response

from headwater import db, idempotency
from headwater.errors import Conflict, IdempotencyMismatch
from headwater_api import services
from headwater_api.actor import Actor
from headwater_api.dependencies import get_actor

REPLAYED: Final = "Idempotency-Replayed"
LONGEST_KEY: Final = 255

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=LONGEST_KEY,
        description="The same key with the same request acts once; kept for 24 hours.",
    ),
]


@dataclass(frozen=True)
class Answer:
    """What a POST answers. `secret`: it shows one, so it is never stored and a replay is refused with the id."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    subject_id: UUID | None = None
    secret: bool = False

    def response(self) -> Response:
        """As it goes out."""
        return JSONResponse(self.body, status_code=self.status, headers=self.headers)


@dataclass(frozen=True)
class Once:
    """One request's idempotency: `key` None acts always."""

    actor: Actor
    route: str
    key: str | None
    fingerprint: bytes

    def perform(self, session: Session, act: Callable[[], Answer]) -> Response:
        """Act, or give the stored answer. All in the transaction of `session`.

        Raises `IdempotencyMismatch` for another request under the same key, `Conflict` (`already_created`) where the
        first answer carried a secret.
        """
        if self.key is None:
            return act().response()
        place: dict[str, Any] = {
            "organization_id": self.actor.organization_id,
            "actor_id": self.actor.member_id,
            "route": self.route,
            "key": self.key,
        }
        if not db.run_in(session, idempotency.claim(**place, fingerprint=self.fingerprint)):
            return self._replay(db.run_in(session, idempotency.find(**place))[0])
        answer = act()
        session.flush()
        stored = None if answer.secret else answer.body
        completed = idempotency.complete(
            **place, status=answer.status, body=stored, headers=answer.headers, subject_id=answer.subject_id
        )
        db.run_in(session, completed)
        return answer.response()

    def _replay(self, record: db.Row) -> Response:
        if not hmac.compare_digest(record["fingerprint"], self.fingerprint):
            raise IdempotencyMismatch
        if record["body"] is None:
            message = "This was created before, and its secret is shown only once."
            raise Conflict(message, code="already_created", links={"created": record["headers"]["Location"]})
        return JSONResponse(
            record["body"], status_code=record["status"], headers={**record["headers"], REPLAYED: "true"}
        )


async def get_once(request: Request, idempotency_key: IdempotencyKey = None) -> Once:
    """The request's idempotency."""
    pepper = services.of(request).pepper
    fingerprint = idempotency.fingerprint(
        pepper, method=request.method, path=request.url.path, body=await request.body()
    )
    route = f"{request.method} {request.scope['route'].path}"
    return Once(get_actor(request), route, idempotency_key, fingerprint)


OnceDep = Annotated[Once, Depends(get_once)]
