"""Who wraps the organizations' private keys: a key file here; a cloud's key service behind the same three calls."""

import base64
import os
import secrets
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headwater.errors import CannotUnseal, KeyUnavailable

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class KeyProvider(Protocol):
    """Wraps keys with a key of its own that never leaves it. `context` is bound: another one does not unwrap."""

    name: str

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """`key`, readable only through `unwrap` with the same context. Raises `KeyUnavailable`."""

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """What was wrapped. Raises `CannotUnseal` for another key or context, `KeyUnavailable` while away."""

    def rewrap(self, wrapped: bytes, context: bytes) -> bytes:
        """The same key, wrapped with the provider's newest key."""


class KeyFile:
    """AES-256-GCM with a key from a file that only the worker and `headwater admin` can read."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def wrap(self, key: bytes, context: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self._key()).encrypt(nonce, key, context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        try:
            return AESGCM(self._key()).decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], context)
        except InvalidTag:
            raise CannotUnseal from None

    def rewrap(self, wrapped: bytes, context: bytes) -> bytes:
        return self.wrap(self.unwrap(wrapped, context), context)

    def _key(self) -> bytes:
        try:
            key = base64.b64decode(self._path.read_text(), validate=False)
        except (OSError, ValueError) as error:
            raise KeyUnavailable(hint="Check HEADWATER_MASTER_KEY_FILE: the file cannot be read.") from error
        if len(key) != _KEY_BYTES:
            raise KeyUnavailable(hint="Check HEADWATER_MASTER_KEY_FILE: it must hold 32 bytes in base64.")
        return key


def create_key_file(path: Path) -> None:
    """Write a fresh 32-byte key in base64, mode 0600, unless `path` exists. Also used for the pepper."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n")
