"""Secrets of webhooks and what is signed with them, after Standard Webhooks.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from headwater import masking
from headwater.vault.seal import Binding

_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32
# A secret is never sent anywhere: what it is bound to is that it signs, not where to.
PURPOSE: Final = hashlib.sha256(b"headwater webhook signature 1").digest()


def new_secret() -> str:
    """`whsec_` and 32 random bytes in base64; masked in what the request says that makes it."""
    secret = _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    masking.mask_here([secret])
    return secret


def field(number: int) -> str:
    """The name under which a webhook's `number`-th secret is sealed; it keeps it when the next one comes."""
    return f"secret.{number}"


def binding(organization_id: UUID, webhook_id: UUID, number: int) -> Binding:
    """Where a webhook's `number`-th secret belongs."""
    return Binding(organization_id, webhook_id, field(number), PURPOSE)


def headers(message_id: str, timestamp: int, body: bytes, signed_with: Sequence[str]) -> dict[str, str]:
    """The headers of a message: its id, the seconds since 1970 at which it is sent, a signature for each secret."""
    content = f"{message_id}.{timestamp}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(_signature(secret, content) for secret in signed_with),
    }


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
