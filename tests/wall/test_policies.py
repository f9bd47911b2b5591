"""The second wall: what each service's login may see and write, whatever its queries ask for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import making
import psycopg
import pytest
from psycopg import sql

from headwater import db, ids
from headwater.db import Connection

Service = Literal["api", "worker", "scheduler"]
Tenants = tuple[Any, Any]

# Tables without a policy, and why that is no hole.
WITHOUT_POLICY = {
    "item": "the API has no right to it, and reads readable_item",
    "reject": "the API has no right to it, and reads readable_reject",
    "item_key": "the API has no right to it",
    "worker": "processes, not tenants; the API has no right to it",
    "audit_horizon": "one row, of nobody; the scheduler's alone",
    "alembic_version": "one row, of nobody",
    "measurement": "one row, of nobody: sums over all organizations",
    "tally": "sums over all organizations; names of data sources where the operator wants them",
}
# The queue is of everybody: a worker hears an id and learns from the row whose job it is.
QUEUE = {
    "job", "job_lease", "job_attempt", "job_progress", "job_view", "webhook_delivery", "webhook_attempt",
}  # fmt: skip


@contextmanager
def logged_in(database: str, service: Service, acting_for: Any = None) -> Iterator[Connection]:
    organization_id = acting_for and acting_for.id
    url = making.as_service(database, service)
    with db.connect(url, application="tests", organization_id=organization_id) as connection:
        yield connection


def readable(connection: Connection) -> list[str]:
    """Tables and views of which the login may read at least a column."""
    rows = connection.execute(
        """
        select c.relname from pg_class c
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v')
          and has_any_column_privilege(c.oid, 'select')
        order by 1
        """
    )
    return [row["relname"] for row in rows]


def count(connection: Connection, table: str) -> int:
    """How many rows the login sees."""
    query = sql.SQL("select count(*) as n from {}").format(sql.Identifier(table))
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row["n"])


def owners(connection: Connection, table: str) -> set[Any]:
    """Whose rows the login sees, of a table that says so."""
    column = "id" if table == "organization" else "organization_id"
    query = sql.SQL("select distinct {} as owner from {}").format(sql.Identifier(column), sql.Identifier(table))
    return {row["owner"] for row in connection.execute(query)}


def has_owner(connection: Connection, table: str) -> bool:
    row = connection.execute(
        """
        select 1 from pg_attribute
        where attrelid = %s::regclass and attname = 'organization_id' and not attisdropped
        """,
        (table,),
    ).fetchone()
    return table == "organization" or row is not None


def test_every_table_has_forced_policies_or_a_reason(connection: Connection) -> None:
    """A new table without either fails here."""
    rows = connection.execute(
        """
        select relname from pg_class
        where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')
          and not (relrowsecurity and relforcerowsecurity)
        """
    )
    assert {row["relname"] for row in rows} == WITHOUT_POLICY.keys()


def test_every_table_has_a_row_of_each_tenant(connection: Connection, tenants: Tenants) -> None:
    """Or the tests below would look at nothing."""
    rows = connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
    tables = [row["tablename"] for row in rows]
    # The scheduler has sealed and tallied nothing yet, and no worker process has said that it is there.
    assert {table for table in tables if not count(connection, table)} == {"audit_chain", "tally", "worker"}
    both = {tenant.id for tenant in tenants}
    with_owner = [table for table in tables if has_owner(connection, table) and table != "audit_chain"]
    assert [table for table in with_owner if owners(connection, table) != both] == []


@pytest.mark.parametrize("service", ["api", "worker"])
def test_whoever_does_not_say_for_whom_sees_nothing(database: str, tenants: Tenants, service: Service) -> None:
    """Unset is no rows; the queue alone is open to workers."""
    with logged_in(database, service) as connection:
        seen = {table for table in readable(connection) if table not in WITHOUT_POLICY and count(connection, table)}
    assert seen == (QUEUE - {"job_view"} if service == "worker" else set())


@pytest.mark.parametrize("service", ["api", "worker"])
def test_whoever_acts_for_one_sees_nothing_of_another(database: str, tenants: Tenants, service: Service) -> None:
    """Of every table that it may read, without any filter in the query."""
    ours, _theirs = tenants
    with logged_in(database, service, ours) as connection:
        tables = [table for table in readable(connection) if has_owner(connection, table)]
        found = {table: owners(connection, table) for table in tables}
    expected = {table: {ours.id} for table in tables}
    if service == "worker":
        expected |= {table: {tenant.id for tenant in tenants} for table in QUEUE & found.keys()}
    assert found == expected | ({"audit_chain": set()} if service == "api" else {})


def test_items_and_rejects_of_another_are_not_there(database: str, tenants: Tenants) -> None:
    """Not even by their keys."""
    ours, theirs = tenants
    with logged_in(database, "api", ours) as connection:
        for table in ("readable_item", "readable_reject"):
            query = sql.SQL("select load_id from {} where load_id = any(%s)").format(sql.Identifier(table))
            rows = connection.execute(query, ([ours.load_id, theirs.load_id],)).fetchall()
            assert [row["load_id"] for row in rows] == [ours.load_id]


def test_no_error_shows_a_record_of_another(database: str, tenants: Tenants) -> None:
    """A condition that fails on the record's value is not tried on what the policy hides."""
    ours, _theirs = tenants
    with logged_in(database, "api", ours) as connection, pytest.raises(psycopg.errors.InvalidTextRepresentation):
        connection.execute("select from readable_item where (data::text)::int = 1").fetchall()
    with logged_in(database, "api", None) as connection:
        assert connection.execute("select from readable_item where (data::text)::int = 1").fetchall() == []


