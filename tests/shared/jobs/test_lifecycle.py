"""The life of a job, against Postgres itself."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from headwater import db
from headwater.access.organizations import CreatedOrganization
from headwater.db import Connection
from headwater.errors import LeaseLost
from headwater.jobs import lifecycle, statements
from headwater.jobs.lifecycle import Claim
from headwater.jobs.outcome import Cancelled, Failed, JobFailure, Progress, Released, Succeeded, Waiting
from headwater.settings import JobSettings

Submit = Callable[..., dict[str, Any]]

PASSED = Succeeded({"success": True, "message": "fine"})
BROKEN = Succeeded({"success": False, "message": "The bucket is gone."})
BUSY = Failed(JobFailure("throttled", "Busy.", origin="source", retryable=True))
REFUSED = Failed(JobFailure("permission_denied", "No.", origin="source"))
DONE = Progress("done", counters={"parsed": 3})


def claimed(connection: Connection, answer: dict[str, Any], settings: JobSettings) -> Claim:
    claim = lifecycle.claim(connection, UUID(answer["job"]["id"]), worker="test", settings=settings)
    assert claim is not None
    return claim


def job(connection: Connection, claim: Claim) -> dict[str, Any]:
    row = connection.execute("select * from job where id = %s", (claim.job_id,)).fetchone()
    assert row is not None
    return row


def acts(connection: Connection, job_id: UUID) -> list[str]:
    rows = connection.execute("select act from event where job_id = %s order by number", (job_id,)).fetchall()
    return [row["act"] for row in rows]


def expire(connection: Connection, claim: Claim) -> None:
    connection.execute("update job_lease set until = now() - interval '1 second' where token = %s", (claim.token,))


def reaped(connection: Connection, claim: Claim) -> str | None:
    """Reap; what became of the claim's job, None if it was left alone."""
    return dict(lifecycle.reap(connection, settings=JobSettings(retry_base_seconds=0))).get(claim.job_id)


def test_a_job_goes_from_queued_to_succeeded(connection: Connection, submit: Submit, settings: JobSettings) -> None:
    """Submit, claim and record leave a final job with result, counters, events and one attempt; no lease."""
    claim = claimed(connection, submit(), settings)
    assert lifecycle.record(connection, claim, PASSED, DONE, settings=settings) == "succeeded"
    row = job(connection, claim)
    assert (row["status"], row["result"], row["attempt"]) == ("succeeded", PASSED.result, 1)
    assert row["finished_at"] >= row["started_at"]
    assert acts(connection, claim.job_id) == ["job.submitted", "job.started", "job.succeeded"]
    assert connection.execute("select 1 from job_lease where job_id = %s", (claim.job_id,)).fetchone() is None
    progress = connection.execute("select counters from job_progress where job_id = %s", (claim.job_id,)).fetchone()
    assert progress == {"counters": {"parsed": 3}}


def test_who_waits_is_woken_by_claim_and_outcome(
    database: str, connection: Connection, submit: Submit, settings: JobSettings
) -> None:
    """Each is told once, behind its commit: whoever hears of it finds it written."""

    def heard() -> tuple[list[str], str]:
        notices = [notice.payload for notice in waiter.notifies(timeout=5, stop_after=1)]
        return notices, job(waiter, claim)["status"]

    answer = submit()
    with db.connect(database, application="test") as waiter:
        waiter.execute(f"listen {statements.CHANNEL}")
        claim = claimed(connection, answer, settings)
        assert heard() == ([str(claim.job_id)], "running")
        lifecycle.record(connection, claim, PASSED, DONE, settings=settings)
        assert heard() == ([str(claim.job_id)], "succeeded")
        assert not list(waiter.notifies(timeout=0))


