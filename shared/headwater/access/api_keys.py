"""API keys: `hw_<key id>_<secret>_<checksum>`.

The key id is the row's id (26 base32 characters), the secret 32 random bytes (52 base32 characters), the checksum the
CRC-32 of all before it (7 characters), so that a typo is told without a look-up. Stored is HMAC-SHA256 of the secret
under the deployment's pepper: a dump of the database yields no key.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from headwater import ids, masking
from headwater.errors import HeadwaterError, NotFound, Unauthenticated
from headwater.vault import strength

_PREFIX: Final = "hw"
_SECRET_BYTES: Final = 32


class PepperMissing(HeadwaterError):
    """Raised at start-up: without the pepper no key can be checked."""

    code = "pepper_missing"
    message = "HEADWATER_PEPPER_FILE must name a readable file with 32 random bytes in base64."
    hint = "`headwater admin init` makes one."


@dataclass(frozen=True)
class ParsedKey:
    """A key whose form and checksum are right; whether it exists is another question."""

    id: UUID
    secret: str


@dataclass(frozen=True)
class IssuedKey:
    """A fresh key: `text` is shown once, `secret_hash` is stored."""

    id: UUID
    text: str
    secret_hash: bytes


def read_pepper(path: Path) -> bytes:
    """The 32 bytes in the file at `path`. Raises `PepperMissing`, and `WeakKey` for what could be guessed."""
    try:
        strength.require_private(path, "HEADWATER_PEPPER_FILE")
        found = strength.parse(path.read_text(), "HEADWATER_PEPPER_FILE")
    except (OSError, ValueError) as error:
        raise PepperMissing from error
    if len(found) > 1:
        raise PepperMissing
    return found[0]


def issue(pepper: bytes) -> IssuedKey:
    """Make a key; it is masked in what the request says that makes it."""
    key_id = ids.new()
    secret = base64.b32encode(secrets.token_bytes(_SECRET_BYTES)).decode().rstrip("=").lower()
    body = f"{_PREFIX}_{ids.encode('key', key_id).removeprefix('key_')}_{secret}"
    masking.mask_here([secret])
    return IssuedKey(id=key_id, text=f"{body}_{_checksum(body)}", secret_hash=hash_secret(secret, pepper))


def is_meant(text: str) -> bool:
    """Whether `text` begins as a key does, right or wrong in the rest."""
    return text.startswith(f"{_PREFIX}_")


def parse(text: str) -> ParsedKey:
    """The parts of a key. Raises `Unauthenticated` (`api_key_malformed`) when form or checksum is wrong: a typo."""
    body, _, checksum = text.rpartition("_")
    prefix, *parts = body.split("_")
    if prefix != _PREFIX or len(parts) != 2 or not hmac.compare_digest(checksum.encode(), _checksum(body).encode()):
        raise _malformed()
    try:
        return ParsedKey(id=ids.decode("key", f"key_{parts[0]}"), secret=parts[1])
    except NotFound:
        raise _malformed() from None


def hash_secret(secret: str, pepper: bytes) -> bytes:
    """HMAC-SHA256 of `secret` under `pepper`, 32 bytes."""
    return hmac.digest(pepper, secret.encode(), hashlib.sha256)


def _malformed() -> Unauthenticated:
    return Unauthenticated(
        "This is no API key: a character is missing, added or wrong.",
        code="api_key_malformed",
        hint="Copy the whole of it: hw_, two long parts and a short one, with _ between them.",
    )


def _checksum(body: str) -> str:
    crc = binascii.crc32(body.encode())
    return base64.b32encode(crc.to_bytes(4, "big")).decode().rstrip("=").lower()
