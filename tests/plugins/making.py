"""Rows for tests, straight into the tables, and submits as the API makes them."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from headwater import db, ids
from headwater.access import api_keys, organizations
from headwater.access.organizations import CreatedOrganization
from headwater.audit import chain
from headwater.catalogue import loads
from headwater.catalogue.loads import Landed
from headwater.connectors.spec import ConnectorSpec
from headwater.db import Connection
from headwater.jobs import statements
from headwater.jobs.kinds import KINDS, Queue
from headwater.uploads import statements as uploads
from headwater.vault import seal, unseal
from headwater.vault.providers import KeyFile
from headwater.vault.seal import Binding
from headwater.webhooks import signing
from headwater_cli import logins

_PASSWORD = "tests"


def as_service(database: str, service: logins.Service) -> str:
    """The URL of a database with the login of a service."""
    return logins.url_for(database, f"{logins.role(service)}_tests", _PASSWORD)


def uploads_of(database: str) -> Callable[[UUID], Connection]:
    """How a worker connects to the rows of an organization's uploads."""
    url = as_service(database, "worker")
    return lambda organization_id: db.connect(url, application="tests", organization_id=organization_id)


def act_for(connection: Connection, organization_id: UUID) -> None:
    """From here on the connection acts for the organization; the views of items ask even a superuser for whom."""
    connection.execute("select set_config('headwater.organization', %s, false)", (str(organization_id),))


def make_organization(
    database: str, pepper_file: Path, master_key_file: Path, *, name: str = "Acme", email: str = "ada@example.com"
) -> CreatedOrganization:
    """An organization with an admin and a key."""
    with db.connect(database, application="tests") as connection, connection.transaction():
        return organizations.create(
            connection,
            name=name,
            email=email,
            pepper=api_keys.read_pepper(pepper_file),
            provider=KeyFile(master_key_file),
        )


def make_project(connection: Connection, organization_id: UUID) -> UUID:
    """A project."""
    project_id = ids.new()
    connection.execute(
        "insert into project (id, organization_id, name) values (%s, %s, %s)",
        (project_id, organization_id, project_id.hex),
    )
    return project_id


def make_source(
    connection: Connection,
    organization_id: UUID,
    project_id: UUID,
    config: Mapping[str, Any] | None = None,
    type_: str = "scripted",
) -> UUID:
    """A data source with this config."""
    source_id = ids.new()
    connection.execute(
        "insert into data_source (id, organization_id, project_id, name, type) values (%s, %s, %s, %s, %s)",
        (source_id, organization_id, project_id, source_id.hex, type_),
    )
    connection.execute(
        """
        insert into data_source_version (data_source_id, version, organization_id, config, validation, reading)
        values (%s, 1, %s, %s, '{}', '{}')
        """,
        (source_id, organization_id, db.json({"type": type_, **(config or {})})),
    )
    connection.execute(
        "insert into data_source_totals (data_source_id, organization_id) values (%s, %s)", (source_id, organization_id)
    )
    return source_id


def put_credentials(
    connection: Connection,
    organization_id: UUID,
    source_id: UUID,
    spec: ConnectorSpec,
    *,
    config: Mapping[str, Any],
    secrets: Mapping[str, str],
) -> None:
    """Seal `secrets` to the target of `config`, as the API does."""
    target = spec.target_fingerprint(spec.config.model_validate(dict(config)))
    for name, secret in secrets.items():
        put_secret(connection, secret, seal.Binding(organization_id, source_id, name, target))


def put_secret(connection: Connection, secret: str, binding: Binding, *, key_id: UUID | None = None) -> None:
    """Seal one secret to its organization's key, as the API does; or to `key_id`, which the API read a moment ago."""
    named = db.Statement("select * from organization_key where id = %(id)s", {"id": key_id})
    key = db.run(connection, named if key_id else seal.sealing_key(binding.organization_id)).fetchone()
    assert key is not None
    ciphertext = seal.seal(secret, suite=key["suite"], public_key=key["public_key"], binding=binding)
    connection.execute(
        """
        insert into sealed_credential (subject_id, field, organization_id, ciphertext, suite, key_id)
        values (%s, %s, %s, %s, %s, %s)
        """,
        (binding.subject_id, binding.field, binding.organization_id, ciphertext, key["suite"], key["id"]),
    )


def make_webhook(
    connection: Connection,
    organization_id: UUID,
    url: str = "https://hooks.example.com/",
    secret: str = "whsec_dGVzdHM=",
    *,
    event_types: list[str] | None = None,
    project_ids: list[UUID] | None = None,
) -> UUID:
    """A webhook that is on, with its first secret."""
    webhook_id = ids.new()
    connection.execute(
        "insert into webhook (id, organization_id, url, event_types, project_ids) values (%s, %s, %s, %s, %s)",
        (webhook_id, organization_id, url, event_types, project_ids),
    )
    put_secret(connection, secret, signing.binding(organization_id, webhook_id, 1))
    return webhook_id


