"""What was sealed of the audit log cannot be changed, left out or put in without a trace."""

from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from making import seal_all
from psycopg import sql

from headwater import db, ids
from headwater.audit import chain
from headwater.audit import log as audit_log
from headwater.audit.acts import Act
from headwater.audit.chain import Head
from headwater.db import Connection

Write = Callable[..., UUID]


@pytest.fixture
def write(connection: Connection) -> Write:
    """Writes an entry of an organization; `on` another connection."""

    def write(organization_id: UUID, *, on: Connection = connection, **said: object) -> UUID:
        entry = audit_log.entry(
            organization_id=organization_id, actor_id=ids.new(), act=Act.JOB_SUBMIT, subject_id=ids.new(),
            request_id="r", address="127.0.0.1", fields=["b", "a"], details={"kind": "sync", "ü": 1} | said,
        )  # fmt: skip
        row = on.execute(entry.text + " returning id", entry.parameters).fetchone()
        assert row is not None
        return UUID(str(row["id"]))

    return write


@pytest.fixture
def organization_id() -> UUID:
    """An organization that has done nothing yet; the log knows no foreign key to it."""
    return ids.new()


@pytest.fixture
def forger(connection: Connection) -> Iterator[Connection]:
    """Somebody who owns the database: no trigger and no key stands in the way."""
    connection.execute("set session_replication_role = replica")
    yield connection
    connection.execute("set session_replication_role = origin")


def sealed(connection: Connection, organization_id: UUID) -> list[UUID]:
    """The entries in the order of the chain."""
    rows = connection.execute(
        "select entry_id from audit_chain where organization_id = %s order by seq", (organization_id,)
    )
    return [row["entry_id"] for row in rows]


def test_entries_are_sealed_in_order_and_once(
    connection: Connection, scheduling: Connection, write: Write, organization_id: UUID
) -> None:
    """By the scheduler's login; what was sealed stays, what comes later goes behind it."""
    entries = [write(organization_id) for _ in range(3)]
    seal_all(scheduling)
    entries += [write(organization_id), write(organization_id)]
    seal_all(scheduling)
    assert chain.seal(scheduling) == 0
    assert sealed(connection, organization_id) == entries
    found = chain.verify(connection, organization_id)
    assert (found.head.seq, found.unsealed, found.broken_at) == (5, 0, None)


def test_each_organization_has_a_chain_of_its_own(connection: Connection, scheduling: Connection, write: Write) -> None:
    """They begin with their organization, so that none can be shown as another's."""
    ours, theirs = ids.new(), ids.new()
    for organization_id in (ours, theirs, ours):
        write(organization_id)
    seal_all(scheduling)
    assert [chain.verify(connection, each).head.seq for each in (ours, theirs)] == [2, 1]
    assert chain.begin(ours) != chain.begin(theirs)


def test_nothing_is_sealed_before_an_older_transaction_has_ended(
    database: str, connection: Connection, scheduling: Connection, write: Write, organization_id: UUID
) -> None:
    """What commits late and began early takes its place in the order: nobody was sealed into it meanwhile."""
    with db.connect(database, application="tests") as slow, slow.transaction():
        first = write(organization_id, on=slow)
        second = write(organization_id)
        while chain.seal(scheduling):
            pass
        assert sealed(connection, organization_id) == []
        assert chain.verify(connection, organization_id).unsealed == 1
    seal_all(scheduling)
    assert sealed(connection, organization_id) == [first, second]


