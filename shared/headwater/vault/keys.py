"""The organizations' key pairs. Made by `headwater admin` or the worker, never by the API."""

from uuid import UUID

from headwater import ids
from headwater.db import Connection
from headwater.vault import suites
from headwater.vault.providers import KeyProvider


def wrap_context(organization_id: UUID, key_id: UUID) -> bytes:
    """What a wrapped private key is bound to."""
    return b"headwater organization key 1" + organization_id.bytes + key_id.bytes


def create(connection: Connection, *, organization_id: UUID, provider: KeyProvider) -> UUID:
    """Make a key pair for the organization, store it, and give its id. Raises `KeyUnavailable`."""
    key_id, pair = ids.new(), suites.generate()
    wrapped = provider.wrap(pair.private, wrap_context(organization_id, key_id))
    connection.execute(
        "insert into organization_key (id, organization_id, suite, public_key) values (%s, %s, %s, %s)",
        (key_id, organization_id, suites.DEFAULT, pair.public),
    )
    connection.execute(
        "insert into organization_private_key (key_id, provider, wrapped) values (%s, %s, %s)",
        (key_id, provider.name, wrapped),
    )
    return key_id
