"""The HPKE suites (RFC 9180) that Headwater seals with. A suite's name is stored beside each ciphertext."""

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

# The post-quantum hybrid of draft-ietf-hpke-pq: safe as long as either half is.
DEFAULT: Final = "MLKEM768-X25519-HKDF-SHA256-AES-256-GCM"

_MLKEM_PUBLIC_BYTES: Final = 1184
_MLKEM_SEED_BYTES: Final = 64


@dataclass(frozen=True)
class KeyPair:
    """A fresh key pair: `private` is the two seeds (64 + 32 bytes), `public` the two public keys (1184 + 32)."""

    public: bytes
    private: bytes


def suite(name: str) -> hpke.Suite:
    """The suite called `name`. Raises `KeyError` for one that this version does not know."""
    return _SUITES[name]


def generate() -> KeyPair:
    """A key pair for the default suite."""
    mlkem, x25519 = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
    return KeyPair(
        public=mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw(),
        private=mlkem.private_bytes_raw() + x25519.private_bytes_raw(),
    )


def public_key(encoded: bytes) -> hpke.MLKEM768X25519PublicKey:
    """The public key that `generate` encoded. Raises `ValueError` if it is not one."""
    return hpke.MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(encoded[:_MLKEM_PUBLIC_BYTES]),
        X25519PublicKey.from_public_bytes(encoded[_MLKEM_PUBLIC_BYTES:]),
    )


def private_key(encoded: bytes) -> hpke.MLKEM768X25519PrivateKey:
    """The private key that `generate` encoded. Raises `ValueError` if it is not one."""
    return hpke.MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(encoded[:_MLKEM_SEED_BYTES]),
        X25519PrivateKey.from_private_bytes(encoded[_MLKEM_SEED_BYTES:]),
    )


def is_pair(private: bytes, public: bytes) -> bool:
    """Whether `public` is the public half of `private`, both as `generate` encoded them."""
    try:
        mlkem = MLKEM768PrivateKey.from_seed_bytes(private[:_MLKEM_SEED_BYTES])
        x25519 = X25519PrivateKey.from_private_bytes(private[_MLKEM_SEED_BYTES:])
    except ValueError:
        return False
    return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw() == public


_SUITES: Final = {DEFAULT: hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)}