def test_a_claim_asks_postgres_once(
    connection: Connection, submit: Submit, settings: JobSettings, tmp_path: Path
) -> None:
    """In one transaction, whose commit alone does not wait for the disk."""
    for answer in (submit(), submit()):  # what the first one prepares, the second one has
        with (tmp_path / "messages").open("w") as messages:
            connection.pgconn.trace(messages.fileno())
            claimed(connection, answer, settings)
            connection.pgconn.untrace()
    assert (tmp_path / "messages").read_text().count("ReadyForQuery") == 1
    job_id = UUID(submit()["job"]["id"])
    connection.execute("set synchronous_commit = on")  # a server of tests has it off
    with connection.pipeline():
        db.run(connection, statements.act_for_owner(job_id))
        within = connection.execute("select current_setting('synchronous_commit') as it")
    behind = connection.execute("select current_setting('synchronous_commit') as it")
    assert (within.fetchone(), behind.fetchone()) == ({"it": "off"}, {"it": "on"})


def test_of_many_claims_at_once_one_wins(
    database: str, connection: Connection, submit: Submit, settings: JobSettings
) -> None:
    """Sixteen connections claim one job at the same moment: one gets it."""
    job_id = UUID(submit()["job"]["id"])
    start = threading.Barrier(16)

    def claim(_number: int) -> Claim | None:
        with db.connect(database, application="tests") as own:
            start.wait()
            return lifecycle.claim(own, job_id, worker="test", settings=settings)

    with ThreadPoolExecutor(16) as pool:
        claims = list(pool.map(claim, range(16)))
    assert sum(claim is not None for claim in claims) == 1


def test_a_lost_lease_writes_nothing(connection: Connection, submit: Submit, settings: JobSettings) -> None:
    """After the reaper took the lease back, the former owner's batch, beat and outcome are all refused."""
    claim = claimed(connection, submit(), settings)
    expire(connection, claim)
    assert reaped(connection, claim) == "queued"
    with pytest.raises(LeaseLost), lifecycle.fenced(connection, claim) as fenced:
        fenced.execute("update data_source_totals set item_count = 99")
    with pytest.raises(LeaseLost):
        lifecycle.beat(connection, claim, settings=settings)
    assert lifecycle.record(connection, claim, PASSED, DONE, settings=settings) is None
    assert job(connection, claim)["status"] == "queued"


def test_a_batch_that_holds_its_lease_is_not_reaped(
    database: str, connection: Connection, submit: Submit, settings: JobSettings
) -> None:
    """A worker frozen inside a batch keeps its job until the batch ends, and does not block the reaper."""
    claim = claimed(connection, submit(), settings)
    with db.connect(database, application="tests") as worker, lifecycle.fenced(worker, claim):
        expire(connection, claim)
        assert reaped(connection, claim) is None
    assert reaped(connection, claim) == "queued"


def test_a_job_whose_lease_is_lost_twice_fails(connection: Connection, submit: Submit, settings: JobSettings) -> None:
    """One lost lease is bad luck; two are a job that kills its workers."""
    answer = submit()
    for expected in ("queued", "failed"):
        claim = claimed(connection, answer, settings)
        expire(connection, claim)
        assert reaped(connection, claim) == expected
    assert job(connection, claim)["error"]["code"] == "worker_crash"


def test_a_transient_failure_is_tried_again_until_attempts_are_used_up(
    connection: Connection, submit: Submit, settings: JobSettings
) -> None:
    """Three attempts: queued, queued, failed. Each attempt keeps its own error."""
    answer = submit(max_attempts=3)
    seen = []
    for _attempt in range(3):
        claim = claimed(connection, answer, settings)
        seen.append(lifecycle.record(connection, claim, BUSY, DONE, settings=settings))
    assert seen == ["queued", "queued", "failed"]
    rows = connection.execute(
        "select outcome, error ->> 'code' as code from job_attempt where job_id = %s order by attempt", (claim.job_id,)
    ).fetchall()
    assert [(row["outcome"], row["code"]) for row in rows] == [
        ("retried", "throttled"),
        ("retried", "throttled"),
        ("failed", "throttled"),
    ]


def test_a_permanent_failure_is_final_at_once(connection: Connection, submit: Submit, settings: JobSettings) -> None:
    """Trying again cannot help."""
    claim = claimed(connection, submit(), settings)
    assert lifecycle.record(connection, claim, REFUSED, DONE, settings=settings) == "failed"
    assert job(connection, claim)["error"]["code"] == "permission_denied"


