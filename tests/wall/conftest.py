"""Organizations that have a row in every table, and an API with everybody who may ask it, or may not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import making
import pytest
import serving
from calling import World

from headwater import clock, db, ids
from headwater.access import api_keys, organizations
from headwater.access.organizations import CreatedOrganization
from headwater.access.policy import PERMISSIONS
from headwater.connectors import registry
from headwater.db import Connection
from headwater.jobs import lifecycle, pruning
from headwater.jobs.lifecycle import Claim
from headwater.jobs.outcome import Progress
from headwater.settings import JobSettings
from headwater.vault.providers import KeyFile

CONFIG = {"type": "s3", "bucket": "bucket", "region": "eu-central-1"}
SETTINGS = JobSettings()


@dataclass(frozen=True)
class Tenant:
    """An organization and one of everything that it can have."""

    organization: CreatedOrganization
    project_id: UUID
    source_id: UUID
    claim: Claim
    load_id: int

    @property
    def job_id(self) -> UUID:
        """A sync that runs."""
        return self.claim.job_id

    @property
    def id(self) -> UUID:
        return self.organization.organization_id


def settle(connection: Connection, organization: CreatedOrganization) -> Tenant:
    """Give the organization a row in every table; `connection` is the superuser's."""
    making.act_for(connection, organization.organization_id)
    project_id = making.make_project(connection, organization.organization_id)
    source_id = making.make_source(connection, organization.organization_id, project_id, CONFIG, type_="s3")
    making.put_credentials(
        connection, organization.organization_id, source_id, registry.get_spec("s3"), config=CONFIG,
        secrets={"access_key_id": "id", "secret_access_key": "secret"},
    )  # fmt: skip
    answer = making.submit(
        connection, organization, project_id, source_id, "sync",
        types=["s3"], idempotency_key="once", route="POST /tests", fingerprint="00",
    )  # fmt: skip
    job_id = UUID(answer["job"]["id"])
    claim = lifecycle.claim(connection, job_id, worker="tests", settings=SETTINGS)
    assert claim is not None
    lifecycle.report(connection, claim, Progress("tests"))
    webhook_id = making.make_webhook(connection, organization.organization_id)
    making.make_delivery(connection, organization.organization_id, webhook_id)
    load_id = making.bring_in(connection, organization.organization_id, source_id, job_id=job_id)
    old = making.submit(connection, organization, project_id, source_id, types=["s3"])
    making.end_long_ago(connection, UUID(old["job"]["id"]))
    assert pruning.prune(connection, retention_days=90) == 1
    return Tenant(organization, project_id, source_id, claim, load_id)


@pytest.fixture(scope="module")
def make_tenant(database: str, pepper_file: Path, master_key_file: Path) -> Callable[..., Tenant]:
    """Makes organizations with a row in every table."""

    def make(name: str = "Acme") -> Tenant:
        with db.connect(database, application="tests") as connection:
            with connection.transaction():
                organization = organizations.create(
                    connection, name=name, email="ada@example.com",
                    pepper=api_keys.read_pepper(pepper_file), provider=KeyFile(master_key_file),
                )  # fmt: skip
            return settle(connection, organization)

    return make


@pytest.fixture(scope="module")
def tenants(make_tenant: Callable[..., Tenant]) -> tuple[Tenant, Tenant]:
    """Ours and theirs."""
    return make_tenant("Acme"), make_tenant("Rival")


@dataclass(frozen=True)
class Stage:
    """Two organizations, and a client for each kind of caller."""

    ours: World
    theirs: World
    clients: dict[str, httpx2.Client]
    limited_to: dict[str, str]


@pytest.fixture(scope="module")
def stage(database: str, pepper_file: Path, master_key_file: Path, tmp_path_factory: Any) -> Iterator[Stage]:
    """The API with its own login, on a database with three organizations."""
    pepper = api_keys.read_pepper(pepper_file)

    def organization(connection: Connection, name: str) -> CreatedOrganization:
        with connection.transaction():
            return organizations.create(
                connection, name=name, email="ada@example.com", pepper=pepper, provider=KeyFile(master_key_file)
            )

    running = serving.api(
        HEADWATER_DATABASE_URL=making.as_service(database, "api"),
        HEADWATER_PEPPER_FILE=str(pepper_file),
        HEADWATER_UPLOADS_DIR=str(tmp_path_factory.mktemp("uploads")),
    )
    with db.connect(database, application="tests") as connection, running as api:
        made = {name: organization(connection, name) for name in ("ours", "theirs", "suspended")}
        suspend = "update organization set suspended_at = now() where id = %s"
        connection.execute(suspend, (made["suspended"].organization_id,))
        ours = World(api.client(made["ours"].api_key), made["ours"], connection)
        theirs = World(api.client(made["theirs"].api_key), made["theirs"], connection)
        limited_to = ours.project()
        keys: dict[str, str | None] = {
            "anonymous": None,
            "revoked": _key(connection, made["ours"], pepper, revoked_at=clock.now()),
            "expired": _key(connection, made["ours"], pepper, expires_at=clock.now() - timedelta(seconds=1)),
            "suspended": made["suspended"].api_key,
            "limited": _key(
                connection, made["ours"], pepper, project_ids=[ids.decode("proj", limited_to["project_id"])]
            ),
            "other": made["theirs"].api_key,
        } | {role: _key(connection, made["ours"], pepper, role=role) for role in PERMISSIONS}
        clients = {name: api.client(key) for name, key in keys.items()}
        yield Stage(ours, theirs, clients, limited_to)
        for client in (*clients.values(), ours.admin, theirs.admin):
            client.close()


def _key(connection: Connection, organization: CreatedOrganization, pepper: bytes, **columns: Any) -> str:
    """A key of the organization's first member, straight into the table."""
    issued = api_keys.issue(pepper)
    row = {"role": "admin", "revoked_at": None, "expires_at": None, "project_ids": None} | columns
    connection.execute(
        """
        insert into api_key (id, organization_id, member_id, name, secret_hash, role, revoked_at, expires_at,
                             project_ids)
        values (%s, %s, %s, 'tests', %s, %s, %s, %s, %s)
        """,
        (
            issued.id, organization.organization_id, organization.member_id, issued.secret_hash,
            row["role"], row["revoked_at"], row["expires_at"], row["project_ids"],
        ),
    )  # fmt: skip
    return issued.text
