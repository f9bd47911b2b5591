"""Each job and each attempt that has ended is counted once, whatever happens to schedulers and jobs."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import making
import psycopg
import pytest

from headwater import db, ids
from headwater.db import Connection
from headwater.jobs import lifecycle, pruning
from headwater.jobs.outcome import Failed, JobFailure, Released
from headwater.measuring import gauges, tallies

from .conftest import SETTINGS, Bench

BUSY = Failed(JobFailure("throttled", "Busy.", origin="source", retryable=True))
REFUSED = Failed(JobFailure("permission_denied", "No.", origin="source"))

FINISHED = "headwater_jobs_finished_total"
ATTEMPTS = "headwater_job_attempts_total"
LOSSES = "headwater_job_lease_losses_total"
ITEMS = "headwater_items_synced_total"
ERRORS = "headwater_item_errors_total"


def add(connection: Connection, *, per_source: bool = False) -> int:
    return tallies.add(connection, per_source=per_source)


def cancel(bench: Bench, job_id: UUID) -> None:
    bench.connection.execute(
        "select job_cancel(%s, %s, %s, null, null, 'test', null)",
        (bench.organization.organization_id, job_id, bench.organization.member_id),
    )


def test_jobs_and_attempts_are_counted_by_how_they_ended(bench: Bench, scheduling: Connection) -> None:
    """With the scheduler's own rights; a second look counts nothing again."""
    bench.run()
    bench.run("file_listing", REFUSED)
    job_id = bench.submit()
    bench.end(bench.claim(job_id), BUSY)
    bench.end(bench.claim(job_id), Released())
    bench.end(bench.claim(job_id))
    cancel(bench, bench.submit())
    running = bench.claim(bench.submit())
    expected = {
        (FINISHED, "connection_test", "succeeded"): 2,
        (FINISHED, "file_listing", "failed"): 1,
        (FINISHED, "connection_test", "cancelled"): 1,
        (ATTEMPTS, "connection_test", "succeeded"): 2,
        (ATTEMPTS, "connection_test", "retried"): 1,
        (ATTEMPTS, "connection_test", "released"): 1,
        (ATTEMPTS, "file_listing", "failed"): 1,
    }
    assert add(scheduling) == 9
    assert bench.tallies() == expected
    assert add(scheduling) == 0
    assert bench.tallies() == expected
    bench.end(running)
    assert add(scheduling) == 2
    assert bench.tallies()[FINISHED, "connection_test", "succeeded"] == 3


def test_a_lost_lease_counts_before_its_job_has_ended(bench: Bench, scheduling: Connection) -> None:
    """An alert must not wait for the end of a long sync."""
    claim = bench.claim(bench.submit("sync"))
    bench.connection.execute("update job_lease set until = now() - interval '1 second'")
    assert lifecycle.reap(scheduling, settings=SETTINGS) == [(claim.job_id, "queued")]
    add(scheduling)
    assert bench.tallies() == {(ATTEMPTS, "sync", "lost"): 1, (LOSSES, "sync"): 1}


def test_waits_and_runs_fall_into_buckets(bench: Bench, connection: Connection, scheduling: Connection) -> None:
    """A bucket has what is at most as long as its bound; a job that never started is in none."""
    bench.submit()
    connection.execute(
        """
        update job set status = 'failed', created_at = now() - interval '40 seconds',
            started_at = now() - interval '38 seconds', finished_at = now() - interval '31 seconds'
        """
    )
    bench.ended(1)
    add(scheduling)
    starts = bench.histogram("headwater_job_start_seconds", "connection_test")
    assert "1.0" not in starts
    assert (starts["2.5"], starts["+Inf"]) == (1, 1)
    runs = bench.histogram("headwater_job_run_seconds", "connection_test")
    assert "5.0" not in runs
    assert (runs["10.0"], runs["86400.0"], runs["+Inf"]) == (1, 1, 1)
    row = connection.execute("select value from tally where name = 'headwater_job_run_seconds_sum'").fetchone()
    assert row == {"value": 7.0}