def test_a_retry_waits_as_long_as_the_source_asked(
    connection: Connection, submit: Submit, settings: JobSettings
) -> None:
    """`Retry-After: 60` keeps the job from being claimed now."""
    answer = submit()
    claim = claimed(connection, answer, settings)
    busy = Failed(BUSY.failure, retry_after_seconds=60)
    lifecycle.record(connection, claim, busy, DONE, settings=settings)
    assert lifecycle.claim(connection, claim.job_id, worker="test", settings=settings) is None


def test_a_released_attempt_does_not_count(connection: Connection, submit: Submit, settings: JobSettings) -> None:
    """Stopping workers hand a job back as often as they like; it still has its attempts."""
    answer = submit(max_attempts=1)
    for _deploy in range(5):
        claim = claimed(connection, answer, settings)
        assert lifecycle.record(connection, claim, Released(), DONE, settings=settings) == "queued"
    claim = claimed(connection, answer, settings)
    assert lifecycle.record(connection, claim, PASSED, DONE, settings=settings) == "succeeded"


def test_a_job_waits_for_what_is_away_until_its_deadline(
    connection: Connection, submit: Submit, settings: JobSettings
) -> None:
    """No attempt counts meanwhile; then it fails for what it waited for, and not for its deadline."""
    away = Waiting(JobFailure("key_unavailable", "Away.", retryable=True))
    answer = submit(max_attempts=1)
    for _try in range(5):
        claim = claimed(connection, answer, settings)
        assert claim.attempts_left == 0
        assert lifecycle.record(connection, claim, away, DONE, settings=settings) == "queued"
    connection.execute("update job set deadline_at = now() where id = %s", (claim.job_id,))
    claim = claimed(connection, answer, settings)
    assert lifecycle.record(connection, claim, away, DONE, settings=settings) == "failed"
    assert job(connection, claim)["error"]["code"] == "key_unavailable"


def test_a_wait_is_longer_each_time_and_a_minute_at_most() -> None:
    """However often somebody looked."""
    waits = [lifecycle.waiting_delay(attempt, JobSettings()) for attempt in (1, 4, 10, 2000)]
    assert [low <= wait <= 2 * low for low, wait in zip((2, 16, 30, 30), waits, strict=True)] == [True] * 4


def test_a_final_job_never_changes(connection: Connection, submit: Submit, settings: JobSettings) -> None:
    """Whoever tries, the trigger refuses."""
    claim = claimed(connection, submit(), settings)
    lifecycle.record(connection, claim, PASSED, DONE, settings=settings)
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
        connection.execute("update job set status = 'queued' where id = %s", (claim.job_id,))


def cancel(connection: Connection, organization: CreatedOrganization, job_id: UUID) -> dict[str, Any]:
    row = db.run(
        connection,
        statements.cancel(
            organization_id=organization.organization_id,
            job_id=job_id,
            actor_id=organization.member_id,
            key_id=None,
            reason="a test",
            request_id="test",
            address=None,
        ),
    ).fetchone()
    assert row is not None
    answer: dict[str, Any] = row["answer"]
    return answer


def test_a_queued_job_is_cancelled_at_once(
    connection: Connection, submit: Submit, settings: JobSettings, organization: CreatedOrganization
) -> None:
    """It never runs."""
    job_id = UUID(submit()["job"]["id"])
    assert cancel(connection, organization, job_id)["job"]["status"] == "cancelled"
    assert lifecycle.claim(connection, job_id, worker="test", settings=settings) is None
    assert cancel(connection, organization, job_id)["outcome"] == "already"


def test_a_running_job_hears_of_its_cancel_by_the_heartbeat(
    connection: Connection, submit: Submit, settings: JobSettings, organization: CreatedOrganization
) -> None:
    """`cancelling` until the worker confirms."""
    claim = claimed(connection, submit(), settings)
    assert lifecycle.beat(connection, claim, settings=settings) is False
    assert cancel(connection, organization, claim.job_id)["job"]["status"] == "cancelling"
    assert lifecycle.beat(connection, claim, settings=settings) is True
    assert lifecycle.record(connection, claim, Cancelled(), DONE, settings=settings) == "cancelled"


