"""Sealing: what the API can do. Nothing in here opens anything."""

from dataclasses import dataclass
from uuid import UUID

from headwater.db import Statement
from headwater.vault import suites

_LABEL = b"headwater credential 1"


@dataclass(frozen=True)
class Binding:
    """Where a ciphertext belongs; it opens nowhere else.

    `subject_id` is a data source's id, or a job's for the test of an unsaved config. `target` is the fingerprint of
    where the secret would be sent (`ConnectorSpec.target_fingerprint`, 32 bytes).
    """

    organization_id: UUID
    subject_id: UUID
    field: str
    target: bytes

    def info(self) -> bytes:
        """HPKE's `info`: each part behind its length (4 bytes, big endian), so that no two bindings look alike."""
        parts = (_LABEL, self.organization_id.bytes, self.subject_id.bytes, self.field.encode(), self.target)
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def seal(secret: str, *, suite: str, public_key: bytes, binding: Binding) -> bytes:
    """The ciphertext of `secret` (UTF-8), about 1.1 kB longer than it. Source: RFC 9180, single-shot, base mode."""
    return suites.suite(suite).encrypt(secret.encode(), suites.public_key(public_key), info=binding.info())


def sealing_key(organization_id: UUID) -> Statement:
    """The organization's newest key that is not retired: one row {id, suite, public_key}."""
    return Statement(
        """
        select id, suite, public_key from organization_key
        where organization_id = %(organization_id)s and retired_at is null
        order by created_at desc, id desc limit 1
        """,
        {"organization_id": organization_id},
    )