@pytest.mark.parametrize(
    ("service", "statement"),
    [
        ("api", "insert into project (id, organization_id, name) values (%(new)s, %(theirs)s, 'x')"),
        ("api", "insert into audit_entry (organization_id, act) values (%(theirs)s, 'x')"),
        ("api", "insert into event (organization_id, act) values (%(theirs)s, 'x')"),
        ("api", "update project set organization_id = %(theirs)s"),
        ("worker", "insert into event (organization_id, act) values (%(theirs)s, 'x')"),
        ("worker", "insert into audit_entry (organization_id, act) values (%(theirs)s, 'x')"),
        ("worker", "update organization set running_limit = 1000 where id = current_organization()"),
        ("worker", "update file set organization_id = %(theirs)s"),
        ("api", "insert into webhook (id, organization_id, url) values (%(new)s, %(theirs)s, 'x')"),
        (
            "worker",
            "insert into webhook_delivery (organization_id, webhook_id, type) values (%(theirs)s, %(new)s, 'x')",
        ),
    ],
)
def test_nothing_is_written_for_another(database: str, tenants: Tenants, service: Service, statement: str) -> None:
    """Acting for one, a row of another cannot come into being, and none of ours can become theirs."""
    ours, theirs = tenants
    with (
        logged_in(database, service, ours) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege) as refused,
    ):
        connection.execute(statement, {"new": ids.new(), "theirs": theirs.id})
    assert "row-level security" in str(refused.value)


@pytest.mark.parametrize(
    ("service", "statement"),
    [
        ("api", "select ciphertext from sealed_credential"),
        ("api", "select wrapped from organization_private_key"),
        ("api", "select data from item"),
        ("api", "select excerpt from reject"),
        ("api", "select token from job_lease"),
        ("api", "update job set result = '{}'"),
        ("api", "update organization set suspended_at = null"),
        ("api", "delete from project"),
        ("api", "delete from api_key"),
        ("api", "delete from job"),
        ("worker", "select secret_hash from api_key"),
        ("worker", "select email from member"),
        ("worker", "update data_source set name = 'x'"),
        ("worker", "insert into job (id) values (gen_random_uuid())"),
        ("worker", "select act from audit_entry"),
        ("api", "select token from webhook_delivery"),
        ("api", "update webhook_delivery set data = '{}'"),
        ("api", "delete from webhook"),
        ("worker", "update webhook set url = 'x'"),
        ("worker", "delete from webhook_delivery"),
        ("scheduler", "select url from webhook"),
        ("scheduler", "select data from webhook_delivery"),
        ("scheduler", "update webhook set enabled = true"),
        ("scheduler", "select params from job"),
        ("scheduler", "select ciphertext from sealed_credential"),
        ("scheduler", "select wrapped from organization_private_key"),
        ("scheduler", "select secret_hash from api_key"),
        ("scheduler", "select config from data_source_version"),
        ("scheduler", "update job set result = '{}'"),
        ("scheduler", "insert into item (load_id, record_number, data) values (1, 1, '{}')"),
        *((service, f"{verb} audit_entry {rest}") for service in ("api", "worker", "scheduler") for verb, rest in (
            ("update", "set act = 'x'"), ("delete from", ""), ("truncate", ""))),
        *((service, f"{verb} audit_chain {rest}") for service in ("api", "worker", "scheduler") for verb, rest in (
            ("update", "set hash = ''"), ("delete from", ""), ("truncate", ""))),
    ],
)  # fmt: skip
def test_a_service_has_the_rights_that_it_needs_and_no_more(
    database: str, tenants: Tenants, service: Service, statement: str
) -> None:
    """Refused before a row is looked at."""
    with logged_in(database, service, tenants[0]) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


