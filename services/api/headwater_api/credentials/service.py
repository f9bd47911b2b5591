"""Sealing the secret fields of a data source, and the secrets of webhooks. What is stored cannot be opened here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from headwater import db
from headwater.connectors.spec import ConnectorConfig, ConnectorSpec
from headwater.errors import Unavailable
from headwater.vault import references, seal
from headwater.vault.seal import Binding
from headwater_api.constraints import KEY_REPLACED, named_violations
from headwater_api.transaction import Transaction

_PUT: Final = """
    insert into sealed_credential (subject_id, field, organization_id, ciphertext, suite, key_id, reference)
    values (%(subject_id)s, %(field)s, %(organization_id)s, %(ciphertext)s, %(suite)s, %(key_id)s, %(reference)s)
    on conflict (subject_id, field) do update set
        ciphertext = %(ciphertext)s, suite = %(suite)s, key_id = %(key_id)s, created_at = now(), rotated_at = null,
        reference = %(reference)s
"""
_CLEAR: Final = """
    delete from sealed_credential
    where subject_id = %(subject_id)s and organization_id = %(organization_id)s
      and (%(fields)s::text[] is null or field = any(%(fields)s))
    returning field
"""


@dataclass(frozen=True)
class Target:
    """The source whose secrets are written, and where they would be sent from now on."""

    data_source_id: UUID
    spec: ConnectorSpec
    config: ConnectorConfig


def put(transaction: Transaction, target: Target, secrets: Mapping[str, str | None]) -> set[str]:
    """Replace or clear (None) the fields that were sent, keep the others; the names of those that changed.

    The row of the source is locked by the caller. Raises `Unavailable` while the organization has no key.
    """
    new = {field: secret for field, secret in secrets.items() if secret is not None}
    changed = clear(transaction, target.data_source_id, [field for field, secret in secrets.items() if secret is None])
    if new:
        key = sealing_key(transaction)
        fingerprint = target.spec.target_fingerprint(target.config)
        for field, secret in new.items():
            binding = Binding(transaction.organization_id, target.data_source_id, field, fingerprint)
            store(transaction, secret, binding=binding, key=key)
    return changed | new.keys()


def store(transaction: Transaction, secret: str, *, binding: Binding, key: db.Row) -> None:
    """Seal one secret with a row of `sealing_key`, and keep it in place of the one before. Raises `Unavailable`."""
    sealed = {
        "subject_id": binding.subject_id,
        "field": binding.field,
        "organization_id": binding.organization_id,
        "ciphertext": seal.seal(secret, suite=key["suite"], public_key=key["public_key"], binding=binding),
        "suite": key["suite"],
        "key_id": key["id"],
        "reference": secret if references.is_reference(secret) else None,
    }
    with named_violations(KEY_REPLACED):
        db.run_in(transaction.session, db.Statement(_PUT, sealed))


def clear(transaction: Transaction, subject_id: UUID, fields: list[str] | None = None) -> set[str]:
    """Destroy these fields, or all; the names of those that were set."""
    parameters = {
        "subject_id": subject_id,
        "organization_id": transaction.organization_id,
        "fields": fields,
    }
    return {row["field"] for row in db.run_in(transaction.session, db.Statement(_CLEAR, parameters))}


def sealing_key(transaction: Transaction) -> db.Row:
    """The organization's key to seal with. Raises `Unavailable` while it has none."""
    keys = db.run_in(transaction.session, seal.sealing_key(transaction.organization_id))
    if not keys:
        raise Unavailable("The organization has no key to seal with yet.", hint="Its operator makes one.")
    return keys[0]