def test_what_syncs_brought_is_counted_by_type(bench: Bench, connection: Connection, scheduling: Connection) -> None:
    """The funnel of the job as it was recorded with its end; nobody's source is named."""
    bench.run("sync", landed=10, rejected=2)
    bench.run("sync", REFUSED, landed=5)
    other = making.make_source(connection, bench.organization.organization_id, bench.project_id, type_="s3")
    bench.end(bench.claim(bench.submit("sync", source_id=str(other), types=["s3"])), landed=1)
    add(scheduling)
    brought = {key: value for key, value in bench.tallies().items() if key[0] in (ITEMS, ERRORS)}
    assert brought == {(ITEMS, "scripted"): 15, (ERRORS, "scripted"): 2, (ITEMS, "s3"): 1, (ERRORS, "s3"): 0}
    row = connection.execute("select count(*) as n from tally where labels ? 'data_source'").fetchone()
    assert row == {"n": 0}


class TestPerSource:
    """What is counted for each data source where the operator wants it."""

    def sources(self, bench: Bench) -> dict[str, float]:
        """{source: items}."""
        rows = bench.connection.execute(
            "select labels ->> 'data_source' as id, value from tally where name = 'headwater_source_items_synced_total'"
        )
        return {row["id"]: row["value"] for row in rows}

    def test_it_is_counted_beside_its_type(self, bench: Bench, scheduling: Connection) -> None:
        """The sum over all sources stays what it was."""
        bench.run("sync", landed=10, rejected=2)
        add(scheduling, per_source=True)
        bench.run("sync", landed=1)
        add(scheduling, per_source=True)
        assert self.sources(bench) == {str(bench.source_id): 11}
        assert bench.tallies()["headwater_source_item_errors_total", str(bench.source_id), "scripted"] == 2
        assert bench.tallies()[ITEMS, "scripted"] == 11

    def test_a_deleted_source_is_forgotten(self, bench: Bench, connection: Connection, scheduling: Connection) -> None:
        """And goes on counting in the sum of its type."""
        bench.run("sync", landed=10)
        add(scheduling, per_source=True)
        assert tallies.forget_sources(scheduling, per_source=True) == 0
        connection.execute("update data_source set deleted_at = now() where id = %s", (bench.source_id,))
        assert tallies.forget_sources(scheduling, per_source=True) == 2
        assert self.sources(bench) == {}
        assert bench.tallies()[ITEMS, "scripted"] == 10

    def test_who_turns_it_off_names_none_any_more(self, bench: Bench, scheduling: Connection) -> None:
        """Also not those that were counted before."""
        bench.run("sync", landed=10)
        add(scheduling, per_source=True)
        assert tallies.forget_sources(scheduling, per_source=False) == 2
        assert self.sources(bench) == {}


def test_who_commits_late_is_counted_all_the_same(bench: Bench, database: str, scheduling: Connection) -> None:
    """A job that ended before another one and was committed after that one was counted."""
    late = bench.submit()
    with psycopg.connect(database) as slow:
        slow.execute("update job set status = 'cancelled', finished_at = now() where id = %s", (late,))
        bench.run()
        add(scheduling)
        assert bench.tallies()[FINISHED, "connection_test", "succeeded"] == 1
        assert (FINISHED, "connection_test", "cancelled") not in bench.tallies()
        slow.commit()
    add(scheduling)
    assert bench.tallies()[FINISHED, "connection_test", "cancelled"] == 1


def test_many_schedulers_at_once_count_each_job_once(bench: Bench, another_scheduler: Callable[[], Connection]) -> None:
    """Four of them on 3,000 jobs, until none finds anything."""
    bench.ended(3_000)
    start = threading.Barrier(4)

    def work(connection: Connection) -> int:
        start.wait(timeout=20)
        return sum(add(connection) for _ in range(10))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, [another_scheduler() for _ in range(4)]))
    assert sum(found) + add(another_scheduler()) == 3_000
    assert bench.tallies() == {(FINISHED, "connection_test", "failed"): 3_000}