def test_a_batch_that_ends_within_a_transaction_is_gone_on_with(
    connection: Connection, scheduling: Connection, write: Write, organization_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven entries of one transaction, three at a time: each once, in order."""
    monkeypatch.setattr(chain, "_BATCH", 3)
    with connection.transaction():
        entries = [write(organization_id) for _ in range(7)]
    seal_all(scheduling)
    assert sealed(connection, organization_id) == entries
    assert chain.verify(connection, organization_id).broken_at is None


def test_one_scheduler_seals_at_a_time(
    connection: Connection, scheduling: Connection, write: Write, organization_id: UUID
) -> None:
    """The other one comes again later instead of waiting."""
    entry = write(organization_id)
    with connection.transaction():
        connection.execute("select from audit_horizon for update")
        assert chain.seal(scheduling) is None
    seal_all(scheduling)
    assert sealed(connection, organization_id) == [entry]


def test_a_log_that_was_brought_to_another_server_is_sealed_on(
    connection: Connection, scheduling: Connection, write: Write, forger: Connection, organization_id: UUID
) -> None:
    """Restored entries have transaction numbers of the former server, which this one reaches years later or never."""
    entries = [write(organization_id)]
    seal_all(scheduling)
    entries += [write(organization_id), write(organization_id)]
    forger.execute("update audit_entry set xid = '4000000000' where id = any(%s)", (entries[:2],))
    forger.execute("update audit_horizon set system_identifier = 1, xid = '3999999999'")
    seal_all(scheduling)
    entries.append(write(organization_id))
    seal_all(scheduling)
    assert sealed(connection, organization_id) == entries
    assert chain.verify(connection, organization_id).broken_at is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("actor_id", "null"),
        ("key_id", "gen_random_uuid()"),
        ("act", "'job.cancel'"),
        ("subject_id", "null"),
        ("request_id", "''"),
        ("address", "'10.0.0.1'"),
        ("fields", "'{a,b,c}'"),
        ("fields", "'{ab}'"),
        ("details", """'{"kind": "sync"}'"""),
        ("created_at", "created_at + interval '1 microsecond'"),
        ("number", "default"),
    ],
)
def test_whatever_is_changed_of_an_entry_is_noticed(
    connection: Connection, scheduling: Connection, write: Write, forger: Connection, organization_id: UUID,
    column: str, value: str,
) -> None:  # fmt: skip
    """Every column that says something, down to the last microsecond."""
    entries = [write(organization_id) for _ in range(3)]
    seal_all(scheduling)
    change = sql.SQL("update audit_entry set {} = {} where id = %s").format(sql.Identifier(column), sql.SQL(value))
    forger.execute(change, (entries[1],))
    assert chain.verify(connection, organization_id).broken_at == 2


def test_an_entry_that_is_gone_is_noticed(
    connection: Connection, scheduling: Connection, write: Write, forger: Connection, organization_id: UUID
) -> None:
    """With its link, or without."""
    entries = [write(organization_id) for _ in range(4)]
    seal_all(scheduling)
    forger.execute("delete from audit_entry where id = %s", (entries[2],))
    assert chain.verify(connection, organization_id).broken_at == 3
    forger.execute("delete from audit_chain where entry_id = %s", (entries[2],))
    assert chain.verify(connection, organization_id).broken_at == 3


def test_an_entry_that_is_put_in_between_is_noticed(
    connection: Connection, scheduling: Connection, write: Write, forger: Connection, organization_id: UUID
) -> None:
    """Two links change places."""
    first, second = write(organization_id), write(organization_id)
    seal_all(scheduling)
    forger.execute("delete from audit_chain where organization_id = %s", (organization_id,))
    for seq, entry in enumerate((second, first), start=1):
        forger.execute(
            "insert into audit_chain (organization_id, seq, entry_id, hash) values (%s, %s, %s, '\\x00')",
            (organization_id, seq, entry),
        )
    assert chain.verify(connection, organization_id).broken_at == 1


def test_a_head_that_was_noted_shows_what_a_rewritten_chain_hides(
    connection: Connection, scheduling: Connection, write: Write, forger: Connection, organization_id: UUID
) -> None:
    """A chain that was cut off, or made anew, holds in itself."""
    entries = [write(organization_id) for _ in range(3)]
    seal_all(scheduling)
    noted = chain.verify(connection, organization_id).head
    assert chain.verify(connection, organization_id, known=noted).broken_at is None
    forger.execute("delete from audit_chain where entry_id = %s", (entries[2],))
    forger.execute("delete from audit_entry where id = %s", (entries[2],))
    assert chain.verify(connection, organization_id).broken_at is None
    assert chain.verify(connection, organization_id, known=noted).broken_at == 3
    write(organization_id, forged=True)
    seal_all(scheduling)
    assert chain.verify(connection, organization_id).broken_at is None
    assert chain.verify(connection, organization_id, known=noted).broken_at == 3
    assert chain.verify(connection, organization_id, known=Head(9, noted.hash)).broken_at == 4
