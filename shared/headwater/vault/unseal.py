"""Opening what was sealed. The worker alone imports this; a contract of the build refuses it to the API."""

from dataclasses import dataclass, field
from uuid import UUID

from cryptography.exceptions import InvalidTag

from headwater.db import Connection, Row
from headwater.errors import CannotUnseal
from headwater.vault import keys, suites
from headwater.vault.providers import KeyProvider
from headwater.vault.seal import Binding


def unseal(ciphertext: bytes, *, suite: str, private_key: bytes, binding: Binding) -> str:
    """The secret, or `CannotUnseal` if key or binding are not those it was sealed with."""
    try:
        return suites.suite(suite).decrypt(ciphertext, suites.private_key(private_key), info=binding.info()).decode()
    except (InvalidTag, KeyError, ValueError) as error:
        raise CannotUnseal from error


@dataclass(frozen=True)
class Sealed:
    """What the vault holds for one subject: rows {field, ciphertext, suite, key_id, provider, master_key, wrapped}."""

    organization_id: UUID
    subject_id: UUID
    rows: list[Row] = field(repr=False)

    @property
    def fields(self) -> list[str]:
        """The names of the secret fields."""
        return [row["field"] for row in self.rows]

    @property
    def key_ids(self) -> set[UUID]:
        """The keys that open them."""
        return {row["key_id"] for row in self.rows}


def fetch(connection: Connection, *, organization_id: UUID, subject_id: UUID) -> Sealed:
    """Every credential of a data source, or of a job that tests an unsaved config, as it is stored."""
    rows = connection.execute(
        """
        select c.field, c.ciphertext, c.suite, c.key_id, p.provider, p.master_key, p.wrapped
        from sealed_credential c
        left join organization_private_key p on p.key_id = c.key_id
        where c.subject_id = %s and c.organization_id = %s
        """,
        (subject_id, organization_id),
    ).fetchall()
    return Sealed(organization_id, subject_id, rows)


def unseal_all(sealed: Sealed, *, provider: KeyProvider, target: bytes) -> dict[str, str]:
    """Open all of `sealed`, for the target with this fingerprint: {field: secret}.

    Raises:
        CannotUnseal: one of them was sealed for another target, row or organization, or its key is gone.
        KeyUnavailable: the provider did not answer.
        KeyRefused: it does not let us.
    """
    by_key = {row["key_id"]: row for row in sealed.rows}
    if any(row["wrapped"] is None for row in by_key.values()):
        raise CannotUnseal
    private_keys = {
        key_id: provider.unwrap(keys.wrapped(row), keys.wrap_context(sealed.organization_id, key_id))
        for key_id, row in by_key.items()
    }
    return {
        row["field"]: unseal(
            row["ciphertext"],
            suite=row["suite"],
            private_key=private_keys[row["key_id"]],
            binding=Binding(sealed.organization_id, sealed.subject_id, row["field"], target),
        )
        for row in sealed.rows
    }