def test_a_cancelled_job_is_not_tried_again(
    connection: Connection, submit: Submit, settings: JobSettings, organization: CreatedOrganization
) -> None:
    """A transient failure after a cancel ends the job as cancelled, with no error."""
    claim = claimed(connection, submit(), settings)
    cancel(connection, organization, claim.job_id)
    assert lifecycle.record(connection, claim, BUSY, DONE, settings=settings) == "cancelled"
    assert job(connection, claim)["error"] is None


def test_cancel_and_finish_race_to_one_end(
    database: str, connection: Connection, submit: Submit, settings: JobSettings, organization: CreatedOrganization
) -> None:
    """Forty races: each job ends once, as what the winner said, and the history agrees."""
    for _race in range(40):
        claim = claimed(connection, submit(), JobSettings())
        start = threading.Barrier(2)

        def finish(claim: Claim = claim, start: threading.Barrier = start) -> str | None:
            with db.connect(database, application="tests") as own:
                start.wait()
                return lifecycle.record(own, claim, PASSED, DONE, settings=settings)

        with ThreadPoolExecutor(1) as pool:
            finished = pool.submit(finish)
            start.wait()
            answer = cancel(connection, organization, claim.job_id)
            assert finished.result() == "succeeded"
        assert answer["outcome"] in ("accepted", "ended")
        assert acts(connection, claim.job_id).count("job.succeeded") == 1
        assert job(connection, claim)["status"] == "succeeded"


def blocked(connection: Connection) -> None:
    """Wait until another connection to this database waits for a lock."""
    query = """
        select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()
    """
    deadline = time.monotonic() + 4
    while connection.execute(query).fetchone() is None:
        assert time.monotonic() < deadline, "nobody waits"


def test_a_cancel_that_commits_while_a_retry_waits_for_the_job_is_heeded(
    database: str, connection: Connection, submit: Submit, settings: JobSettings, organization: CreatedOrganization
) -> None:
    """The retry sees the job as the cancel left it, not as it was when its own statement began."""
    claim = claimed(connection, submit(), settings)

    def fail() -> str | None:
        with db.connect(database, application="tests") as own:
            return lifecycle.record(own, claim, BUSY, DONE, settings=settings)

    with ThreadPoolExecutor(1) as pool, db.connect(database, application="tests") as watching:
        with connection.transaction():
            cancel(connection, organization, claim.job_id)
            recorded = pool.submit(fail)
            blocked(watching)
        assert recorded.result() == "cancelled"


def test_one_live_sync_of_a_source(connection: Connection, submit: Submit) -> None:
    """The same sync again is the live one; another is refused with the live one's id."""
    first = submit(kind="sync")
    assert submit(kind="sync") == {"outcome": "joined", "job": first["job"]}
    other = submit(kind="sync", params={"full": True})
    assert other == {"outcome": "sync_in_progress", "job_id": first["job"]["id"]}


def test_identical_submits_with_one_key_make_one_job(database: str, submit: Submit) -> None:
    """Twenty at once: one creates, nineteen get its answer."""
    start = threading.Barrier(20)

    def post(_number: int) -> dict[str, Any]:
        with db.connect(database, application="tests") as own:
            start.wait()
            return submit(idempotency_key="k", route="POST /test", fingerprint="00ff", on=own)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(post, range(20)))
    assert sorted(answer["outcome"] for answer in answers) == ["created"] + ["replayed"] * 19
    assert len({answer["job"]["id"] for answer in answers}) == 1
    assert submit(idempotency_key="k", route="POST /test", fingerprint="aa")["outcome"] == "mismatch"


def test_a_refused_submit_leaves_its_key_unused(connection: Connection, submit: Submit) -> None:
    """The key of a refused request may be used again once the reason is gone."""
    key = {"idempotency_key": "again", "route": "POST /test", "fingerprint": "00"}
    assert submit(types=["other"], **key)["outcome"] == "unsupported"
    assert submit(**key)["outcome"] == "created"


