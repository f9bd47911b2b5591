"""What the gauges say of queues, jobs, workers and the audit log."""

import making
import pytest

from headwater import ids
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection
from headwater.measuring import gauges

from .conftest import Bench


def measured(bench: Bench, scheduling: Connection) -> dict[tuple[str, ...], float]:
    """Measured with the scheduler's own rights."""
    assert gauges.measure(scheduling, redis_up=True) is True
    return bench.gauges()


def test_an_idle_deployment_has_a_zero_for_everything(bench: Bench, scheduling: Connection) -> None:
    """A series that is missing cannot be told from one that nobody measures."""
    making.seal_all(scheduling)
    found = measured(bench, scheduling)
    assert {value for name, value in found.items() if name != ("headwater_redis_up",)} == {0}
    assert found["headwater_jobs_queued", "bulk"] == found["headwater_jobs_running", "table_discovery"] == 0


def test_queued_and_running_jobs_are_counted(bench: Bench, scheduling: Connection) -> None:
    """By queue and by kind."""
    for _ in range(3):
        bench.submit()
    bench.claim(bench.submit("sync"))
    bench.run()
    found = measured(bench, scheduling)
    assert (found["headwater_jobs_queued", "interactive"], found["headwater_jobs_queued", "bulk"]) == (3, 0)
    assert (found["headwater_jobs_running", "sync"], found["headwater_jobs_running", "connection_test"]) == (1, 0)


class TestOldest:
    """For how long the first of the queued jobs has been due."""

    def age(self, bench: Bench, scheduling: Connection) -> float:
        return measured(bench, scheduling)["headwater_jobs_oldest_queued_seconds", "interactive"]

    def test_it_is_that_of_the_one_that_waits_longest(
        self, bench: Bench, connection: Connection, scheduling: Connection
    ) -> None:
        """Measured by the database's clock."""
        bench.submit()
        connection.execute("update job set run_at = now() - interval '100 seconds'")
        bench.submit()
        assert self.age(bench, scheduling) == pytest.approx(100, abs=20)

    def test_an_attempt_that_is_due_later_does_not_wait(
        self, bench: Bench, connection: Connection, scheduling: Connection
    ) -> None:
        """The pause between attempts is meant."""
        bench.submit()
        connection.execute("update job set created_at = now() - interval '1 hour', run_at = now() + interval '1 hour'")
        assert self.age(bench, scheduling) == 0

    def test_the_jobs_of_a_suspended_organization_alarm_nobody(
        self, bench: Bench, connection: Connection, scheduling: Connection
    ) -> None:
        """They are meant to wait, and still count as queued."""
        bench.submit()
        connection.execute("update job set run_at = now() - interval '100 seconds'")
        connection.execute("update organization set suspended_at = now()")
        assert self.age(bench, scheduling) == 0
        assert bench.gauges()["headwater_jobs_queued", "interactive"] == 1
        connection.execute("update organization set suspended_at = null")


def test_the_oldest_heartbeat_is_shown(bench: Bench, connection: Connection, scheduling: Connection) -> None:
    """Of the jobs of a queue that run."""
    claim = bench.claim(bench.submit())
    bench.claim(bench.submit())
    connection.execute(
        "update job_lease set beat_at = now() - interval '100 seconds' where job_id = %s", (claim.job_id,)
    )
    found = measured(bench, scheduling)
    assert found["headwater_job_heartbeat_age_seconds", "interactive"] == pytest.approx(100, abs=20)
    assert found["headwater_job_heartbeat_age_seconds", "bulk"] == 0


def test_workers_that_were_seen_lately_are_counted(
    bench: Bench, connection: Connection, scheduling: Connection
) -> None:
    """A silent one is none."""
    connection.execute(
        """
        insert into worker (name, queue, slots, version, seen_at) values
            ('a', 'bulk', 4, '1', now()), ('b', 'bulk', 8, '1', now()),
            ('c', 'bulk', 8, '1', now() - interval '1 minute')
        """
    )
    found = measured(bench, scheduling)
    assert (found["headwater_workers", "bulk"], found["headwater_worker_slots", "bulk"]) == (2, 12)
    assert found["headwater_workers", "interactive"] == 0


def test_the_oldest_unsealed_audit_entry_is_shown(bench: Bench, connection: Connection, scheduling: Connection) -> None:
    """Until it is sealed, wherever the horizon stands: it stays within a transaction of many entries."""
    making.seal_all(scheduling)
    for age in (100, 50):
        connection.execute(
            """
            insert into audit_entry (organization_id, act, created_at)
            values (%s, 'tests', now() - make_interval(secs => %s))
            """,
            (ids.new(), age),
        )
    assert measured(bench, scheduling)["headwater_audit_unsealed_seconds",] == pytest.approx(100, abs=20)
    making.seal_all(scheduling)
    connection.execute("update audit_horizon set xid = '0'")
    assert measured(bench, scheduling)["headwater_audit_unsealed_seconds",] == 0


def test_the_delivery_that_has_been_due_longest_is_shown(
    bench: Bench, connection: Connection, organization: CreatedOrganization, scheduling: Connection
) -> None:
    """What is due later, is on its way or has arrived does not wait."""
    webhook_id = making.make_webhook(connection, organization.organization_id)
    ages = {"pending": 100, "delivering": 200, "succeeded": 300}
    for status, age in ages.items():
        delivery_id = making.make_delivery(connection, organization.organization_id, webhook_id)
        connection.execute(
            "update webhook_delivery set status = %s, next_at = now() - make_interval(secs => %s) where id = %s",
            (status, age, delivery_id),
        )
    assert measured(bench, scheduling)["headwater_webhook_oldest_due_seconds",] == pytest.approx(100, abs=20)
    connection.execute("update webhook_delivery set next_at = now() + interval '1 hour' where status = 'pending'")
    assert measured(bench, scheduling)["headwater_webhook_oldest_due_seconds",] == 0
    connection.execute("delete from webhook")


def test_whether_redis_is_there_is_the_schedulers_word(bench: Bench, scheduling: Connection) -> None:
    """As it was told."""
    for up in (False, True):
        gauges.measure(scheduling, redis_up=up)
        assert bench.gauges()["headwater_redis_up",] == up
