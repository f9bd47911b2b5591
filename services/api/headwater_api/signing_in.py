"""Sign-in with a token of the identity provider: one look-up of the member behind it, remembered for a few seconds."""

import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

from headwater import clock
from headwater.db import Row, Statement
from headwater.errors import Unauthenticated
from headwater.settings import OidcSettings
from headwater_api.actor import Actor
from headwater_api.admission import Strangers
from headwater_api.denials import Denials, Refused
from headwater_api.provider_keys import ProviderKeys
from headwater_api.tokens import Claims, TokenVerifier

_REMEMBERED_SECONDS: Final = 4.0  # a removed member is out within five
_REMEMBERED_TOKENS: Final = 10_000

_INVITE: Final = "Ask an admin of the organization to invite the address that your provider has verified."
_REFUSALS: Final = {
    "suspended": ("organization_suspended", "This organization is suspended.", None),
    "removed": ("not_a_member", "You are no longer a member of this organization.", _INVITE),
    "unknown": ("not_a_member", "You are not a member of this organization.", _INVITE),
}


@dataclass(frozen=True)
class _Known:
    actor: Actor
    until: float


class SignIn:
    """Finds the member behind a token. `call` runs a call of an SQL function and gives its rows."""

    def __init__(
        self,
        call: Callable[[Statement], Awaitable[list[Row]]],
        denials: Denials,
        strangers: Strangers,
        keys: ProviderKeys,
        verifier: TokenVerifier,
    ) -> None:
        self._call = call
        self._denials = denials
        self._strangers = strangers
        self._keys = keys
        self._verifier = verifier
        self._known: dict[bytes, _Known] = {}

    def start(self) -> None:
        """Ask the provider for its keys."""
        self._keys.start()

    async def stop(self) -> None:
        """Let go of the provider."""
        await self._keys.stop()

    async def actor(self, token: str, *, request_id: str, address: str | None) -> Actor:
        """The member behind `token`, who takes an invitation or is made where the settings say so.

        Raises:
            Unauthenticated: `token_invalid`, `token_expired`, `not_a_member`, `organization_suspended`.
            TooManyRequests: `too_many_guesses`, without a look-up.
            Unavailable: the provider's keys cannot be had.
        """
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is None or known.until < time.monotonic():
            self._known.pop(digest, None)
            # A token that was good a moment ago is no guess, whatever others at the same address do.
            with contextlib.nullcontext() if known else self._strangers.guess(address):
                known = await self._look_up(token, request_id=request_id, address=address)
            if len(self._known) >= _REMEMBERED_TOKENS:
                self._known.clear()
            self._known[digest] = known
        return known.actor

    async def _look_up(self, token: str, *, request_id: str, address: str | None) -> _Known:
        claims = await self._verifier.verify(token)
        asked_at = time.monotonic()
        [row] = await self._call(_statement(claims, request_id=request_id, address=address))
        found: dict[str, Any] = row["member"]
        if found["state"] != "usable":
            code, message, hint = _REFUSALS[found["state"]]
            if found.get("member_id") is not None:
                refused = Refused(claims.organization_id, UUID(found["member_id"]), key_id=None, reason=code)
                self._denials.note(refused, request_id=request_id, address=address)
            raise Unauthenticated(message, code=code, hint=hint)
        left = (claims.expires_at - clock.now()).total_seconds()
        return _Known(_actor(claims.organization_id, found), asked_at + min(_REMEMBERED_SECONDS, left))


def configured(
    settings: OidcSettings,
    call: Callable[[Statement], Awaitable[list[Row]]],
    denials: Denials,
    strangers: Strangers,
) -> SignIn | None:
    """Sign-in as the settings say; None where it is off."""
    if settings.oidc_issuer is None:
        return None
    keys = ProviderKeys(settings.oidc_issuer, settings.algorithms)
    return SignIn(call, denials, strangers, keys, TokenVerifier(settings, keys))


def _statement(claims: Claims, *, request_id: str, address: str | None) -> Statement:
    return Statement(
        """
        select member_sign_in(
            %(organization_id)s, %(issuer)s, %(subject)s, %(email)s, %(name)s, %(role)s, %(request_id)s, %(address)s
        ) as member
        """,
        asdict(claims) | {"request_id": request_id, "address": address},
    )


def _actor(organization_id: UUID, found: dict[str, Any]) -> Actor:
    return Actor(
        key_id=None,
        organization_id=organization_id,
        organization_name=found["organization_name"],
        member_id=UUID(found["member_id"]),
        name=found["name"],
        email=found["email"],
        role=found["role"],
    )