def test_a_test_judges_the_source_it_tested(
    connection: Connection, submit: Submit, settings: JobSettings, source_id: UUID
) -> None:
    """`ready` or `failing` by the last test, but not by one of credentials that were replaced meanwhile."""
    status = "select status, status_reason, last_test_success from data_source_totals where data_source_id = %s"
    lifecycle.record(connection, claimed(connection, submit(), settings), BROKEN, DONE, settings=settings)
    assert connection.execute(status, (source_id,)).fetchone() == {
        "status": "failing",
        "status_reason": "The bucket is gone.",
        "last_test_success": False,
    }
    claim = claimed(connection, submit(), settings)
    connection.execute("update data_source set access_revision = access_revision + 1 where id = %s", (source_id,))
    lifecycle.record(connection, claim, PASSED, DONE, settings=settings)
    row = connection.execute(status, (source_id,)).fetchone()
    assert row is not None
    assert row["status"] == "failing"


def test_a_sync_that_works_again_takes_failing_back(
    connection: Connection, submit: Submit, settings: JobSettings, source_id: UUID
) -> None:
    """A sync refused by the source makes it `failing`, the next good one `ready`; a good one alone says nothing."""
    status = "select status from data_source_totals where data_source_id = %s"
    seen = []
    for outcome in (PASSED, REFUSED, PASSED):
        claim = claimed(connection, submit(kind="sync"), settings)
        lifecycle.record(connection, claim, outcome, DONE, settings=settings)
        row = connection.execute(status, (source_id,)).fetchone()
        assert row is not None
        seen.append(row["status"])
    assert seen == [None, "failing", "ready"]


def test_an_organization_at_its_cap_does_not_start_another(
    connection: Connection, submit: Submit, organization: CreatedOrganization
) -> None:
    """The cap holds at the claim, and the refused job is left to the dispatcher."""
    connection.execute("delete from job")
    connection.execute("update organization set running_limit = 1 where id = %s", (organization.organization_id,))
    try:
        first = claimed(connection, submit(), JobSettings())
        second = UUID(submit()["job"]["id"])
        assert lifecycle.claim(connection, second, worker="test", settings=JobSettings()) is None
        row = connection.execute("select rung_at from job where id = %s", (second,)).fetchone()
        assert row == {"rung_at": None}
        lifecycle.record(connection, first, PASSED, DONE, settings=JobSettings())
        assert lifecycle.claim(connection, second, worker="test", settings=JobSettings()) is not None
    finally:
        connection.execute("update organization set running_limit = null")


def test_claims_at_once_do_not_overrun_the_cap(
    database: str, connection: Connection, submit: Submit, organization: CreatedOrganization
) -> None:
    """Twelve workers claim twelve jobs of an organization that may run one: one runs."""
    connection.execute("delete from job")
    connection.execute("update organization set running_limit = 1 where id = %s", (organization.organization_id,))
    jobs = [UUID(submit()["job"]["id"]) for _ in range(12)]
    start = threading.Barrier(len(jobs))

    def claim(job_id: UUID) -> Claim | None:
        with db.connect(database, application="tests") as own:
            start.wait()
            return lifecycle.claim(own, job_id, worker="test", settings=JobSettings())

    try:
        with ThreadPoolExecutor(len(jobs)) as pool:
            claims = list(pool.map(claim, jobs))
        assert sum(claim is not None for claim in claims) == 1
    finally:
        connection.execute("update organization set running_limit = null")


def test_a_source_at_its_cap_does_not_start_another(connection: Connection, submit: Submit) -> None:
    """It holds at the claim, for this source alone."""
    connection.execute("delete from job")
    settings = JobSettings(running_per_source=2)
    first = claimed(connection, submit(), settings)
    claimed(connection, submit(), settings)
    third = UUID(submit()["job"]["id"])
    assert lifecycle.claim(connection, third, worker="test", settings=settings) is None
    lifecycle.record(connection, first, PASSED, DONE, settings=settings)
    assert lifecycle.claim(connection, third, worker="test", settings=settings) is not None
