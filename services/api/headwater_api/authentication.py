"""From an `Authorization` header to an actor: one look-up, remembered for a few seconds.

API keys are checked here, tokens of the identity provider in `signing_in`.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg

from headwater import log
from headwater.access import api_keys
from headwater.db import Row, Statement
from headwater.errors import Unauthenticated
from headwater_api.actor import Actor
from headwater_api.admission import Strangers
from headwater_api.denials import Denials, Refused
from headwater_api.signing_in import SignIn

REMEMBERED_SECONDS: Final = 4.0  # a revoked key dies within five
_REMEMBERED_KEYS: Final = 10_000
_USE_NOTED_SECONDS: Final = 60.0

_DEAD: Final = {
    "revoked": ("api_key_revoked", "This API key was revoked."),
    "expired": ("api_key_expired", "This API key has expired."),
    "suspended": ("organization_suspended", "This organization is suspended."),
}

_log = log.get(__name__)


@dataclass(frozen=True)
class _Known:
    secret_hash: bytes
    actor: Actor
    until: float


class Authenticator:
    """Tells who is asking. `call` runs a call of an SQL function and gives its rows; `sign_in` None: keys only."""

    def __init__(
        self,
        call: Callable[[Statement], Awaitable[list[Row]]],
        pepper: bytes,
        denials: Denials,
        strangers: Strangers,
        sign_in: SignIn | None,
    ) -> None:
        self._call = call
        self._pepper = pepper
        self._denials = denials
        self._strangers = strangers
        self._sign_in = sign_in
        self._known: dict[UUID, _Known] = {}
        self._readings: dict[tuple[UUID, bytes], asyncio.Task[dict[str, Any] | None]] = {}
        self._notes: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Ask the identity provider for its keys, where there is one."""
        if self._sign_in is not None:
            self._sign_in.start()

    async def stop(self) -> None:
        """Let go of the identity provider."""
        if self._sign_in is not None:
            await self._sign_in.stop()

    async def actor(self, authorization: str | None, *, request_id: str, address: str | None) -> Actor:
        """The actor behind the header. The other two are for the audit log: a refusal, a sign-in that makes a member.

        `address` is also whom a key or token is held against that is not known here and does not turn out to be good.

        Raises:
            Unauthenticated: nothing was sent; `api_key_malformed` for a typo, told without a look-up;
                `api_key_unknown`; to whoever knows its secret `api_key_revoked`, `api_key_expired` and
                `organization_suspended`; and what `SignIn.actor` says of tokens.
            TooManyRequests: `too_many_guesses`, without a look-up.
            Unavailable: a token was sent, and the keys of its provider cannot be had.
        """
        scheme, _, sent = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated
        sent = sent.strip()
        if self._sign_in is not None and not api_keys.is_meant(sent):
            return await self._sign_in.actor(sent, request_id=request_id, address=address)
        return await self._key_actor(sent, request_id=request_id, address=address)

    async def _key_actor(self, text: str, *, request_id: str, address: str | None) -> Actor:
        key = api_keys.parse(text)
        secret_hash = api_keys.hash_secret(key.secret, self._pepper)
        known = self._known.get(key.id)
        fresh = known is not None and known.until >= time.monotonic()
        # Whoever knew the secret a moment ago is no guesser, whatever others at the same address do.
        if known is not None and hmac.compare_digest(known.secret_hash, secret_hash):
            if not fresh:
                known = await self._look_up(key.id, secret_hash, request_id=request_id, address=address)
            return known.actor
        with self._strangers.guess(address):
            if fresh:
                raise _unknown()
            return (await self._look_up(key.id, secret_hash, request_id=request_id, address=address)).actor

    async def _look_up(self, key_id: UUID, secret_hash: bytes, *, request_id: str, address: str | None) -> _Known:
        found = await self._read(key_id, secret_hash)
        if found is None:
            raise _unknown()
        if found["state"] != "usable":
            self._known.pop(key_id, None)
            code, message = _DEAD[found["state"]]
            refused = Refused(UUID(found["organization_id"]), UUID(found["member_id"]), key_id, reason=code)
            self._denials.note(refused, request_id=request_id, address=address)
            raise Unauthenticated(message, code=code)
        known = _Known(secret_hash, _actor(key_id, found), time.monotonic() + _remembered_seconds(found))
        if len(self._known) >= _REMEMBERED_KEYS:
            self._known.clear()
        self._known[key_id] = known
        return known

    async def _read(self, key_id: UUID, secret_hash: bytes) -> dict[str, Any] | None:
        """What Postgres says of the key. Requests that want to know at the same moment ask once, together."""
        wanted = (key_id, secret_hash)
        reading = self._readings.get(wanted)
        if reading is None:
            reading = self._readings[wanted] = asyncio.create_task(self._ask(key_id, secret_hash))
            reading.add_done_callback(lambda _: self._readings.pop(wanted))
        # Whoever hangs up takes the answer from nobody else.
        return await asyncio.shield(reading)

    async def _ask(self, key_id: UUID, secret_hash: bytes) -> dict[str, Any] | None:
        statement = Statement("select api_key_read(%(key)s, %(hash)s) as key", {"key": key_id, "hash": secret_hash})
        found: dict[str, Any] | None = (await self._call(statement))[0]["key"]
        if found is not None and found["state"] == "usable":
            unused_seconds = found["unused_seconds"]
            if unused_seconds is None or unused_seconds > _USE_NOTED_SECONDS:
                self._note_use(UUID(found["organization_id"]), key_id)
        return found

    def _note_use(self, organization_id: UUID, key_id: UUID) -> None:
        """Write `last_used_at` beside the request: a key that is in use all day costs a write a minute."""
        task = asyncio.create_task(self._write_use(organization_id, key_id))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _write_use(self, organization_id: UUID, key_id: UUID) -> None:
        parameters = {"organization": organization_id, "key": key_id}
        try:
            await self._call(Statement("select api_key_used(%(organization)s, %(key)s)", parameters))
        except psycopg.Error as error:
            _log.warning("api_key.use_not_noted", error=type(error).__name__)


def _actor(key_id: UUID, found: dict[str, Any]) -> Actor:
    projects = found["project_ids"]
    return Actor(
        key_id=key_id,
        organization_id=UUID(found["organization_id"]),
        organization_name=found["organization_name"],
        member_id=UUID(found["member_id"]),
        name=found["name"],
        email=found["email"],
        role=found["role"],
        project_ids=None if projects is None else frozenset(map(UUID, projects)),
    )


def _remembered_seconds(found: dict[str, Any]) -> float:
    left = found["expires_in_seconds"]
    return REMEMBERED_SECONDS if left is None else min(REMEMBERED_SECONDS, float(left))


def _unknown() -> Unauthenticated:
    return Unauthenticated("No such API key is known here.", code="api_key_unknown")