def make_delivery(connection: Connection, organization_id: UUID, webhook_id: UUID) -> UUID:
    """A test of the webhook that is due, and was sent once before."""
    row = connection.execute(
        """
        with delivery as (
            insert into webhook_delivery (organization_id, webhook_id, type, attempt) values (%s, %s, 'webhook.test', 1)
            returning id, organization_id
        )
        insert into webhook_attempt (delivery_id, attempt, organization_id, error_code)
        select id, 1, organization_id, 'network' from delivery returning delivery_id
        """,
        (organization_id, webhook_id),
    ).fetchone()
    assert row is not None
    delivery_id: UUID = row["delivery_id"]
    return delivery_id


def opened(
    connection: Connection, master_key_file: Path, *, organization_id: UUID, subject_id: UUID, target: bytes
) -> dict[str, str]:
    """What a worker finds when it opens all secrets of a subject for a target."""
    sealed = unseal.fetch(connection, organization_id=organization_id, subject_id=subject_id)
    return unseal.unseal_all(sealed, provider=KeyFile(master_key_file), target=target)


def bring_in(connection: Connection, organization_id: UUID, data_source_id: UUID, *, job_id: UUID | None = None) -> int:
    """A file with an item, a key and a reject that are live, and an upload; the load's id."""
    row = db.run(connection, loads.reserve(1)).fetchone()
    assert row is not None
    load_id: int = row["id"]
    landed = Landed(id=load_id, path="a.csv", etag="e", loaded=True, item_count=1, error_count=1)
    where: dict[str, Any] = {"organization_id": organization_id, "data_source_id": data_source_id}
    db.run(connection, loads.put(fingerprint="f", loads=[landed], job_id=job_id or ids.new(), **where))
    for statement in (
        "insert into file (data_source_id, organization_id, path)"
        " values (%(data_source_id)s, %(organization_id)s, 'a')",
        "insert into sighting (data_source_id, organization_id) values (%(data_source_id)s, %(organization_id)s)"
        " on conflict do nothing",
        "insert into item (load_id, record_number, data) values (%(load_id)s, 1, '{}')",
        "insert into item_key (data_source_id, key, load_id, record_number)"
        " values (%(data_source_id)s, 'k', %(load_id)s, 1)",
        "insert into reject (load_id, number, code, message) values (%(load_id)s, 1, 'c', 'm')",
        "update load set valid_from = 1 where id = %(load_id)s",
        "update data_source_totals set snapshot = 1 where data_source_id = %(data_source_id)s",
    ):
        connection.execute(statement, where | {"load_id": load_id})
    begin = uploads.begin(
        upload_id=ids.new(), name="a.csv", content_type="text/csv", key=ids.new(), created_by=ids.new(), **where
    )
    db.run(connection, begin)
    return load_id


def seal_all(scheduling: Connection) -> None:
    """Seal the audit log to its end, as the scheduler does in some rounds.

    Whatever transaction runs on the server meanwhile, be it another database's, keeps what is younger for the next one.
    """
    unsealed = "select from audit_entry e where not exists (select from audit_chain c where c.entry_id = e.id) limit 1"
    deadline = time.monotonic() + 30
    while scheduling.execute(unsealed).fetchone() is not None:
        assert time.monotonic() < deadline, "a transaction that does not end holds up the audit log"
        if not chain.seal(scheduling):
            time.sleep(0.01)


def end_long_ago(connection: Connection, job_id: UUID) -> None:
    """Let a queued job have been cancelled, and tallied, so long ago that pruning takes it."""
    connection.execute(
        """
        update job set status = 'cancelled', finished_at = now() - interval '91 days', tallied = true where id = %s
        """,
        (job_id,),
    )


def submit(
    connection: Connection,
    organization: CreatedOrganization,
    project_id: UUID,
    source_id: UUID,
    kind: str = "connection_test",
    **changes: Any,
) -> dict[str, Any]:
    """Submit a job, of a scripted source unless `types` says another; `jobs_submit`'s answer."""
    [answer] = submit_all(
        connection, organization, [submit_request(organization, project_id, source_id, kind, **changes)]
    )
    return answer


def submit_all(
    connection: Connection, organization: CreatedOrganization, requests: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Submit jobs together; `jobs_submit`'s answers."""
    statement = statements.submit(organization_id=organization.organization_id, requests=requests)
    return [row["answer"] for row in db.run(connection, statement)]


def submit_request(
    organization: CreatedOrganization,
    project_id: UUID,
    source_id: UUID,
    kind: str = "connection_test",
    **changes: Any,
) -> dict[str, Any]:
    """What `jobs_submit` takes of one."""
    return {
        "id": str(ids.new()),
        "actor_id": str(organization.member_id),
        "project_id": str(project_id),
        "data_source_id": str(source_id),
        "kind": kind,
        "queue": KINDS[kind].queue.value,
        "params": {},
        "draft": None,
        "types": ["scripted"],
        "live_job_limit": 10_000,
        "queues": [queue.value for queue in Queue],
        "priority": 0,
        "max_attempts": 3,
        "deadline_seconds": 60,
        "request_id": "test",
        "address": "127.0.0.1",
        "sealed": [],
    } | changes
