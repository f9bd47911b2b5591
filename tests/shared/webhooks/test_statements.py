"""Who may deliver what: one holder at a time, turns between webhooks, and nothing recorded by whoever lost it."""

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import making
import pytest

from headwater import db, ids
from headwater.db import Connection, Row
from headwater.webhooks import statements


@pytest.fixture
def webhook(connection: Connection, organization: Any) -> Callable[[int], UUID]:
    """Makes a webhook with so many deliveries that are due, the first one first."""
    connection.execute("delete from webhook")

    def make(deliveries: int) -> UUID:
        webhook_id = making.make_webhook(connection, organization.organization_id)
        for _ in range(deliveries):
            making.make_delivery(connection, organization.organization_id, webhook_id)
        return webhook_id

    return make


def claim(working: Connection, *, limit: int = 100, endpoint_limit: int = 4, lease_seconds: float = 60) -> list[Row]:
    """With a token of its own."""
    statement = statements.claim(
        token=ids.new(), limit=limit, endpoint_limit=endpoint_limit, lease_seconds=lease_seconds
    )
    return db.run(working, statement).fetchall()


def record(working: Connection, held: Row, **changes: Any) -> Row | None:
    """That it has arrived, as whoever holds it."""
    outcome: dict[str, Any] = {
        "organization_id": held["organization_id"], "delivery_id": held["id"], "token": held["token"],
        "status": "succeeded", "delay_seconds": 0, "duration_ms": 1, "status_code": 204, "error_code": None,
    }  # fmt: skip
    with working.transaction():
        db.set_organization(working, held["organization_id"])
        return db.run(working, statements.record(**outcome | changes)).fetchone()


def status(connection: Connection, held: Row) -> str:
    row = connection.execute("select status from webhook_delivery where id = %s", (held["id"],)).fetchone()
    assert row is not None
    return str(row["status"])


def test_many_claims_at_once_share_what_is_due(database: str, webhook: Callable[[int], UUID]) -> None:
    """None is held by two, and none is left lying."""
    for _ in range(20):
        webhook(3)
    held: list[UUID] = []
    start = threading.Barrier(4)

    def work() -> None:
        with db.connect(making.as_service(database, "worker"), application="tests") as working:
            start.wait(10)
            while rows := claim(working, limit=5):
                held.extend(row["id"] for row in rows)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(held), len(set(held))) == (60, 60)


def test_what_is_not_due_is_left(connection: Connection, working: Connection, webhook: Callable[[int], UUID]) -> None:
    """A pause is a pause."""
    webhook(1)
    connection.execute("update webhook_delivery set next_at = now() + interval '1 second'")
    assert claim(working) == []


def test_webhooks_take_turns(working: Connection, webhook: Callable[[int], UUID]) -> None:
    """One that has many waits with all but its first behind those of the others, and has a limit."""
    busy, others = webhook(9), {webhook(1) for _ in range(3)}
    first = claim(working, limit=4)
    assert {row["webhook_id"] for row in first} == {busy, *others}
    assert [row["webhook_id"] for row in claim(working)] == [busy] * 3
    assert claim(working) == []


def test_a_limit_that_was_lowered_is_heeded(working: Connection, webhook: Callable[[int], UUID]) -> None:
    """More are under way than there may be: nothing is claimed, and nothing breaks."""
    webhook(5)
    assert len(claim(working)) == 4
    assert claim(working, endpoint_limit=1) == []


def test_the_oldest_of_a_webhook_goes_first(
    connection: Connection, working: Connection, webhook: Callable[[int], UUID]
) -> None:
    """By when they are due."""
    webhook(3)
    connection.execute("update webhook_delivery set next_at = now() - random() * interval '1 hour'")
    due = [row["id"] for row in connection.execute("select id from webhook_delivery order by next_at")]
    assert [claim(working, limit=1)[0]["id"] for _ in due] == due


def test_who_lost_a_delivery_records_nothing(
    connection: Connection, working: Connection, webhook: Callable[[int], UUID]
) -> None:
    """It was frozen beyond its lease: neither before somebody else has it, nor while, nor after."""
    webhook(1)
    (lost,) = claim(working, lease_seconds=0)
    assert [row["status"] for row in db.run(working, statements.take_back())] == ["pending"]
    assert record(working, lost) is None
    (held,) = claim(working)
    assert (held["attempt"], held["id"]) == (lost["attempt"] + 1, lost["id"])
    assert record(working, lost) is None
    assert status(connection, lost) == "delivering"
    assert record(working, held, status="failed", error_code="gone", status_code=410) is not None
    assert record(working, lost) is None
    assert status(connection, lost) == "failed"


def test_a_lease_that_lasts_is_not_taken_back(working: Connection, webhook: Callable[[int], UUID]) -> None:
    """Nor is what is not leased at all."""
    webhook(2)
    claim(working, limit=1)
    assert db.run(working, statements.take_back()).fetchall() == []


def test_what_ends_its_deliverer_each_time_has_failed_some_day(
    working: Connection, webhook: Callable[[int], UUID]
) -> None:
    """Each of them counts as a try."""
    webhook(1)
    outcomes = []
    while claim(working, lease_seconds=0):
        outcomes += [row["status"] for row in db.run(working, statements.take_back())]
    assert outcomes == ["pending"] * (statements.MOST_TRIES - 1) + ["failed"]
