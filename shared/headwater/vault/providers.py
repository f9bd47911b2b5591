"""Who wraps the organizations' private keys: keys of the deployment here; a key service behind the same calls."""

import base64
import hashlib
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from headwater.errors import CannotUnseal, KeyUnavailable
from headwater.vault import strength

_NONCE_BYTES: Final = 12
_NAME_CHARACTERS: Final = 16


@dataclass(frozen=True)
class Wrapped:
    """A private key as it is stored, and by what it was wrapped.

    `master_key` is what the provider calls its key, and names another one after a rotation; None for what was wrapped
    before that was written down.
    """

    provider: str
    master_key: str | None
    blob: bytes = field(repr=False)


class KeyProvider(Protocol):
    """Wraps keys with a key of its own that never leaves it. `context` is bound: another one does not unwrap.

    Each call raises `KeyUnavailable` while the provider is away, `KeyRefused` where it does not let us.
    """

    @property
    def name(self) -> str:
        """As it stands beside what it wrapped."""

    def wrap(self, key: bytes, context: bytes) -> Wrapped:
        """`key`, wrapped with the provider's newest key, readable only through `unwrap` with the same context."""

    def unwrap(self, wrapped: Wrapped, context: bytes) -> bytes:
        """What was wrapped. Raises `CannotUnseal` for another key or context."""

    def rewrap(self, wrapped: Wrapped, context: bytes) -> Wrapped:
        """The same key, wrapped with the provider's newest key. Raises `CannotUnseal`."""


class _LocalKeys(ABC):
    """AES-256-GCM with keys that this process is given as text, one a line, the newest last.

    The newest wraps, each unwraps: while a key is rotated both are there.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """As it stands beside what it wrapped."""

    @abstractmethod
    def keys(self) -> list[bytes]:
        """All of them. Raises `KeyUnavailable`, and `WeakKey` for one that could be guessed."""

    def wrap(self, key: bytes, context: bytes) -> Wrapped:
        newest, nonce = self.keys()[-1], os.urandom(_NONCE_BYTES)
        return Wrapped(self.name, name_of(newest), nonce + AESGCM(newest).encrypt(nonce, key, context))

    def unwrap(self, wrapped: Wrapped, context: bytes) -> bytes:
        nonce, ciphertext = wrapped.blob[:_NONCE_BYTES], wrapped.blob[_NONCE_BYTES:]
        for key in self._candidates(wrapped):
            try:
                return AESGCM(key).decrypt(nonce, ciphertext, context)
            except (InvalidTag, ValueError):
                continue
        raise CannotUnseal

    def rewrap(self, wrapped: Wrapped, context: bytes) -> Wrapped:
        return self.wrap(self.unwrap(wrapped, context), context)

    def _candidates(self, wrapped: Wrapped) -> Sequence[bytes]:
        keys = self.keys()
        named = [key for key in keys if wrapped.master_key in (None, name_of(key))]
        if not named:
            raise KeyUnavailable(
                hint=f"It is wrapped with the master key {wrapped.master_key}; this process has"
                f" {', '.join(map(name_of, keys))}. Give it the key files of the machine that rotates."
            )
        return named


class KeyFile(_LocalKeys):
    """Keys from a file that only the worker and `headwater admin` can read."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def keys(self) -> list[bytes]:
        try:
            strength.require_private(self._path, "HEADWATER_MASTER_KEY_FILE")
            text = self._path.read_text()
        except (OSError, ValueError) as error:
            raise KeyUnavailable(hint="Check HEADWATER_MASTER_KEY_FILE: the file cannot be read.") from error
        return strength.parse(text, "HEADWATER_MASTER_KEY_FILE")


class KeyVariable(_LocalKeys):
    """Keys from the environment, separated by blanks or lines."""

    name = "environment"

    def __init__(self, value: SecretStr) -> None:
        self._value = value

    def keys(self) -> list[bytes]:
        return strength.parse(self._value.get_secret_value(), "HEADWATER_MASTER_KEY")


def name_of(key: bytes) -> str:
    """What a local key is called: 16 hexadecimal digits of its SHA-256, which say nothing about it."""
    return hashlib.sha256(b"headwater master key 1" + key).hexdigest()[:_NAME_CHARACTERS]


def create_key_file(path: Path) -> None:
    """Write a fresh 32-byte key in base64, mode 0600, unless `path` exists. Also used for the pepper."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(secrets.token_bytes(strength.KEY_BYTES)) + b"\n")
