"""The organizations' key pairs. Made by `headwater admin` or the worker, never by the API."""

from dataclasses import dataclass
from uuid import UUID

from headwater import ids
from headwater.db import Connection, Row
from headwater.vault import suites
from headwater.vault.providers import KeyProvider, Wrapped


def wrap_context(organization_id: UUID, key_id: UUID) -> bytes:
    """What a wrapped private key is bound to."""
    return b"headwater organization key 1" + organization_id.bytes + key_id.bytes


def wrapped(row: Row) -> Wrapped:
    """The private key in a row of `organization_private_key`."""
    return Wrapped(row["provider"], row["master_key"], row["wrapped"])


@dataclass(frozen=True)
class NewKey:
    """A key pair that is not stored yet, its private half wrapped."""

    id: UUID
    organization_id: UUID
    public: bytes
    private: Wrapped


def make(organization_id: UUID, provider: KeyProvider) -> NewKey:
    """A fresh key pair for the organization. Raises `KeyUnavailable`, `KeyRefused`."""
    key_id, pair = ids.new(), suites.generate()
    return NewKey(
        key_id, organization_id, pair.public, provider.wrap(pair.private, wrap_context(organization_id, key_id))
    )


def store(connection: Connection, key: NewKey) -> None:
    """Keep it: from the commit on secrets are sealed to it."""
    connection.execute(
        "insert into organization_key (id, organization_id, suite, public_key) values (%s, %s, %s, %s)",
        (key.id, key.organization_id, suites.DEFAULT, key.public),
    )
    connection.execute(
        "insert into organization_private_key (key_id, provider, master_key, wrapped) values (%s, %s, %s, %s)",
        (key.id, key.private.provider, key.private.master_key, key.private.blob),
    )
