"""What operators do with whole organizations: shut one out, give it other limits, delete it.

Deleting crosses every layer of the domain, so it stands here and not in one of them.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

from headwater import db, ids
from headwater.audit import log as audit_log
from headwater.audit.acts import Act
from headwater.db import Connection
from headwater.errors import NotFound
from headwater.jobs import statements
from headwater_cli.errors import Failure

_STEP: Final = 10_000
_POLL_SECONDS: Final = 0.5

# Every statement names the organization: where the owner is a superuser, no policy does it for us.
_OURS: Final = "organization_id = current_organization()"
# What hangs on what: rows go before those that they refer to. The rest goes with the organization's own row.
_PURGE: Final[Mapping[str, tuple[LiteralString, LiteralString]]] = {
    "items": ("item", f"select i.ctid from load l join item i on i.load_id = l.id where l.{_OURS}"),
    "item keys": (
        "item_key",
        f"select k.ctid from data_source s join item_key k on k.data_source_id = s.id where s.{_OURS}",
    ),
    "rejects": ("reject", f"select r.ctid from load l join reject r on r.load_id = l.id where l.{_OURS}"),
    "loads": ("load", f"select ctid from load where {_OURS}"),
    "files": ("file", f"select ctid from file where {_OURS}"),
    "events": ("event", f"select ctid from event where {_OURS}"),
    "jobs": ("job", f"select ctid from job where {_OURS}"),
    "deliveries": (
        "webhook_delivery",
        f"select d.ctid from webhook w join webhook_delivery d on d.webhook_id = w.id where w.{_OURS}",
    ),
    "webhooks": ("webhook", f"select ctid from webhook where {_OURS}"),
    "summaries of jobs": ("job_summary", f"select ctid from job_summary where {_OURS}"),
    "data sources": ("data_source", f"select ctid from data_source where {_OURS}"),
    "projects": ("project", f"select ctid from project where {_OURS}"),
}


@dataclass(frozen=True)
class Found:
    """An organization that an operator named."""

    id: UUID
    name: str


def find(connection: Connection, named: str) -> Found:
    """The organization with this id (`org_...`) or name. Raises `Failure` for none, and for more than one."""
    try:
        column, value = "id", str(ids.decode("org", named))
    except NotFound:
        column, value = "name", named
    query = {"id": "id = %s", "name": "name = %s"}[column]
    rows = connection.execute(f"select id, name from organization where {query}", (value,)).fetchall()
    if not rows:
        raise Failure(f"There is no organization {named}.", hint="list-organizations shows them all.")
    if len(rows) > 1:
        raise Failure(f"{len(rows)} organizations are called {named}.", hint="Name one by its id: list-organizations.")
    return Found(rows[0]["id"], rows[0]["name"])


def listed(connection: Connection) -> Iterator[dict[str, Any]]:
    """Every organization: id, name, state, limits, and how many members it has."""
    rows = connection.execute(
        """
        select o.*, (select count(*) from member m where m.organization_id = o.id and m.removed_at is null) as members
        from organization o order by o.created_at, o.id
        """
    ).fetchall()
    for row in rows:
        state = "deleting" if row["deleted_at"] else "suspended" if row["suspended_at"] else "active"
        yield {
            "id": ids.encode("org", row["id"]),
            "name": row["name"],
            "state": state,
            "members": row["members"],
            "created_at": row["created_at"].isoformat(),
            "limits": {name: row[column] for name, column in LIMITS.items()},
        }


def with_keys(connection: Connection, *, older_than_days: int = 0) -> list[Found]:
    """Every organization that is not being deleted, whose newest key is so old."""
    rows = connection.execute("select id, name from organization where deleted_at is null order by created_at, id")
    return [found for row in rows.fetchall() if _is_due(connection, found := Found(**row), older_than_days)]


def _is_due(connection: Connection, found: Found, older_than_days: int) -> bool:
    if not older_than_days:
        return True
    with connection.transaction():
        db.set_organization(connection, found.id)
        # One with a retired key has a rotation to end, however new its key is.
        row = connection.execute(
            f"""
            select max(created_at) <= now() - make_interval(days => %s) or bool_or(retired_at is not null) as due
            from organization_key where {_OURS}
            """,
            (older_than_days,),
        ).fetchone()
    assert row is not None
    return bool(row["due"])


LIMITS: Final[Mapping[str, LiteralString]] = {
    "data_sources": "data_source_limit",
    "live_jobs": "live_job_limit",
    "upload_bytes": "upload_bytes_limit",
    "webhooks": "webhook_limit",
    "running_jobs": "running_limit",
    "deadline_seconds": "deadline_limit_seconds",
}
"""What an organization can have a number of its own of, and the column that holds it."""


def suspend(connection: Connection, found: Found) -> None:
    """Shut the organization out: its keys are refused within five seconds, its queued jobs wait."""
    _write(connection, found, "suspended_at = coalesce(suspended_at, now())", Act.ORGANIZATION_SUSPEND)


def resume(connection: Connection, found: Found) -> None:
    """Let a suspended organization in again. Raises `Failure` for one that is being deleted."""
    row = connection.execute("select deleted_at from organization where id = %s", (found.id,)).fetchone()
    if row is not None and row["deleted_at"] is not None:
        raise Failure(f"{found.name} is being deleted.", hint="delete-organization goes on with it.")
    _write(connection, found, "suspended_at = null", Act.ORGANIZATION_RESUME)


def set_limits(connection: Connection, found: Found, limits: Mapping[str, int | None]) -> None:
    """Give the organization numbers of its own; None is the deployment's default."""
    with connection.transaction():
        db.set_organization(connection, found.id)
        for name, limit in limits.items():
            # One column at a time, its name a constant of this module.
            connection.execute(f"update organization set {LIMITS[name]} = %s where id = %s", (limit, found.id))
        _audit(connection, found, Act.ORGANIZATION_UPDATE, fields=[f"limits.{name}" for name in limits])


