"""Tokens of the identity provider: from a signed JWT to what it claims, or to the reason why it is refused.

RFC 7519 with the advice of RFC 8725: who may sign, how, and for whom is decided by the settings and the provider's own
keys. Of a token's header only `alg`, `typ` and `kid` are looked at, and `kid` is no more than a name to look up; a key
that a header brings, or says where to find, is never used.
"""

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import jwt

from headwater import clock, ids
from headwater.access.policy import Role
from headwater.errors import NotFound, Unauthenticated
from headwater.settings import OidcSettings
from headwater_api.provider_keys import ProviderKeys

_LONGEST_TOKEN: Final = 8_192
_LEEWAY_SECONDS: Final = 30.0
_LAST_MOMENT: Final = 253_402_300_799  # the end of the year 9999
_LONGEST_SUBJECT: Final = 255
_LONGEST_EMAIL: Final = 254
_LONGEST_NAME: Final = 200

_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
# An access token (RFC 9068) or one that does not say; other kinds of JWT are no leave to enter.
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_ROLES: Final[tuple[Role, ...]] = ("admin", "operator", "viewer")  # the highest first

_REASONS: Final[tuple[tuple[type[jwt.PyJWTError], str], ...]] = (
    (jwt.InvalidAudienceError, "It is for another audience."),
    (jwt.InvalidIssuerError, "It is of another issuer."),
    (jwt.ImmatureSignatureError, "It is not valid yet. If it is fresh, the clocks of the two servers differ."),
    (jwt.MissingRequiredClaimError, "It needs each of the claims `iss`, `aud`, `exp` and `sub`."),
    (jwt.InvalidSignatureError, "Its signature is wrong."),
)
_MALFORMED: Final = "It is no signed JWT with the claims that are needed in the form that they need."


@dataclass(frozen=True)
class Claims:
    """What a token says that was signed by the provider, for us, and is in force.

    `email` is None unless the provider has verified it, `role` is None unless roles are the provider's to say.
    """

    organization_id: UUID
    issuer: str
    subject: str
    email: str | None
    name: str
    role: Role | None
    expires_at: datetime


class _StrictDecoder(jwt.PyJWT):
    """PyJWT, but it takes no claim for another: no name twice, and times are numbers."""

    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        payload = _json_object(decoded["payload"])
        for name in ("exp", "nbf", "iat"):
            if name in payload and not _is_moment(payload[name]):
                raise jwt.DecodeError(name)
        return payload


class TokenVerifier:
    """Checks the tokens of the provider that `settings` names; `keys` are its own."""

    def __init__(self, settings: OidcSettings, keys: ProviderKeys) -> None:
        self._settings = settings
        self._keys = keys
        self._decoder = _StrictDecoder()

    async def verify(self, token: str) -> Claims:
        """What `token` claims.

        Raises:
            Unauthenticated: `token_expired`, or `token_invalid` with the reason; nothing of the token is shown.
            Unavailable: the provider's keys cannot be had.
        """
        key_id, algorithm = _header(token, self._settings.algorithms)
        key = await self._keys.find(key_id, algorithm)
        if key is None:
            raise _invalid("The identity provider publishes no key for it.")
        return self._claims(self._payload(token, key))

    def _payload(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        try:
            return self._decoder.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._settings.oidc_audience,
                issuer=self._settings.oidc_issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["iss", "aud", "exp", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise _expired() from None
        except jwt.PyJWTError as error:
            reason = next((text for kind, text in _REASONS if isinstance(error, kind)), _MALFORMED)
            raise _invalid(reason) from error

    def _claims(self, payload: dict[str, Any]) -> Claims:
        expires_at = datetime.fromtimestamp(payload["exp"], UTC)
        if expires_at <= clock.now():  # the leeway is for tokens that begin
            raise _expired()
        subject = _text(payload, "sub", _LONGEST_SUBJECT)
        if subject is None:
            raise _invalid(f"Its `sub` must be text of 1 to {_LONGEST_SUBJECT} characters.")
        email = _text(payload, "email", _LONGEST_EMAIL) if payload.get("email_verified") is True else None
        names = (_text(payload, claim, _LONGEST_NAME) for claim in ("name", "preferred_username"))
        return Claims(
            organization_id=self._organization_id(payload),
            issuer=payload["iss"],
            subject=subject,
            email=email,
            name=next(filter(None, names), None) or (email or subject).partition("@")[0][:_LONGEST_NAME],
            role=self._role(payload),
            expires_at=expires_at,
        )

    def _organization_id(self, payload: dict[str, Any]) -> UUID:
        """Raises `Unauthenticated` unless the claim names exactly one organization."""
        claim, known = self._settings.oidc_organization_claim, self._settings.oidc_organizations
        values = _texts(payload.get(claim))
        try:
            [value] = values
            return ids.decode("org", value) if known is None else known[value]
        except (ValueError, KeyError, NotFound):
            raise _invalid(f"Its claim `{claim}` must name one organization of Headwater.") from None

    def _role(self, payload: dict[str, Any]) -> Role | None:
        """None where members have the role that they have here. Raises `Unauthenticated` if it names none of ours."""
        claim, known = self._settings.oidc_role_claim, self._settings.oidc_roles
        if claim is None:
            return None
        values = _texts(payload.get(claim))
        named: Sequence[str] = values if known is None else [known[value] for value in values if value in known]
        highest = next((role for role in _ROLES if role in named), None)
        if highest is None:
            raise _invalid(f"Its claim `{claim}` names no role of Headwater: ask whoever gives roles at the provider.")
        return highest


def _header(token: str, algorithms: frozenset[str]) -> tuple[str, str]:
    """Key id and algorithm of `token`. Raises `Unauthenticated`."""
    if len(token) > _LONGEST_TOKEN:
        raise _invalid(f"It is longer than {_LONGEST_TOKEN} bytes.")
    if not _FORM.fullmatch(token):
        raise _invalid(_MALFORMED)
    try:
        header = _json_object(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))
    except (binascii.Error, jwt.DecodeError):
        raise _invalid(_MALFORMED) from None
    key_id, algorithm, kind = header.get("kid"), header.get("alg"), header.get("typ", "JWT")
    if "crit" in header or not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise _invalid("Its header asks for what is not done here: `crit`, or a `typ` other than JWT and at+jwt.")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise _invalid(f"It must be signed with one of {', '.join(sorted(algorithms))}.")
    if not isinstance(key_id, str):
        raise _invalid("Its header must name the key, as `kid`.")
    return key_id, algorithm


def _json_object(data: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8 that has each name once. Raises `jwt.DecodeError`."""
    try:
        found = json.loads(data.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise jwt.DecodeError("JSON") from error
    if not isinstance(found, dict):
        raise jwt.DecodeError("object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def _is_moment(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LAST_MOMENT


def _text(payload: dict[str, Any], claim: str, longest: int) -> str | None:
    """A claim that is text of 1 to `longest` characters which Postgres can store."""
    value = payload.get(claim)
    fits = isinstance(value, str) and 1 <= len(value) <= longest and not _UNSTORABLE.search(value)
    return value if fits else None


def _texts(value: Any) -> list[str]:
    """The strings of a claim that is one, or a list of them."""
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]


def _invalid(reason: str) -> Unauthenticated:
    return Unauthenticated(f"This token is not accepted. {reason}", code="token_invalid")


def _expired() -> Unauthenticated:
    return Unauthenticated("This token has expired.", code="token_expired", hint="Get a new one from your provider.")
