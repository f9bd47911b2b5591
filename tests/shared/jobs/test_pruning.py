"""Jobs that ended long ago go, with what hangs on them, and leave a line."""

from typing import Any
from uuid import UUID

import pytest

from headwater import db
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection
from headwater.jobs import lifecycle, pruning
from headwater.jobs.outcome import Progress, Succeeded
from headwater.measuring import tallies
from headwater.settings import JobSettings

from .conftest import Submit

DONE = Succeeded({"success": True, "message": "fine", "latency_ms": 1, "checks": []})


@pytest.fixture
def ended(connection: Connection, submit: Submit) -> UUID:
    """A job that ran to its end: it has an attempt, progress and events."""
    job_id = UUID(submit()["job"]["id"])
    claim = lifecycle.claim(connection, job_id, worker="tests", settings=JobSettings())
    assert claim is not None
    lifecycle.record(connection, claim, DONE, Progress("done"), settings=JobSettings())
    return job_id


def age(connection: Connection, job_id: UUID, days: float) -> None:
    """Let the job have ended so many days ago; a trigger guards the end of a final job."""
    with connection.transaction():
        connection.execute("alter table job disable trigger user")
        connection.execute(
            "update job set finished_at = now() - make_interval(secs => %s), tallied = true where id = %s",
            (days * 86400, job_id),
        )
        connection.execute("alter table job enable trigger user")


def left(connection: Connection, job_id: UUID) -> dict[str, int]:
    """How many rows are left of a job, by table."""
    found = {}
    columns = {"job": "id", "job_attempt": "job_id", "job_progress": "job_id", "event": "job_id", "job_summary": "id"}
    for table, column in columns.items():
        row = connection.execute(f"select count(*) as n from {table} where {column} = %s", (job_id,)).fetchone()
        assert row is not None
        found[table] = row["n"]
    return found


def test_what_hangs_on_it_goes_and_a_line_stays(
    connection: Connection, scheduling: Connection, ended: UUID, organization: CreatedOrganization
) -> None:
    """With the scheduler's own rights; the line says how it ended."""
    row = connection.execute("select finished_at, created_at from job where id = %s", (ended,)).fetchone()
    assert row is not None
    assert left(connection, ended) == {"job": 1, "job_attempt": 1, "job_progress": 1, "event": 3, "job_summary": 0}
    age(connection, ended, 90.1)
    assert pruning.prune(scheduling, retention_days=90) == 1
    assert left(connection, ended) == {"job": 0, "job_attempt": 0, "job_progress": 0, "event": 0, "job_summary": 1}
    summary = db.run(connection, pruning.summary(organization_id=organization.organization_id, job_id=ended)).fetchone()
    assert summary is not None
    assert (summary["kind"], summary["status"]) == ("connection_test", "succeeded")
    assert pruning.prune(scheduling, retention_days=90) == 0


def test_what_is_younger_or_lives_stays(
    connection: Connection, scheduling: Connection, ended: UUID, submit: Submit
) -> None:
    """A job that has waited or run for a year has not ended."""
    old = UUID(submit()["job"]["id"])
    connection.execute("update job set created_at = now() - interval '1 year' where id = %s", (old,))
    age(connection, ended, 89.9)
    assert pruning.prune(scheduling, retention_days=90) == 0
    assert left(connection, old)["job"] == left(connection, ended)["job"] == 1


def test_what_monitoring_has_not_counted_stays(connection: Connection, scheduling: Connection, ended: UUID) -> None:
    """Gone uncounted, it would be missing for ever."""
    age(connection, ended, 90.1)
    connection.execute("update job set tallied = false where id = %s", (ended,))
    assert pruning.prune(scheduling, retention_days=90) == 0
    tallies.add(scheduling, per_source=False)
    assert pruning.prune(scheduling, retention_days=90) == 1


def test_it_goes_in_bounded_steps_and_can_be_stopped_between(
    connection: Connection, scheduling: Connection, submit: Submit, organization: CreatedOrganization
) -> None:
    """500 at a time, the oldest first; whoever interrupts loses nothing."""
    connection.execute(
        """
        insert into job (id, organization_id, project_id, data_source_id, draft, kind, queue, max_attempts,
                         deadline_seconds, status, tallied, finished_at)
        select uuid_v7(), j.organization_id, j.project_id, null, '{}', 'connection_test', 'interactive', 1, 60,
               'failed', true, now() - interval '100 days' + make_interval(secs => n)
        from job j, generate_series(1, 1200) n where j.id = %s
        """,
        (submit()["job"]["id"],),
    )
    count = "select count(*) as n from job where status = 'failed'"
    seen: list[Any] = []

    def interrupt() -> None:
        row = connection.execute(count).fetchone()
        assert row is not None
        seen.append(row["n"])
        if len(seen) == 3:
            raise SystemExit

    with pytest.raises(SystemExit):
        pruning.prune(scheduling, retention_days=90, interrupt=interrupt)
    assert seen == [1200, 700, 200]
    assert pruning.prune(scheduling, retention_days=90) == 200
