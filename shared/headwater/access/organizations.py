"""Making an organization: an operator's act, never a public route."""

from dataclasses import dataclass
from uuid import UUID

from headwater import ids
from headwater.access import api_keys
from headwater.audit import log as audit_log
from headwater.audit.acts import Act
from headwater.db import Connection, set_organization
from headwater.vault import keys
from headwater.vault.providers import KeyProvider


@dataclass(frozen=True)
class CreatedOrganization:
    """What a newcomer needs; `api_key` is shown this once."""

    organization_id: UUID
    member_id: UUID
    api_key: str


def create(
    connection: Connection, *, name: str, email: str, pepper: bytes, provider: KeyProvider
) -> CreatedOrganization:
    """An organization with its key pair, its first admin and that admin's API key, in the caller's transaction.

    Raises `KeyUnavailable` if the provider does not answer, `KeyRefused` if it does not let us.
    """
    organization_id, member_id, issued = ids.new(), ids.new(), api_keys.issue(pepper)
    set_organization(connection, organization_id)
    connection.execute("insert into organization (id, name) values (%s, %s)", (organization_id, name))
    keys.store(connection, keys.make(organization_id, provider))
    connection.execute(
        "insert into member (id, organization_id, email, name, role) values (%s, %s, %s, %s, 'admin')",
        (member_id, organization_id, email, email.partition("@")[0]),
    )
    connection.execute(
        """
        insert into api_key (id, organization_id, member_id, name, role, secret_hash)
        values (%s, %s, %s, 'first key', 'admin', %s)
        """,
        (issued.id, organization_id, member_id, issued.secret_hash),
    )
    statement = audit_log.entry(
        organization_id=organization_id,
        actor_id=None,
        act=Act.ORGANIZATION_CREATE,
        subject_id=organization_id,
    )
    connection.execute(statement.text, statement.parameters)
    return CreatedOrganization(organization_id=organization_id, member_id=member_id, api_key=issued.text)