def lock_out(connection: Connection, found: Found) -> int:
    """The first half of a deletion, all at once: nobody gets in, no secret opens any more, live jobs are cancelled.

    How many those are. Repeating it harms nothing.
    """
    with connection.transaction():
        db.set_organization(connection, found.id)
        connection.execute("select from organization where id = %s for no key update", (found.id,))
        connection.execute(
            """
            update organization
            set suspended_at = coalesce(suspended_at, now()), deleted_at = coalesce(deleted_at, now())
            where id = %s
            """,
            (found.id,),
        )
        cancelled = connection.execute(
            f"""
            select job_cancel(organization_id, id, null, null, 'The organization was deleted.', null, null), id from job
            where {_OURS} and status in ('queued', 'running') order by id
            """
        ).fetchall()
        connection.execute(f"update api_key set revoked_at = now() where {_OURS} and revoked_at is null")
        connection.execute(f"delete from sealed_credential where {_OURS}")
        # Their private halves go with them: what is left of a ciphertext anywhere opens no more.
        connection.execute(f"delete from organization_key where {_OURS}")
        # Their bytes are deleted by the scheduler, which knows where they are.
        connection.execute(
            f"update upload set state = 'dropped', updated_at = now() where {_OURS} and state <> 'dropped'"
        )
        _audit(connection, found, Act.ORGANIZATION_DELETE)
    for row in cancelled:
        db.run(connection, statements.notify(row["id"]))
    return len(cancelled)


def wait_for_jobs(connection: Connection, found: Found, *, seconds: float) -> int:
    """Wait until no job of the organization runs any more; how many still do."""
    deadline = time.monotonic() + seconds
    while (running := _running(connection, found)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return running


def purge(connection: Connection, found: Found) -> Iterator[tuple[str, int]]:
    """The second half: delete every row, in short transactions. Yields what went, and how many, as it goes.

    Killed, it can be called again. What stays is the audit log, and the uploads until their bytes are gone.
    """
    for name, (table, which) in _PURGE.items():
        delete = f"delete from {table} where ctid = any(array({which} limit {_STEP}))"
        while gone := _acting(connection, found, delete):
            yield name, gone
    _acting(connection, found, "delete from organization where id = current_organization()")


def _acting(connection: Connection, found: Found, text: LiteralString) -> int:
    with connection.transaction():
        db.set_organization(connection, found.id)
        return connection.execute(text).rowcount


def _running(connection: Connection, found: Found) -> int:
    with connection.transaction():
        db.set_organization(connection, found.id)
        row = connection.execute(
            f"select count(*) as running from job where {_OURS} and status in ('running', 'cancelling')"
        ).fetchone()
    assert row is not None
    return int(row["running"])


def _write(connection: Connection, found: Found, change: LiteralString, act: Act) -> None:
    with connection.transaction():
        db.set_organization(connection, found.id)
        connection.execute(f"update organization set {change} where id = %s", (found.id,))
        _audit(connection, found, act)


def _audit(connection: Connection, found: Found, act: Act, *, fields: list[str] | None = None) -> None:
    entry = audit_log.entry(organization_id=found.id, actor_id=None, act=act, subject_id=found.id, fields=fields or ())
    db.run(connection, entry)
