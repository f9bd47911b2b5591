"""The job engine as it runs: real workers, a real scheduler, a source that misbehaves. Faults are tests/faults'."""

import time

import pytest
import redis
from engines import Engine


def test_a_job_nobody_rang_for_runs(engine: Engine) -> None:
    """The scheduler finds it in Postgres, rings, and a worker runs it."""
    engine.scheduler()
    engine.worker()
    row = engine.ended(engine.submit(engine.source()))
    assert (row["status"], row["result"]["success"]) == ("succeeded", True)


def test_a_job_that_kills_its_workers_fails_after_two(engine: Engine) -> None:
    """The first lost lease re-queues it, the second ends it; the worker's other jobs go on."""
    engine.scheduler()
    engine.worker()
    row = engine.ended(engine.submit(engine.source(fail="die")))
    assert (row["status"], row["error"]["code"], row["attempt"]) == ("failed", "worker_crash", 2)
    assert engine.ended(engine.submit(engine.source()))["status"] == "succeeded"


@pytest.mark.parametrize("manner", ["hang", "hang_opening"])
def test_a_hung_driver_frees_its_slot_at_the_deadline(engine: Engine, manner: str) -> None:
    """A driver that heeds nothing is ended with its process; the one slot then runs the next job."""
    engine.scheduler()
    engine.worker(slots=1)
    hung = engine.submit(engine.source(fail=manner), kind="file_listing", deadline_seconds=1)
    row = engine.ended(hung, seconds=10)
    assert (row["status"], row["error"]["code"]) == ("failed", "deadline_exceeded")
    assert engine.ended(engine.submit(engine.source()))["status"] == "succeeded"


@pytest.mark.parametrize("manner", ["hang", "hang_opening"])
def test_a_hung_job_can_be_cancelled(engine: Engine, manner: str) -> None:
    """`cancelling`, then `cancelled` after the grace period, though the driver never came back."""
    engine.scheduler()
    engine.worker(slots=1)
    job_id = engine.submit(engine.source(fail=manner), kind="file_listing")
    engine.running(job_id)
    engine.connection.execute(
        "select job_cancel(%s, %s, %s, null, null, 'test', null)",
        (engine.organization.organization_id, job_id, engine.organization.member_id),
    )
    assert engine.status(job_id) == "cancelling"
    assert engine.ended(job_id, seconds=10)["status"] == "cancelled"


def test_a_stopping_worker_hands_its_job_back(engine: Engine) -> None:
    """SIGTERM: the running job goes back to the queue without losing an attempt, and the next worker ends it."""
    engine.scheduler()
    first = engine.worker()
    job_id = engine.submit(engine.source(files=20_000, records=0, pause_seconds=0.2), kind="file_listing")
    engine.running(job_id)
    assert first.stop() == 0
    assert engine.status(job_id) == "queued"
    engine.worker()
    row = engine.ended(job_id)
    assert (row["status"], row["interruptions"], row["result"]["file_count"]) == ("succeeded", 1, 20_000)


def test_a_transient_failure_is_tried_again(engine: Engine) -> None:
    """`throttled` goes back to the queue until its attempts are used up, and says so."""
    engine.scheduler()
    engine.worker()
    row = engine.ended(engine.submit(engine.source(fail="transient"), kind="file_listing", max_attempts=3))
    assert (row["status"], row["attempt"], row["error"]["code"]) == ("failed", 3, "throttled")
    assert row["error"]["retryable"] is True


def test_a_fault_of_ours_shows_nothing_of_itself(engine: Engine) -> None:
    """The user sees our code; the traceback is in the log alone."""
    engine.scheduler()
    engine.worker()
    row = engine.ended(engine.submit(engine.source(fail="fault"), kind="file_listing"))
    assert row["error"]["code"] == "internal_error"
    assert "ZeroDivision" not in str(row["error"])
    assert "ZeroDivisionError" in engine.log()


def test_flushing_redis_loses_no_job(engine: Engine) -> None:
    """A thousand queued jobs, everything in Redis gone at a moment of work: all of them end."""
    source = engine.source()
    jobs = [engine.submit(source) for _ in range(1000)]
    engine.scheduler()
    engine.worker(slots=2)
    engine.until(lambda: engine.status(jobs[20]) == "succeeded")
    with redis.Redis.from_url(engine.redis_url) as client:
        client.flushall()
    count = "select count(*) as n from job where id = any(%s) and status = 'succeeded'"
    engine.until(lambda: engine.connection.execute(count, (jobs,)).fetchone()["n"] == 1000, seconds=120)
    attempts = engine.connection.execute(
        "select count(*) as n from job_attempt where job_id = any(%s)", (jobs,)
    ).fetchone()
    assert attempts == {"n": 1000}


def test_a_ring_does_not_wait_behind_a_busy_worker(engine: Engine) -> None:
    """A worker whose slots are taken takes no ring that another worker could answer at once."""
    engine.scheduler(HEADWATER_RERING_SECONDS="60")  # nobody is rung for twice meanwhile
    engine.worker(slots=1)
    busy = engine.submit(engine.source(files=100_000, records=0, pause_seconds=0.2), kind="file_listing")
    engine.running(busy)
    waiting = [engine.submit(engine.source()) for _ in range(3)]
    # The scheduler has rung for them all; whoever wants to has taken a ring by now.
    engine.until(lambda: all(engine.rung(job_id) for job_id in waiting))
    with redis.Redis.from_url(engine.redis_url) as client:
        engine.until(lambda: client.llen("interactive") == len(waiting))


@pytest.mark.long
def test_cut_connections_to_redis_stop_no_worker(engine: Engine) -> None:
    """Three times every connection is cut, while idle and in the middle of a job; the worker consumes again."""
    engine.scheduler()
    engine.worker(slots=1)
    source, slow = engine.source(), engine.source(files=4_000, records=0, pause_seconds=0.3)
    for _cut in range(3):
        running = engine.submit(slow, kind="file_listing")
        engine.running(running)
        with redis.Redis.from_url(engine.redis_url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        assert engine.ended(running)["status"] == "succeeded"
        with redis.Redis.from_url(engine.redis_url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        assert engine.ended(engine.submit(source))["status"] == "succeeded"


def test_a_worker_that_never_found_redis_stops_in_peace(engine: Engine) -> None:
    """It has begun nothing, and nothing to tell."""
    worker = engine.start("worker", "headwater_worker", "--queue", "interactive", redis="redis://127.0.0.1:1/0")
    engine.until(lambda: "Cannot connect" in worker.log.read_text())
    assert worker.stop() == 0


def test_an_outage_of_postgres_is_no_crash_of_the_worker(engine: Engine) -> None:
    """Away for longer than a lease: the worker stops by itself and hands the job back when Postgres answers again."""
    engine.scheduler()
    engine.worker(slots=1)
    job_id = engine.submit(engine.source(files=20_000, records=0, pause_seconds=0.3), kind="file_listing")
    engine.running(job_id)
    with engine.outage():
        time.sleep(5)  # lease 3 s
    row = engine.ended(job_id)
    assert (row["status"], row["crashes"]) == ("succeeded", 0)