def test_a_worker_knows_no_organizations_key_but_the_one_it_acts_for(database: str, tenants: Tenants) -> None:
    """Of the wrapped private keys it sees those of its job's organization."""
    ours, _theirs = tenants
    with logged_in(database, "worker", ours) as connection:
        rows = connection.execute(
            "select k.organization_id from organization_private_key p join organization_key k on k.id = p.key_id"
        ).fetchall()
        assert ([row["organization_id"] for row in rows], count(connection, "organization_private_key")) == (
            [ours.id],
            1,
        )


@pytest.mark.parametrize(
    "statement", ["update {} set organization_id = gen_random_uuid()", "delete from {}", "truncate {}"]
)
@pytest.mark.parametrize("table", ["audit_entry", "audit_chain"])
def test_not_even_the_owner_changes_what_is_written_down(
    connection: Connection, tenants: Any, table: str, statement: str
) -> None:
    """A trigger refuses it to the superuser as well."""
    with connection.transaction(force_rollback=True):
        connection.execute(
            """
            insert into audit_chain (organization_id, seq, entry_id, hash)
            select organization_id, 1, id, '' from audit_entry limit 1
            """
        )
        with pytest.raises((psycopg.errors.IntegrityConstraintViolation, psycopg.errors.FeatureNotSupported)):
            connection.execute(statement.format(table))


def test_the_owner_is_held_by_the_policies_too(owner: str, tenants: Tenants) -> None:
    """It sees whom there is, to look keys up, and what they did, to verify it; nothing else that is theirs."""
    with db.connect(owner, application="tests") as connection:
        seen = {table for table in readable(connection) if table not in WITHOUT_POLICY and count(connection, table)}
    assert seen == {"organization", "member", "api_key", "audit_entry"}


def test_the_look_up_of_a_key_is_the_only_call_with_its_definers_rights(connection: Connection) -> None:
    """And the API alone may call it. The other two are a foreign key's triggers, which nobody may call."""
    rows = connection.execute(
        """
        select proname, proconfig, has_function_privilege('headwater_worker', oid, 'execute') as worker,
               has_function_privilege('headwater_scheduler', oid, 'execute') as scheduler,
               has_function_privilege('headwater_api', oid, 'execute') as api
        from pg_proc where pronamespace = 'public'::regnamespace and prosecdef
        """
    ).fetchall()
    expected = {"file_goes_with_its_source": False, "file_has_a_source": False, "api_key_read": True}
    assert {row.pop("proname"): row for row in rows} == {
        name: {
            "proconfig": ["search_path=pg_catalog, public, pg_temp"],
            "worker": False,
            "scheduler": False,
            "api": api,
        }
        for name, api in expected.items()
    }


def test_every_view_has_the_rights_of_whoever_asks(connection: Connection) -> None:
    """In production the owner is a superuser: with its rights a view would show everybody's rows."""
    rows = connection.execute(
        "select relname, reloptions from pg_class where relkind = 'v' and relnamespace = 'public'::regnamespace"
    ).fetchall()
    assert rows == [{"relname": "job_view", "reloptions": ["security_invoker=true"]}]


def test_no_service_is_the_owner_or_may_pass_the_policies_by(connection: Connection) -> None:
    """Neither by an attribute nor by a membership."""
    rows = connection.execute(
        """
        select rolname from pg_roles
        where rolname like 'headwater\\_%' and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb
              or pg_has_role(rolname, (select tableowner from pg_tables where tablename = 'job'), 'member'))
        """
    ).fetchall()
    assert rows == []