def test_a_scheduler_does_not_wait_for_another(
    bench: Bench, scheduling: Connection, another_scheduler: Callable[[], Connection]
) -> None:
    """One that hangs in its turn holds up nobody; what it had begun is not counted."""
    bench.run()
    other = another_scheduler()
    with other.transaction(force_rollback=True):
        other.execute("select from measurement for no key update")
        db.run(other, tallies.attempts_ended())
        db.run(other, tallies.jobs_ended(per_source=False))
        assert add(scheduling) == 0
        assert gauges.measure(scheduling, redis_up=True) is False
    assert bench.tallies() == {}
    assert add(scheduling) == 2


def test_a_pruned_job_stays_counted(bench: Bench, connection: Connection, scheduling: Connection) -> None:
    """Counters never fall."""
    bench.run()
    add(scheduling)
    before = bench.tallies()
    with connection.transaction():
        connection.execute("alter table job disable trigger user")
        connection.execute("update job set finished_at = now() - interval '91 days'")
        connection.execute("alter table job enable trigger user")
    assert pruning.prune(scheduling, retention_days=90) == 1
    assert add(scheduling) == 0
    assert bench.tallies() == before


def test_it_goes_in_bounded_steps_and_can_be_stopped_between(bench: Bench, scheduling: Connection) -> None:
    """A thousand at a time; whoever interrupts loses nothing."""
    bench.ended(2_500)
    seen: list[float] = []

    def interrupt() -> None:
        seen.append(bench.tallies().get((FINISHED, "connection_test", "failed"), 0))
        if len(seen) == 3:
            raise SystemExit

    with pytest.raises(SystemExit):
        tallies.add(scheduling, per_source=False, interrupt=interrupt)
    assert seen == [0, 1000, 2000]
    assert add(scheduling) == 500


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A plan's nodes, all the way down."""
    return [plan] + [node for below in plan.get("Plans", ()) for node in nodes(below)]


def scanned(connection: Connection, statement: db.Statement) -> set[str]:
    """The tables that the statement's plan reads from end to end."""
    cursor = psycopg.ClientCursor(connection)
    row = cursor.execute("explain (format json) " + statement.text, statement.parameters).fetchone()
    assert row is not None
    return {node["Relation Name"] for node in nodes(row["QUERY PLAN"][0]["Plan"]) if node["Node Type"] == "Seq Scan"}


def test_nothing_reads_all_jobs(bench: Bench, connection: Connection, scheduling: Connection) -> None:
    """Among many that have ended, what is new is found by its index."""
    bench.ended(20_000)
    connection.execute("update job set tallied = true")
    connection.execute(
        """
        insert into job_attempt (job_id, attempt, organization_id, token, worker, ended_at, outcome, tallied)
        select id, 1, organization_id, gen_random_uuid(), 'tests', now(), 'failed', true from job
        """
    )
    connection.execute(
        "insert into job_progress (job_id, organization_id, phase) select id, organization_id, 'done' from job"
    )
    connection.execute(
        """
        insert into audit_entry (organization_id, act) select %s, 'tests' from generate_series(1, 20000)
        """,
        (ids.new(),),
    )
    bench.run()
    bench.submit()
    bench.claim(bench.submit())
    connection.execute("vacuum analyze job, job_attempt, job_progress, audit_entry")
    for statement in (gauges.replace(redis_up=True), tallies.attempts_ended(), tallies.jobs_ended(per_source=True)):
        assert scanned(scheduling, statement) & {"job", "job_attempt", "job_progress", "audit_entry"} == set()


def test_a_worker_counts_what_it_refused_and_nothing_else(connection: Connection, working: Connection) -> None:
    """Each says so by itself, and the counts add up; other tallies are out of its sight."""
    name = "headwater_messages_refused_total"
    connection.execute("insert into tally (name, labels, value) values ('other', '{}', 1)")
    for counts in ({"malformed": 2, "too_large": 1}, {"malformed": 3}):
        db.run(working, tallies.refused(counts))
    rows = connection.execute("select labels ->> 'reason' as reason, value from tally where name = %s", (name,))
    assert {row["reason"]: row["value"] for row in rows} == {"malformed": 5, "too_large": 1}
    assert [row["name"] for row in working.execute("select distinct name from tally")] == [name]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        working.execute("insert into tally (name, labels, value) values ('other', '{\"a\": 1}', 1)")
